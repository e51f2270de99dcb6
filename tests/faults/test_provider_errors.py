"""The model provider behind a real Letta server fails: before the first token, and in mid-stream."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from tests.faults.asking import broken_off, create, failure, said
from tests.requirements import requirement
from tests.served import Served, served

ONCE = "should-retry=false"  # else the OpenAI client inside Letta tries three times

BEFORE: list[tuple[str, type[openai.APIStatusError], int, str, str]] = [
    (f"@fail 429 {ONCE}", openai.RateLimitError, 429, "rate_limit_error", "rate_limit_exceeded"),
    (f"@fail 429 insufficient_quota {ONCE}", openai.APIStatusError, 402, "insufficient_quota", "insufficient_budget"),
    (f"@fail 401 {ONCE}", openai.InternalServerError, 502, "server_error", "provider_authentication"),
    (f"@fail 403 {ONCE}", openai.InternalServerError, 502, "server_error", "provider_authentication"),
    (f"@fail 500 {ONCE}", openai.InternalServerError, 502, "server_error", "provider_error"),
    (f"@fail 503 {ONCE}", openai.InternalServerError, 502, "server_error", "provider_error"),
    (f"@fail 400 {ONCE}", openai.InternalServerError, 502, "server_error", "provider_error"),
    (
        f"@fail 400 context_length_exceeded {ONCE}",
        openai.BadRequestError,
        400,
        "invalid_request_error",
        "context_length_exceeded",
    ),
]


@pytest.fixture(scope="module")
def patient(letta: LocalLetta, milo: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """A gateway that does not commit while Letta condenses a conversation, which takes seconds."""
    folder: Path = tmp_path_factory.mktemp("patient")
    with served(folder, letta_base_url=letta.base_url, commit_wait_seconds=60.0, record_dir=folder / "rec") as running:
        yield running


@pytest.fixture
async def client(patient: Served) -> AsyncGenerator[AsyncOpenAI]:
    async with patient.client() as openai:
        yield openai


def asking(script: str, **more: Any) -> Any:
    return {"model": "Milo", "messages": [{"role": "user", "content": script}]} | more


@requirement("errors.provider", "errors.no-internals")
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("script", "kind", "status", "type_", "code"), BEFORE, ids=[row[0].removesuffix(f" {ONCE}") for row in BEFORE]
)
async def test_before_the_first_token_it_is_a_status(
    client: AsyncOpenAI,
    milo: str,
    model: ScriptedModel,
    script: str,
    kind: type[openai.APIStatusError],
    status: int,
    type_: str,
    code: str,
    stream: bool,
) -> None:
    marker = f"#{code}-{status}-{script.split()[1]}-{stream}"
    error = await failure(client, **asking(f"{marker}\n{script}", stream=stream))
    assert isinstance(error, kind)
    assert (error.status_code, error.type, error.code, error.param) == (status, type_, code, None)
    assert error.response.headers.get("x-should-retry") == (None if status == 400 else "false")
    assert error.request_id
    if code == "context_length_exceeded":
        assert "maximum context length" in error.message
    else:
        assert len(model.requests_with(marker)) == 1
    for internal in ("Traceback", "letta/", "openai.", "sk-", "127.0.0.1"):
        assert internal not in error.response.text


IN_MID_STREAM = [
    ("@break", {"provider_error", "agent_error"}),
    ("@error", {"provider_error", "agent_error"}),
]


@requirement("errors.provider", "errors.in-band")
@pytest.mark.parametrize(("end", "codes"), IN_MID_STREAM, ids=[row[0] for row in IN_MID_STREAM])
async def test_in_mid_stream_it_is_a_frame(client: AsyncOpenAI, milo: str, end: str, codes: set[str]) -> None:
    body = asking(f"@say Half of the ans\n{end}", stream_options={"include_usage": True})
    choices, error = await broken_off(client, **body)
    assert said(choices) == "Half of the ans"
    assert {choice.finish_reason for choice in choices} == {None}
    assert error.code in codes
    assert not isinstance(error, openai.APIStatusError)


@requirement("errors.provider")
async def test_in_mid_answer_a_plain_request_gets_a_status(client: AsyncOpenAI, milo: str) -> None:
    error = await failure(client, **asking("@say Half of the ans\n@break"))
    assert isinstance(error, openai.InternalServerError)
    assert error.code in ("provider_error", "agent_error")
    assert error.response.headers["x-should-retry"] == "false"


@requirement("errors.after-failure")
async def test_a_conversation_goes_on_after_a_failed_turn(client: AsyncOpenAI, milo: str, model: ScriptedModel) -> None:
    """Letta keeps nothing of the failed step, and the caller, who was told, will send the message again."""
    pin = {"extra_headers": {"x-frontdesk-conversation": "goes on"}}
    await create(client, **asking("#on-1\n@say One."), **pin)
    assert isinstance(await failure(client, **asking(f"#on-2\n@fail 429 {ONCE}"), **pin), openai.RateLimitError)
    reply = await create(client, **asking("#on-3\n@say Three."), **pin)
    assert reply.choices[0].message.content == "Three."
    texts = [str(message.get("content")) for message in model.requests_with("#on-3")[-1].messages]
    assert "One." in texts
    assert sum("#on-2" in text for text in texts) == 0


@requirement("errors.nul")
async def test_a_nul_in_a_text_does_no_harm(client: AsyncOpenAI, milo: str, model: ScriptedModel) -> None:
    """Letta's database cannot keep one."""
    reply = await create(client, **asking("#nul a\0b\n@say Fine."))
    assert reply.choices[0].message.content == "Fine."
