"""LlamaIndex: OpenAILike and OpenAILikeResponses, and an agent that runs the tools."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

import base64
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
    both,
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
    without,
    words,
)
from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.base.llms.types import ImageBlock, TextBlock, ThinkingBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses
from pydantic import BaseModel


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


def llm(api: str, model: str = MODEL, **fields: Any) -> Any:
    options: dict[str, Any] = {"model": model, "api_base": BASE_URL, "api_key": API_KEY, "max_retries": 0}
    options |= {"context_window": 128_000, "is_function_calling_model": True} | fields
    if api == "responses":
        return OpenAILikeResponses(**options)
    return OpenAILike(is_chat_model=True, **options)


def agent(api: str, marker: str, streaming: bool, **fields: Any) -> FunctionAgent:
    async def get_weather(city: str) -> str:
        """The weather in a city."""
        return weather(city, marker)

    return FunctionAgent(tools=[get_weather], llm=llm(api, **fields), streaming=streaming)


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


async def plain(api: str, marker: str) -> None:
    reply = await llm(api).achat([user(hello(marker))])
    equal(reply.message.content, f"Hello {marker}.")
    usage = reply.raw.usage if api == "chat" else reply.additional_kwargs["usage"]
    is_true(usage.total_tokens, "no usage")


async def stream(api: str, marker: str) -> None:
    fields = {"stream_options": {"include_usage": True}} if api == "chat" else {}
    chunks = [chunk async for chunk in await llm(api).astream_chat([user(words(marker))], **fields)]
    several([chunk.delta for chunk in chunks if chunk.delta], WORDS)
    equal(chunks[-1].message.content, WORDS)
    usage = chunks[-1].raw.usage if api == "chat" else chunks[-1].additional_kwargs["usage"]
    is_true(usage and usage.total_tokens, "no usage")


async def tool(api: str, marker: str, **fields: Any) -> None:
    reply = await agent(api, marker, streaming=False, **fields).run(ask_weather(marker, "Paris"))
    equal(reply.response.content, f"Cold {marker}.")


async def tool_stream(api: str, marker: str) -> None:
    run = agent(api, marker, streaming=True).run(ask_weather(marker, *CITIES))
    pieces = [event.delta async for event in run.stream_events() if isinstance(event, AgentStream) and event.delta]
    equal((await run).response.content, f"Cold {marker}.")
    several(pieces, f"Cold {marker}.")


async def two_turns(api: str, marker: str) -> None:
    said = [user(f"{marker}\n@think hm\n@say One.")]
    said += [(await llm(api).achat(said)).message, user(f"{marker}\n@say Two.")]
    equal((await llm(api).achat(said)).message.content, "Two.")


async def own_tool(api: str, marker: str) -> None:
    said = [user(by_itself(marker))]
    first = (await llm(api).achat(said)).message
    equal(first.content, "One.")
    said += [first, user(f"{marker}\n@say Two.")]
    equal((await llm(api).achat(said)).message.content, "Two.")


async def error_stream(api: str, marker: str) -> None:
    async def listened() -> list[str]:
        return [chunk.delta or "" async for chunk in await llm(api).astream_chat([user(breaking(marker))])]

    await raised(openai.APIError, listened())


async def error(api: str, marker: str) -> None:
    found = await raised(openai.NotFoundError, llm(api, "nobody").achat([user(marker)]))
    equal(found.code, "model_not_found")


async def image(api: str, marker: str) -> None:
    picture = ImageBlock(image=base64.b64decode(PICTURE.partition(",")[2]), image_mimetype="image/png")
    reply = await llm(api).achat([ChatMessage(role="user", blocks=[TextBlock(text=hello(marker)), picture])])
    equal(reply.message.content, f"Hello {marker}.")


async def structured(api: str, marker: str) -> None:
    reply = await llm(api).as_structured_llm(Weather).acomplete(as_json(marker))
    equal(reply.raw, Weather(city="Paris", degrees=12))


both("plain", plain)
both("stream", stream)
both("tool", tool)
both("tool.stream", tool_stream)
case("chat.two-turns")(lambda marker: two_turns("chat", marker))
case("responses.two-turns.full-input")(lambda marker: two_turns("responses", marker))
both("error", error)
both("own-tool", own_tool)
both("error.stream", error_stream)
both("image", image)
both("structured", structured)
without("OpenAILike reads only what OpenAI documents", "chat.reasoning")


@case("chat.structured.plain")
async def chat_structured_plain(marker: str) -> None:
    """The schema stands in the prompt, and the client reads the answer."""
    program = LLMTextCompletionProgram.from_defaults(
        output_cls=Weather, llm=llm("chat"), prompt_template_str="{said}", verbose=False
    )
    equal(await program.acall(said=as_json(marker)), Weather(city="Paris", degrees=12))


@case("responses.two-turns.previous")
async def two_turns_previous(marker: str) -> None:
    model = llm("responses", track_previous_responses=True)
    equal((await model.achat([user(f"{marker}\n@think hm\n@say One.")])).message.content, "One.")
    equal((await model.achat([user(f"{marker}\n@say Two.")])).message.content, "Two.")


@case("responses.reasoning")
async def reasoning(marker: str) -> None:
    reply = await llm("responses", reasoning_options={"summary": "auto"}).achat([user(hello(marker))])
    equal([block.content for block in reply.message.blocks if isinstance(block, ThinkingBlock)], ["hm"])


main()
