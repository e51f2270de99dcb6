"""The scripted model, through OpenAI's own client and a real socket."""

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import httpx
import openai
import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from frontdesk.testing import ScriptedModel
from frontdesk.testing.model import Request, main
from frontdesk.testing.play import pieces
from frontdesk.testing.script import (
    TABLE,
    Call,
    Fail,
    Json,
    Pace,
    Say,
    ScriptError,
    StreamError,
    Think,
    Usage,
    Wait,
    city_in,
    memory_of,
    moment,
    parse,
    plan,
    text_of,
)

# --- driving it --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(models=("scripted", "scripted-two")) as model:
        yield model


def connect(model: ScriptedModel) -> AsyncOpenAI:
    """A client; without TLS, whose set-up takes longer than most tests."""
    http = openai.DefaultAsyncHttpxClient(verify=False)
    return AsyncOpenAI(base_url=model.base_url, api_key="any", max_retries=0, http_client=http)


@pytest.fixture
async def client(model: ScriptedModel) -> AsyncIterator[AsyncOpenAI]:
    async with connect(model) as client:
        yield client


Message = dict[str, Any]
Prompt = str | list[Message]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def called(name: str, arguments: str = "{}", call_id: str = "call_1") -> Message:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def result(content: str, call_id: str = "call_1") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def tool(name: str, **properties: Json) -> Json:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


def body(prompt: Prompt, **fields: Any) -> Json:
    messages = [user(prompt)] if isinstance(prompt, str) else prompt
    return {"model": "scripted", "messages": messages, **fields}


async def ask(client: AsyncOpenAI, prompt: Prompt, **fields: Any) -> ChatCompletion:
    return cast("ChatCompletion", await client.chat.completions.create(**body(prompt, **fields)))


async def begin(client: AsyncOpenAI, prompt: Prompt, **fields: Any) -> AsyncStream[ChatCompletionChunk]:
    return cast(
        "AsyncStream[ChatCompletionChunk]", await client.chat.completions.create(**body(prompt, stream=True, **fields))
    )


async def stream(client: AsyncOpenAI, prompt: Prompt, **fields: Any) -> list[ChatCompletionChunk]:
    options = {"stream_options": {"include_usage": True}, **fields}
    return [chunk async for chunk in await begin(client, prompt, **options)]


async def hear(client: AsyncOpenAI, prompt: Prompt, heard: list[str]) -> None:
    """Stream into a list, which holds what came before an error."""
    async for chunk in await begin(client, prompt):
        heard.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 - extend() would lose them all on an error


async def say(client: AsyncOpenAI, prompt: Prompt, **fields: Any) -> str:
    """The text of the streamed reply, having checked that the plain reply has the same."""
    chunks = await stream(client, prompt, **fields)
    streamed = "".join(text for text in deltas(chunks, "content") if text)
    assert ((await ask(client, prompt, **fields)).choices[0].message.content or "") == streamed
    return streamed


def deltas(chunks: list[ChatCompletionChunk], key: str) -> list[Any]:
    """The values of one field of the deltas, without the empty ones."""
    values = [getattr(chunk.choices[0].delta, key, None) for chunk in chunks if chunk.choices]
    return [value for value in values if value]


def reason(chunks: list[ChatCompletionChunk]) -> str | None:
    return next(chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason)


async def outcome(model: ScriptedModel, marker: str, wanted: str) -> Request:
    """Wait until the request with this marker ends like this."""

    def found(_requests: list[Request]) -> list[Request]:
        return [request for request in model.requests_with(marker) if request.outcome == wanted]

    return (await asyncio.to_thread(model.wait_for, found, 5))[0]


