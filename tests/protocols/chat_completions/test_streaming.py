"""How a reply comes over the wire: chunks, headers, reasoning, usage; and that streamed and plain say the same."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.testing import TABLE, ScriptedModel
from tests.protocols.chat_completions.asking import PIN, Chat, function, heard
from tests.protocols.conftest import Serve
from tests.requirements import requirement
from tests.served import Served

TOOLS = [function("get_weather"), function("get_time")]


async def raw(gateway: Served, said: str, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
    """The answer as it came over the wire."""
    body = {"model": "Milo", "messages": [{"role": "user", "content": said}], "stream": True, **fields}
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(gateway.url + path, json=body)


def payloads(response: httpx.Response) -> list[str]:
    """The `data` of each event; every event has nothing else."""
    assert response.text.endswith("\n\n")
    events = response.text[:-2].split("\n\n")
    assert all(event.startswith("data: ") and "\n" not in event for event in events), response.text
    return [event.removeprefix("data: ") for event in events]


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    *chunks, done = payloads(response)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


# --- chunks ------------------------------------------------------------------------------------------------------


@requirement("chat.stream.order", "chat.stream.frames")
@pytest.mark.parametrize(
    "script", ["@say Hello.", "@think hm\n@say Hello.", "@empty", "@call get_weather {}", "@long 300"]
)
async def test_a_stream_has_the_role_first_one_finish_last_and_one_head(
    gateway: Served, milo: str, script: str
) -> None:
    chunks = chunks_of(await raw(gateway, script, tools=TOOLS))
    heads = {(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}
    assert len(heads) == 1
    ((reply_id, created, model, kind),) = heads
    assert (reply_id.startswith("chatcmpl-"), created > 1_700_000_000, model, kind) == (
        True,
        True,
        milo,
        "chat.completion.chunk",
    )
    assert chunks[0]["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert len(choices) == len(chunks)
    assert all(choice["index"] == 0 and choice["logprobs"] is None for choice in choices)
    assert all("role" not in choice["delta"] for choice in choices[1:])
    assert all(len(choice["delta"]) == 1 for choice in choices[1:-1])
    finish = "tool_calls" if "@call" in script else "stop"
    assert choices[-1] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)


@requirement("chat.stream.usage")
async def test_usage_comes_in_a_chunk_of_its_own_when_it_is_asked_for(gateway: Served, milo: str) -> None:
    script = "@usage 100 20 64 7\n@say Hello."
    without = chunks_of(await raw(gateway, script))
    with_usage = chunks_of(await raw(gateway, script, stream_options={"include_usage": True}))
    assert all("usage" not in chunk for chunk in without)
    assert all(chunk["usage"] is None for chunk in with_usage[:-1])
    assert with_usage[-1]["choices"] == []
    assert with_usage[-1]["usage"] == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }
    assert all(chunk["choices"] for chunk in without)


@requirement("chat.headers")
async def test_the_head_of_a_stream(gateway: Served, milo: str) -> None:
    headers = (await raw(gateway, "@say Hello.")).headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers
    assert "content-encoding" not in headers
    check_own_headers(headers)


@requirement("chat.headers")
async def test_the_head_of_a_plain_reply(gateway: Served, milo: str) -> None:
    response = await raw(gateway, "@say Hello.", stream=False)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.content))
    check_own_headers(response.headers)


def check_own_headers(headers: httpx.Headers) -> None:
    assert headers["x-request-id"].startswith("req_")
    assert headers["x-frontdesk-turn"].startswith("turn_")
    assert headers[PIN].startswith("conv_")
    assert headers["x-frontdesk-identity"] == "new"
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["openai-version"] == "2020-10-01"
    assert "x-frontdesk-ignored-params" not in headers
    assert "set-cookie" not in headers


@requirement("chat.headers")
async def test_the_clients_own_request_id_comes_back_beside_ours(chat: Chat) -> None:
    answer = await chat.ask("@say Hello.", headers={"X-Client-Request-Id": "mine-1"})
    assert answer.headers["x-client-request-id"] == "mine-1"
    assert answer.headers["x-request-id"] != "mine-1"


@requirement("chat.paths")
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/chat/completions/", "/chat/completions", "/chat/completions/"]
)
async def test_the_path_may_lack_v1_and_end_in_a_slash(gateway: Served, milo: str, path: str) -> None:
    response = await raw(gateway, "@say Hello.", path, stream=False)
    assert response.json()["choices"][0]["message"]["content"] == "Hello."


async def test_the_stream_comes_while_the_agent_speaks(chat: Chat, model: ScriptedModel, marker: str) -> None:
    stream = await chat.client.chat.completions.create(
        model=chat.agent, messages=[{"role": "user", "content": f"@say {marker}\n@pace 0.05\n@long 600"}], stream=True
    )
    said = ""
    async for chunk in stream:
        said += chunk.choices[0].delta.content or ""
        if marker in said:
            break
    assert [request.outcome for request in model.requests_with(marker)] == ["playing"]
    await stream.close()


@requirement("chat.stream.helpers")
async def test_the_stream_helper_of_the_official_client_ends_well(client: AsyncOpenAI, milo: str) -> None:
    tools: Any = [function("get_weather", {"type": "object", "properties": {"city": {"type": "string"}}})]
    said: Any = [{"role": "user", "content": '@think hm\n@say Well,\n@call get_weather {"city": "Oslo"}'}]
    async with client.chat.completions.stream(model=milo, messages=said, tools=tools) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    assert {"content.delta", "content.done", "tool_calls.function.arguments.done"} <= kinds
    calls = final.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["get_weather"]
    assert (final.choices[0].message.content, final.choices[0].finish_reason) == ("Well,", "tool_calls")


# --- streamed and plain ------------------------------------------------------------------------------------------

MEMORY = """\
@think I note it.
@call memory_insert {"label": "human", "new_string": "Likes tea.", "insert_line": -1}
@then
@think Noted.
@say Done."""

SCRIPTS = {
    "say": "@say Hello.",
    "think": "@think One.\n@think Two.\n@say Three.",
    "table": "@table",
    "long": "@long 2000",
    "call": '@call get_weather {"city": "Zürich \\"x\\""}',
    "no arguments": "@call get_time",
    "text and call": "@think hm\n@say Let me look.\n@call get_weather {}",
    "parallel calls": '@call get_weather {"city": "Paris"}\n@call get_time {}\n@call get_weather {"city": "Rome"}',
    "broken arguments": "@badjson get_weather",
    "own tool": MEMORY,
    "own tool that fails": '@call memory_insert {"label": "nothing", "new_string": "x"}\n@then\n@say It failed.',
    "unknown tool": "@call nobody_has_this {}\n@then\n@say It failed.",
    "two messages": '@say First.\n@call memory_insert {"label": "nothing", "new_string": "x"}\n@then\n@say Second.',
    "length": "@say Cut\n@finish length",
    "content filter": "@say Cut\n@finish content_filter",
    "empty": "@empty",
    "thought only": "@think hm",
    "refusal": "@refuse No.",
    "usage": "@usage 100 20 64 7\n@say Hello.",
}


@pytest.fixture(scope="module")
def scratch(make_agent: Callable[..., Any]) -> Any:
    """An agent whose memory tests may change."""
    return make_agent()


@requirement("chat.equal")
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_streamed_and_plain_replies_say_the_same(client: AsyncOpenAI, scratch: Any, script: str) -> None:
    chat = Chat(client, scratch.name)
    plain = await chat.ask(script, tools=TOOLS)
    streamed = await chat.ask(script, tools=TOOLS, stream=True, stream_options={"include_usage": True})
    nameless = [[(call.name, call.arguments) for call in answer.calls] for answer in (plain, streamed)]
    # What the memory holds, the tool repeats: the second time there is one line more.
    texts = [{name: text.replace("\nLikes tea.", "") for name, text in a.fields.items()} for a in (plain, streamed)]
    assert texts[0] == texts[1]
    assert nameless[0] == nameless[1]
    assert plain.finish == streamed.finish
    assert plain.usage
    assert streamed.usage
    assert plain.usage.completion_tokens == streamed.usage.completion_tokens


@requirement("chat.text.exact")
async def test_a_reply_is_exactly_what_the_model_said(chat: Chat) -> None:
    assert (await chat.ask("@table", stream=True)).text == TABLE
    words = (await chat.ask("@long 2000", stream=True)).text.split()
    assert words == [f"word{number}" for number in range(1, 2001)]


@requirement("chat.messages.apart")
async def test_two_messages_of_one_turn_do_not_run_together(chat: Chat) -> None:
    assert (await chat.ask(SCRIPTS["two messages"], stream=True)).text == "First.\n\nSecond."


@requirement("chat.empty")
async def test_an_empty_answer_ends_normally(chat: Chat) -> None:
    answer = await chat.ask("@empty", stream=True)
    assert (answer.fields, answer.calls, answer.finish) == ({}, (), "stop")


@requirement("chat.finish.length")
async def test_a_reply_cut_at_the_token_limit_says_stop(chat: Chat) -> None:
    assert (await chat.ask("@say Cut\n@finish length")).finish == "stop"


@requirement("chat.finish.content-filter")
async def test_a_filtered_reply_says_stop(chat: Chat) -> None:
    assert (await chat.ask("@say Cut\n@finish content_filter")).finish == "stop"


@requirement("chat.refusal")
async def test_a_refusal_is_an_empty_answer(chat: Chat) -> None:
    answer = await chat.ask("@refuse No.")
    assert (answer.fields, answer.finish) == ({}, "stop")


# --- reasoning ---------------------------------------------------------------------------------------------------

THOUGHT = "@think Let me see.\n@say Hello."


@requirement("chat.reasoning")
@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_has_a_field_of_its_own(chat: Chat, stream: bool) -> None:
    answer = await chat.ask(THOUGHT, stream=stream)
    assert answer.fields == {"content": "Hello.", "reasoning_content": "Let me see."}


@requirement("chat.reasoning.field")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("reasoning_content", {"content": "Hello.", "reasoning_content": "Let me see."}),
        ("reasoning", {"content": "Hello.", "reasoning": "Let me see."}),
        ("both", {"content": "Hello.", "reasoning_content": "Let me see.", "reasoning": "Let me see."}),
        ("think", {"content": "<think>Let me see.</think>\n\nHello."}),
        ("off", {"content": "Hello."}),
    ],
)
async def test_the_field_of_reasoning_can_be_chosen(
    serve: Serve, milo: str, field: str, fields: dict[str, str], stream: bool
) -> None:
    async with serve(reasoning_field=field).client() as client:
        answer = await Chat(client, milo).ask(THOUGHT, stream=stream)
    assert answer.fields == fields


@requirement("chat.reasoning.own-tools", "tools.own-never-asked")
@pytest.mark.parametrize("stream", [False, True])
async def test_the_agents_own_tools_show_in_the_reasoning_and_do_their_work(
    client: AsyncOpenAI, make_agent: Callable[..., Any], letta_api: Letta, stream: bool
) -> None:
    agent = make_agent()
    fact = f"Likes {uuid.uuid4().hex}."
    call = json.dumps({"label": "human", "new_string": fact, "insert_line": -1})
    script = f"@think I note it.\n@call memory_insert {call}\n@then\n@think Noted.\n@say Done."
    answer = await Chat(client, agent.name).ask(script, stream=stream, tools=TOOLS)
    assert (answer.text, answer.calls, answer.finish) == ("Done.", (), "stop")
    blocks = {block.label: block.value for block in letta_api.agents.blocks.list(agent_id=agent.id)}
    assert fact in blocks["human"]
    assert answer.reasoning == (
        f"I note it.\n\n[memory_insert] {call}\n[memory_insert] done: Nothing is known yet.\n{fact}\n\nNoted."
    )


@requirement("chat.reasoning.own-tools")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_of_the_agents_own_tool_shows_as_one(chat: Chat, stream: bool) -> None:
    answer = await chat.ask(SCRIPTS["own tool that fails"], stream=stream)
    assert "[memory_insert] failed: " in answer.reasoning
    assert (answer.text, answer.finish) == ("It failed.", "stop")


@requirement("chat.reasoning.own-tools")
@pytest.mark.parametrize("stream", [False, True])
async def test_the_agents_own_tools_can_be_kept_out_of_sight(serve: Serve, scratch: Any, stream: bool) -> None:
    async with serve(tool_activity="off").client() as client:
        answer = await Chat(client, scratch.name).ask(MEMORY, stream=stream)
    assert answer.fields == {"content": "Done.", "reasoning_content": "I note it.\n\nNoted."}


async def test_reasoning_is_not_given_back_to_the_agent(chat: Chat, model: ScriptedModel, marker: str) -> None:
    first = await chat.ask(f"@think secret thought {marker}\n@say {marker}-one")
    sent_back = first.message | {"reasoning_content": first.reasoning, "reasoning": first.reasoning}
    said = [{"role": "user", "content": "hello"}, sent_back, {"role": "user", "content": f"@say {marker}-two"}]
    await chat.ask(said)
    *_, request = model.requests_with(f"{marker}-two")
    assert heard(request) == [("user", "hello"), ("assistant", f"{marker}-one"), ("user", f"@say {marker}-two")]
    assert "secret thought" not in request.json_text


# --- usage -------------------------------------------------------------------------------------------------------


@requirement("chat.usage")
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_the_sum_over_the_steps_of_the_turn(chat: Chat, stream: bool) -> None:
    own_tool = '@call memory_insert {"label": "nothing", "new_string": "x"}'
    said = f"@usage 100 20 64 7\n{own_tool}\n@then\n@usage 300 5 128 2\n@say x"
    answer = await chat.ask(said, stream=stream, stream_options={"include_usage": True})
    assert answer.usage
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 400,
        "completion_tokens": 25,
        "total_tokens": 425,
        "prompt_tokens_details": {"cached_tokens": 192, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 9},
    }
