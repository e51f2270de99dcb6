"""The OpenAI Agents SDK: it runs the tools by itself, and holds a chat in four ways."""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from typing import Any

import openai
from agents import (
    Agent,
    AgentOutputSchema,
    AgentsException,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from agents.model_settings import ModelSettings
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
from openai.types.shared import Reasoning
from pydantic import BaseModel

set_tracing_disabled(True)
client = openai.AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)


class Weather(BaseModel):
    city: str
    degrees: int


def agent(api: str, model: str = MODEL, **fields: Any) -> Any:
    kind: Any = OpenAIChatCompletionsModel if api == "chat" else OpenAIResponsesModel
    return Agent(name="Asked", model=kind(model, openai_client=client), **fields)


def tools(marker: str) -> list[Any]:
    @function_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return weather(city, marker)

    return [get_weather]


async def plain(api: str, marker: str) -> None:
    result = await Runner.run(agent(api), hello(marker))
    equal(result.final_output, f"Hello {marker}.")
    is_true(result.context_wrapper.usage.total_tokens, "no usage")


async def stream(api: str, marker: str) -> None:
    result = Runner.run_streamed(agent(api, model_settings=ModelSettings(include_usage=True)), words(marker))
    pieces = [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    several(pieces, WORDS)
    equal(result.final_output, WORDS)
    is_true(result.context_wrapper.usage.total_tokens, "no usage")


async def reasoning(api: str, marker: str) -> None:
    settings = ModelSettings(reasoning=Reasoning(summary="auto")) if api == "responses" else ModelSettings()
    result = await Runner.run(agent(api, model_settings=settings), hello(marker))
    items = [item.raw_item for item in result.new_items if item.type == "reasoning_item"]
    equal([part.text for item in items for part in item.summary], ["hm"])


async def tool(api: str, marker: str) -> None:
    result = await Runner.run(agent(api, tools=tools(marker)), ask_weather(marker, "Paris"))
    equal(result.final_output, f"Cold {marker}.")


async def tool_stream(api: str, marker: str) -> None:
    result = Runner.run_streamed(agent(api, tools=tools(marker)), ask_weather(marker, *CITIES))
    events = [event.name async for event in result.stream_events() if event.type == "run_item_stream_event"]
    equal(result.final_output, f"Cold {marker}.")
    equal([events.count(name) for name in ("tool_called", "tool_output")], [2, 2])


async def two_turns(api: str, marker: str) -> None:
    first = await Runner.run(agent(api), f"{marker}\n@think hm\n@say One.")
    said: Any = [*first.to_input_list(), {"role": "user", "content": f"{marker}\n@say Two."}]
    equal((await Runner.run(agent(api), said)).final_output, "Two.")


async def own_tool(api: str, marker: str) -> None:
    first = await Runner.run(agent(api, tools=tools(marker)), by_itself(marker))
    equal(first.final_output, "One.")
    said: Any = [*first.to_input_list(), {"role": "user", "content": f"{marker}\n@say Two."}]
    equal((await Runner.run(agent(api, tools=tools(marker)), said)).final_output, "Two.")


async def error_stream(api: str, marker: str) -> None:
    await raised((openai.APIError, AgentsException), listened(agent(api), breaking(marker)))


async def listened(asked: Any, said: str) -> Any:
    result = Runner.run_streamed(asked, said)
    async for _ in result.stream_events():
        pass
    return result.final_output


async def error(api: str, marker: str) -> None:
    found = await raised(openai.NotFoundError, Runner.run(agent(api, "nobody"), marker))
    equal(found.code, "model_not_found")


async def image(api: str, marker: str) -> None:
    parts = [
        {"type": "input_text", "text": hello(marker)},
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
    ]
    said: Any = [{"role": "user", "content": parts}]
    equal((await Runner.run(agent(api), said)).final_output, f"Hello {marker}.")


async def structured(api: str, marker: str, strict: bool = True) -> None:
    schema = AgentOutputSchema(Weather, strict_json_schema=strict)
    result = await Runner.run(agent(api, output_type=schema), as_json(marker))
    equal(result.final_output, Weather(city="Paris", degrees=12))


both("plain", plain)
both("stream", stream)
both("reasoning", reasoning)
both("tool", tool)
both("tool.stream", tool_stream)
case("chat.two-turns")(lambda marker: two_turns("chat", marker))
case("responses.two-turns.full-input")(lambda marker: two_turns("responses", marker))
both("error", error)
both("own-tool", own_tool)
both("error.stream", error_stream)
both("image", image)
both("structured", structured)
case("chat.structured.plain")(lambda marker: structured("chat", marker, strict=False))


@case("responses.two-turns.previous")
async def two_turns_previous(marker: str) -> None:
    first = await Runner.run(agent("responses"), f"{marker}\n@think hm\n@say One.")
    is_true(first.last_response_id, "the answer has no id")
    then = await Runner.run(agent("responses"), f"{marker}\n@say Two.", previous_response_id=first.last_response_id)
    equal(then.final_output, "Two.")


@case("responses.tool.previous")
async def tool_previous(marker: str) -> None:
    """Within one run too, each request names the response before it."""
    asked = agent("responses", tools=tools(marker))
    result = await Runner.run(asked, ask_weather(marker, "Paris"), auto_previous_response_id=True)
    equal(result.final_output, f"Cold {marker}.")


@case("responses.two-turns.session")
async def two_turns_session(marker: str) -> None:
    """The session is a table of the client's own."""
    await in_session(SQLiteSession(marker), marker)


@case("responses.two-turns.conversation")
async def two_turns_conversation(marker: str) -> None:
    """The session is a conversation of the Conversations API, which the client reads and writes."""
    await in_session(OpenAIConversationsSession(openai_client=client), marker)


@case("responses.tool.conversation")
async def tool_conversation(marker: str) -> None:
    thread = await client.conversations.create()
    asked = agent("responses", tools=tools(marker))
    result = await Runner.run(asked, ask_weather(marker, "Paris"), conversation_id=thread.id)
    equal(result.final_output, f"Cold {marker}.")


async def in_session(session: Any, marker: str) -> None:
    for number in ("One", "Two"):
        said = f"{marker}\n@think hm\n@say {number}."
        equal((await Runner.run(agent("responses"), said, session=session)).final_output, f"{number}.")


main()