# --- reading scripts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("@say Hello, you!", Say("Hello, you!")),
        ('@say "a\\nb  "', Say("a\nb  ")),
        ("@say", Say("")),
        ("@say with a return\r", Say("with a return")),
        ("@think hm", Think("hm")),
        ('@call f {"a": [1,  2]}', Call("f", '{"a": [1,  2]}')),
        ("@call f", Call("f", "{}")),
        ("@badjson f", Call("f", '{"city": "Par')),
        ("@slow 0.5", Wait(0.5)),
        ("@pace 1e-3", Pace(0.001)),
        ("@error oh no", StreamError("oh no")),
        ("@fail 500", Fail(500)),
        ("@fail 429 insufficient_quota", Fail(429, "insufficient_quota")),
        (
            "@fail 429 retry-after=2 should-retry=false",
            Fail(429, "", (("Retry-After", "2"), ("x-should-retry", "false"))),
        ),
        ("@fail-times 2 503", Fail(503, times=2)),
        ("@usage 1 2", Usage(1, 2)),
        ("@usage 1 2 3 4", Usage(1, 2, 3, 4)),
    ],
)
def test_a_directive_reads_as_a_step(line: str, step: object) -> None:
    assert parse(line) == ((step,),)


@pytest.mark.parametrize(
    "line",
    [
        "@sya hello",
        '@say "open',
        '@say "one" two',
        "@call",
        '@call {"a": 1}',
        "@call f [1]",
        "@call f {oops",
        "@badjson",
        "@slow soon",
        "@slow -1",
        "@pace nan",
        "@long many",
        "@fail",
        "@fail 200",
        "@fail 429 a b",
        "@fail 429 colour=red",
        "@fail-times x 500",
        "@say too late\n@fail 500",
        "@usage 1",
        "@finish",
        "@table please",
        "@echo please",
        "@then please",
    ],
)
async def test_a_directive_that_cannot_be_read_is_told_in_the_reply(client: AsyncOpenAI, line: str) -> None:
    with pytest.raises(ScriptError):
        parse(line)
    reply = await say(client, line)
    assert reply.startswith("script error: ")
    assert line.split("\n")[-1].split(" ")[0] in reply


@pytest.mark.parametrize(
    "text", ["Hello!", "", "mail me @ home", "x@say.com", " @say indented", "@Ada hello", "@@say hello"]
)
def test_text_without_a_directive_is_no_script(text: str) -> None:
    assert parse(text) is None


def test_two_at_signs_escape_a_directive() -> None:
    assert parse("@echo\n@@property\ndef f(): ...") == ((Say("@property\ndef f(): ..."),),)


def test_then_begins_a_new_stage() -> None:
    assert parse("@call f\n@then\n@say a\n@say b\n@then\n@empty") == ((Call("f", "{}"),), (Say("a"), Say("b")), ())


# --- saying ------------------------------------------------------------------------------------------------------


async def test_what_is_said_arrives_token_by_token_and_whole(client: AsyncOpenAI) -> None:
    chunks = await stream(client, "@say Hello there, \\n is not a newline.")
    assert len(deltas(chunks, "content")) > 10
    assert "".join(deltas(chunks, "content")) == "Hello there, \\n is not a newline."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert reason(chunks) == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


async def test_steps_play_in_order(client: AsyncOpenAI) -> None:
    chunks = await stream(client, "@think Hm.\n@say A\n@think Ah.\n@say B")
    dumps = [chunk.choices[0].delta.model_dump(exclude_none=True) for chunk in chunks if chunk.choices]
    order = [key for delta in dumps for key, value in delta.items() if value and key != "role"]
    kinds = [key for index, key in enumerate(order) if index == 0 or order[index - 1] != key]
    assert kinds == ["reasoning_content", "content", "reasoning_content", "content"]


async def test_reasoning_is_part_of_streamed_and_plain_replies(client: AsyncOpenAI) -> None:
    script = "@think Let me see.\n@say Yes."
    assert "".join(deltas(await stream(client, script), "reasoning_content")) == "Let me see."
    message = (await ask(client, script)).choices[0].message
    assert (message.content, getattr(message, "reasoning_content", None)) == ("Yes.", "Let me see.")


async def test_the_table_arrives_byte_for_byte(client: AsyncOpenAI) -> None:
    assert await say(client, "@table") == TABLE


