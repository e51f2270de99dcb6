"""/v1/conversations, as the official client sees it; and that nobody else does."""

import asyncio
import base64
import hashlib
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from letta_client import Letta
from openai import AsyncOpenAI
from pydantic import TypeAdapter

from frontdesk.app import letta_backend
from frontdesk.config import LettaServer, Settings
from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from frontdesk.turn import Agent, Thread
from tests.faults.asking import create
from tests.faults.fake import FakeLetta, Visit, fake_letta, own_tools, ping, say, stop
from tests.faults.watch import eventually
from tests.protocols.chat_completions.asking import heard
from tests.requirements import requirement
from tests.served import Served, served
from tests.store.postgres import fresh_database, postgres

ANNE, BOB, OTIS_ONLY = "key-of-anne", "key-of-bob", "key-for-otis-only"
SHA = hashlib.sha256(OTIS_ONLY.encode()).hexdigest()
ID_HEADER = "x-frontdesk-conversation"


@pytest.fixture(scope="module")
def fake() -> Generator[FakeLetta]:
    with fake_letta() as letta:
        letta.scripts |= {"tools": own_tools("It snows."), "cut": said_half, "wait": waiting}
        yield letta


@pytest.fixture(scope="module")
def faked(fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    keys = [{"name": "otis-only", "sha256": SHA, "agents": ["Otis"]}]
    options: dict[str, Any] = {"api_keys": f"{ANNE},{BOB}", "keys": keys, "probe_key": ANNE, "on_disconnect": "cancel"}
    with served(tmp_path_factory.mktemp("frontdesk"), letta_base_url=fake.url, **options) as running:
        yield running


@pytest.fixture
async def anne(faked: Served) -> AsyncGenerator[AsyncOpenAI]:
    async with faked.client(api_key=ANNE) as client:
        yield client


@pytest.fixture
async def bob(faked: Served) -> AsyncGenerator[AsyncOpenAI]:
    async with faked.client(api_key=BOB) as client:
        yield client


async def said_half(_: Visit) -> AsyncGenerator[bytes, None]:
    for frame in (ping(), say("Half of it"), stop("error")):
        yield frame


async def waiting(visit: Visit) -> AsyncGenerator[bytes, None]:
    yield ping()
    yield say("Wait.")
    await visit.cancelled.wait()
    yield stop("cancelled")


async def talk(client: AsyncOpenAI, *texts: str, model: str = "Milo", pin: str = "") -> str:
    """A chat of so many turns, as a client has it that sends everything each time. Gives its id."""
    messages: list[Any] = []
    answer: Any = None
    for text in texts:
        messages.append({"role": "user", "content": text})
        answer = await client.chat.completions.with_raw_response.create(
            model=model, messages=messages, extra_headers={ID_HEADER: pin} if pin else {}
        )
        messages.append({"role": "assistant", "content": answer.parse().choices[0].message.content})
    return answer.headers[ID_HEADER]


async def listed(client: AsyncOpenAI, **query: Any) -> dict[str, Any]:
    return await client.get("/conversations", cast_to=object, options={"params": query})  # type: ignore[reportReturnType]


async def fork(client: AsyncOpenAI, conversation_id: str) -> dict[str, Any]:
    return await client.post(f"/conversations/{conversation_id}/fork", cast_to=object)  # type: ignore[reportReturnType]


async def post(gateway: Served, path: str, **sent: Any) -> httpx.Response:
    """As no official client would."""
    async with httpx.AsyncClient(base_url=gateway.base_url, headers={"authorization": f"Bearer {ANNE}"}) as http:
        return await http.post(path, **sent)


async def said(client: AsyncOpenAI, conversation_id: str) -> list[tuple[str, str]]:
    """The messages of a conversation, oldest first."""
    items: Any = client.conversations.items.list(conversation_id, order="asc", limit=2)
    return [(item.role, item.content[0].text) async for item in items if item.type == "message"]


# --- one conversation ------------------------------------------------------------------------------------------------


async def test_a_conversation_is_told_in_openais_shape_and_what_we_know_beside(anne: AsyncOpenAI) -> None:
    conversation_id = await talk(anne, "How deep is the snow on the mountain today?", "And tomorrow?", pin="My snow")
    found = await anne.conversations.retrieve(conversation_id)
    assert (found.id, found.object, found.metadata) == (conversation_id, "conversation", {})
    more: dict[str, Any] = found.model_extra or {}
    assert (more["agent"], more["name"], more["turns"]) == ("Milo", "My snow", 2)
    assert more["title"] == "How deep is the snow on…"
    assert more["agent_id"].startswith("agent-")
    assert found.created_at <= more["last_used_at"] <= found.created_at + 60


async def test_metadata_is_replaced(anne: AsyncOpenAI) -> None:
    conversation_id = await talk(anne, "for metadata")
    changed = await anne.conversations.update(conversation_id, metadata={"topic": "snow", "ünı": "☃"})
    assert changed.metadata == {"topic": "snow", "ünı": "☃"}
    await anne.conversations.update(conversation_id, metadata={"topic": "ice"})
    assert (await anne.conversations.retrieve(conversation_id)).metadata == {"topic": "ice"}
    assert (await anne.conversations.update(conversation_id, metadata=None)).metadata == {}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"metadata": {f"key{number}": "" for number in range(17)}}, "metadata", "invalid_value"),
        ({"metadata": {"k" * 65: "value"}}, "metadata", "invalid_value"),
        ({"metadata": {"key": "v" * 513}}, "metadata", "invalid_value"),
        ({"metadata": {"key": 5}}, "metadata", "invalid_type"),
        ({"metadata": "text"}, "metadata", "invalid_type"),
        ({}, "metadata", "missing_required_parameter"),
        ([], None, "invalid_type"),
    ],
)
async def test_metadata_has_openais_limits(
    anne: AsyncOpenAI, faked: Served, body: Any, param: str | None, code: str
) -> None:
    conversation_id = await talk(anne, "for limits")
    answer = await post(faked, f"/conversations/{conversation_id}", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"


async def test_what_is_no_json_and_what_is_too_large_is_refused(faked: Served) -> None:
    bodies = (b"{", b'{"agent": "\xff"}', bytes(21 * 2**20))
    answers = [await post(faked, "/conversations", content=body) for body in bodies]
    assert [answer.json()["error"]["code"] for answer in answers] == [
        "invalid_json",
        "invalid_json",
        "request_too_large",
    ]


async def test_the_largest_metadata_is_kept(anne: AsyncOpenAI) -> None:
    largest = {f"{number:02}".ljust(64, "k"): "\0" + "v" * 511 for number in range(16)}
    made = await anne.conversations.create(metadata=largest, extra_body={"agent": "Milo"})
    assert (await anne.conversations.retrieve(made.id)).metadata == largest


# --- making one ------------------------------------------------------------------------------------------------------


async def test_a_conversation_made_first_is_used_by_its_id(anne: AsyncOpenAI, fake: FakeLetta) -> None:
    made = await anne.conversations.create(metadata={"for": "later"}, extra_body={"agent": "Milo"})
    assert (made.object, made.metadata) == ("conversation", {"for": "later"})
    assert (await anne.conversations.items.list(made.id)).data == []
    assert await talk(anne, "the first", pin=made.id) == made.id
    assert await talk(anne, "the second", pin=made.id) == made.id
    assert await said(anne, made.id) == [
        ("user", "the first"),
        ("assistant", "You said: the first"),
        ("user", "the second"),
        ("assistant", "You said: the second"),
    ]
    kept = await anne.conversations.retrieve(made.id)
    assert (kept.metadata, (kept.model_extra or {})["turns"]) == ({"for": "later"}, 2)
    assert len({visit.conversation for visit in fake.visits if visit.texts[-1] in ("the first", "the second")}) == 1


async def test_the_agent_may_be_called_model_as_elsewhere(anne: AsyncOpenAI) -> None:
    made = await anne.conversations.create(extra_body={"model": "Otis"})
    assert (made.model_extra or {})["agent"] == "Otis"


async def test_no_conversation_is_made_with_an_agent_that_is_not_there(anne: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as info:
        await anne.conversations.create(extra_body={"agent": "Nobody"})
    assert info.value.code == "model_not_found"


async def test_fields_that_mean_nothing_are_reported(anne: AsyncOpenAI) -> None:
    made = await anne.conversations.with_raw_response.create(items=[], extra_body={"agent": "Milo", "colour": "red"})
    assert made.headers["x-frontdesk-ignored-params"] == "colour"
    thought: Any = {"type": "reasoning", "id": "rs_1", "summary": []}
    made = await anne.conversations.with_raw_response.create(items=[message("kept"), thought])
    assert made.headers["x-frontdesk-ignored-params"] == "items.reasoning"
    assert await said(anne, made.parse().id) == [("user", "kept")]


# --- items -----------------------------------------------------------------------------------------------------------


def message(text: str, role: str = "user") -> Any:
    return {"type": "message", "role": role, "content": text}


async def test_items_have_the_shapes_of_the_responses_api(anne: AsyncOpenAI) -> None:
    from openai.types.conversations import ConversationItem

    conversation_id = await talk(anne, "#tools#")
    page = await anne.conversations.items.with_raw_response.list(conversation_id, order="asc")
    bodies = page.http_response.json()["data"]
    for body in bodies:
        TypeAdapter[ConversationItem](ConversationItem).validate_python(body, strict=True)
    question, thought, first, second, answer = (await anne.conversations.items.list(conversation_id, order="asc")).data
    assert question.type == "message"
    assert (question.role, question.status, question.content[0].type) == ("user", "completed", "input_text")
    assert thought.type == "reasoning"
    assert thought.summary[0].text == "I could look it up."
    assert (first.type, second.type) == ("mcp_call", "mcp_call")
    assert (first.name, first.arguments, first.output) == ("search", '{"q":"snow"}', "result 1")  # type: ignore[union-attr]
    assert (first.status, first.error, second.status) == ("completed", None, "failed")  # type: ignore[union-attr]
    assert bodies[3]["error"]["content"] == [{"type": "text", "text": "result 2"}]
    assert answer.type == "message"
    assert (answer.role, answer.content[0].type, answer.content[0].text) == ("assistant", "output_text", "It snows.")  # type: ignore[union-attr]


async def test_a_tool_of_the_callers_is_a_function_call_and_its_output(anne: AsyncOpenAI) -> None:
    from openai.types.conversations import ConversationItem

    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    messages: list[Any] = [{"role": "user", "content": '#call look {"at":"it"}#'}]
    asked = await anne.chat.completions.with_raw_response.create(model="Milo", messages=messages, tools=[tool])
    conversation_id = asked.headers[ID_HEADER]
    message = asked.parse().choices[0].message
    assert message.tool_calls
    call_id = message.tool_calls[0].id
    result = {"role": "tool", "tool_call_id": call_id, "content": "a cat"}
    await create(anne, model="Milo", messages=[*messages, message, result], tools=[tool])
    page = await anne.conversations.items.with_raw_response.list(conversation_id, order="asc")
    bodies = page.http_response.json()["data"]
    for body in bodies:
        TypeAdapter[ConversationItem](ConversationItem).validate_python(body, strict=True)
    assert [body["type"] for body in bodies[:3]] == ["message", "function_call", "function_call_output"]
    assert (bodies[1]["call_id"], bodies[1]["name"]) == (call_id, "look")
    assert (bodies[2]["call_id"], bodies[2]["output"]) == (call_id, "a cat")


async def test_pictures_are_told_by_their_address(anne: AsyncOpenAI) -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    dot = f"data:image/png;base64,{pixel}"
    parts: Any = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": dot}}]
    messages: Any = [{"role": "user", "content": parts}]
    answer = await anne.chat.completions.with_raw_response.create(model="Milo", messages=messages)
    item = (await anne.conversations.items.list(answer.headers[ID_HEADER], order="asc")).data[0]
    assert item.type == "message"
    assert [part.type for part in item.content] == ["input_text", "input_image"]
    assert item.content[1].image_url == dot  # type: ignore[union-attr]


async def test_items_come_latest_first_unless_asked_otherwise_and_in_pages(anne: AsyncOpenAI) -> None:
    conversation_id = await talk(anne, "one", "two", "three")
    first = await anne.conversations.items.list(conversation_id, limit=4)
    assert [item.content[0].text for item in first.data][:2] == ["You said: three", "three"]  # type: ignore[union-attr]
    assert (first.has_more, first.last_id) == (True, first.data[-1].id)
    rest = await anne.conversations.items.list(conversation_id, limit=4, after=first.last_id or "")
    assert [item.content[0].text for item in rest.data] == ["You said: one", "one"]  # type: ignore[union-attr]
    assert not rest.has_more
    assert [text for _, text in await said(anne, conversation_id)] == [
        *("one", "You said: one", "two", "You said: two", "three", "You said: three")
    ]


async def test_an_item_keeps_its_id_and_is_found_by_it(anne: AsyncOpenAI) -> None:
    conversation_id = await talk(anne, "to be found", "and more")
    items = (await anne.conversations.items.list(conversation_id, order="asc")).data
    again = (await anne.conversations.items.list(conversation_id, order="desc")).data
    assert [item.id for item in items] == [item.id for item in reversed(again)]
    assert len({item.id for item in items}) == 4
    for item in items:
        assert await anne.conversations.items.retrieve(item.id or "", conversation_id=conversation_id) == item
    with pytest.raises(openai.NotFoundError) as info:
        await anne.conversations.items.retrieve("msg_0", conversation_id=conversation_id)
    assert info.value.code == "item_not_found"


async def test_a_conversation_can_be_read_while_letta_is_away(tmp_path: Path) -> None:
    with fake_letta() as letta, served(tmp_path, letta_base_url=letta.url) as faked:
        async with faked.client() as client:
            conversation_id = await talk(client, "before it went")
            letta.answers |= {method: lambda _: web.json_response({}, status=503) for method in ("GET ", "POST ")}
            assert await said(client, conversation_id) == [
                ("user", "before it went"),
                ("assistant", "You said: before it went"),
            ]
            assert [each["id"] for each in (await listed(client))["data"]] == [conversation_id]
            with pytest.raises(openai.APIStatusError) as info:
                await fork(client, conversation_id)
            assert (info.value.status_code, info.value.code) == (503, "backend_unavailable")
            assert len((await listed(client))["data"]) == 1


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"limit": "x"}, "limit"), ({"after": "msg_0"}, "after")],
)
async def test_a_query_that_is_wrong_is_named(anne: AsyncOpenAI, query: dict[str, Any], param: str) -> None:
    conversation_id = await talk(anne, "for queries")
    for path in (f"/conversations/{conversation_id}/items", "/conversations"):
        with pytest.raises(openai.BadRequestError) as info:
            await anne.get(path, cast_to=object, options={"params": query})
        assert info.value.param == param
    with pytest.raises(openai.BadRequestError) as info:
        await anne.conversations.items.list(conversation_id, order="sideways")  # type: ignore[arg-type]
    assert info.value.param == "order"


