"""Pydantic AI: agents on both protocols."""

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
    words,
)
from pydantic import BaseModel
from pydantic_ai import Agent, AgentRunError, BinaryContent, ModelHTTPError, NativeOutput, PromptedOutput, ThinkingPart
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(openai_client=openai.AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0))


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


def agent(api: str, model: str = MODEL, marker: str = "", **fields: Any) -> Any:
    kind: Any = OpenAIChatModel if api == "chat" else OpenAIResponsesModel

    def get_weather(city: str) -> str:
        """The weather in a city."""
        return weather(city, marker)

    return Agent(kind(model, provider=provider), tools=[get_weather] if marker else [], retries=0, **fields)


async def plain(api: str, marker: str) -> None:
    result = await agent(api).run(hello(marker))
    equal(result.output, f"Hello {marker}.")
    is_true(result.usage.total_tokens, "no usage")


async def stream(api: str, marker: str) -> None:
    async with agent(api).run_stream(words(marker)) as result:
        several([piece async for piece in result.stream_text(delta=True, debounce_by=None)], WORDS)
        is_true(result.usage.total_tokens, "no usage")


async def reasoning(api: str, marker: str) -> None:
    settings = {"openai_reasoning_summary": "auto"} if api == "responses" else {}
    result = await agent(api).run(hello(marker), model_settings=settings)
    parts = [part for message in result.new_messages() for part in message.parts]
    equal([part.content for part in parts if isinstance(part, ThinkingPart)], ["hm"])


async def tool(api: str, marker: str, settings: Any = None) -> None:
    asked = agent(api, marker=marker)
    equal((await asked.run(ask_weather(marker, "Paris"), model_settings=settings)).output, f"Cold {marker}.")


async def tool_stream(api: str, marker: str) -> None:
    async with agent(api, marker=marker).run_stream(ask_weather(marker, *CITIES)) as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    several(pieces, f"Cold {marker}.")


async def two_turns(api: str, marker: str, settings: Any = None) -> None:
    first = await agent(api).run(f"{marker}\n@think hm\n@say One.", model_settings=settings)
    said = f"{marker}\n@say Two."
    then = await agent(api).run(said, message_history=first.all_messages(), model_settings=settings)
    equal(then.output, "Two.")


async def own_tool(api: str, marker: str) -> None:
    first = await agent(api, marker=marker).run(by_itself(marker))
    equal(first.output, "One.")
    said = f"{marker}\n@say Two."
    equal((await agent(api, marker=marker).run(said, message_history=first.all_messages())).output, "Two.")


async def error_stream(api: str, marker: str) -> None:
    async def listened() -> str:
        async with agent(api).run_stream(breaking(marker)) as result:
            return await result.get_output()

    await raised((openai.APIError, AgentRunError), listened())


async def error(api: str, marker: str) -> None:
    found = await raised(ModelHTTPError, agent(api, "nobody").run(marker))
    equal((found.status_code, found.body["code"]), (404, "model_not_found"))


async def image(api: str, marker: str) -> None:
    picture = BinaryContent(base64.b64decode(PICTURE.partition(",")[2]), media_type="image/png")
    equal((await agent(api).run([hello(marker), picture])).output, f"Hello {marker}.")


async def structured(api: str, marker: str) -> None:
    """By itself Pydantic AI has the model call a tool with the answer."""
    said = f'{marker}\n@call final_result {{"city": "Paris", "degrees": 12}}'
    equal((await agent(api, output_type=Weather).run(said)).output, Weather(city="Paris", degrees=12))


async def structured_as(kind: Any, api: str, marker: str) -> None:
    equal((await agent(api, output_type=kind(Weather)).run(as_json(marker))).output, Weather(city="Paris", degrees=12))


PREVIOUS = {"openai_previous_response_id": "auto"}

both("plain", plain)
both("stream", stream)
both("reasoning", reasoning)
both("tool", tool)
both("tool.stream", tool_stream)
case("chat.two-turns")(lambda marker: two_turns("chat", marker))
case("responses.two-turns.full-input")(lambda marker: two_turns("responses", marker))
case("responses.two-turns.previous")(lambda marker: two_turns("responses", marker, PREVIOUS))
case("responses.tool.previous")(lambda marker: tool("responses", marker, PREVIOUS))
both("error", error)
both("own-tool", own_tool)
both("error.stream", error_stream)
both("image", image)
both("structured", structured)
case("chat.structured.plain")(lambda marker: structured_as(PromptedOutput, "chat", marker))
case("responses.structured.native")(lambda marker: structured_as(NativeOutput, "responses", marker))


@case("responses.two-turns.conversation")
async def two_turns_conversation(marker: str) -> None:
    thread = await provider.client.conversations.create()
    settings = {"openai_conversation_id": thread.id}
    for number in ("One", "Two"):
        said = f"{marker}\n@think hm\n@say {number}."
        equal((await agent("responses").run(said, model_settings=settings)).output, f"{number}.")


main()