def test_text_is_cut_inside_emoji_escapes_and_frames() -> None:
    cut = pieces(TABLE)
    assert "".join(cut) == TABLE
    assert {"\u200d", "👩", "\\", '"', "\n", "\t", "[", "<"} <= set(cut)


def test_a_very_long_text_has_larger_pieces() -> None:
    text = "One, two. " * 10_000
    assert len(pieces(text)) <= 2_000
    assert "".join(pieces(text)) == text


async def test_echo_repeats_the_other_lines_exactly(client: AsyncOpenAI) -> None:
    text = '  two  spaces\n\n"quoted" \\n 漢字\u200d\n'
    assert await say(client, f"@pace 0\n{text}\n@echo") == f"{text}"


async def test_half_a_surrogate_pair_does_no_harm(client: AsyncOpenAI) -> None:
    assert await say(client, '@say "a\\ud83db"') == "a?b"


async def test_long_text_is_numbered_words_one_per_token(client: AsyncOpenAI) -> None:
    chunks = await stream(client, "@long 2500")
    words = "".join(deltas(chunks, "content")).split(" ")
    assert (len(deltas(chunks, "content")), words[0], words[-1]) == (2500, "word1", "word2500")


async def test_list_shows_the_messages_and_tools_the_names(client: AsyncOpenAI) -> None:
    messages = [{"role": "system", "content": "Be kind."}, user("Hi"), called("f"), result("1"), user("@list")]
    shown = json.loads(await say(client, messages))
    assert shown == [{key: value for key, value in message.items() if value is not None} for message in messages]
    assert json.loads(await say(client, "@tools", tools=[tool("b"), tool("a")])) == ["a", "b"]
    assert json.loads(await say(client, "@tools")) == []


async def test_a_reply_can_be_empty_or_a_refusal_or_cut_short(client: AsyncOpenAI) -> None:
    assert await say(client, "@empty") == ""
    chunks = await stream(client, "@refuse No way.")
    assert "".join(deltas(chunks, "refusal")) == "No way."
    assert (await ask(client, "@refuse No way.")).choices[0].message.refusal == "No way."
    assert reason(await stream(client, "@say I was goi\n@finish length")) == "length"
    assert (await ask(client, "@say …\n@finish content_filter")).choices[0].finish_reason == "content_filter"


# --- calling tools -----------------------------------------------------------------------------------------------


async def test_calls_are_parallel_and_their_arguments_come_in_pieces(client: AsyncOpenAI) -> None:
    script = '@say Calling.\n@call f {"city": "São \\"Paulo\\""}\n@call g'
    chunks = await stream(client, script)
    calls = [call for part in deltas(chunks, "tool_calls") for call in part]
    arguments = ["".join(call.function.arguments for call in calls if call.index == index) for index in (0, 1)]
    assert [call.function.name for call in calls if call.id] == ["f", "g"]
    assert arguments == ['{"city": "São \\"Paulo\\""}', "{}"]
    assert len(calls) > 10
    assert reason(chunks) == "tool_calls"
    choice = (await ask(client, script)).choices[0]
    plain = [call.function for call in choice.message.tool_calls or () if call.type == "function"]
    assert [(function.name, function.arguments) for function in plain] == [("f", arguments[0]), ("g", "{}")]
    assert choice.finish_reason == "tool_calls"