async def test_an_edited_chat_tells_what_was_said_before_the_edit_and_the_other_stays_as_it_was(
    anne: AsyncOpenAI,
) -> None:
    original = await talk(anne, "we share this", "the first try")
    messages: Any = [
        {"role": "user", "content": "we share this"},
        {"role": "assistant", "content": "You said: we share this"},
        {"role": "user", "content": "the second try"},
    ]
    answer = await anne.chat.completions.with_raw_response.create(model="Milo", messages=messages)
    branch = answer.headers[ID_HEADER]
    assert branch != original
    assert [text for role, text in await said(anne, branch) if role == "user"] == ["we share this", "the second try"]
    assert [text for role, text in await said(anne, original) if role == "user"] == ["we share this", "the first try"]
    assert ((await anne.conversations.retrieve(branch)).model_extra or {})["turns"] == 2


# --- putting items there ---------------------------------------------------------------------------------------------


def given(fake: FakeLetta, marker: str) -> list[tuple[str, str]]:
    """All that the model was given in the one turn whose last message holds the marker."""
    (visit,) = fake.visits_with(marker)
    return visit.heard


@requirement("api.conversations")
async def test_what_was_put_into_a_conversation_is_told_once_and_before_the_next_message(
    anne: AsyncOpenAI, fake: FakeLetta
) -> None:
    conversation_id = await talk(anne, "put: before")
    first: Any = await anne.conversations.items.create(
        conversation_id, items=[message("put: one"), message("two", "assistant")]
    )
    await anne.conversations.items.create(conversation_id, items=[message("put: three")])
    assert [item.content[0].text for item in first.data] == ["put: one", "two"]
    shown = [("user", "put: before"), ("assistant", "You said: put: before")]
    shown += [("user", "put: one"), ("assistant", "two"), ("user", "put: three")]
    assert await said(anne, conversation_id) == shown

    assert await talk(anne, "put: four", pin=conversation_id) == conversation_id
    shown += [("user", "put: four")]
    assert given(fake, "put: four") == shown
    shown += [("assistant", "You said: put: four")]
    assert await talk(anne, "put: five", pin=conversation_id) == conversation_id
    assert given(fake, "put: five") == [*shown, ("user", "put: five")]
    assert fake.visits_with("put: five")[0].texts == ["put: five"]
    assert ((await anne.conversations.retrieve(conversation_id)).model_extra or {})["turns"] == 3


