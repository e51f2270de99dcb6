"""LiteLLM: the library, and its proxy between OpenAI's client and the gateway."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
from compat import (
    API_KEY,
    BASE_URL,
    CITIES,
    MODEL,
    PICTURE,
    VARIANT,
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

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it is fetched

import litellm


class Weather(BaseModel):
    city: str
    degrees: int


OPTIONS: dict[str, Any] = {"api_base": BASE_URL, "api_key": API_KEY, "max_retries": 0}
PROXY_KEY = "sk-a-key-for-the-proxy-on-this-machine-only"
PARIS = {"city": "Paris", "degrees": 12}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"name": "get_weather", "description": "The weather in a city.", "parameters": SCHEMA}
CHAT_TOOLS: Any = [{"type": "function", "function": TOOL}]
TOOLS: Any = [{"type": "function", **TOOL}]


class Library:
    """litellm.acompletion and litellm.aresponses."""

    async def chat(self, model: str = MODEL, **fields: Any) -> Any:
        return await litellm.acompletion(model=f"openai/{model}", **OPTIONS, **fields)

    async def respond(self, model: str = MODEL, **fields: Any) -> Any:
        return await litellm.aresponses(model=f"openai/{model}", **OPTIONS, **fields)


class Proxy:
    """OpenAI's client, before the proxy."""

    def __init__(self, url: str) -> None:
        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=PROXY_KEY, max_retries=0)

    async def chat(self, model: str = MODEL, **fields: Any) -> Any:
        return await self.client.chat.completions.create(model=model, **fields)

    async def respond(self, model: str = MODEL, **fields: Any) -> Any:
        return await self.client.responses.create(model=model, **fields)


speaker: Any = Library()


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


# --- Chat Completions --------------------------------------------------------------------------------------------


@case("chat.plain")
async def chat_plain(marker: str) -> None:
    reply = await speaker.chat(messages=[user(hello(marker))])
    equal((reply.choices[0].message.content, reply.choices[0].finish_reason), (f"Hello {marker}.", "stop"))
    is_true(reply.usage.total_tokens, "no usage")


@case("chat.stream")
async def chat_stream(marker: str) -> None:
    fields = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = [chunk async for chunk in await speaker.chat(messages=[user(words(marker))], **fields)]
    several([c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content], WORDS)
    is_true([chunk for chunk in chunks if getattr(chunk, "usage", None)], "no usage")


@case("chat.reasoning")
async def chat_reasoning(marker: str) -> None:
    reply = await speaker.chat(messages=[user(hello(marker))])
    equal(getattr(reply.choices[0].message, "reasoning_content", None), "hm")


@case("chat.tool")
async def chat_tool(marker: str) -> None:
    messages = [user(ask_weather(marker, "Paris"))]
    message = (await speaker.chat(messages=messages, tools=CHAT_TOOLS)).choices[0].message
    calls = [(call.id, call.function.arguments) for call in message.tool_calls]
    messages += [message.model_dump(), *answers(calls, marker)]
    equal((await speaker.chat(messages=messages, tools=CHAT_TOOLS)).choices[0].message.content, f"Cold {marker}.")


@case("chat.tool.stream")
async def chat_tool_stream(marker: str) -> None:
    messages = [user(ask_weather(marker, *CITIES))]
    chunks = [chunk async for chunk in await speaker.chat(messages=messages, tools=CHAT_TOOLS, stream=True)]
    calls = folded(chunks)
    functions = [{"name": "get_weather", "arguments": arguments} for _, arguments in calls]
    again = [{"id": id, "type": "function", "function": each} for (id, _), each in zip(calls, functions, strict=True)]
    messages += [{"role": "assistant", "content": "", "tool_calls": again}, *answers(calls, marker)]
    chunks = [chunk async for chunk in await speaker.chat(messages=messages, tools=CHAT_TOOLS, stream=True)]
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    several(pieces, f"Cold {marker}.")