async def test_arguments_can_be_no_json(client: AsyncOpenAI) -> None:
    call = ((await ask(client, "@badjson f")).choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    with pytest.raises(ValueError):
        json.loads(call.function.arguments)


async def test_each_round_of_tool_results_plays_the_next_stage(client: AsyncOpenAI) -> None:
    messages = [user("@call f\n@then\n@call g\n@then\n@say All done.")]
    messages += [called("f"), result("one")]
    assert ((await ask(client, messages)).choices[0].message.tool_calls or [])[0].id.startswith("call_")
    messages += [called("g"), result("two")]
    assert await say(client, messages) == "All done."


async def test_without_a_then_the_last_results_are_told(client: AsyncOpenAI) -> None:
    messages = [user("@call f\n@call g"), called("f"), result("one"), result('{"n": 2}', "call_2")]
    assert await say(client, messages) == 'Tool results: one | {"n": 2}'


# --- finding the script ------------------------------------------------------------------------------------------

ALERT = user('{"type": "system_alert", "message": "@say wrong", "time": "now"}')
PING = user("<system-alert>Automated keep-alive ping.</system-alert>")


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([user("@say old"), {"role": "assistant", "content": "old"}, user("Hello")], "Hello"),
        ([user("@say now"), ALERT], "@say now"),
        ([user("Hello"), PING], "Hello"),
        ([user("@say now"), {"role": "system", "content": "x"}, user("and some context")], "@say now"),
        ([user('{"type": "user_message", "message": "@say packed", "time": "now"}')], "@say packed"),
        ([user("@call f"), called("f"), result("1"), ALERT], "@call f"),
        ([user("@call f"), called("f"), result("1"), user("Never mind.")], "Never mind."),
        ([{"role": "user", "content": [{"type": "text", "text": "@say parts"}, {"type": "image_url"}]}], "@say parts"),
        ([{"role": "system", "content": "x"}], ""),
    ],
)
def test_the_prompt_is_what_the_user_said_last(messages: list[Message], prompt: str) -> None:
    assert moment(messages).prompt == prompt


def test_rounds_are_counted_since_the_prompt_across_lettas_own_messages() -> None:
    messages = [user("@call f"), called("f"), result("1"), ALERT, called("g", '{"a": 1}'), result("2"), PING]
    now = moment(messages)
    assert (now.rounds, now.calls, now.results) == (2, (("g", {"a": 1}),), ("2",))


@pytest.mark.parametrize(
    "messages",
    [
        [
            {
                "role": "system",
                "content": "The following messages are being evicted from the BEGINNING of your context…",
            },
            user("user: @say wrong\n@fail 500"),
        ],
        [
            user("@say x"),
            {"role": "assistant", "content": "x"},
            user("Your task is to create a detailed summary of the conversation so far. Do NOT …"),
        ],
    ],
)
async def test_lettas_summarisers_get_a_summary(client: AsyncOpenAI, messages: list[Message]) -> None:
    assert await say(client, messages) == "Summary."


SUMMARISE = {"role": "system", "content": "The following messages are being evicted from the BEGINNING of your context"}


@pytest.mark.parametrize(
    "request_to_summarise",
    [
        [
            SUMMARISE,
            user(
                "<start_transcript>\n[MessageRole.user] Hi\n[assistant] Hi!\n[user] @say a\n@say b\n<end_transcript>\n."
            ),
        ],
        [
            user("@say a\n@say b"),
            {"role": "assistant", "content": "I understand. Let me summarize."},
            user("The previous messages are being evicted from the BEGINNING of your context window. Write a …"),
        ],
    ],
)
async def test_a_script_nobody_answered_survives_compaction(
    client: AsyncOpenAI, request_to_summarise: list[Message]
) -> None:
    summary = await say(client, request_to_summarise)
    alert = {"type": "system_alert", "message": f"Note: messages are hidden. A summary:\n {summary}", "time": "now"}
    compacted = [{"role": "system", "content": "Be kind."}, user(json.dumps(alert))]
    assert moment(compacted).prompt == "@say a\n@say b"
    assert await say(client, compacted) == "ab"
    assert moment([*compacted, user("Hello")]).prompt == "Hello"
    again = f"<start_transcript>\n[user] {json.dumps(alert, indent=2)}\n<end_transcript>\n. Generate the summary."
    assert await say(client, [SUMMARISE, user(again)]) == summary


# --- time --------------------------------------------------------------------------------------------------------


