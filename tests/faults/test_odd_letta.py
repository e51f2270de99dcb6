"""A Letta server that misbehaves: each client gets an error it can understand, and soon."""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web

from tests.faults import asking
from tests.faults import fake as letta
from tests.faults.asking import create
from tests.faults.fake import DONE, Cut, FakeLetta, Script, Visit, fake_letta, say, stop, usage
from tests.faults.watch import Watched, eventually, watched
from tests.requirements import requirement


@pytest.fixture(scope="module")
def odd() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(odd: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Watched]:
    with watched(
        tmp_path_factory.mktemp("odd"),
        letta_base_url=odd.url,
        silence_seconds=1.0,
        commit_wait_seconds=0.4,
        keepalive_seconds=0.2,
        queue_wait_seconds=0.2,  # for a run of another client
        approvals="surface",
    ) as running:
        yield running


def ask(script: str) -> Any:
    return {"model": "Milo", "messages": [{"role": "user", "content": f"#{script}#"}]}


async def failure(gateway: Watched, script: str, *, stream: bool) -> openai.APIError:
    """How the official client meets a script: as a status, or within the stream."""
    async with gateway.client() as client:
        return await asking.failure(client, **ask(script), stream=stream)


def plays(*frames: bytes, cut: bool = False) -> Script:
    async def script(_: Visit) -> AsyncGenerator[bytes, None]:
        for frame in frames:
            yield frame
        if cut:
            raise Cut

    return script


LIMITED = letta.failed("llm_rate_limit", "RATE_LIMIT_EXCEEDED: slow down, secret-detail")
SCRIPTS = {
    "limited": plays(letta.ping(), stop("llm_api_error"), LIMITED, DONE),
    "auth": plays(letta.ping(), stop("llm_api_error"), letta.failed("llm_authentication", "secret-detail"), DONE),
    "timeout": plays(letta.ping(), stop("llm_api_error"), letta.failed("llm_timeout", "secret-detail"), DONE),
    "credits": plays(letta.ping(), stop("insufficient_credits"), letta.failed("insufficient_credits"), DONE),
    "quota": plays(stop("error"), letta.failed("llm_rate_limit", "insufficient_quota secret-detail"), DONE),
    "provider": plays(stop("error"), letta.failed("llm_error", "secret-detail"), DONE),
    "window": plays(letta.failed("context_window_overflow_in_system_prompt", "secret-detail"), DONE),
    "internal": plays(stop("error"), stop("error"), letta.failed("internal_error", "KeyError secret-detail")),
    "stop-only": plays(stop("invalid_llm_response"), DONE),
    "empty": plays(b""),
    "html": plays(b"<html><body>It works!</body></html>"),
    "html-frames": plays(b"data: <html>\n\n", DONE),
    "number": plays(b"data: 17\n\n", DONE),
    "cancelled": plays(stop("cancelled")),
    "approval": plays(
        letta.event(
            message_type="approval_request_message",
            id="message-1",
            tool_call={"name": "send_money", "arguments": "{}", "tool_call_id": "call_1"},
        ),
        stop("requires_approval"),
        usage(),
        DONE,
    ),
    "cut-at-once": plays(letta.ping(), cut=True),
}

MATRIX = [
    ("limited", 429, "rate_limit_error", "rate_limit_exceeded", "false"),
    ("auth", 502, "server_error", "provider_authentication", "false"),
    ("timeout", 504, "server_error", "provider_timeout", "false"),
    ("credits", 402, "insufficient_quota", "insufficient_budget", "false"),
    ("quota", 402, "insufficient_quota", "insufficient_budget", "false"),
    ("provider", 502, "server_error", "provider_error", "false"),
    ("window", 400, "invalid_request_error", "context_length_exceeded", None),
    ("internal", 500, "server_error", "agent_error", "false"),
    ("stop-only", 502, "server_error", "provider_error", "false"),
    ("empty", 500, "server_error", "agent_error", "false"),
    ("html", 500, "server_error", "agent_error", "false"),
    ("html-frames", 500, "server_error", "agent_error", "false"),
    ("number", 500, "server_error", "agent_error", "false"),
    ("cancelled", 500, "server_error", "agent_error", "false"),
    ("approval", 409, "conflict_error", "approval_required", "false"),
    ("cut-at-once", 500, "server_error", "agent_error", "false"),
]