def folded(chunks: list[Any]) -> list[tuple[str, str]]:
    """The calls of a stream, told apart by index: ids and arguments."""
    calls: dict[int, tuple[str, str]] = {}
    for chunk in chunks:
        for delta in (chunk.choices[0].delta.tool_calls or ()) if chunk.choices else ():
            id, arguments = calls.get(delta.index, ("", ""))
            calls[delta.index] = (id or delta.id, arguments + (delta.function.arguments or ""))
    return [calls[index] for index in sorted(calls)]


def answers(calls: list[tuple[str, str]], marker: str) -> list[Any]:
    given = [(id, weather(json.loads(arguments)["city"], marker)) for id, arguments in calls]
    return [{"role": "tool", "tool_call_id": id, "content": result} for id, result in given]


@case("chat.two-turns")
async def chat_two_turns(marker: str) -> None:
    messages = [user(f"{marker}\n@think hm\n@say One.")]
    first = (await speaker.chat(messages=messages)).choices[0].message
    messages += [first.model_dump(), user(f"{marker}\n@say Two.")]
    equal((await speaker.chat(messages=messages)).choices[0].message.content, "Two.")


@case("chat.error")
async def chat_error(marker: str) -> None:
    found = await raised(openai.NotFoundError, speaker.chat("nobody", messages=[user(marker)]))
    is_true("nobody" in str(found), f"it does not name the model: {found}")


@case("chat.own-tool")
async def chat_own_tool(marker: str) -> None:
    messages = [user(by_itself(marker))]
    first = (await speaker.chat(messages=messages, tools=CHAT_TOOLS)).choices[0].message
    equal((first.content, first.tool_calls), ("One.", None))
    messages += [first.model_dump(), user(f"{marker}\n@say Two.")]
    equal((await speaker.chat(messages=messages)).choices[0].message.content, "Two.")


@case("chat.error.stream")
async def chat_error_stream(marker: str) -> None:
    async def listened() -> list[Any]:
        return [chunk async for chunk in await speaker.chat(messages=[user(breaking(marker))], stream=True)]

    await raised(openai.APIError, listened())


