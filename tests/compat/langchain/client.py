"""LangChain: ChatOpenAI on both protocols, and an agent that runs the tools."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

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
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool as as_tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


def llm(api: str, model: str = MODEL, **fields: Any) -> Any:
    return ChatOpenAI(
        model=model,
        base_url=BASE_URL,
        api_key=API_KEY,
        max_retries=0,
        use_responses_api=api == "responses",
        stream_usage=True,
        **fields,
    )


def tools(marker: str) -> list[Any]:
    @as_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return weather(city, marker)

    return [get_weather]


def one(marker: str) -> HumanMessage:
    return HumanMessage(f"{marker}\n@think hm\n@say One.")


def two(marker: str) -> HumanMessage:
    return HumanMessage(f"{marker}\n@say Two.")


async def plain(api: str, marker: str) -> None:
    reply = await llm(api).ainvoke(hello(marker))
    equal(reply.text, f"Hello {marker}.")
    is_true(reply.usage_metadata and reply.usage_metadata["total_tokens"], "no usage")


async def stream(api: str, marker: str) -> None:
    chunks = [chunk async for chunk in llm(api).astream(words(marker))]
    several([str(chunk.text) for chunk in chunks if chunk.text], WORDS)
    whole = sum(chunks[1:], chunks[0])
    is_true(whole.usage_metadata and whole.usage_metadata["total_tokens"], "no usage")


async def tool(api: str, marker: str, **fields: Any) -> None:
    agent = create_agent(llm(api, **fields), tools(marker))
    result = await agent.ainvoke({"messages": [HumanMessage(ask_weather(marker, "Paris"))]})
    equal(str(result["messages"][-1].text), f"Cold {marker}.")


async def tool_stream(api: str, marker: str) -> None:
    agent = create_agent(llm(api), tools(marker))
    said = {"messages": [HumanMessage(ask_weather(marker, *CITIES))]}
    pieces = [
        str(chunk.text)
        async for chunk, _ in agent.astream(said, stream_mode="messages")
        if isinstance(chunk, AIMessage) and chunk.text
    ]
    several(pieces, f"Cold {marker}.")


async def two_turns(api: str, marker: str, **fields: Any) -> None:
    model = llm(api, **fields)
    said: list[Any] = [one(marker)]
    said += [await model.ainvoke(said), two(marker)]
    equal((await model.ainvoke(said)).text, "Two.")


async def own_tool(api: str, marker: str) -> None:
    agent = create_agent(llm(api), tools(marker))
    first = await agent.ainvoke({"messages": [HumanMessage(by_itself(marker))]})
    equal(str(first["messages"][-1].text), "One.")
    then = await agent.ainvoke({"messages": [*first["messages"], two(marker)]})
    equal(str(then["messages"][-1].text), "Two.")


async def error_stream(api: str, marker: str) -> None:
    async def listened() -> list[str]:
        return [str(chunk.text) async for chunk in llm(api).astream(breaking(marker))]

    await raised((openai.APIError, ValueError), listened())


async def error(api: str, marker: str) -> None:
    found = await raised(openai.NotFoundError, llm(api, "nobody").ainvoke(marker))
    equal(found.code, "model_not_found")


async def image(api: str, marker: str) -> None:
    picture = {"type": "image", "base64": PICTURE.partition(",")[2], "mime_type": "image/png"}
    reply = await llm(api).ainvoke([HumanMessage([{"type": "text", "text": hello(marker)}, picture])])
    equal(reply.text, f"Hello {marker}.")


async def structured(api: str, marker: str, **fields: Any) -> None:
    reply = await llm(api).with_structured_output(Weather, **fields).ainvoke(as_json(marker))
    equal(reply, Weather(city="Paris", degrees=12))


both("plain", plain)
both("stream", stream)
both("tool", tool)
both("tool.stream", tool_stream)
case("chat.two-turns")(lambda marker: two_turns("chat", marker))
case("responses.two-turns.full-input")(lambda marker: two_turns("responses", marker))
case("responses.two-turns.previous")(lambda marker: two_turns("responses", marker, use_previous_response_id=True))
case("responses.tool.previous")(lambda marker: tool("responses", marker, use_previous_response_id=True))
both("error", error)
both("own-tool", own_tool)
both("error.stream", error_stream)
both("image", image)
both("structured", structured)
case("chat.structured.plain")(lambda marker: structured("chat", marker, method="json_mode"))
without("ChatOpenAI reads only what OpenAI documents", "chat.reasoning")


@case("responses.reasoning")
async def reasoning(marker: str) -> None:
    reply = await llm("responses", reasoning={"summary": "auto"}).ainvoke(hello(marker))
    equal([block["reasoning"] for block in reply.content_blocks if block["type"] == "reasoning"], ["hm"])


main()
