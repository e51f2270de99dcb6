"""Files within a request, on their way to the model of a real Letta agent."""

import base64
from collections.abc import Callable
from typing import Any

import openai
import pytest
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.testing import ScriptedModel
from frontdesk.testing.script import text_of
from tests.acceptance.talking import conversations_of
from tests.protocols.chat_completions.asking import Chat, assistant, function, user
from tests.protocols.chat_completions.test_images import DATA_URL, PNG
from tests.requirements import requirement

TEXT = 'Name,Größe\r\n\tAnn, 世界 \N{GRINNING FACE}\n  </file> "quoted" & <b>\n\n'
FRAMED = f'<file name="people.csv">\n{TEXT}\n</file>'
LARGE = "All work and no play.\n" * 8_000
PDF = b"%PDF-1.7\n1 0 obj\n"

Part = Callable[..., dict[str, Any]]


def written(content: str | bytes, media_type: str = "text/csv") -> str:
    data = content.encode() if isinstance(content, str) else content
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def chat_file(data: str, name: str = "people.csv") -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data, "filename": name}}


def input_file(data: str, name: str = "people.csv") -> dict[str, Any]:
    return {"type": "input_file", "file_data": data, "filename": name}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def told(model: ScriptedModel, marker: str) -> list[str]:
    """What the model was given beside instructions when it was last asked with this marker."""
    asked = model.requests_with(marker)[-1].messages
    return [text_of(message["content"]) for message in asked if message["role"] != "system"]


# --- chat ---------------------------------------------------------------------------------------------------------


@requirement("files.text")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("data", [written(TEXT), written(TEXT).partition(",")[2]], ids=["data url", "bare base64"])
async def test_the_text_of_a_file_reaches_the_model_with_its_name(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, data: str, stream: bool
) -> None:
    said = f"@say {marker}"
    answer = await Chat(client, milo).ask([user([chat_file(data), text(said)])], stream=stream)
    assert answer.text == marker
    assert told(model, marker) == [f"{FRAMED}\n\n{said}"]