@requirement("api.conversations")
async def test_a_conversation_begins_with_items_and_goes_on_in_the_responses_api(
    anne: AsyncOpenAI, fake: FakeLetta
) -> None:
    items = [message("Speak softly.", "developer"), message("begun: yes"), message("I see.", "assistant")]
    made = await anne.conversations.create(items=items, metadata={"topic": "it"}, extra_body={"agent": "Milo"})
    assert (made.metadata, (made.model_extra or {})["title"]) == ({"topic": "it"}, "begun: yes")
    answer = await anne.responses.create(model="Milo", conversation=made.id, input="begun: and on")
    assert answer.conversation
    assert answer.conversation.id == made.id
    told = [("system", "Speak softly."), ("user", "begun: yes"), ("assistant", "I see.")]
    assert given(fake, "begun: and on") == [*told, ("user", "begun: and on")]
    await anne.conversations.items.create(made.id, items=[message("begun: a note")])
    await anne.responses.create(model="Milo", previous_response_id=answer.id, input="begun: further")
    assert given(fake, "begun: further")[3:] == [
        ("user", "begun: and on"),
        ("assistant", "You said: begun: and on"),
        ("user", "begun: a note"),
        ("user", "begun: further"),
    ]


@pytest.mark.parametrize("shows", [False, True], ids=["unseen", "shown"])
async def test_a_client_that_tells_everything_goes_on_after_what_was_put_there(
    anne: AsyncOpenAI, fake: FakeLetta, shows: bool
) -> None:
    """Whether it shows what it did not say itself, or has never heard of it."""
    mark = f"all{shows}"
    conversation_id = await talk(anne, f"{mark}: hello")
    notes = [("user", f"{mark}: noted"), ("assistant", f"{mark}: answered"), ("user", f"{mark}: at last")]
    await anne.conversations.items.create(conversation_id, items=[message(text, role) for role, text in notes])
    before = [("user", f"{mark}: hello"), ("assistant", f"You said: {mark}: hello")]
    chat = before + (notes if shows else [])
    for text in ("next", "after that"):
        chat = [*chat, ("user", f"{mark}: {text}")]
        messages: Any = [{"role": role, "content": content} for role, content in chat]
        answer = await anne.chat.completions.with_raw_response.create(model="Milo", messages=messages)
        assert answer.headers[ID_HEADER] == conversation_id
        told = given(fake, f"{mark}: {text}")
        assert told == [*before, *notes, *chat[len(before) + (3 if shows else 0) :]]
        chat = [*chat, ("assistant", f"You said: {mark}: {text}")]
    assert await said(anne, conversation_id) == [*before, *notes, *chat[len(before) + (3 if shows else 0) :]]


async def test_a_client_that_tells_everything_begins_where_items_were_put(anne: AsyncOpenAI, fake: FakeLetta) -> None:
    made = await anne.conversations.create(items=[message("start: noted")], extra_body={"agent": "Milo"})
    chat: Any = [message("start: from elsewhere"), message("Yes.", "assistant"), message("start: go")]
    answer = await anne.chat.completions.with_raw_response.create(
        model="Milo", messages=chat, extra_headers={ID_HEADER: made.id}
    )
    assert answer.headers[ID_HEADER] == made.id
    told = ["start: noted", "start: from elsewhere", "Yes.", "start: go"]
    assert [text for _, text in given(fake, "start: go")] == told


