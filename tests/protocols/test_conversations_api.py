"""/v1/conversations, as the official client sees it; and that nobody else does."""

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


async def test_without_an_agent_no_conversation_is_made(anne: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as info:
        await anne.conversations.create()
    assert (info.value.param, info.value.code) == ("agent", "missing_required_parameter")
    assert "GET /v1/models" in info.value.message


async def test_no_conversation_is_made_with_an_agent_that_is_not_there(anne: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as info:
        await anne.conversations.create(extra_body={"agent": "Nobody"})
    assert info.value.code == "model_not_found"


async def test_items_to_begin_with_are_refused_and_other_fields_reported(anne: AsyncOpenAI) -> None:
    items: Any = [{"type": "message", "role": "user", "content": "Hello"}]
    with pytest.raises(openai.BadRequestError) as info:
        await anne.conversations.create(items=items, extra_body={"agent": "Milo"})
    assert (info.value.param, info.value.code) == ("items", "unsupported_parameter")
    made = await anne.conversations.with_raw_response.create(items=[], extra_body={"agent": "Milo", "colour": "red"})
    assert made.headers["x-frontdesk-ignored-params"] == "colour"


# --- items -----------------------------------------------------------------------------------------------------------


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


async def test_a_history_is_not_changed_item_by_item(anne: AsyncOpenAI) -> None:
    conversation_id = await talk(anne, "not to be changed")
    item = (await anne.conversations.items.list(conversation_id)).data[0]
    added: Any = {"type": "message", "role": "user", "content": "slipped in"}
    for way in (
        lambda: anne.conversations.items.create(conversation_id, items=[added]),
        lambda: anne.conversations.items.delete(item.id or "", conversation_id=conversation_id),
    ):
        with pytest.raises(openai.APIStatusError) as info:
            await way()
        assert (info.value.status_code, info.value.code) == (405, "method_not_allowed")


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
    with served(tmp_path, letta_base_url=fake.url, keys=limited, probe_key=OTIS_ONLY) as g:
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
    for way in (lambda: anne.conversations.delete(conversation_id), lambda: fork(anne, conversation_id)):
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
