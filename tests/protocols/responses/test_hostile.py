"""Whatever is sent, in whatever order and at whatever moment: an answer or an error in OpenAI's shape, and nothing
left over."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.conversations.test_retries import locked
from tests.faults.fake import FakeLetta, fake_letta
from tests.faults.watch import Watched, eventually, watched
from tests.protocols.responses.clients import (
    CALL,
    MARKS,
    TOOLS,
    House,
    calls,
    create,
    ended,
    events,
    heard,
    kinds,
    message,
    open_house,
    rehearsed,
    result,
    until_text,
    users,
    visited,
)
from tests.protocols.responses.visitors import client, fake, gateway, who
from tests.requirements import requirement

__all__ = ["client", "fake", "gateway", "who"]


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[FakeLetta, Watched]]:
    """For tests that leave nothing behind."""
    with fake_letta() as fake:
        folder = tmp_path_factory.mktemp("hostile")
        with watched(folder, letta_base_url=rehearsed(fake).url, system_prompt="message") as gateway:
            yield fake, gateway


@pytest.fixture
async def http(common: tuple[FakeLetta, Watched]) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=common[1].base_url, timeout=30) as http:
        yield http


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    with open_house(tmp_path_factory.mktemp("house"), on_disconnect="cancel") as house:
        yield house


async def post(http: httpx.AsyncClient, body: Any) -> httpx.Response:
    """A body as it is, or as an object of these fields."""
    content = body if isinstance(body, str | bytes) else json.dumps({"model": "Milo", "input": "Hello"} | body)
    return await http.post("/responses", content=content, headers={"content-type": "application/json"})


# --- bodies ------------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": 5}, "model"),
    ({"model": ""}, "model"),
    ({"model": ["Milo"]}, "model"),
    ({"input": None}, "input"),
    ({"input": 5}, "input"),
    ({"input": {}}, "input"),
    ({"input": []}, "input"),
    ({"input": ""}, "input"),
    ({"input": [None]}, "input[0]"),
    ({"input": ["Hello"]}, "input[0]"),
    ({"input": [[]]}, "input[0]"),
    ({"input": [{}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": None}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": {"text": "a"}}]}, "input[0].content"),
    ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role"),
    ({"input": [{"role": ["user"], "content": "a"}]}, "input[0].role"),
    ({"input": [{"type": 5}]}, "input[0].type"),
    ({"input": [{"type": "message", "role": "user", "content": [5]}]}, "input[0].content[0]"),
    ({"input": [{"role": "user", "content": [{}]}]}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]}, "input[0].content[0].text"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
    ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].type"),
    ({"input": [{"type": "function_call"}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call", "call_id": "a", "name": "b", "arguments": {}}]}, "input[0].arguments"),
    ({"input": [{"type": "function_call_output", "output": "a"}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "a"}]}, "input[0].output"),
    ({"input": [{"type": "function_call_output", "call_id": "a", "output": "b"}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "a\0b" * 9999, "output": "b"}]}, "input[0].call_id"),
    ({"input": [{"type": "item_reference"}]}, "input[0].id"),
    ({"input": [{"id": ""}]}, "input[0].id"),
    ({"input": [{"id": "msg_" + "f" * 9999 + "o0"}]}, "input[0].id"),
    ({"input": [{"id": "msg_0o99999999999999999999"}]}, "input[0].id"),
    ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
    ({"instructions": ["a"]}, "instructions"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": True}, "stream_options"),
    ({"store": 1}, "store"),
    ({"background": "true"}, "background"),
    ({"background": True, "store": False}, "background"),
    ({"previous_response_id": 5}, "previous_response_id"),
    ({"previous_response_id": {"id": "resp_0"}}, "previous_response_id"),
    ({"previous_response_id": ""}, "previous_response_id"),
    ({"previous_response_id": "resp_0", "conversation": "conv_0"}, "previous_response_id"),
    ({"conversation": 5}, "conversation"),
    ({"conversation": ""}, "conversation"),
    ({"conversation": "a" * 257}, "conversation"),
    ({"conversation": "a\0b"}, "conversation"),
    ({"conversation": {"id": "a\0b"}}, "conversation"),
    ({"conversation": {}}, "conversation.id"),
    ({"conversation": {"id": 5}}, "conversation.id"),
    ({"conversation": ["conv_0"]}, "conversation"),
    ({"tools": {}}, "tools"),
    ({"tools": [5]}, "tools[0]"),
    ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": None}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "a", "parameters": []}]}, "tools[0].parameters"),
    ({"tools": [*TOOLS, *TOOLS]}, "tools[1].name"),
    ({"tool_choice": "some"}, "tool_choice"),
    ({"tool_choice": 5}, "tool_choice"),
    ({"tool_choice": {"type": "function", "name": "a"}}, "tool_choice"),
    ({"tool_choice": {"type": "custom", "name": "a"}}, "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools", "mode": "all", "tools": []}}, "tool_choice.mode"),
    ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []}}, "tool_choice"),
    ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
    ({"max_tool_calls": 0}, "max_tool_calls"),
    ({"max_output_tokens": -1}, "max_output_tokens"),
    ({"max_output_tokens": "100"}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": [1]}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"reasoning": "high"}, "reasoning"),
    ({"reasoning": {"effort": "most"}}, "reasoning.effort"),
    ({"text": []}, "text"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
    ({"include": "reasoning.encrypted_content"}, "include"),
    ({"include": [5]}, "include[0]"),
    ({"truncation": "sometimes"}, "truncation"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"a": {}}}, "metadata.a"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
    ({"prompt": {"id": "pmpt_0"}}, "prompt"),
]


@requirement("responses.errors")
async def test_what_is_wrong_is_said_with_its_place(common: tuple[FakeLetta, Watched], http: httpx.AsyncClient) -> None:
    before = len(common[0].visits)
    for body, param in WRONG:
        for more in ({}, {"stream": True}):
            response = await post(http, {**more, **body})
            assert response.status_code == 400, (body, response.text)
            assert set(response.json()) == {"error"}
            error = response.json()["error"]
            assert (error["param"], error["type"]) == (param, "invalid_request_error"), (body, error)
            assert error["code"]
            assert error["message"]
            assert len(response.content) < 1000
    assert len(common[0].visits) == before


NOT_JSON: list[Any] = [
    b"",
    b"null",
    b"[]",
    b'"Hello"',
    b"\xff\xfe{}",
    b'{"model": "Milo", "input": "\xff"}',
    b'{"model": "Milo", "input": "Hello"',
    b'{"model": "Milo", "input": "Hello"} {}',
    rb'{"model": "Milo", "input": "a\ud800b"}',
    rb'{"model": "Milo", "input": "Hello", "instructions": "\udc00"}',
    rb'{"model": "Milo", "input": "Hello", "metadata": {"\ud800": "a"}}',
    rb'{"model": "Milo", "input": [{"type": "function_call_output", "call_id": "a", "output": "\ud800"}]}',
    b'{"model": "Milo", "input": "Hello", "tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"model": "Milo", "input": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    b'{"model": "Milo", "input": "Hello", "temperature": NaN}',
    b'{"model": "Milo", "input": "Hello", "top_p": -Infinity}',
    b'{"model": "Milo", "input": "Hello", "max_output_tokens": 1e999}',
    b'{"model": "Milo", "input": "Hello", "max_output_tokens": ' + b"9" * 5000 + b"}",
]


@requirement("responses.errors")
async def test_what_is_no_json_of_a_request_is_refused(
    common: tuple[FakeLetta, Watched], http: httpx.AsyncClient
) -> None:
    before = len(common[0].visits)
    for body in NOT_JSON:
        response = await post(http, body)
        assert response.status_code == 400, (body[:80], response.text)
        assert set(response.json()) == {"error"}
        assert len(response.content) < 1000
    large = await post(http, b'{"model": "Milo", "input": "' + b"a" * 20 * 2**20 + b'"}')
    assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")
    assert len(common[0].visits) == before


ODD: list[dict[str, Any]] = [
    {"input": "\0 and \x1f and \x7f and \u2028 and \ufffe"},
    {"input": "\U0001f600" * 1000, "instructions": "\0", "metadata": {"a\0": "\0", "": "\U0001f600"}},
    {"tools": [{"type": "function", "name": "f", "parameters": {"minimum": float("nan"), "maximum": float("inf")}}]},
    {"tools": [{"type": "function", "name": "f", "parameters": {"maximum": 10**40, "minimum": -(10**40)}}]},
    {"tools": [{"type": "web_search", "anything": [float("-inf"), 10**40, {"\0": None}]}]},
    {"tools": [{"type": "mcp", "server_label": "a", "authorization": "secret", "headers": {"x": "secret"}}]},
    {"input": [{"type": "nothing", "id": "a", "n": float("nan")}, {"role": "user", "content": "Hello"}]},
    {"input": [{"type": "reasoning", "id": "b", "summary": 5}, {"role": "user", "content": "Hello"}]},
    {"input": [{"type": "\r\nx-forged: 1", "id": "c"}, {"role": "user", "content": "Hello"}]},
    {"input": [{"role": "user", "content": "Hello", "id": "../../etc", "status": 5}]},
    {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"maximum": float("nan")}}}},
    {"metadata": {"a": 1, "b": True, "c": 1.5}, "user": {"a": "b"}, "prompt_cache_key": 5, "service_tier": []},
    {"unknown": {"deep": [[[[[[]]]]]]}, "context_management": "?", "truncation": None, "tools": None},
    {"tools": [{"type": f"kind-{n}"} for n in range(500)]},
]


@requirement("responses.errors", "responses.retrieve")
@pytest.mark.parametrize("background", [False, True])
async def test_what_is_odd_is_answered_and_can_be_read_again(http: httpx.AsyncClient, background: bool) -> None:
    for body in ODD:
        response = await post(http, body | {"background": background})
        assert response.status_code == 200, (body, response.text)
        assert "x-forged" not in response.headers
        place = f"/responses/{response.json()['id']}"
        stream = await http.get(place, params={"stream": True})
        assert "event: response.completed" in stream.text, (body, stream.text[-500:])
        kept = await http.get(place)
        assert kept.json()["status"] == "completed", (body, kept.text)
        if not background:
            assert kept.json() == response.json()
        assert "secret" not in response.text + stream.text + kept.text
        items = await http.get(f"{place}/input_items")
        assert items.status_code == 200, (body, items.text)
        assert items.json()["data"], body
        assert (await http.delete(place)).status_code == 200


@requirement("responses.errors")
@pytest.mark.parametrize("shape", ["messages", "calls beside their results", "references"])
async def test_ten_thousand_items_do_not_hold_up_the_others(http: httpx.AsyncClient, shape: str) -> None:
    match shape:
        case "messages":
            items: list[Any] = [{"role": "user", "content": f"{n}"} for n in range(10_000)]
        case "references":
            items = [{"id": f"msg_{n:x}o0"} for n in range(10_000)]
        case _:
            call = {"type": "function_call", "id": "fc_1o0", "name": "read", "arguments": "{}"}
            items = [each for n in range(5_000) for each in (call | {"call_id": f"c{n}"}, result(f"c{n}", f"{n}"))]
            items.append(call | {"call_id": "last"})
    async with asyncio.timeout(20):
        response = await post(http, {"input": items})
        assert response.status_code in (200, 400)
        assert (await http.get("/models")).status_code == 200


# --- questions about a response ----------------------------------------------------------------------------------


@requirement("responses.retrieve", "responses.background.stream")
async def test_odd_questions_about_a_response(http: httpx.AsyncClient) -> None:
    made = (await post(http, {})).json()
    place = f"/responses/{made['id']}"
    for query, param in (
        ("stream=maybe", "stream"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("stream=true&starting_after=x", "starting_after"),
        ("stream=true&starting_after=1.5", "starting_after"),
        ("starting_after=" + "9" * 5000, "starting_after"),
    ):
        response = await http.get(f"{place}?{query}")
        assert (response.status_code, response.json()["error"]["param"]) == (400, param), query
    for query, param in (("limit=0", "limit"), ("limit=101", "limit"), ("limit=a", "limit"), ("order=up", "order")):
        response = await http.get(f"{place}/input_items?{query}")
        assert (response.status_code, response.json()["error"]["param"]) == (400, param), query
    for after in ("msg_0", "\0", "x" * 5000):
        response = await http.get(f"{place}/input_items", params={"after": after})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "after"), after
    for query in ("include[]=a&include[]=b", "include[]=reasoning.encrypted_content&include[]=a", "include=a", "a=b"):
        assert (await http.get(f"{place}?{query}")).json() == made
    for number in (8, 9, 100, 10**15, 10**30):
        response = await http.get(place, params={"stream": True, "starting_after": number})
        assert response.status_code in (200, 400)
        if response.status_code == 200:
            assert kinds_of(response) == ["response.completed"]
            assert response.text.endswith("data: [DONE]\n\n")


def kinds_of(response: httpx.Response) -> list[str]:
    return re.findall(r"^event: (\S+)$", response.text, re.MULTILINE)


@requirement("responses.errors")
async def test_paths_that_are_no_endpoints_are_answered_in_the_same_shape(http: httpx.AsyncClient) -> None:
    for method, path, status in (
        ("GET", "/responses", 405),
        ("PUT", "/responses/resp_0", 405),
        ("GET", "/responses/resp_0/cancel", 405),
        ("GET", "/responses/resp_0/nothing", 404),
    ):
        response = await http.request(method, path)
        assert response.status_code == status, (method, path)
        assert set(response.json()) == {"error"}


# --- in the background -------------------------------------------------------------------------------------------


@requirement("responses.background")
async def test_two_hundred_run_at_once_and_nothing_is_left_of_them(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url) as gateway:
        async with gateway.client() as client:
            made = await asyncio.gather(*(create(client, f"#held# {number}", background=True) for number in range(200)))
            await visited(fake, 200)
            assert gateway.health()["turns"]["in_flight"] == 200
            await asyncio.gather(*(client.responses.cancel(each.id) for each in made[::10]))
            fake.gate.set()
            done = [await ended(client, each.id) for each in made]
            assert [each.status for each in done] == ["cancelled", *["completed"] * 9] * 20
            assert len({each.conversation.id for each in done}) == 200
            assert len(fake.visits) == 200
            await gateway.idle()


MOMENTS = ["in line", "waiting for a place", "before a word", "in mid-text", "at the end", "after the end", "twice"]


@requirement("responses.cancel")
@pytest.mark.parametrize("moment", MOMENTS)
async def test_it_can_be_cancelled_at_every_moment(fake: FakeLetta, tmp_path: Path, moment: str) -> None:
    limit = {"max_turns": 1} if moment == "waiting for a place" else {}
    with watched(tmp_path, letta_base_url=fake.url, **limit) as gateway:
        async with gateway.client() as client:
            said, more, others = "#held#", dict[str, Any](), list[Any]()
            match moment:
                case "in line":
                    others = [await create(client, "#held#", background=True)]
                    said, more = "And?", {"previous_response_id": others[0].id}
                case "waiting for a place":
                    others, said = [await create(client, "#held#", background=True)], "And?"
                case "before a word":
                    said = "#silent#"
                case _:
                    pass
            if others:
                await visited(fake, 1)
            made = await create(client, said, background=True, **more)
            if not others:
                await visited(fake, 1)
            if moment == "in mid-text":
                stream: Any = await client.responses.retrieve(made.id, stream=True)
                await until_text(stream)
                await stream.close()
            if moment in ("at the end", "after the end"):
                fake.gate.set()
            if moment == "after the end":
                await ended(client, made.id)
            times = 2 if moment == "twice" else 1
            told = await asyncio.gather(*(client.responses.cancel(made.id) for _ in range(times)))
            expected = {"completed"} if moment == "after the end" else {"cancelled"}
            if moment == "at the end":
                expected = {"completed", "cancelled"}
            assert {each.status for each in told} <= expected
            assert (await client.responses.cancel(made.id)).status == told[0].status
            kept = await client.responses.retrieve(made.id)
            assert (kept.status, kept.error) == (told[0].status, None)
            assert kept.output_text in {"cancelled": ("", "Begun, "), "completed": ("Begun, and done.",)}[kept.status]
            told_again = await events(client, made.id)
            assert kinds(told_again)[0] == "response.created"
            assert told_again[-1].response.status == kept.status
            assert [each.sequence_number for each in told_again] == list(range(len(told_again)))
            fake.gate.set()
            for other in others:
                assert (await ended(client, other.id)).status == "completed"
            await create(client, "Go on.", previous_response_id=made.id)
            assert users(fake.visits[-1]) == [*(["#held#"] if moment == "in line" else []), said, "Go on."]
            assert not fake.overlaps
            await gateway.idle()


@requirement("responses.cancel", "responses.background.replicas")
async def test_it_can_be_cancelled_by_two_processes_at_once(fake: FakeLetta, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateways = [stack.enter_context(watched(tmp_path, letta_base_url=fake.url)) for _ in range(2)]
        here, there = [await stack.enter_async_context(gateway.client()) for gateway in gateways]
        made = await create(here, "#held#", background=True)
        await visited(fake, 1)
        both = await asyncio.gather(*(client.responses.cancel(made.id) for client in (there, here)))
        assert [each.status for each in both] == ["cancelled"] * 2
        await create(there, "Go on.", previous_response_id=made.id)
        assert users(fake.visits[-1]) == ["#held#", "Go on."]
        for gateway in gateways:
            await gateway.idle()


@requirement("responses.background")
async def test_a_keys_limit_counts_them_until_they_end(fake: FakeLetta, tmp_path: Path) -> None:
    keys = ({"name": "ann", "sha256": sha256(b"ann").hexdigest(), "max_turns": 2},)
    with watched(tmp_path, letta_base_url=fake.url, keys=keys, probe_key="ann") as gateway:
        async with gateway.client(api_key="ann") as client:
            made = [await create(client, "#held#", background=True) for _ in range(2)]
            for more in ({}, {"background": True}, {"stream": True}, {"background": True, "stream": True}):
                with pytest.raises(openai.RateLimitError) as info:
                    await create(client, "One more", **more)
                assert info.value.code == "rate_limit_exceeded"
            await client.responses.cancel(made[0].id)
            assert (await create(client, "One more")).status == "completed"
            fake.gate.set()
            await ended(client, made[1].id)
            for _ in range(3):
                last = await create(client, "One more", background=True)
                assert (await ended(client, last.id)).status == "completed"


@requirement("responses.background")
async def test_where_the_server_is_full_they_wait_for_a_place(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url, max_turns=1) as gateway:
        async with gateway.client() as client:
            made = [await create(client, "#held#", background=True) for _ in range(5)]
            assert {each.status for each in made} <= set(MARKS)
            await eventually(lambda: gateway.health()["turns"] == {"in_flight": 1, "waiting": 4})
            assert len(fake.visits) == 1
            fake.gate.set()
            assert [(await ended(client, each.id)).status for each in made] == ["completed"] * 5
            await gateway.idle()


@requirement("responses.background")
async def test_where_no_more_may_wait_it_is_told_and_the_agent_hears_nothing(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url, max_turns=1, max_waiting=0) as gateway:
        async with gateway.client() as client:
            first = await create(client, "#held#", background=True)
            await visited(fake, 1)
            second = await ended(client, (await create(client, "And?", background=True)).id)
            assert (second.status, second.error.code) == ("failed", "rate_limit_exceeded")
            with pytest.raises(openai.RateLimitError) as info:
                await create(client, "And?")
            assert info.value.code == "server_overloaded"
            fake.gate.set()
            assert (await ended(client, first.id)).status == "completed"
            assert len(fake.visits) == 1
            await gateway.idle()


@requirement("responses.background", "responses.retrieve")
async def test_one_that_is_forgotten_while_it_runs_ends_quietly(
    gateway: Watched, client: AsyncOpenAI, fake: FakeLetta
) -> None:
    made = await create(client, "#held#", background=True)
    stream: Any = await client.responses.retrieve(made.id, stream=True)
    await until_text(stream)
    await client.responses.delete(made.id)
    for asking in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            await asking(made.id)
    fake.gate.set()
    rest = [event async for event in stream]
    assert rest[-1].response.output_text == "Begun, and done."
    assert len(fake.visits) == 1
    assert fake.visits[0].status == "completed"
    await gateway.idle()


@requirement("responses.background", "responses.errors")
async def test_one_that_fails_before_a_word_is_kept_as_failed_and_streamed_as_such(
    gateway: Watched, client: AsyncOpenAI
) -> None:
    told = [event async for event in await create(client, "#refused#", background=True, stream=True)]
    assert kinds(told) == ["response.created", "response.in_progress", "error", "response.failed"]
    kept = await ended(client, told[0].response.id)
    assert (kept.status, kept.error.code) == ("failed", "rate_limit_exceeded")
    assert told[-1].response.error == kept.error
    assert kinds(await events(client, kept.id)) == kinds(told)
    await gateway.idle()


@requirement("responses.background")
async def test_a_request_that_looks_like_a_title_is_a_response_all_the_same(client: AsyncOpenAI) -> None:
    said = '### Task:\nGenerate a concise title.\n### Output:\nJSON format: { "title": "…" }\n### Chat History:\nHello'
    made = await create(client, said, background=True)
    assert (await ended(client, made.id)).status == "completed"


@requirement("responses.background", "store.down")
async def test_one_that_ends_while_the_store_is_away_is_found_completed_later(
    house: House, client: AsyncOpenAI, fake: FakeLetta
) -> None:
    made = await create(client, "#held#", background=True, stream=True)
    response_id = (await until_text(made))[0].response.id
    with locked(house.folder):
        fake.gate.set()
        rest = [event async for event in made]
        assert rest[-1].response.output_text == "Begun, and done."
    async with asyncio.timeout(25):
        assert (await ended(client, response_id)).output_text == "Begun, and done."
    assert len(fake.visits) == 1
    await house.gateway.idle()


@requirement("responses.background")
async def test_one_whose_conversation_was_deleted_at_letta_comes_to_an_end(
    gateway: Watched, client: AsyncOpenAI, fake: FakeLetta
) -> None:
    first = await create(client, "Hello")
    fake.forget(fake.visits[-1].conversation)
    made = await create(client, "And?", background=True, previous_response_id=first.id)
    assert (await ended(client, made.id)).status in ("completed", "failed")
    told = [{"role": "user", "content": "Hi"}]
    hi = await create(client, told)
    fake.forget(fake.visits[-1].conversation)
    told += [{"role": "assistant", "content": hi.output_text}, {"role": "user", "content": "And?"}]
    stream = [event async for event in await create(client, told, background=True, stream=True)]
    assert stream[-1].response.output_text == "You said: And?"
    assert users(fake.visits[-1]) == ["Hi", "And?"]
    await gateway.idle()


# --- branches ----------------------------------------------------------------------------------------------------


@requirement("responses.branch")
async def test_each_of_five_responses_is_branched_from_at_once(client: AsyncOpenAI, fake: FakeLetta) -> None:
    """The second calls a tool, which the third answers."""
    made: list[Any] = [await create(client, "One", tools=TOOLS)]
    made.append(await create(client, CALL, tools=TOOLS, previous_response_id=made[-1].id))
    sunny = [result(calls(made[1])[0].call_id, "sunny")]
    made.append(await create(client, sunny, tools=TOOLS, previous_response_id=made[-1].id))
    for text in ("Four", "Five"):
        made.append(await create(client, text, tools=TOOLS, previous_response_id=made[-1].id))
    path = [*heard(fake.visits[-1]), ("assistant", "You said: Five")]
    assert path[2:6] == [("user", CALL), ("call", 'read({"city": "Bern"})'), ("tool", "sunny"), path[5]]
    lengths = [2, 4, 6, 8, 10]
    before = len(fake.visits)
    await asyncio.gather(
        *(
            create(client, f"Branch {place}", tools=TOOLS, previous_response_id=each.id)
            for place, each in enumerate(made)
        )
    )
    told = {heard(visit)[-1][1]: heard(visit)[:-1] for visit in fake.visits[before:]}
    for place, length in enumerate(lengths):
        expected = path[:length] if place != 1 else [*path[:4], ("tool", "denied")]
        assert told[f"Branch {place}"] == expected, place
    assert not fake.overlaps


@requirement("responses.branch", "responses.tools")
async def test_a_call_is_answered_twice_from_the_same_response(client: AsyncOpenAI, fake: FakeLetta) -> None:
    first = await create(client, CALL, tools=TOOLS)
    (call,) = calls(first)
    for output in ("sunny", "rainy", "sunny"):
        await create(client, [result(call.call_id, output)], tools=TOOLS, previous_response_id=first.id)
        assert heard(fake.visits[-1]) == [("user", CALL), ("call", 'read({"city": "Bern"})'), ("tool", output)]


@requirement("responses.branch", "responses.tools")
async def test_of_two_calls_one_is_answered(client: AsyncOpenAI, fake: FakeLetta) -> None:
    said = '#call read {"a": 1}# #call read {"b": 2}#'
    first = await create(client, said, tools=TOOLS)
    one, two = calls(first)
    answer = await create(client, [result(two.call_id, "two")], tools=TOOLS, previous_response_id=first.id)
    told = heard(fake.visits[-1])
    assert told[:3] == [("user", said), ("call", 'read({"a": 1})'), ("call", 'read({"b": 2})')]
    assert ("tool", "two") in told
    assert answer.conversation.id == first.conversation.id
    await create(client, [result(one.call_id, "one")], tools=TOOLS, previous_response_id=first.id)
    assert ("tool", "one") in heard(fake.visits[-1])
    assert ("tool", "two") not in heard(fake.visits[-1])


@requirement("responses.branch", "responses.tools")
async def test_results_for_calls_of_another_response_are_refused(client: AsyncOpenAI, fake: FakeLetta) -> None:
    called, other = await create(client, CALL, tools=TOOLS), await create(client, "Other")
    answer = [result(calls(called)[0].call_id, "sunny")]
    before = len(fake.visits)
    for where in ({"previous_response_id": other.id}, {"conversation": other.conversation.id}):
        for more in ({}, {"stream": True}):
            with pytest.raises(openai.BadRequestError) as info:
                await create(client, answer, tools=TOOLS, **where, **more)
            assert info.value.param in (*where, "input[0].call_id")
    assert len(fake.visits) == before
    answered = await create(client, answer, tools=TOOLS, previous_response_id=called.id)
    assert answered.conversation.id == called.conversation.id


@requirement("responses.branch")
async def test_a_branch_does_not_wait_for_what_runs_in_the_conversation(client: AsyncOpenAI, fake: FakeLetta) -> None:
    first = await create(client, "One")
    running = await create(client, "#held#", background=True, previous_response_id=first.id)
    await visited(fake, 2)
    async with asyncio.timeout(10):
        await create(client, "Branch", previous_response_id=first.id)
    assert users(fake.visits[-1]) == ["One", "Branch"]
    fake.gate.set()
    assert (await ended(client, running.id)).status == "completed"


# --- what was cancelled, or failed -------------------------------------------------------------------------------


async def cut(client: AsyncOpenAI, fake: FakeLetta, how: str, after: Any, **more: Any) -> Any:
    """A response that came to no answer."""
    fake.gate.clear()
    more |= {"previous_response_id": after.id} if after else {}
    before = len(fake.visits)
    made = await create(client, f"#{'limited' if how == 'failed' else 'held'}# {before}", background=True, **more)
    await visited(fake, before + 1)
    if how == "cancelled":
        stream: Any = await client.responses.retrieve(made.id, stream=True)
        await until_text(stream)
        await stream.close()
        await client.responses.cancel(made.id)
    fake.gate.set()
    made = await ended(client, made.id)
    assert made.status == how
    return made


@requirement("responses.branch", "responses.cancel")
@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_whoever_goes_on_after_what_was_cut_short_tells_the_agent_of_it_and_nobody_else(
    client: AsyncOpenAI, fake: FakeLetta, how: str
) -> None:
    first = await create(client, "One")
    short = await cut(client, fake, how, first)
    beside = await create(client, "Instead", previous_response_id=first.id)
    assert users(fake.visits[-1]) == ["One", "Instead"], "it does not come after that"
    after = await create(client, "All the same", previous_response_id=short.id)
    assert users(fake.visits[-1]) == ["One", "#" + users_text(fake, 1), "All the same"]
    await create(client, "On", previous_response_id=after.id)
    assert users(fake.visits[-1])[-3:] == ["#" + users_text(fake, 1), "All the same", "On"]
    await create(client, "Branch", previous_response_id=after.id)
    assert users(fake.visits[-1]) == ["One", "#" + users_text(fake, 1), "All the same", "Branch"]
    await create(client, "On", previous_response_id=beside.id)
    assert users(fake.visits[-1]) == ["One", "Instead", "On"]


def users_text(fake: FakeLetta, visit: int) -> str:
    """What was told in that visit, without its first character."""
    return fake.visits[visit].heard[-1][1][1:]


@requirement("responses.branch", "responses.cancel")
async def test_two_that_were_cut_short_one_after_the_other_are_told_in_their_order(
    client: AsyncOpenAI, fake: FakeLetta
) -> None:
    first = await create(client, "One")
    second = await cut(client, fake, "cancelled", first)
    third = await cut(client, fake, "cancelled", second)
    await cut(client, fake, "cancelled", second)
    await create(client, "On", previous_response_id=third.id)
    told = [visit.heard[-1][1] for visit in fake.visits[1:3]]
    assert users(fake.visits[-1]) == ["One", *told, "On"]
    await create(client, "Once more", previous_response_id=second.id)
    assert users(fake.visits[-1]) == ["One", told[0], "Once more"]


@requirement("responses.branch", "responses.cancel", "responses.conversation")
@pytest.mark.parametrize("how", ["completed", "cancelled", "failed"])
async def test_what_a_conversation_told_of_what_was_cut_short_belongs_to_that_turn(
    client: AsyncOpenAI, fake: FakeLetta, how: str
) -> None:
    first = await create(client, "One")
    await cut(client, fake, "cancelled", first)
    short = fake.visits[1].heard[-1][1]
    where = {"conversation": first.conversation.id}
    if how == "completed":
        told = await create(client, "Two", **where)
        await create(client, "Three", **where)
    else:
        told = await cut(client, fake, how, None, **where)
    said = fake.visits[2].heard[-1][1]
    await create(client, "Branch", previous_response_id=told.id)
    assert users(fake.visits[-1]) == ["One", short, said, "Branch"]


@requirement("responses.branch", "responses.cancel", "responses.conversation")
@pytest.mark.parametrize("how", ["cancelled", "failed"])
@pytest.mark.parametrize("by", ["previous_response_id", "conversation"])
async def test_a_branch_that_was_cut_short_still_knows_where_it_came_from(
    client: AsyncOpenAI, fake: FakeLetta, how: str, by: str
) -> None:
    first = await create(client, "One")
    await create(client, "Two", previous_response_id=first.id)
    branch = await cut(client, fake, how, first)
    asked = fake.visits[2].heard[-1][1]
    where = {by: branch.id if by == "previous_response_id" else branch.conversation.id}
    await create(client, "On", **where)
    told = [asked] if how == "cancelled" or by == "previous_response_id" else []
    assert users(fake.visits[-1]) == ["One", *told, "On"]
    await create(client, "Further", **where)
    assert users(fake.visits[-1]) == ["One", *told, *(["On"] if by == "conversation" else []), "Further"]


@requirement("responses.cancel", "responses.conversation")
async def test_what_was_cut_short_is_told_once_in_its_conversation(client: AsyncOpenAI, fake: FakeLetta) -> None:
    first = await create(client, "One")
    second = await cut(client, fake, "cancelled", first)
    await cut(client, fake, "cancelled", second)
    await create(client, "On", conversation=first.conversation.id)
    assert users(fake.visits[-1]) == ["One", *(visit.heard[-1][1] for visit in fake.visits[1:3]), "On"]


@requirement("responses.cancel", "responses.conversation")
async def test_the_same_cut_short_twice_is_told_twice(client: AsyncOpenAI, fake: FakeLetta) -> None:
    first = await create(client, "One")
    where = {"conversation": first.conversation.id}
    for number in range(2):
        fake.gate.clear()
        made = await create(client, "#silent#", background=True, metadata={"number": str(number)}, **where)
        await visited(fake, number + 2)
        await client.responses.cancel(made.id)
    await create(client, "On", **where)
    assert users(fake.visits[-1]) == ["One", "#silent#", "#silent#", "On"]


@requirement("responses.cancel")
async def test_what_was_cancelled_in_a_new_conversation_is_gone_on_after(client: AsyncOpenAI, fake: FakeLetta) -> None:
    short = await cut(client, fake, "cancelled", None)
    await create(client, "On", previous_response_id=short.id)
    assert heard(fake.visits[-1]) == [("user", "#held# 0"), ("assistant", "Begun, "), ("user", "On")]


# --- both protocols ----------------------------------------------------------------------------------------------


@requirement("responses.both-protocols", "responses.conversation")
async def test_named_chats_and_responses_do_not_mix_but_where_it_is_asked_for(
    client: AsyncOpenAI, fake: FakeLetta
) -> None:
    """Two chats with names of their own; a response goes on in one by its id, while a header names the other."""
    pin = "x-frontdesk-conversation"
    chat: Any = client.chat.completions.with_raw_response.create
    ids: dict[str, str] = {}
    for name in ("a", "b"):
        asked = [{"role": "user", "content": f"In {name}"}]
        raw = await chat(model="Milo", messages=asked, extra_headers={pin: name})
        ids[name] = raw.headers[pin]
    by_name = await create(client, "More in a", extra_headers={pin: "a"})
    assert by_name.conversation.id == ids["a"]
    by_id = await create(client, "More in b", conversation=ids["b"], extra_headers={pin: "a"})
    assert by_id.conversation.id == ids["b"]
    after = await create(client, "On in b", previous_response_id=by_id.id)
    assert after.conversation.id == ids["b"]
    for name in ("a", "b"):
        await chat(model="Milo", messages=[{"role": "user", "content": "Last"}], extra_headers={pin: name})
        told = users(fake.visits[-1])
        assert told[:2] == [f"In {name}", f"More in {name}"]
        assert told[2:] == (["Last"] if name == "a" else ["On in b", "Last"])


@requirement("responses.references")
async def test_items_of_an_agents_one_thread_are_known_too(client: AsyncOpenAI, fake: FakeLetta) -> None:
    first = await create(client, "One", model="Milo:single")
    told = [
        {"role": "user", "content": "One"},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "Two"},
    ]
    await create(client, told, model="Milo:single")
    assert users(fake.visits[-1]) == ["One", "Two"]


@requirement("responses.references", "responses.retrieve")
@pytest.mark.parametrize("case", ["a history from elsewhere", "after what was cut short", "a repetition"])
async def test_items_of_the_input_stand_for_what_they_say(client: AsyncOpenAI, fake: FakeLetta, case: str) -> None:
    match case:
        case "a history from elsewhere":
            told = [message("user", "Old"), message("assistant", "Older"), message("user", "New")]
            made = await create(client, told)
        case "after what was cut short":
            made = await create(client, "New", previous_response_id=(await cut(client, fake, "cancelled", None)).id)
        case _:
            made = [await create(client, "New", extra_headers={"Idempotency-Key": "one"}) for _ in range(2)][1]
    items = [item async for item in client.responses.input_items.list(made.id, order="asc")]
    assert items
    for item in items:
        (part,) = item.content  # type: ignore[union-attr]
        await create(client, [{"type": "item_reference", "id": item.id}, message("user", "And?")])
        assert [text for _, text in heard(fake.visits[-1])] == [part.text, "And?"]  # type: ignore[union-attr]