async def test_what_was_put_there_is_still_told_after_a_turn_that_failed_or_was_cancelled(
    anne: AsyncOpenAI, fake: FakeLetta
) -> None:
    made = await anne.conversations.create(items=[message("still: noted")], extra_body={"agent": "Milo"})
    with pytest.raises(openai.APIStatusError):
        await talk(anne, "still: #cut#", pin=made.id)
    await anne.conversations.items.create(made.id, items=[message("still: noted, too")])
    stream = await create(
        anne,
        model="Milo",
        messages=[{"role": "user", "content": "still: #wait#"}],
        stream=True,
        extra_headers={ID_HEADER: made.id},
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    await stream.close()
    patient = anne.with_options(max_retries=5)  # until that turn has ended
    await patient.conversations.items.create(made.id, items=[message("still: after")])
    assert await talk(anne, "still: here", pin=made.id) == made.id
    told = ["still: noted", "still: noted, too", "still: #wait#", "Wait.", "still: after", "still: here"]
    assert [text for _, text in given(fake, "still: here")] == told
    assert [text for _, text in await said(anne, made.id)] == [
        *("still: noted", "still: noted, too", "still: after"),
        *("still: #wait#", "Wait.", "still: here", "You said: still: here"),  # told with the turn that came next
    ]


async def test_what_was_put_there_outlives_a_restart_and_goes_into_forks(tmp_path: Path) -> None:
    with fake_letta() as letta:
        with served(tmp_path, letta_base_url=letta.url) as gateway:
            async with gateway.client() as client:
                conversation_id = await talk(client, "before")
                await client.conversations.items.create(conversation_id, items=[message("noted")])
        with served(tmp_path, letta_base_url=letta.url) as gateway:
            async with gateway.client() as client:
                branch = (await fork(client, conversation_id))["id"]
                for mark, there in (("in the original", conversation_id), ("in the fork", branch)):
                    assert await talk(client, mark, pin=there) == there
                    assert given(letta, mark) == [
                        *(("user", "before"), ("assistant", "You said: before"), ("user", "noted"), ("user", mark))
                    ]


async def test_pictures_and_tools_are_put_there(anne: AsyncOpenAI, fake: FakeLetta) -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    parts = [
        {"type": "input_text", "text": "Look: "},
        {"type": "input_image", "image_url": f"data:image/png;base64,{pixel}"},
    ]
    call = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"it"}'}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "a cat"}
    items: Any = [{"role": "user", "content": parts}, call, output]  # a message needs no type
    made = await anne.conversations.create(items=items, extra_body={"agent": "Milo"})
    listed = (await anne.conversations.items.list(made.id, order="asc")).data
    assert [item.type for item in listed] == ["message", "function_call", "function_call_output"]
    await talk(anne, "pictured", pin=made.id)
    (visit,) = fake.visits_with("pictured")
    assert visit.body["messages"][0]["content"][1]["source"]["data"] == pixel
    assert visit.heard[1:] == [("assistant", '[The tool call look({"at":"it"}) returned: a cat]'), ("user", "pictured")]