async def test_slow_waits_before_the_first_byte_and_between_steps(client: AsyncOpenAI) -> None:
    started = time.monotonic()
    reply = await client.chat.completions.create(**body("@slow 0.1\n@say a\n@slow 0.1\n@say b"), stream=True)
    opened = time.monotonic()
    arrivals = {chunk.choices[0].delta.content: time.monotonic() async for chunk in reply}
    assert opened - started >= 0.1
    assert arrivals["b"] - arrivals["a"] >= 0.09


async def test_pace_is_the_time_between_tokens() -> None:
    with ScriptedModel(pace_seconds=0.02) as model:
        async with connect(model) as client:
            started = time.monotonic()
            await stream(client, "@long 5")
            assert time.monotonic() - started >= 0.1
            started = time.monotonic()
            await stream(client, "@pace 0\n@long 500")
            assert time.monotonic() - started < 5


async def test_many_streams_at_once_stay_apart(model: ScriptedModel) -> None:
    async with connect(model) as client:
        replies = await asyncio.gather(*(stream(client, f"@pace 0.01\n@say stream {n}") for n in range(100)))
    assert ["".join(deltas(chunks, "content")) for chunks in replies] == [f"stream {n}" for n in range(100)]


# --- failing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "error", "status", "code"),
    [
        ("@fail 429", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("@fail 429 insufficient_quota", openai.RateLimitError, 429, "insufficient_quota"),
        ("@fail 401", openai.AuthenticationError, 401, "invalid_api_key"),
        ("@fail 400", openai.BadRequestError, 400, None),
        ("@fail 400 context_length_exceeded", openai.BadRequestError, 400, "context_length_exceeded"),
        ("@fail 404", openai.NotFoundError, 404, "model_not_found"),
        ("@fail 500", openai.InternalServerError, 500, None),
        ("@fail 503 overloaded", openai.InternalServerError, 503, "overloaded"),
        ("@fail 418 teapot", openai.APIStatusError, 418, "teapot"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
async def test_fail_is_an_http_error_in_openais_words(
    client: AsyncOpenAI, script: str, error: type[openai.APIStatusError], status: int, code: str | None, streaming: bool
) -> None:
    with pytest.raises(error) as info:
        await client.chat.completions.create(**body(script, stream=streaming))
    assert (info.value.status_code, info.value.code) == (status, code)
    assert "retry-after" not in info.value.response.headers


async def test_a_long_context_fails_in_openais_very_words(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"This model's maximum context length is 128000 tokens\. "):
        await ask(client, "@fail 400 context_length_exceeded")


async def test_a_failure_can_say_when_to_come_back(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as info:
        await ask(client, "@fail 429 retry-after=7 should-retry=false")
    headers = info.value.response.headers
    assert (headers["retry-after"], headers["x-should-retry"]) == ("7", "false")


async def test_fail_times_fails_and_then_plays_on(client: AsyncOpenAI) -> None:
    script = "@fail-times 2 500\n@say At last (fail-times)."
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await ask(client, script)
    assert await say(client, script) == "At last (fail-times)."


async def test_an_error_in_mid_stream_comes_after_the_text_before_it(client: AsyncOpenAI, model: ScriptedModel) -> None:
    said: list[str] = []
    with pytest.raises(openai.APIError, match="overheated"):
        await hear(client, "@say half a\n@error overheated", said)
    assert "".join(said) == "half a"
    with pytest.raises(openai.InternalServerError, match="overheated"):
        await ask(client, "@say half a\n@error overheated")
    assert [request.outcome for request in model.requests_with("overheated")] == ["failed", "failed"]


async def test_break_closes_the_connection(client: AsyncOpenAI, model: ScriptedModel) -> None:
    said: list[str] = []
    with pytest.raises(openai.APIConnectionError):
        await hear(client, "@say snap\n@break", said)
    assert "".join(said) == "snap"
    with pytest.raises(openai.APIConnectionError):
        await ask(client, "@break\nsnap")
    assert [request.outcome for request in model.requests_with("snap")] == ["broken", "broken"]


async def test_hang_is_silent_until_the_client_goes_away(client: AsyncOpenAI, model: ScriptedModel) -> None:
    reply = await begin(client, "@say well\n@hang")
    said = [(await anext(reply)).choices[0].delta.content for _ in range(2)]
    assert said == ["", "well"]
    await outcome(model, "@say well\n@hang", "playing")
    await reply.close()
    await outcome(model, "@say well\n@hang", "gone")


async def test_a_client_that_goes_away_in_mid_stream_is_noticed(client: AsyncOpenAI, model: ScriptedModel) -> None:
    reply = await begin(client, "@pace 0.01\n@long 10000\nleaving")
    await anext(reply)
    await reply.close()
    await outcome(model, "leaving", "gone")


async def test_stopping_does_not_wait_for_hanging_streams() -> None:
    with ScriptedModel() as model:
        async with connect(model) as client:
            reply = await begin(client, "@hang")
            await anext(reply)
            started = time.monotonic()
            await asyncio.to_thread(model.stop)
            assert time.monotonic() - started < 2
            with pytest.raises(openai.APIConnectionError):
                await anext(reply)


# --- counting ----------------------------------------------------------------------------------------------------


async def test_usage_is_derived_or_as_told(client: AsyncOpenAI) -> None:
    usage = (await stream(client, "@think a b\n@say c d e"))[-1].usage
    assert usage
    assert usage.completion_tokens_details
    assert (usage.completion_tokens, usage.completion_tokens_details.reasoning_tokens) == (5, 2)
    assert usage.prompt_tokens > 0
    told = (await ask(client, "@say x\n@usage 100 20 64 7")).usage
    assert told
    assert told.prompt_tokens_details
    assert told.completion_tokens_details
    assert (told.prompt_tokens, told.completion_tokens, told.total_tokens) == (100, 20, 120)
    assert (told.prompt_tokens_details.cached_tokens, told.completion_tokens_details.reasoning_tokens) == (64, 7)


async def test_a_stream_reports_usage_only_if_asked(client: AsyncOpenAI) -> None:
    chunks = await stream(client, "@say x", stream_options=None)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert not (await stream(client, "@say x"))[-1].choices


# --- looking at requests -----------------------------------------------------------------------------------------


async def test_requests_are_recorded_whole(client: AsyncOpenAI, model: ScriptedModel) -> None:
    await ask(client, "@say ok\nmarker-“recorded”", tools=[tool("f")], temperature=0.5)
    (request,) = model.requests_with("marker-“recorded”")
    assert request.messages == [user("@say ok\nmarker-“recorded”")]
    assert request.texts == ["@say ok\nmarker-“recorded”"]
    assert request.tool_names == ["f"]
    assert request.tools[0]["type"] == "function"
    assert (request.body["temperature"], request.headers["authorization"]) == (0.5, "Bearer any")
    assert request.outcome == "finished"
    assert model.requests_with("ok\nmarker-“") == [request]
    assert model.requests_with("no such marker") == []


async def test_waiting_for_a_request_ends_when_it_comes(client: AsyncOpenAI, model: ScriptedModel) -> None:
    waiting = asyncio.create_task(outcome(model, "marker-awaited", "finished"))
    await asyncio.sleep(0)
    await ask(client, "@say ok\nmarker-awaited")
    assert (await waiting).texts == ["@say ok\nmarker-awaited"]


def test_waiting_in_vain_says_what_was_there(model: ScriptedModel) -> None:
    with pytest.raises(TimeoutError, match="the latest requests are"):
        model.wait_for(lambda requests: len(requests) > 1_000_000, timeout=0.01)


async def test_another_process_can_look_at_requests() -> None:
    with ScriptedModel(max_requests=2) as model:
        async with (
            connect(model) as client,
            httpx.AsyncClient(base_url=model.base_url.removesuffix("/v1")) as http,
        ):
            for name in ("a", "b", "c"):
                await ask(client, f"@say {name}")
            data = (await http.get("/_requests")).json()["data"]
            assert [(entry["number"], entry["outcome"]) for entry in data] == [(2, "finished"), (3, "finished")]
            assert data[0]["body"]["messages"] == [user("@say b")]
            marked = (await http.get("/_requests", params={"marker": "@say c"})).json()["data"]
            assert [entry["number"] for entry in marked] == [3]
            assert (await http.delete("/_requests")).status_code == 204
            assert model.requests == []


async def test_models_are_listed_and_other_paths_are_not_found(client: AsyncOpenAI) -> None:
    assert [entry.id async for entry in client.models.list()] == ["scripted", "scripted-two"]
    with pytest.raises(openai.NotFoundError, match="POST /v1/responses"):
        await client.responses.create(model="scripted", input="hello")


@pytest.mark.parametrize("raw", [b"{", b"[]", b"{}", b'{"messages": []}', b'{"messages": ["x"]}'])
async def test_a_request_without_messages_is_a_400(model: ScriptedModel, raw: bytes) -> None:
    async with httpx.AsyncClient() as http:
        response = await http.post(f"{model.base_url}/chat/completions", content=raw)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_taken_port_is_an_error(model: ScriptedModel) -> None:
    with pytest.raises(OSError, match="address already in use"):
        ScriptedModel(model.port).start()


async def test_it_runs_from_a_shell() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ("-W", "error", "-m", "frontdesk.testing", "--port", str(port), "--model", "mine")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout
        assert f"http://127.0.0.1:{port}/v1" in (await process.stdout.readline()).decode()
        async with httpx.AsyncClient() as http:
            models = (await http.get(f"http://127.0.0.1:{port}/v1/models")).json()
        assert [entry["id"] for entry in models["data"]] == ["mine"]
    finally:
        process.terminate()
        await process.wait()


def test_its_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--port" in capsys.readouterr().out


# --- talking naturally -------------------------------------------------------------------------------------------

WEATHER = tool("get_weather", city={"type": "string"}, unit={"type": "string", "enum": ["celsius", "fahrenheit"]})
HUMAN = "<memory_blocks>\n<human>\n<metadata>\n- x\n</metadata>\n<value>\n{}\n</value>\n</human>\n</memory_blocks>"


def planned(prompt: Prompt, *tools: Json) -> tuple[object, ...]:
    return plan(body(prompt, tools=list(tools)))


def last_call(prompt: Prompt, *tools: Json) -> tuple[str, Json]:
    step = planned(prompt, *tools)[-1]
    assert isinstance(step, Call)
    return step.name, json.loads(step.arguments)


def last_words(prompt: Prompt, *tools: Json) -> str:
    step = planned(prompt, *tools)[-1]
    assert isinstance(step, Say)
    return step.text


async def test_a_message_without_a_script_gets_a_friendly_reply(client: AsyncOpenAI) -> None:
    chunks = await stream(client, "Good morning!")
    assert "".join(deltas(chunks, "reasoning_content"))
    reply = "".join(deltas(chunks, "content"))
    assert "scripted model" in reply
    assert "“Good morning!”" in reply


@pytest.mark.parametrize(
    ("text", "city"),
    [
        ("What is the weather in Paris?", "Paris"),
        ("Is it cold in New York today?", "New York"),
        ("Weather in Paris, please", "Paris"),
        ("And in São Paulo? I’m curious.", "São Paulo"),
        ("What's the Weather?", ""),
        ("weather", ""),
    ],
)
def test_the_city_is_the_last_capitalised_name(text: str, city: str) -> None:
    assert city_in(text) == city


def test_the_weather_comes_from_the_clients_tool() -> None:
    question = user("What is the weather in Paris?")
    assert last_call([question], WEATHER) == ("get_weather", {"city": "Paris", "unit": "celsius"})
    packed = json.dumps({"status": "OK", "message": "21 °C and sunny", "time": "now"})
    answered = [question, called("get_weather", '{"city": "Paris"}'), result(packed)]
    assert last_words(answered, WEATHER) == "Here is the weather in Paris: 21 °C and sunny. Enjoy your day!"
    assert last_words("How is the weather?", WEATHER) == "Gladly! For which city?"
    assert "scripted model" in last_words("What is the weather in Paris?")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("memory_insert", {"label": "human", "new_string": "The user's name is Ada Lovelace.", "insert_line": -1}),
        ("core_memory_append", {"label": "human", "content": "The user's name is Ada Lovelace."}),
        (
            "memory",
            {
                "command": "insert",
                "path": "/memories/human",
                "insert_text": "The user's name is Ada Lovelace.",
                "insert_line": -1,
            },
        ),
    ],
)
def test_a_name_goes_to_the_agents_memory(name: str, arguments: Json) -> None:
    introduction = user("Hi, my name is Ada Lovelace and I build engines. Remember my name!")
    assert last_call([introduction], tool("conversation_search"), tool(name)) == (name, arguments)
    done = [
        introduction,
        called(name, json.dumps(arguments)),
        result('{"status": "OK", "message": "…", "time": "now"}'),
    ]
    assert last_words(done) == "I will remember that: The user's name is Ada Lovelace."
    failed = [introduction, called(name), result('{"status": "Failed", "message": "read-only", "time": "now"}')]
    assert last_words(failed) == f"I am sorry, {name} failed: read-only"


def test_what_to_remember_is_written_down() -> None:
    name, arguments = last_call("Please remember that I like tea.", tool("memory_insert"))
    assert (name, arguments["new_string"]) == ("memory_insert", "I like tea.")
    assert last_words("Remember: I like tea") == "Noted, for now: I like tea."


def test_memory_answers_who_the_user_is() -> None:
    system = {"role": "system", "content": HUMAN.format("The user's name is Ada.\nLikes tea.")}
    assert last_words([system, user("What's my name?")]) == "Your name is Ada."
    assert last_words([system, user("What do you remember about me?")]).endswith("The user's name is Ada.\nLikes tea.")
    blank = {"role": "system", "content": HUMAN.format("")}
    assert last_words([blank, user("What is my name?")]).startswith("I do not know your name yet.")
    assert last_words([blank, user("Do you remember me?")]).startswith("I do not know anything")


def test_memory_is_the_human_block_and_what_was_written_since() -> None:
    system = {"role": "system", "content": HUMAN.format("1→ The user's name is Ada.\n2→ Likes tea.")}
    note = called("memory_insert", '{"label": "human", "new_string": "The user\'s name is Grace."}')
    messages = [system, user("My name is Grace"), note, result("ok"), user("Who am I?")]
    assert memory_of(messages) == "The user's name is Ada.\nLikes tea.\nThe user's name is Grace."
    assert last_words(messages) == "Your name is Grace."


def test_a_question_goes_to_the_agent_whose_name_it_has_a_word_of() -> None:
    transfers = (tool("transfer_to_weather"), tool("transfer_to_lost_property"))
    assert last_call("Weather in Paris, please", *transfers) == ("transfer_to_weather", {})
    assert last_call("I have lost my hat.", *transfers) == ("transfer_to_lost_property", {})
    assert last_call("Weather in Paris, please", *transfers, WEATHER)[0] == "get_weather"
    assert "scripted model" in last_words("Good morning!", *transfers)


def test_who_was_handed_the_conversation_answers_and_does_not_hand_it_on() -> None:
    handed = [user("Weather in Paris, please"), called("transfer_to_weather"), result("It is yours now.")]
    assert last_call(handed, WEATHER)[0] == "get_weather"
    assert "scripted model" in last_words(handed, tool("transfer_to_weather"))
    answered = [*handed, called("get_weather", '{"city": "Paris"}'), result("sunny")]
    assert last_words(answered, WEATHER) == "Here is the weather in Paris: sunny. Enjoy your day!"


def test_other_tools_results_are_told() -> None:
    assert last_words([user("Hi"), called("f"), result("one")]) == "Tool results: one"


def test_content_is_text_parts_or_nothing() -> None:
    assert text_of([{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]) == "a\nb"
    assert (text_of("a"), text_of(None)) == ("a", "")