@case("chat.image")
async def chat_image(marker: str) -> None:
    parts = [{"type": "text", "text": hello(marker)}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    equal((await speaker.chat(messages=[user(parts)])).choices[0].message.content, f"Hello {marker}.")


@case("chat.structured")
async def chat_structured(marker: str) -> None:
    """A pydantic model, which the library writes as a strict schema; the proxy is sent that."""
    schema = {"name": "Weather", "schema": Weather.model_json_schema(), "strict": True}
    format: Any = Weather if VARIANT == "library" else {"type": "json_schema", "json_schema": schema}
    reply = await speaker.chat(messages=[user(as_json(marker))], response_format=format)
    equal(json.loads(reply.choices[0].message.content), PARIS)


@case("chat.structured.plain")
async def chat_structured_plain(marker: str) -> None:
    format: Any = {"type": "json_schema", "json_schema": {"name": "Weather", "schema": Weather.model_json_schema()}}
    reply = await speaker.chat(messages=[user(as_json(marker))], response_format=format)
    equal(json.loads(reply.choices[0].message.content), PARIS)


# --- Responses ---------------------------------------------------------------------------------------------------


@case("responses.plain")
async def plain(marker: str) -> None:
    reply = await speaker.respond(input=hello(marker))
    equal((reply.output_text, reply.status), (f"Hello {marker}.", "completed"))
    is_true(reply.usage.total_tokens, "no usage")


@case("responses.stream")
async def stream(marker: str) -> None:
    events = [event async for event in await speaker.respond(input=words(marker), stream=True)]
    several([event.delta for event in events if event.type == "response.output_text.delta"], WORDS)
    equal(events[-1].type, "response.completed")
    is_true(events[-1].response.usage.total_tokens, "no usage")


@case("responses.reasoning")
async def reasoning(marker: str) -> None:
    reply = await speaker.respond(input=hello(marker), reasoning={"summary": "auto"})
    equal([part.text for item in reply.output if item.type == "reasoning" for part in item.summary], ["hm"])


@case("responses.tool")
async def tool(marker: str) -> None:
    first = await speaker.respond(input=ask_weather(marker, "Paris"), tools=TOOLS)
    then = await speaker.respond(input=results(first.output, marker), previous_response_id=first.id, tools=TOOLS)
    equal(then.output_text, f"Cold {marker}.")


@case("responses.tool.stream")
async def tool_stream(marker: str) -> None:
    events = [
        event async for event in await speaker.respond(input=ask_weather(marker, *CITIES), tools=TOOLS, stream=True)
    ]
    first = events[-1].response
    again = results(first.output, marker)
    events = [
        event
        async for event in await speaker.respond(input=again, previous_response_id=first.id, tools=TOOLS, stream=True)
    ]
    several([event.delta for event in events if event.type == "response.output_text.delta"], f"Cold {marker}.")


def results(output: Any, marker: str) -> list[Any]:
    calls = [item for item in output if item.type == "function_call"]
    is_true(calls, f"no call in {output!r}")
    outputs = [(call.call_id, weather(json.loads(call.arguments)["city"], marker)) for call in calls]
    return [{"type": "function_call_output", "call_id": id, "output": output} for id, output in outputs]


@case("responses.two-turns.previous")
async def two_turns_previous(marker: str) -> None:
    first = await speaker.respond(input=f"{marker}\n@think hm\n@say One.")
    then = await speaker.respond(input=f"{marker}\n@say Two.", previous_response_id=first.id)
    equal(then.output_text, "Two.")


@case("responses.two-turns.full-input")
async def two_turns_full_input(marker: str) -> None:
    said: list[Any] = [user(f"{marker}\n@think hm\n@say One.")]
    first = await speaker.respond(input=said)
    said += [*(item.model_dump() for item in first.output), user(f"{marker}\n@say Two.")]
    equal((await speaker.respond(input=said)).output_text, "Two.")


@case("responses.error")
async def error(marker: str) -> None:
    found = await raised(openai.NotFoundError, speaker.respond("nobody", input=marker))
    is_true("nobody" in str(found), f"it does not name the model: {found}")


@case("responses.own-tool")
async def own_tool(marker: str) -> None:
    said: list[Any] = [user(by_itself(marker))]
    first = await speaker.respond(input=said, tools=TOOLS)
    equal(first.output_text, "One.")
    said += [*(item.model_dump() for item in first.output), user(f"{marker}\n@say Two.")]
    equal((await speaker.respond(input=said)).output_text, "Two.")


@case("responses.error.stream")
async def error_stream(marker: str) -> None:
    """The stream ends with `response.failed`, or the client raises."""
    try:
        events = [event async for event in await speaker.respond(input=breaking(marker), stream=True)]
    except openai.APIError:
        return
    equal(events[-1].type, "response.failed")


@case("responses.image")
async def image(marker: str) -> None:
    parts = [{"type": "input_text", "text": hello(marker)}, {"type": "input_image", "image_url": PICTURE}]
    equal((await speaker.respond(input=[user(parts)])).output_text, f"Hello {marker}.")


@case("responses.structured")
async def structured(marker: str) -> None:
    format = {"type": "json_schema", "name": "Weather", "schema": Weather.model_json_schema(), "strict": True}
    reply = await speaker.respond(input=as_json(marker), text={"format": format})
    equal(json.loads(reply.output_text), PARIS)


# --- the proxy ---------------------------------------------------------------------------------------------------


@contextmanager
def proxy() -> Generator[str]:
    """The proxy on a free port, for every model of the gateway."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    parameters = {"model": "openai/*", "api_base": BASE_URL, "api_key": API_KEY, "max_retries": 0}
    settings = {"model_list": [{"model_name": "*", "litellm_params": parameters}]}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(json.dumps(settings))  # which is YAML too
        command = [str(Path(sys.executable).with_name("litellm")), "--config", str(config), "--telemetry", "False"]
        environment = os.environ | {"LITELLM_MASTER_KEY": PROXY_KEY}
        with subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], env=environment, stdout=2) as run:
            try:
                url = f"http://127.0.0.1:{port}"
                while not answers_at(f"{url}/health/readiness"):
                    is_true(run.poll() is None, "the proxy did not start")
                    time.sleep(0.2)
                yield url
            finally:
                run.terminate()


def answers_at(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


if VARIANT == "library":
    main()
else:
    with proxy() as url:
        speaker = Proxy(url)
        main()