async def test_items_put_there_have_openais_shapes(anne: AsyncOpenAI) -> None:
    from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItemList

    def check(shape: Any, answer: Any) -> Any:
        assert answer.status_code == 200
        TypeAdapter[Any](shape).validate_python(answer.json(), strict=True)
        return answer.json()

    items = [message("one"), message("two", "assistant"), message("three", "system")]
    raw = anne.conversations.with_raw_response
    made = check(Conversation, (await raw.create(items=items)).http_response)
    there = made["id"]
    more = await raw.items.create(there, items=items, include=["reasoning.encrypted_content"])
    added = check(ConversationItemList, more.http_response)
    assert [added["first_id"], added["last_id"]] == [added["data"][0]["id"], added["data"][2]["id"]]
    assert added["has_more"] is False
    assert [(each["role"], each["status"]) for each in added["data"]] == [
        *(("user", "completed"), ("assistant", "completed"), ("system", "completed"))
    ]
    page = await raw.items.list(there, order="asc", limit=4, include=["message.output_text.logprobs"])
    first = check(ConversationItemList, page.http_response)
    rest = await raw.items.list(there, order="asc", limit=4, after=first["last_id"])
    second = check(ConversationItemList, rest.http_response)
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [*first["data"], *second["data"]][3:] == added["data"]
    one = await anne.conversations.items.retrieve(added["first_id"], conversation_id=there)
    assert one.to_dict() == added["data"][0]
    left = await raw.items.delete(added["first_id"], conversation_id=there)
    assert check(Conversation, left.http_response)["id"] == there
    check(Conversation, (await raw.retrieve(there)).http_response)
    check(Conversation, (await raw.update(there, metadata={"a": "b"})).http_response)
    check(ConversationDeletedResource, (await raw.delete(there)).http_response)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "items", "missing_required_parameter"),
        ({"items": "text"}, "items", "invalid_type"),
        ({"items": [{"role": "user", "content": "x"}] * 21}, "items", "invalid_value"),
        ({"items": [{"role": "user"}]}, "items[0].content", "missing_required_parameter"),
        ({"items": [{"role": "user", "content": ""}]}, "items[0].content", "invalid_value"),
        ({"items": [{"role": "tool", "content": "x"}]}, "items[0].role", "invalid_value"),
        ({"items": [{"role": "user", "content": 5}]}, "items[0].content", "invalid_type"),
        (
            {"items": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "items[0].content[0].file_id",
            "unsupported_content_type",
        ),
        (
            {"items": [{"role": "user", "content": [{"type": "input_file", "file_data": "JVBERi0xLjcK"}]}]},
            "items[0].content[0].file_data",
            "unsupported_content_type",
        ),
        (
            {"items": [{"role": "user", "content": [{"type": "input_image", "image_url": "ftp://there/it.png"}]}]},
            "items[0].content[0].image_url",
            "invalid_image_url",
        ),
        (
            {
                "items": [
                    {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}
                ]
            },
            "items[0].content[0].image_url",
            "invalid_image_url",
        ),
        (
            {"items": [{"type": "function_call_output", "call_id": "call_none", "output": "x"}]},
            "items[0].call_id",
            "invalid_value",
        ),
        ({"items": [{"type": "item_reference", "id": "msg_0"}]}, "items[0].type", "unsupported_value"),
    ],
)
async def test_items_that_cannot_be_told_are_refused_and_nothing_is_kept(
    anne: AsyncOpenAI, faked: Served, body: Any, param: str, code: str
) -> None:
    made = await anne.conversations.create(extra_body={"agent": "Milo"})
    ways = [f"/conversations/{made.id}/items", *(["/conversations"] if body else [])]
    for way in ways:
        answer = await post(faked, way, json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert (await anne.conversations.items.list(made.id)).data == []


async def test_a_picture_that_is_not_kept_is_refused(anne: AsyncOpenAI) -> None:
    url = "data:image/gif;base64," + base64.b64encode(b"GIF89a" + bytes(64 * 1024)).decode()
    picture: Any = {"role": "user", "content": [{"type": "input_image", "image_url": url}]}
    with pytest.raises(openai.BadRequestError) as info:
        await anne.conversations.create(items=[picture])
    assert (info.value.param, info.value.code) == ("items[0].content[0].image_url", "invalid_image_url")


async def test_nothing_is_put_where_the_agent_waits_for_tool_results(anne: AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    messages: Any = [{"role": "user", "content": '#call look {"at":"all"}#'}]
    asked = await anne.chat.completions.with_raw_response.create(model="Milo", messages=messages, tools=[tool])
    there = asked.headers[ID_HEADER]
    item = (await anne.conversations.items.list(there)).data[0]
    for way in (
        lambda: anne.conversations.items.create(there, items=[message("meanwhile")]),
        lambda: anne.conversations.items.delete(item.id or "", conversation_id=there),
    ):
        with pytest.raises(openai.ConflictError) as info:
            await way()
        assert info.value.response.headers["x-should-retry"] == "false"


# --- taking items back -----------------------------------------------------------------------------------------------


async def texts(client: AsyncOpenAI, conversation_id: str) -> dict[str, str]:
    """The ids of the messages of a conversation, by their text."""
    items: Any = client.conversations.items.list(conversation_id, order="asc")
    return {item.content[0].text: item.id async for item in items if item.type == "message"}


@requirement("api.conversations")
async def test_what_was_taken_back_is_not_seen_by_the_model_again_and_everything_else_is(
    anne: AsyncOpenAI, fake: FakeLetta
) -> None:
    there = await talk(anne, "back: one", "back: two")
    thread = fake.visits_with("back: two")[0].conversation
    ids = await texts(anne, there)
    for text in ("back: one", "You said: back: two"):
        left = await anne.conversations.items.delete(ids[text], conversation_id=there)
        assert left.id == there
        with pytest.raises(openai.NotFoundError) as info:
            await anne.conversations.items.retrieve(ids[text], conversation_id=there)
        assert info.value.code == "item_not_found"
    assert ((await anne.conversations.retrieve(there)).model_extra or {})["title"] is None, "it was in these words"
    await eventually(lambda: f"DELETE /v1/conversations/{thread}" in fake.calls)
    await anne.conversations.items.create(there, items=[message("back: noted")])
    rest = [("assistant", "You said: back: one"), ("user", "back: two"), ("user", "back: noted")]
    assert await said(anne, there) == rest
    with pytest.raises(openai.APIStatusError):
        await talk(anne, "back: #cut#", pin=there)
    assert await said(anne, there) == rest
    assert await talk(anne, "back: three", pin=there) == there
    assert given(fake, "back: three") == [*rest, ("user", "back: three")]
    rest += [("user", "back: three"), ("assistant", "You said: back: three")]
    assert await talk(anne, "back: four", pin=there) == there
    assert given(fake, "back: four") == [*rest, ("user", "back: four")]
    assert await said(anne, there) == [*rest, ("user", "back: four"), ("assistant", "You said: back: four")]


async def test_what_nobody_was_told_yet_is_taken_back_without_a_trace(anne: AsyncOpenAI, fake: FakeLetta) -> None:
    there = await talk(anne, "untold: one")
    await anne.conversations.items.create(there, items=[message("untold: no"), message("untold: yes")])
    await anne.conversations.items.delete((await texts(anne, there))["untold: no"], conversation_id=there)
    await talk(anne, "untold: two", pin=there)
    told = ["untold: one", "You said: untold: one", "untold: yes", "untold: two"]
    assert [text for _, text in given(fake, "untold: two")] == told
    assert len({visit.conversation for visit in fake.visits if "untold: " in str(visit.texts)}) == 1


async def test_a_fork_made_before_keeps_what_was_taken_back_and_one_made_after_does_not(
    anne: AsyncOpenAI, fake: FakeLetta
) -> None:
    there = await talk(anne, "forget: me", "forget: not me")
    before = (await fork(anne, there))["id"]
    await anne.conversations.items.delete((await texts(anne, there))["forget: me"], conversation_id=there)
    after = (await fork(anne, there))["id"]
    assert "forget: me" in await texts(anne, before)
    assert await said(anne, after) == await said(anne, there)
    rest = ["You said: forget: me", "forget: not me", "You said: forget: not me"]
    for where, mark, told in ((before, "forget: a", ["forget: me", *rest]), (after, "forget: b", rest)):
        await talk(anne, mark, pin=where)
        assert [text for _, text in given(fake, mark)] == [*told, mark]


async def test_a_branch_from_a_response_is_without_what_was_taken_back_also_where_tools_were_used(
    anne: AsyncOpenAI, fake: FakeLetta
) -> None:
    made = await anne.conversations.create()
    first = await anne.responses.create(model="Milo", conversation=made.id, input="branch: secret #tools#")
    await anne.responses.create(model="Milo", conversation=made.id, input="branch: next")
    await anne.conversations.items.delete(
        (await texts(anne, made.id))["branch: secret #tools#"], conversation_id=made.id
    )
    branch = await anne.responses.create(model="Milo", previous_response_id=first.id, input="branch: other")
    assert branch.conversation
    assert branch.conversation.id != made.id
    assert [text for _, text in given(fake, "branch: other")] == ["It snows.", "branch: other"]


async def test_items_are_taken_back_while_letta_is_away(tmp_path: Path) -> None:
    with fake_letta() as letta, served(tmp_path, letta_base_url=letta.url) as gateway:
        async with gateway.client() as client:
            there = await talk(client, "away: one", "away: two")
            letta.answers["DELETE "] = lambda _: web.json_response({}, status=503)
            await client.conversations.items.delete((await texts(client, there))["away: one"], conversation_id=there)
            await talk(client, "away: three", pin=there)
            told = ["You said: away: one", "away: two", "You said: away: two", "away: three"]
            assert [text for _, text in given(letta, "away: three")] == told


# --- made without an agent -------------------------------------------------------------------------------------------


@requirement("api.conversations")
async def test_a_conversation_made_without_an_agent_is_the_ones_that_speaks_there_first(
    anne: AsyncOpenAI, fake: FakeLetta
) -> None:
    made = await anne.conversations.create(items=[message("unbound: noted")], metadata={"for": "whom"})
    assert ((made.model_extra or {})["agent"], (made.model_extra or {})["agent_id"]) == ("", "")
    assert made.id in [each["id"] for each in (await listed(anne))["data"]]
    answer = await anne.responses.create(model="Otis", conversation=made.id, input="unbound: one")
    assert answer.conversation
    assert answer.conversation.id == made.id
    assert [text for _, text in given(fake, "unbound: one")] == ["unbound: noted", "unbound: one"]
    assert await talk(anne, "unbound: two", model="Otis", pin=made.id) == made.id
    kept = await anne.conversations.retrieve(made.id)
    assert (kept.id, kept.metadata) == (made.id, {"for": "whom"})
    assert ((kept.model_extra or {})["agent"], (kept.model_extra or {})["turns"]) == ("Otis", 2)
    assert made.id in [each["id"] for each in (await listed(anne, agent="Otis"))["data"]]
    with pytest.raises(openai.NotFoundError) as info:
        await talk(anne, "unbound: three", model="Milo", pin=made.id)
    assert info.value.code == "conversation_not_found"
    assert (await anne.conversations.delete(made.id)).deleted


async def test_of_two_agents_that_speak_first_one_has_the_conversation(carol: AsyncOpenAI) -> None:
    made = await carol.conversations.create(items=[message("for the first")])
    asked = [carol.responses.create(model=name, conversation=made.id, input="race") for name in ("Milo", "Otis")]
    came = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(each).__name__ for each in came) == ["NotFoundError", "Response"]
    assert [text for _, text in await said(carol, made.id)] == ["for the first", "race", "You said: race"]
    for item in (await carol.conversations.items.list(made.id)).data[1:]:
        await carol.conversations.items.delete(item.id or "", conversation_id=made.id)
    assert [text for _, text in await said(carol, made.id)] == ["You said: race"]


async def test_a_conversation_without_an_agent_is_its_makers_alone(
    anne: AsyncOpenAI, bob: AsyncOpenAI, faked: Served
) -> None:
    made = await anne.conversations.create(items=[message("mine")])
    for way in every_way(bob, made.id):
        with pytest.raises(openai.NotFoundError) as info:
            await way()
        assert info.value.code == "conversation_not_found"
    for ask in (
        lambda: bob.responses.create(model="Milo", conversation=made.id, input="whose?"),
        lambda: talk(bob, "whose?", pin=made.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await ask()
    assert ((await anne.conversations.retrieve(made.id)).model_extra or {})["agent"] == ""
    async with faked.client(api_key=OTIS_ONLY) as limited:
        theirs = await limited.conversations.create()
        assert theirs.id in [each["id"] for each in (await listed(limited))["data"]]
        with pytest.raises(openai.APIStatusError):
            await limited.responses.create(model="Milo", conversation=theirs.id, input="not allowed")
        await limited.responses.create(model="Otis", conversation=theirs.id, input="allowed")


async def test_an_agent_of_one_thread_takes_no_conversation_of_its_own(anne: AsyncOpenAI) -> None:
    made = await anne.conversations.create(items=[message("for one")])
    with pytest.raises(openai.BadRequestError) as info:
        await anne.responses.create(model="Milo:single", conversation=made.id, input="alone")
    assert info.value.code == "unsupported_value"
    assert ((await anne.conversations.retrieve(made.id)).model_extra or {})["agent"] == ""


async def test_a_conversation_without_an_agent_can_be_forked(anne: AsyncOpenAI, fake: FakeLetta) -> None:
    made = await anne.conversations.create(items=[message("forked: noted")])
    branch = (await fork(anne, made.id))["id"]
    for model, there in (("Milo", made.id), ("Otis", branch)):
        assert await talk(anne, f"forked: {model}", model=model, pin=there) == there
        assert [text for _, text in given(fake, f"forked: {model}")] == ["forked: noted", f"forked: {model}"]


# --- the list --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres_server() -> Generator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
async def carol(fake: FakeLetta, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncGenerator[AsyncOpenAI]:
    """Somebody with a gateway of their own, on which nothing has been said yet."""
    store: dict[str, str] = {}
    if request.param == "postgres":
        server: str = request.getfixturevalue("postgres_server")
        store = {"database_url": fresh_database(server, f"carol_{uuid.uuid4().hex}")}
    with served(tmp_path / "carol", letta_base_url=fake.url, **store) as faked:
        async with faked.client() as client:
            yield client


async def test_a_list_of_nothing_is_a_list(carol: AsyncOpenAI) -> None:
    nothing: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert await listed(carol) == nothing


@requirement("api.conversations")
async def test_conversations_are_listed_the_latest_used_first_and_in_pages(carol: AsyncOpenAI) -> None:
    ids = [await talk(carol, f"number {number}") for number in range(5)]
    await carol.chat.completions.create(
        model="Milo", messages=[{"role": "user", "content": "again"}], extra_headers={ID_HEADER: ids[0]}
    )
    expected = [ids[0], ids[4], ids[3], ids[2], ids[1]]
    assert [each["id"] for each in (await listed(carol))["data"]] == expected
    page = await listed(carol, limit=2)
    assert (page["first_id"], page["last_id"], page["has_more"]) == (expected[0], expected[1], True)
    second = await listed(carol, limit=2, after=page["last_id"])
    last = await listed(carol, limit=2, after=second["last_id"])
    assert [each["id"] for each in (*page["data"], *second["data"], *last["data"])] == expected
    assert (second["has_more"], last["has_more"]) == (True, False)
    assert page["data"][0]["title"] == "number 0"
    assert page["data"][0]["turns"] == 2


async def test_the_list_can_be_of_one_agent_by_name_or_id(carol: AsyncOpenAI, fake: FakeLetta) -> None:
    milo, otis = await talk(carol, "to Milo"), await talk(carol, "to Otis", model="Otis")
    assert [each["id"] for each in (await listed(carol, agent="Otis"))["data"]] == [otis]
    assert [each["id"] for each in (await listed(carol, agent=fake.rows[0]["id"]))["data"]] == [milo]
    with pytest.raises(openai.NotFoundError) as info:
        await listed(carol, agent="Nobody")
    assert (info.value.param, info.value.code) == ("agent", "model_not_found")


async def test_what_serves_one_request_or_is_to_be_forgotten_is_not_listed(carol: AsyncOpenAI) -> None:
    chat = await talk(carol, "kept")
    alone = await talk(carol, "alone", model="Milo:stateless")
    own = await talk(carol, "companion", model="Milo:single")
    temporary = await carol.chat.completions.with_raw_response.create(
        model="Milo",
        messages=[{"role": "user", "content": "forget me"}],
        extra_headers={"x-openwebui-chat-id": "local:1"},
    )
    assert [each["id"] for each in (await listed(carol))["data"]] == [chat]
    assert await said(carol, alone) == [("user", "alone"), ("assistant", "You said: alone")]
    assert (await carol.conversations.retrieve(temporary.headers[ID_HEADER])).object == "conversation"
    with pytest.raises(openai.NotFoundError):  # everybody speaks there
        await carol.conversations.retrieve(own)


# --- whose -----------------------------------------------------------------------------------------------------------


def every_way(client: AsyncOpenAI, conversation_id: str) -> list[Callable[[], Any]]:
    return [
        lambda: client.conversations.retrieve(conversation_id),
        lambda: client.conversations.update(conversation_id, metadata={}),
        lambda: client.conversations.items.list(conversation_id),
        lambda: client.conversations.items.retrieve("msg_0", conversation_id=conversation_id),
        lambda: client.conversations.items.create(conversation_id, items=[message("for another")]),
        lambda: client.conversations.items.delete("msg_0", conversation_id=conversation_id),
        lambda: fork(client, conversation_id),
        lambda: client.conversations.delete(conversation_id),
    ]


@requirement("api.conversations")
async def test_anothers_conversation_is_not_there_in_no_way_and_neither_is_a_forged_one(
    anne: AsyncOpenAI, bob: AsyncOpenAI
) -> None:
    mine = await talk(anne, "a secret of mine")
    bobs = await talk(bob, "something of Bob's")
    forged = [
        mine[:-1] + ("A" if mine[-1] != "A" else "B"),
        mine[:27] + bobs[27:],
        mine + "=",
        mine.removeprefix("conv_"),
    ]
    messages: set[str] = set()
    for conversation_id in (mine, *forged, "conv_", "conv_" + "A" * 35, "thread", "ünï", "%00"):
        for way in every_way(bob, conversation_id):
            with pytest.raises(openai.NotFoundError) as info:
                await way()
            assert info.value.code == "conversation_not_found"
            messages.add(info.value.message.split(" '")[0])
    assert len(messages) == 1, "the answer tells nothing of why"
    assert mine not in [each["id"] for each in (await listed(bob, limit=100))["data"]]
    assert (await anne.conversations.retrieve(mine)).id == mine
    with pytest.raises(openai.BadRequestError):
        await listed(bob, after=mine)


async def test_a_key_sees_conversations_of_its_agents_only(fake: FakeLetta, tmp_path: Path) -> None:
    """The key's agents were limited after it had spoken with others."""
    with served(
        tmp_path, letta_base_url=fake.url, keys=[{"name": "otis-only", "sha256": SHA}], probe_key=OTIS_ONLY
    ) as g:
        async with g.client(api_key=OTIS_ONLY) as client:
            milo, otis = await talk(client, "to Milo"), await talk(client, "to Otis", model="Otis")
            assert len((await listed(client))["data"]) == 2
    limited = [{"name": "otis-only", "sha256": SHA, "agents": ["Otis"]}]
    # (that one may not see whether the agents are known yet)
    with served(tmp_path, letta_base_url=fake.url, keys=limited, api_keys=ANNE, probe_key=ANNE) as g:
        async with g.client(api_key=OTIS_ONLY) as client:
            assert [each["id"] for each in (await listed(client))["data"]] == [otis]
            assert (await client.conversations.retrieve(otis)).id == otis
            for way in every_way(client, milo):
                with pytest.raises(openai.NotFoundError) as info:
                    await way()
                assert info.value.code == "conversation_not_found"
            with pytest.raises(openai.PermissionDeniedError):
                await listed(client, agent="Milo")
            with pytest.raises(openai.PermissionDeniedError):
                await client.conversations.create(extra_body={"agent": "Milo"})


async def test_a_key_is_needed(faked: Served) -> None:
    async with faked.client(api_key="wrong") as nobody:
        with pytest.raises(openai.AuthenticationError):
            await listed(nobody)


async def test_conversations_of_an_agent_that_is_gone_can_be_read_and_deleted(tmp_path: Path) -> None:
    with fake_letta() as letta, served(tmp_path, letta_base_url=letta.url, models_refresh_seconds=0.2) as faked:
        async with faked.client() as client:
            conversation_id = await talk(client, "to Otis", model="Otis")
            otis = letta.rows.pop()["id"]
            await eventually(lambda: len(httpx.get(f"{faked.base_url}/models").json()["data"]) == 1)
            assert await said(client, conversation_id) == [("user", "to Otis"), ("assistant", "You said: to Otis")]
            assert [each["agent"] for each in (await listed(client, agent=otis))["data"]] == [otis]
            with pytest.raises(openai.BadRequestError) as info:
                await fork(client, conversation_id)
            assert info.value.code == "unsupported_value"
            assert (await client.conversations.delete(conversation_id)).deleted


# --- deleting --------------------------------------------------------------------------------------------------------


async def test_a_deleted_conversation_is_gone_here_and_soon_at_letta(anne: AsyncOpenAI, fake: FakeLetta) -> None:
    conversation_id = await talk(anne, "to be deleted", "soon", pin="a name to be free")
    (there,) = {visit.conversation for visit in fake.visits if visit.texts[-1] == "soon"}
    gone = await anne.conversations.delete(conversation_id)
    assert (gone.id, gone.object, gone.deleted) == (conversation_id, "conversation.deleted", True)
    for way in every_way(anne, conversation_id):
        with pytest.raises(openai.NotFoundError):
            await way()
    await eventually(lambda: f"DELETE /v1/conversations/{there}" in fake.calls)
    assert await talk(anne, "begun anew", pin="a name to be free") != conversation_id


async def test_a_conversation_is_deleted_also_while_letta_is_away(tmp_path: Path) -> None:
    with fake_letta() as letta, served(tmp_path, letta_base_url=letta.url) as faked:
        async with faked.client() as client:
            conversation_id = await talk(client, "while it is away")
            letta.answers["DELETE "] = lambda _: web.json_response({}, status=503)
            assert (await client.conversations.delete(conversation_id)).deleted
            assert (await listed(client))["data"] == []


async def test_nothing_is_done_to_a_conversation_with_a_turn_in_it(anne: AsyncOpenAI) -> None:
    stream = await create(anne, model="Milo", messages=[{"role": "user", "content": "#wait#"}], stream=True)
    async for _ in stream:
        break
    conversation_id = stream.response.headers[ID_HEADER]
    for way in (
        lambda: anne.conversations.delete(conversation_id),
        lambda: fork(anne, conversation_id),
        lambda: anne.conversations.items.create(conversation_id, items=[message("meanwhile")]),
    ):
        with pytest.raises(openai.ConflictError) as info:
            await way()
        assert info.value.code == "conversation_busy"
        assert info.value.response.headers["x-should-retry"] == "true"
    assert (await anne.conversations.update(conversation_id, metadata={"still": "there"})).metadata
    await stream.close()
    async with anne.with_options(max_retries=5) as patient:
        assert (await patient.conversations.delete(conversation_id)).deleted


# --- branching -------------------------------------------------------------------------------------------------------


@requirement("api.conversations")
async def test_a_fork_has_the_same_history_and_a_future_of_its_own(anne: AsyncOpenAI, fake: FakeLetta) -> None:
    original = await talk(anne, "first of all", "second of all", pin="forked")
    await anne.conversations.update(original, metadata={"kind": "original"})
    answer = await anne.post(f"/conversations/{original}/fork", cast_to=httpx.Response)
    assert answer.status_code == 201
    made = answer.json()
    assert made["id"] != original
    assert (made["agent"], made["name"], made["turns"]) == ("Milo", None, 2)
    assert (made["title"], made["metadata"]) == ("first of all", {"kind": "original"})
    assert await said(anne, made["id"]) == await said(anne, original)

    assert await talk(anne, "only in the fork", pin=made["id"]) == made["id"]
    assert await talk(anne, "only in the original", pin=original) == original
    given = {str(visit.texts[-1]): [text for _, text in visit.heard] for visit in fake.visits}
    shared = ["first of all", "You said: first of all", "second of all", "You said: second of all"]
    assert given["only in the fork"] == [*shared, "only in the fork"]
    assert given["only in the original"] == [*shared, "only in the original"]
    assert [text for _, text in await said(anne, made["id"])][4] == "only in the fork"
    assert [text for _, text in await said(anne, original)][4] == "only in the original"


async def test_a_chat_that_names_nothing_goes_on_in_the_original_after_a_fork(anne: AsyncOpenAI) -> None:
    original = await talk(anne, "unnamed one", "unnamed two")
    await fork(anne, original)
    messages: Any = [
        {"role": "user", "content": "unnamed one"},
        {"role": "assistant", "content": "You said: unnamed one"},
        {"role": "user", "content": "unnamed two"},
        {"role": "assistant", "content": "You said: unnamed two"},
        {"role": "user", "content": "unnamed three"},
    ]
    answer = await anne.chat.completions.with_raw_response.create(model="Milo", messages=messages)
    assert answer.headers[ID_HEADER] == original


async def test_a_fork_outlives_what_it_was_branched_from(anne: AsyncOpenAI) -> None:
    original = await talk(anne, "before the fork", "still before it")
    made = (await fork(anne, original))["id"]
    before = await said(anne, original)
    await anne.conversations.delete(original)
    assert await said(anne, made) == before
    assert await talk(anne, "after it", pin=made) == made
    assert await said(anne, made) == [*before, ("user", "after it"), ("assistant", "You said: after it")]


async def test_a_conversation_in_which_nothing_was_said_can_be_forked(anne: AsyncOpenAI) -> None:
    empty = await anne.conversations.create(extra_body={"agent": "Milo"})
    made = await fork(anne, empty.id)
    assert await talk(anne, "the very first", pin=made["id"]) == made["id"]
    assert (await anne.conversations.items.list(empty.id)).data == []


async def test_a_conversation_that_waits_for_tool_results_is_not_forked(anne: AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    messages: Any = [{"role": "user", "content": '#call look {"at":"that"}#'}]
    asked = await anne.chat.completions.with_raw_response.create(model="Milo", messages=messages, tools=[tool])
    with pytest.raises(openai.ConflictError) as info:
        await fork(anne, asked.headers[ID_HEADER])
    assert "waits for tool results" in info.value.message
    assert info.value.response.headers["x-should-retry"] == "false"


async def test_where_letta_cannot_fork_that_is_said(tmp_path: Path) -> None:
    with fake_letta() as letta, served(tmp_path, letta_base_url=letta.url) as faked:
        async with faked.client() as client:
            conversation_id = await talk(client, "hello")
            letta.answers["POST /v1/conversations/conv-"] = lambda _: web.json_response(
                {"detail": "Not Found"}, status=404
            )
            with pytest.raises(openai.BadRequestError) as info:
                await fork(client, conversation_id)
            assert (info.value.code, "cannot be branched" in info.value.message) == ("unsupported_value", True)
            assert [each["id"] for each in (await listed(client))["data"]] == [conversation_id]


# --- the real thing --------------------------------------------------------------------------------------------------


@requirement("api.conversations")
async def test_a_real_letta_forks_and_forgets(
    client: AsyncOpenAI, model: ScriptedModel, letta_api: Letta, make_agent: Callable[..., Any]
) -> None:
    agent = make_agent()

    def threads() -> set[str]:
        return {each.id for each in letta_api.conversations.list(agent_id=agent.id)}

    original = await talk(client, "@say One", "@say Two", model=agent.name, pin=f"pin of {agent.id}")
    (first,) = threads()
    made = (await fork(client, original))["id"]
    (second,) = threads() - {first}
    assert await said(client, made) == await said(client, original)
    assert (await client.conversations.delete(original)).deleted
    await eventually(lambda: threads() == {second})
    assert await talk(client, f"@say Three {agent.id}", model=agent.name, pin=made) == made
    assert [text for _, text in heard(model.requests_with(agent.id)[-1])] == [
        "@say One",
        "One",
        "@say Two",
        "Two",
        f"@say Three {agent.id}",
    ]
    assert (await client.conversations.delete(made)).deleted
    await eventually(lambda: threads() == set())


@requirement("api.conversations")
async def test_a_real_letta_is_told_what_was_put_there_and_forgets_what_was_taken_back(
    client: AsyncOpenAI, model: ScriptedModel, letta_api: Letta, make_agent: Callable[..., Any]
) -> None:
    agent = make_agent()
    items = [
        message(f"Be kind to {agent.id}.", "developer"),
        message("Who is there?"),
        message("It is I.", "assistant"),
    ]
    made = await client.conversations.create(items=items)

    async def told(text: str) -> list[tuple[str, str]]:
        await client.responses.create(model=agent.name, conversation=made.id, input=text)
        return [(each["role"], str(each["content"])) for each in model.requests_with(agent.id)[-1].messages]

    first = await told("@say One")
    assert [role for role, _ in first][-4:] == ["system", "user", "assistant", "user"]
    assert [text for _, text in first][-4:] == [f"Be kind to {agent.id}.", "Who is there?", "It is I.", "@say One"]
    (thread,) = letta_api.conversations.list(agent_id=agent.id)
    await client.conversations.items.delete((await texts(client, made.id))["One"], conversation_id=made.id)
    await client.conversations.items.create(made.id, items=[message("Still there?")])
    second = await told("@say Two")
    assert [text for _, text in second][-6:] == [
        *(f"Be kind to {agent.id}.", "Who is there?", "It is I.", "@say One", "Still there?", "@say Two")
    ]
    await eventually(lambda: thread.id not in {each.id for each in letta_api.conversations.list(agent_id=agent.id)})


async def test_a_real_lettas_tools_are_told_as_what_they_were(
    client: AsyncOpenAI, make_agent: Callable[..., Any]
) -> None:
    agent = make_agent()
    conversation_id = await talk(
        client, '@call memory_insert {"label":"human","new_string":"likes snow"}', model=agent.name
    )
    types = [item.type async for item in client.conversations.items.list(conversation_id, order="asc")]
    assert types[0] == "message"
    assert "mcp_call" in types


async def test_a_real_letta_has_nothing_against_deleting_what_went_with_its_agent(
    client: AsyncOpenAI, letta: LocalLetta, letta_api: Letta, make_agent: Callable[..., Any]
) -> None:
    agent = make_agent()
    await talk(client, "@say One", model=agent.name)
    (thread,) = letta_api.conversations.list(agent_id=agent.id)
    letta_api.agents.delete(agent.id)
    backend = letta_backend(LettaServer(base_url=letta.base_url), Settings(_env_file=None))  # type: ignore[call-arg]
    try:
        await backend.delete(Agent(agent.id, "", "letta"), Thread(thread.id.removeprefix("conv-")))
    finally:
        await backend.aclose()