async def test_files_and_pictures_keep_their_places(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    picture = {"type": "image_url", "image_url": DATA_URL}
    as_file = chat_file(DATA_URL, "x.png")
    parts = [picture, chat_file(written(TEXT)), as_file, text(f"@say {marker}")]
    assert (await Chat(client, milo).ask([user(parts)])).text == marker
    (message,) = [each for each in model.requests_with(marker)[-1].messages if each["role"] == "user"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text", "image_url", "text"]
    assert message["content"][1]["text"] == FRAMED
    assert message["content"][2]["image_url"]["url"] == DATA_URL


@requirement("files.once")
async def test_a_chat_with_files_is_one_conversation_which_hears_each_once(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    chat = Chat(client, milo)
    asked = [user([text(f"@say one\n@@{marker}"), chat_file(written(LARGE), "large.txt"), chat_file(written(TEXT))])]
    first = await chat.ask(asked)
    again = await chat.ask([*asked, first.message, user([chat_file(written("more"), "b.txt"), text("@say two")])])
    assert (again.text, again.conversation, again.identity) == ("two", first.conversation, "lineage")
    heard = "\n".join(told(model, marker))
    assert (heard.count(LARGE), heard.count(FRAMED), heard.count('<file name="b.txt">\nmore\n</file>')) == (1, 1, 1)


async def test_another_file_is_another_conversation(client: AsyncOpenAI, milo: str, marker: str) -> None:
    chat = Chat(client, milo)
    asked = [[user([text(f"@say one\n@@{marker}"), chat_file(written(content))])] for content in ("a", "b")]
    first = await chat.ask(asked[0])
    other = await chat.ask([*asked[1], first.message, user("@say two")])
    assert other.conversation != first.conversation


async def test_files_of_the_past_are_seeded_and_those_of_tools_told(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    call = {"id": "call_x", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    past = [
        user([text(f"look {marker}"), chat_file(written(TEXT))]),
        assistant(None, tool_calls=[call]),
        {"role": "tool", "tool_call_id": "call_x", "content": [chat_file(written("old"), "old.txt")]},
        assistant("Nice."),
    ]
    await Chat(client, milo).ask([*past, user(f"@say {marker}-now")])
    heard = told(model, f"{marker}-now")
    assert heard[0] == f"look {marker}\n\n{FRAMED}"
    assert '<file name="old.txt">\nold\n</file>' in heard[1]


async def test_a_file_in_a_tool_s_result_reaches_the_model(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    chat, tools = Chat(client, milo), [function("read")]
    asked = user(f"@call read {{}}\n@then\n@say {marker}")
    first = await chat.ask([asked], tools=tools)
    result = first.calls[0].result([text("Here."), chat_file(written("line 1\nline 2"), "log.txt")])
    assert (await chat.ask([asked, first.message, result], tools=tools)).text == marker
    assert any("line 1\\nline 2\\n</file>" in each for each in told(model, marker))


# --- responses ----------------------------------------------------------------------------------------------------


async def response(client: AsyncOpenAI, agent: str, said: Any, *, stream: bool = False, **more: Any) -> Any:
    create: Any = client.responses.create
    asked = await create(model=agent, input=said, stream=stream, **more)
    return [event async for event in asked][-1].response if stream else asked


@requirement("files.text")
@pytest.mark.parametrize("stream", [False, True])
async def test_the_text_of_an_input_file_reaches_the_model_and_is_shown_again(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, stream: bool
) -> None:
    said = f"@say {marker}"
    asked = [user([{"type": "input_text", "text": said}, input_file(written(TEXT))])]
    first = await response(client, milo, asked, stream=stream)
    assert first.output_text == marker
    assert told(model, marker) == [f"{said}\n\n{FRAMED}"]
    shown: Any = (await client.responses.input_items.list(first.id)).data[0].to_dict()
    items: Any = (await client.conversations.items.list(first.conversation.id, order="asc")).data[0].to_dict()
    for item in (shown, items):
        assert item["content"] == [{"type": "input_text", "text": said}, input_file(written(TEXT))]
    await response(client, milo, "@say on", previous_response_id=first.id, stream=stream)
    heard = "\n".join(told(model, marker))
    assert heard.count(TEXT) == 1


async def test_what_is_large_is_told_whole_and_shown_by_its_name(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    asked = [user([input_file(written(LARGE), "large.txt"), {"type": "input_text", "text": f"@say {marker}"}])]
    first = await response(client, milo, asked)
    assert LARGE in told(model, marker)[0]
    shown: Any = (await client.responses.input_items.list(first.id)).data[0].to_dict()
    items: Any = (await client.conversations.items.list(first.conversation.id, order="asc")).data[0].to_dict()
    assert shown["id"] == items["id"]
    assert shown["content"][0] == items["content"][0] == {"type": "input_text", "text": "[a file: large.txt]"}


async def test_a_file_that_was_put_into_a_conversation_is_told_with_the_next_turn(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    items: Any = [{"role": "user", "content": [input_file(written(TEXT))]}]
    made: Any = await client.conversations.create(items=items)
    await response(client, milo, f"@say {marker}", conversation=made.id)
    assert FRAMED in told(model, marker)[0]


async def test_a_large_picture_is_shown_as_one(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    large = f"data:image/png;base64,{base64.b64encode(PNG + bytes(70_000)).decode()}"
    said = {"type": "input_text", "text": f"@say {marker}"}
    first = await response(client, milo, [user([{"type": "input_image", "image_url": large}, said])])
    assert large in str(model.requests_with(marker)[-1].messages)
    (shown,) = (await client.responses.input_items.list(first.id)).data
    body: Any = shown.to_dict()
    assert body["content"] == [{"type": "input_text", "text": "[an image]"}, said]
    assert body["id"].startswith("msg_")


async def test_a_branch_has_heard_the_files_before_it(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    asked = [user([input_file(written(LARGE), "large.txt"), {"type": "input_text", "text": "@say one"}])]
    first = await response(client, milo, asked)
    await response(client, milo, "@say two", previous_response_id=first.id)
    await response(client, milo, f"@say {marker}", previous_response_id=first.id)
    heard = "\n".join(told(model, marker))
    assert (heard.count(LARGE), "@say two" in heard) == (1, False)


# --- refused ------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, str], str, str]] = [
    ({"file_data": written(PDF, "application/pdf"), "filename": "a.pdf"}, "file_data", "unsupported_content_type"),
    ({"file_data": written(b"PK\x03\x04\x00", "application/zip")}, "file_data", "unsupported_content_type"),
    ({"file_data": written(b"\xff\xfea\x00", "text/plain")}, "file_data", "unsupported_content_type"),
    ({"file_data": "data:text/plain;base64,?", "filename": "a.txt"}, "file_data", "invalid_value"),
    ({"file_id": "file-123"}, "file_id", "unsupported_content_type"),
]


@requirement("files.refused")
@pytest.mark.parametrize(("fields", "place", "code"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_carried_is_refused_and_leaves_nothing_at_the_agent(
    client: AsyncOpenAI,
    agent: Any,
    model: ScriptedModel,
    letta_api: Letta,
    marker: str,
    fields: dict[str, str],
    place: str,
    code: str,
    stream: bool,
) -> None:
    in_chat = [user("Hello."), user([text(marker), {"type": "file", "file": fields}])]
    with pytest.raises(openai.BadRequestError) as info:
        await Chat(client, agent.name).ask(in_chat, stream=stream)
    assert (info.value.param, info.value.code) == (f"messages[1].content[1].file.{place}", code)
    past = [*in_chat, assistant("I see."), user(marker)]
    with pytest.raises(openai.BadRequestError):
        await Chat(client, agent.name).ask(past, stream=stream)
    said = [user([{"type": "input_text", "text": marker}, {"type": "input_file", **fields}])]
    with pytest.raises(openai.BadRequestError) as info:
        await response(client, agent.name, said, stream=stream)
    assert (info.value.param, info.value.code) == (f"input[0].content[1].{place}", code)
    assert model.requests_with(marker) == []
    assert conversations_of(letta_api, agent.id) == []
