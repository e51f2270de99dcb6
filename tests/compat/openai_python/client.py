"""OpenAI's client for Python."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

import json
from typing import Any

import openai
from compat import (
    API_KEY,
    BASE_URL,
    CITIES,
    MODEL,
    PICTURE,
    WORDS,
    as_json,
    ask_weather,
    breaking,
    by_itself,
    case,
    equal,
    hello,
    is_true,
    main,
    raised,
    several,
    weather,
    words,
)
from pydantic import BaseModel

client = openai.AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
create = client.chat.completions.create


class Weather(BaseModel):
    city: str
    degrees: int


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"name": "get_weather", "description": "The weather in a city.", "parameters": SCHEMA}
CHAT_TOOLS: Any = [{"type": "function", "function": TOOL}]
TOOLS: Any = [{"type": "function", **TOOL}]


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


# --- Chat Completions --------------------------------------------------------------------------------------------


@case("chat.plain")
async def chat_plain(marker: str) -> None:
    reply = await create(model=MODEL, messages=[user(hello(marker))])
    equal(reply.choices[0].message.content, f"Hello {marker}.")
    equal(reply.choices[0].finish_reason, "stop")
    is_true(reply.usage and reply.usage.total_tokens, "no usage")


@case("chat.stream")
async def chat_stream(marker: str) -> None:
    stream = await create(
        model=MODEL, messages=[user(words(marker))], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    several([c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content], WORDS)
    is_true(chunks[-1].usage and chunks[-1].usage.total_tokens, "no usage in the last chunk")


@case("chat.reasoning")
async def chat_reasoning(marker: str) -> None:
    reply = await create(model=MODEL, messages=[user(hello(marker))])
    equal(getattr(reply.choices[0].message, "reasoning_content", None), "hm")


@case("chat.tool")
async def chat_tool(marker: str) -> None:
    messages = [user(ask_weather(marker, "Paris"))]
    message = (await create(model=MODEL, messages=messages, tools=CHAT_TOOLS)).choices[0].message
    await answer(messages, message, marker)
    reply = await create(model=MODEL, messages=messages, tools=CHAT_TOOLS)
    equal(reply.choices[0].message.content, f"Cold {marker}.")


@case("chat.tool.stream")
async def chat_tool_stream(marker: str) -> None:
    messages = [user(ask_weather(marker, *CITIES))]
    async with client.chat.completions.stream(model=MODEL, messages=messages, tools=CHAT_TOOLS) as stream:
        choice = (await stream.get_final_completion()).choices[0]
    equal(choice.finish_reason, "tool_calls")
    await answer(messages, choice.message, marker)
    async with client.chat.completions.stream(model=MODEL, messages=messages, tools=CHAT_TOOLS) as stream:
        reply = await stream.get_final_completion()
    equal(reply.choices[0].message.content, f"Cold {marker}.")


async def answer(messages: list[Any], message: Any, marker: str) -> None:
    messages.append(message)
    for call in message.tool_calls:
        result = weather(json.loads(call.function.arguments)["city"], marker)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


@case("chat.two-turns")
async def chat_two_turns(marker: str) -> None:
    messages = [user(f"{marker}\n@think hm\n@say One.")]
    messages.append((await create(model=MODEL, messages=messages)).choices[0].message)
    messages.append(user(f"{marker}\n@say Two."))
    equal((await create(model=MODEL, messages=messages)).choices[0].message.content, "Two.")


@case("chat.error")
async def chat_error(marker: str) -> None:
    error = await raised(openai.NotFoundError, create(model="nobody", messages=[user(marker)]))
    equal(error.code, "model_not_found")


@case("chat.own-tool")
async def chat_own_tool(marker: str) -> None:
    messages = [user(by_itself(marker))]
    message = (await create(model=MODEL, messages=messages, tools=CHAT_TOOLS)).choices[0].message
    equal((message.content, message.tool_calls), ("One.", None))
    messages += [message, user(f"{marker}\n@say Two.")]
    equal((await create(model=MODEL, messages=messages)).choices[0].message.content, "Two.")


@case("chat.error.stream")
async def chat_error_stream(marker: str) -> None:
    stream = await create(model=MODEL, messages=[user(breaking(marker))], stream=True)
    await raised(openai.APIError, listened(stream))


async def listened(stream: Any) -> list[Any]:
    return [each async for each in stream]


@case("chat.image")
async def chat_image(marker: str) -> None:
    parts = [{"type": "text", "text": hello(marker)}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    equal((await create(model=MODEL, messages=[user(parts)])).choices[0].message.content, f"Hello {marker}.")


@case("chat.structured")
async def chat_structured(marker: str) -> None:
    reply = await client.chat.completions.parse(model=MODEL, messages=[user(as_json(marker))], response_format=Weather)
    equal(reply.choices[0].message.parsed, Weather(city="Paris", degrees=12))


@case("chat.structured.plain")
async def chat_structured_plain(marker: str) -> None:
    format: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": Weather.model_json_schema()}}
    reply = await create(model=MODEL, messages=[user(as_json(marker))], response_format=format)
    equal(json.loads(reply.choices[0].message.content or ""), {"city": "Paris", "degrees": 12})


# --- Responses ---------------------------------------------------------------------------------------------------


@case("responses.plain")
async def plain(marker: str) -> None:
    reply = await client.responses.create(model=MODEL, input=hello(marker))
    equal((reply.output_text, reply.status, reply.error), (f"Hello {marker}.", "completed", None))
    is_true(reply.usage and reply.usage.total_tokens, "no usage")


@case("responses.stream")
async def stream(marker: str) -> None:
    async with client.responses.stream(model=MODEL, input=words(marker)) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    several([event.delta for event in events if event.type == "response.output_text.delta"], WORDS)
    equal(final.output_text, WORDS)
    equal([event.sequence_number for event in events if hasattr(event, "sequence_number")][:3], [0, 1, 2])
    is_true(final.usage and final.usage.total_tokens, "no usage")


@case("responses.reasoning")
async def reasoning(marker: str) -> None:
    reply = await client.responses.create(model=MODEL, input=hello(marker), reasoning={"summary": "auto"})
    texts = [part.text for item in reply.output if item.type == "reasoning" for part in item.summary]
    equal(texts, ["hm"])


@case("responses.tool")
async def tool(marker: str) -> None:
    """The result goes back with `previous_response_id`."""
    first = await client.responses.create(model=MODEL, input=ask_weather(marker, "Paris"), tools=TOOLS)
    then = await client.responses.create(
        model=MODEL, input=results(first, marker), previous_response_id=first.id, tools=TOOLS
    )
    equal(then.output_text, f"Cold {marker}.")


@case("responses.tool.stream")
async def tool_stream(marker: str) -> None:
    async with client.responses.stream(model=MODEL, input=ask_weather(marker, *CITIES), tools=TOOLS) as stream:
        first = await stream.get_final_response()
    async with client.responses.stream(
        model=MODEL, input=results(first, marker), previous_response_id=first.id, tools=TOOLS
    ) as stream:
        then = await stream.get_final_response()
    equal(then.output_text, f"Cold {marker}.")


@case("responses.tool.full-input")
async def tool_full_input(marker: str) -> None:
    """Everything goes back, as the guide on function calling shows, and nothing is stored."""
    said: list[Any] = [user(ask_weather(marker, "Paris"))]
    first = await client.responses.create(model=MODEL, input=said, tools=TOOLS, store=False)
    said += first.output
    said += results(first, marker)
    then = await client.responses.create(model=MODEL, input=said, tools=TOOLS, store=False)
    equal(then.output_text, f"Cold {marker}.")


def results(reply: Any, marker: str) -> list[Any]:
    calls = [item for item in reply.output if item.type == "function_call"]
    is_true(calls, f"no call in {reply.output!r}")
    outputs = [(call.call_id, weather(json.loads(call.arguments)["city"], marker)) for call in calls]
    return [{"type": "function_call_output", "call_id": id, "output": output} for id, output in outputs]


@case("responses.two-turns.previous")
async def two_turns(marker: str) -> None:
    first = await client.responses.create(model=MODEL, input=f"{marker}\n@think hm\n@say One.")
    then = await client.responses.create(model=MODEL, input=f"{marker}\n@say Two.", previous_response_id=first.id)
    equal((then.output_text, then.previous_response_id), ("Two.", first.id))


@case("responses.two-turns.full-input")
async def two_turns_full_input(marker: str) -> None:
    said: list[Any] = [user(f"{marker}\n@think hm\n@say One.")]
    said += (await client.responses.create(model=MODEL, input=said)).output
    said.append(user(f"{marker}\n@say Two."))
    equal((await client.responses.create(model=MODEL, input=said)).output_text, "Two.")


@case("responses.two-turns.conversation")
async def two_turns_conversation(marker: str) -> None:
    await in_conversation(await client.conversations.create(), marker)


@case("responses.two-turns.conversation.named")
async def two_turns_conversation_named(marker: str) -> None:
    await in_conversation(await client.conversations.create(extra_body={"agent": MODEL}), marker)


async def in_conversation(thread: Any, marker: str) -> None:
    for number in ("One", "Two"):
        reply = await client.responses.create(
            model=MODEL, input=f"{marker}\n@think hm\n@say {number}.", conversation=thread.id
        )
        equal(reply.output_text, f"{number}.")
    items = [item async for item in await client.conversations.items.list(thread.id, order="asc")]
    roles = [item.role for item in items if item.type == "message"]
    equal(roles, ["user", "assistant", "user", "assistant"])


@case("responses.error")
async def error(marker: str) -> None:
    raised_error = await raised(openai.NotFoundError, client.responses.create(model="nobody", input=marker))
    equal(raised_error.code, "model_not_found")
    call = client.responses.create(model=MODEL, input=marker, previous_response_id="resp_nothing")
    equal((await raised(openai.BadRequestError, call)).code, "previous_response_not_found")


@case("responses.own-tool")
async def own_tool(marker: str) -> None:
    said: list[Any] = [user(by_itself(marker))]
    first = await client.responses.create(model=MODEL, input=said, tools=TOOLS)
    equal((first.output_text, [item for item in first.output if item.type == "function_call"]), ("One.", []))
    said += [*first.output, user(f"{marker}\n@say Two.")]
    equal((await client.responses.create(model=MODEL, input=said)).output_text, "Two.")


@case("responses.error.stream")
async def error_stream(marker: str) -> None:
    """The stream ends with `response.failed`, or the client raises."""
    stream = await client.responses.create(model=MODEL, input=breaking(marker), stream=True)
    try:
        events = await listened(stream)
    except openai.APIError:
        return
    equal(events[-1].type, "response.failed")
    is_true(events[-1].response.error, "it does not say what failed")


@case("responses.image")
async def image(marker: str) -> None:
    parts = [{"type": "input_text", "text": hello(marker)}, {"type": "input_image", "image_url": PICTURE}]
    reply = await client.responses.create(model=MODEL, input=[user(parts)])
    equal(reply.output_text, f"Hello {marker}.")


@case("responses.structured")
async def structured(marker: str) -> None:
    reply = await client.responses.parse(model=MODEL, input=as_json(marker), text_format=Weather)
    equal(reply.output_parsed, Weather(city="Paris", degrees=12))


@case("responses.stored")
async def stored(marker: str) -> None:
    """Retrieved, its input listed, deleted, and gone."""
    reply = await client.responses.create(model=MODEL, input=hello(marker))
    again = await client.responses.retrieve(reply.id)
    equal((again.id, again.output_text), (reply.id, reply.output_text))
    items = [item async for item in await client.responses.input_items.list(reply.id)]
    is_true(marker in str(items), f"the input is not in {items!r}")
    await client.responses.delete(reply.id)
    await raised(openai.NotFoundError, client.responses.retrieve(reply.id))


@case("responses.background")
async def background(marker: str) -> None:
    """Begun, polled until it is done, and its stream heard again from the middle."""
    started = await client.responses.create(model=MODEL, input=words(marker), background=True)
    is_true(started.status in ("queued", "in_progress"), f"begins as {started.status}")
    stream = await client.responses.retrieve(started.id, stream=True)
    events = [event async for event in stream]
    equal(events[-1].type, "response.completed")
    equal((await client.responses.retrieve(started.id)).output_text, WORDS)
    middle = len(events) // 2
    resumed = await client.responses.retrieve(started.id, stream=True, starting_after=events[middle].sequence_number)
    equal([event.sequence_number async for event in resumed], [e.sequence_number for e in events[middle + 1 :]])


@case("responses.background.cancel")
async def background_cancel(marker: str) -> None:
    begun = await client.responses.create(
        model=MODEL, input=f"{marker}\n@say Wait.\n@hang", background=True, stream=True
    )
    id = ""
    async for event in begun:
        id = event.response.id if event.type == "response.created" else id
        if event.type == "response.output_text.delta":
            break
    await begun.close()
    equal((await client.responses.cancel(id)).status, "cancelled")
    equal((await client.responses.retrieve(id)).status, "cancelled")


@case("responses.background.stream")
async def background_stream(marker: str) -> None:
    """A background stream whose client goes away after a few events and comes back for the rest."""
    begun = await client.responses.create(model=MODEL, input=words(marker), background=True, stream=True)
    heard: list[Any] = []
    async for event in begun:
        heard.append(event)
        if event.type == "response.output_text.delta":
            break
    await begun.close()
    rest = await client.responses.retrieve(heard[0].response.id, stream=True, starting_after=heard[-1].sequence_number)
    heard += [event async for event in rest]
    several([event.delta for event in heard if event.type == "response.output_text.delta"], WORDS)
    equal(heard[-1].type, "response.completed")


main()