@requirement("errors.matrix", "errors.no-internals", "errors.json")
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("script", "status", "kind", "code", "retry"), MATRIX, ids=[row[0] for row in MATRIX])
async def test_what_fails_before_the_first_event_is_a_status(
    gateway: Watched, odd: FakeLetta, script: str, status: int, kind: str, code: str, retry: str | None, stream: bool
) -> None:
    odd.scripts |= SCRIPTS
    error = await failure(gateway, script, stream=stream)
    assert isinstance(error, openai.APIStatusError)
    assert (error.status_code, error.type, error.code, error.param) == (status, kind, code, None)
    headers = error.response.headers
    assert headers.get("x-should-retry") == retry
    assert headers["content-type"] == "application/json"
    assert error.request_id
    assert error.request_id.startswith("req_")
    assert set(error.response.json()["error"]) == {"message", "type", "param", "code"}
    for internal in ("secret-detail", "Traceback", "KeyError", "<html>"):
        assert internal not in error.response.text


MID_STREAM: list[tuple[str, list[bytes], str, str | None]] = [
    ("limited", [LIMITED], "rate_limit_error", "rate_limit_exceeded"),
    ("two-stops", [stop("error"), stop("llm_api_error"), LIMITED], "rate_limit_error", "rate_limit_exceeded"),
    ("prefix", [letta.failed("internal_error", "UNAUTHENTICATED: bad key")], "server_error", "provider_authentication"),
    ("eof", [], "server_error", "agent_error"),
    ("done-without-stop", [DONE], "server_error", "agent_error"),
    ("garbage", [b"data: {oops\n\n"], "server_error", "agent_error"),
    ("window", [letta.failed("internal_error", "CONTEXT_WINDOW_EXCEEDED: x")], "invalid_request_error", None),
]


@requirement("errors.in-band", "errors.no-internals")
@pytest.mark.parametrize(("name", "frames", "kind", "code"), MID_STREAM, ids=[row[0] for row in MID_STREAM])
@pytest.mark.parametrize("cut", [False, True], ids=["closed", "cut"])
async def test_what_fails_in_mid_stream_is_a_frame_then_done(
    gateway: Watched, odd: FakeLetta, name: str, frames: list[bytes], kind: str, code: str | None, cut: bool
) -> None:
    odd.scripts[f"mid-{name}-{cut}"] = plays(letta.ping(), say("Half an ans"), *frames, cut=cut)
    url = f"{gateway.base_url}/chat/completions"
    async with httpx.AsyncClient() as client:
        response = await client.post(url, json=ask(f"mid-{name}-{cut}") | {"stream": True})
    assert response.status_code == 200
    frames_sent = [frame.removeprefix("data: ") for frame in response.text.strip().split("\n\n")]
    assert frames_sent[-1] == "[DONE]"
    error = json.loads(frames_sent[-2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, code or "context_length_exceeded")
    before = [json.loads(frame)["choices"][0] for frame in frames_sent[:-2]]
    assert "".join(choice["delta"].get("content", "") for choice in before) == "Half an ans"
    assert all(choice["finish_reason"] is None for choice in before)
    assert all(word not in response.text for word in ("secret-detail", "bad key", "oops"))


@requirement("errors.in-band")
async def test_the_official_client_raises_an_in_band_error(gateway: Watched, odd: FakeLetta) -> None:
    odd.scripts["half"] = plays(say("Half"), LIMITED)
    error = await failure(gateway, "half", stream=True)
    assert not isinstance(error, openai.APIStatusError)
    assert error.code == "rate_limit_exceeded"
    assert error.body


@requirement("errors.no-done")
async def test_an_answer_that_ends_without_done_is_an_answer(gateway: Watched, odd: FakeLetta) -> None:
    odd.scripts["no-done"] = plays(say("All of it."), stop(), usage())
    async with gateway.client() as client:
        reply = await create(client, **ask("no-done"))
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("All of it.", "stop")


@requirement("errors.slow-start", "errors.keepalive")
async def test_an_agent_that_is_slow_to_begin_gets_a_committed_stream_with_keepalives(
    gateway: Watched, odd: FakeLetta
) -> None:
    async def slowly(_: Visit) -> AsyncGenerator[bytes, None]:
        await odd.wait()
        for frame in (say("At last."), stop(), usage(), DONE):
            yield frame

    odd.scripts["slowly"] = slowly
    odd.gate.clear()
    seen: list[Any] = []
    async with gateway.client() as client:
        async for chunk in await create(client, **ask("slowly"), stream=True):
            seen.append(chunk.choices[0])
            if len(seen) == 3:
                odd.gate.set()
    assert seen[0].delta.role == "assistant"
    assert all(choice.delta.content is None and choice.finish_reason is None for choice in seen[1:3])
    assert "".join(choice.delta.content or "" for choice in seen) == "At last."
    assert seen[-1].finish_reason == "stop"


@requirement("errors.slow-start")
async def test_an_error_after_the_commit_is_in_band(gateway: Watched, odd: FakeLetta) -> None:
    async def slowly(_: Visit) -> AsyncGenerator[bytes, None]:
        yield letta.ping()
        await odd.wait()
        for frame in (stop("llm_api_error"), LIMITED, DONE):
            yield frame

    odd.scripts["slow-limited"] = slowly
    odd.gate.clear()
    finishes: list[str | None] = []

    async def read() -> None:
        async with gateway.client() as client:
            stream = await create(client, **ask("slow-limited"), stream=True)
            odd.gate.set()  # for the head has come
            finishes.extend([chunk.choices[0].finish_reason async for chunk in stream])

    with pytest.raises(openai.APIError) as info:
        await read()
    assert info.value.code == "rate_limit_exceeded"
    assert set(finishes) <= {None}


async def pings_only(visit: Visit) -> AsyncGenerator[bytes, None]:
    while not visit.cancelled.is_set():
        yield letta.ping()
        await asyncio.sleep(0.05)
    yield stop("cancelled")


@requirement("errors.watchdog")
@pytest.mark.parametrize("spoken", ["", "Well, "], ids=["from the start", "in mid-stream"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_pings_are_no_sign_of_work(gateway: Watched, odd: FakeLetta, spoken: str, stream: bool) -> None:
    async def script(visit: Visit) -> AsyncGenerator[bytes, None]:
        if spoken:
            yield say(spoken)
        async for frame in pings_only(visit):
            yield frame

    odd.scripts["pings"] = script
    cancels = len(odd.cancels)
    error = await failure(gateway, "pings", stream=stream)
    assert error.code == "agent_timeout"
    assert error.type == "server_error"
    if isinstance(error, openai.APIStatusError):
        assert error.status_code == 504
        assert error.response.headers["x-should-retry"] == "false"
    else:
        assert stream
    assert len(odd.cancels) == cancels + 1
    await eventually(lambda: odd.open_streams == 0)
    await gateway.idle()


@requirement("errors.watchdog")
async def test_a_server_that_never_answers_is_a_timeout(gateway: Watched, odd: FakeLetta) -> None:
    async def never(_: Visit) -> AsyncGenerator[bytes, None]:
        await odd.wait()
        yield DONE

    odd.scripts["never"] = never
    odd.gate.clear()
    error = await failure(gateway, "never", stream=False)
    odd.gate.set()
    assert isinstance(error, openai.InternalServerError)
    assert (error.status_code, error.code) == (504, "agent_timeout")


def refuses(status: int, body: Any) -> letta.Answer:
    return lambda _: web.json_response(body, status=status)


def nginx(_: web.Request) -> web.StreamResponse:
    return web.Response(status=502, text="<html>nginx</html>", content_type="text/html")


BUSY = "CONFLICT: Cannot send a new message: Another request (run_id=run-7) is currently being processed"
REFUSALS = [
    ("busy", refuses(409, {"detail": BUSY, "run_id": "run-7"}), 409, "conversation_busy", "true"),
    ("not-ready", refuses(503, {"detail": "DB down at 10.0.0.7"}), 503, "backend_unavailable", "true"),
    ("broken", refuses(500, {"detail": "An unknown error occurred"}), 500, "agent_error", "false"),
    ("limited", refuses(429, {"error": {"type": "llm_rate_limit"}}), 429, "rate_limit_exceeded", "false"),
    ("gone", refuses(404, {"detail": "Agent with ID agent-1 not found"}), 404, "model_not_found", None),
    ("key", refuses(401, {"detail": "Unauthorized"}), 502, "backend_authentication", "false"),
    ("lost", refuses(404, {"detail": "Conversation not found with actor='id=1'"}), 404, "conversation_not_found", None),
    ("invalid", refuses(422, {"detail": "[{'msg': 'bad', 'input': 'secret-detail'}]"}), 400, "invalid_value", None),
    ("html-502", nginx, 503, "backend_unavailable", "true"),
]  # fmt: skip


@requirement("errors.matrix", "errors.no-internals")
@pytest.mark.parametrize(("name", "answer", "status", "code", "retry"), REFUSALS, ids=[row[0] for row in REFUSALS])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_what_letta_refuses_keeps_its_meaning(
    gateway: Watched,
    odd: FakeLetta,
    name: str,
    answer: letta.Answer,
    status: int,
    code: str,
    retry: str | None,
    stream: bool,
) -> None:
    odd.answers["POST /v1/conversations/conv-"] = answer
    try:
        error = await failure(gateway, name, stream=stream)
    finally:
        odd.answers.clear()
    assert isinstance(error, openai.APIStatusError)
    assert (error.status_code, error.code) == (status, code)
    assert error.response.headers.get("x-should-retry") == retry
    if status == 409:
        assert int(error.response.headers["retry-after"]) > 0
    for internal in ("secret-detail", "actor", "10.0.0.7", "nginx", "run-7"):
        assert internal not in error.response.text


GARBAGE: dict[str, letta.Answer] = {
    "html": lambda _: web.Response(text="<html>It works!</html>", content_type="text/html"),
    "other-json": lambda _: web.json_response({"hello": "world"}),
    "null": lambda _: web.json_response(None),
    "list": lambda _: web.json_response([1, 2]),
    "empty": lambda _: web.Response(),
}


@requirement("errors.garbage", "errors.no-internals")
@pytest.mark.parametrize("place", ["POST /v1/conversations/", "GET /v1/agents/"])
@pytest.mark.parametrize("name", list(GARBAGE))
async def test_answers_which_letta_never_gives(gateway: Watched, odd: FakeLetta, name: str, place: str) -> None:
    """Something else listens there. Nothing was sent, so trying again is right."""
    odd.answers[place] = GARBAGE[name]
    model = "Milo" if place.startswith("POST") else f"unknown-{name}"
    try:
        async with gateway.client() as client:
            error = await asking.failure(client, **ask("hi") | {"model": model})
    finally:
        odd.answers.clear()
    assert isinstance(error, openai.APIStatusError)
    assert (error.status_code, error.code) == (503, "backend_unavailable")
    assert error.response.headers["x-should-retry"] == "true"
    assert "It works" not in error.response.text


@requirement("errors.backend-key")
async def test_a_wrong_letta_key_is_our_fault_and_is_not_shown(tmp_path: Path) -> None:
    with (
        fake_letta(password="right-secret") as fake,
        watched(tmp_path, letta_base_url=fake.url, letta_api_key="wrong-secret") as gateway,
    ):
        for stream in (False, True):
            error = await failure(gateway, "any", stream=stream)
            assert isinstance(error, openai.APIStatusError)
            assert (error.status_code, error.code) == (502, "backend_authentication")
            assert error.response.headers["x-should-retry"] == "false"
            assert "secret" not in error.response.text
        health = gateway.health()
        assert health["status"] == "down"
        assert "secret" not in json.dumps(health)


@requirement("errors.backend-down")
async def test_a_letta_that_is_down_is_a_503_which_may_be_tried_again(tmp_path: Path) -> None:
    with fake_letta() as gone:
        pass
    with watched(tmp_path, letta_base_url=gone.url) as gateway:
        for stream in (False, True):
            error = await failure(gateway, "any", stream=stream)
            assert isinstance(error, openai.InternalServerError)
            assert (error.status_code, error.code, error.type) == (503, "backend_unavailable", "server_error")
            assert error.response.headers["x-should-retry"] == "true"
        assert gateway.health()["status"] == "down"
        assert [gateway.status(f"/health{end}") for end in ("", "/ready", "/live")] == [503, 503, 200]


@requirement("errors.backend-down")
async def test_the_official_client_tries_again_and_succeeds(gateway: Watched, odd: FakeLetta) -> None:
    tries: list[str] = []

    def at_first(request: web.Request) -> web.StreamResponse:
        tries.append(request.path)
        if len(tries) == 2:
            odd.answers.clear()
        return web.json_response({"detail": "starting"}, status=503)

    odd.answers["POST /v1/conversations/"] = at_first
    async with gateway.client(max_retries=2) as client:
        reply = await create(client, **ask("any"))
    assert reply.choices[0].message.content == "You said: #any#"
    assert len(tries) == 2


@requirement("errors.agent-gone")
async def test_an_agent_deleted_on_the_server_is_forgotten(gateway: Watched, odd: FakeLetta) -> None:
    odd.rows.append(letta.row(9, "Gone"))
    question: Any = {"model": "Gone", "messages": [{"role": "user", "content": "hi"}]}
    async with gateway.client() as client:
        await create(client, **question)
        odd.rows.pop()
        for _ in range(2):
            error = await asking.failure(client, **question)
            assert error.code == "model_not_found"
        assert "Gone" not in [model.id async for model in client.models.list()]


@requirement("errors.unknown-path", "errors.json")
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_endpoint"),
        ("POST", "/v1/embeddings", 404, "unknown_endpoint"),
        ("POST", "/v1/completions", 404, "unknown_endpoint"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/Milo", 405, "method_not_allowed"),
        ("GET", "/v1/models/Nobody", 404, "model_not_found"),
        ("PUT", "/", 405, "method_not_allowed"),
        ("GET", "/%00%0a<script>", 404, "unknown_endpoint"),
        ("BREW", "/v1/models", 400, None),
    ],
)
async def test_every_other_path_is_a_json_error(
    gateway: Watched, method: str, path: str, status: int, code: str | None
) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.request(method, gateway.url + path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    if code:
        assert error["code"] == code
