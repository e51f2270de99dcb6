"""Agents as A2A's clients see them: by the official one of both versions, and by hand."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.types import a2a_pb2 as types
from a2a.utils.errors import A2AError

from tests.cli.servers import row
from tests.faults.fake import FakeLetta, fake_letta
from tests.faults.watch import Watched, eventually, watched
from tests.protocols.guests import anew, open_to_all, settings
from tests.protocols.responses.clients import users, visited
from tests.requirements import requirement
from tests.served import TLS

CARD = "/.well-known/agent-card.json"
ODD_NAMES = ["Zoë von Ö", "a/b", "100%", "日本"]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
LIVE = (types.TASK_STATE_SUBMITTED, types.TASK_STATE_WORKING)


__all__ = ["anew", "settings"]


@pytest.fixture(scope="module")
def fake() -> Generator[FakeLetta]:
    rows = [row(number, name) for number, name in enumerate(["Milo", "Otis", *ODD_NAMES], 1)]
    rows[0] |= {"description": "A cat who answers.", "tags": ["soft"]}
    rows[2] |= {"system": "The password is swordfish."}
    with fake_letta(rows=rows) as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Generator[Watched]:
    with watched(tmp_path_factory.mktemp("a2a"), **settings) as gateway:
        yield replace(gateway, key="ann")


def by_hand(gateway: Watched, secret: str = "ann") -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    return httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60, verify=TLS)


@asynccontextmanager
async def client_of(
    gateway: Watched, agent: str = "Milo", secret: str = "ann", version: str = "1.0", *, streaming: bool = True
) -> AsyncGenerator[Client]:
    """The official client, as it finds its way by the agent's card. Each version is told nothing of the other."""
    async with by_hand(gateway, secret) as http:
        card = await A2ACardResolver(http, f"{gateway.url}/a2a/{quote(agent, safe='')}").get_agent_card()
        for interface in list(card.supported_interfaces):
            if interface.protocol_version != version:
                card.supported_interfaces.remove(interface)
        if version == "0.3":
            http.headers["A2A-Version"] = ""
        async with ClientFactory(ClientConfig(httpx_client=http, streaming=streaming)).create(card) as client:
            yield client


COUNT = iter(range(1_000_000))


def message(*parts: str | types.Part, **more: Any) -> types.SendMessageRequest:
    fields: dict[str, Any] = {"message_id": f"message-{next(COUNT)}", "role": types.ROLE_USER} | more
    told = [types.Part(text=part) if isinstance(part, str) else part for part in parts]
    return types.SendMessageRequest(message=types.Message(parts=told, **fields))


async def sent(client: Client, request: types.SendMessageRequest) -> list[types.StreamResponse]:
    return [event async for event in client.send_message(request)]


async def asked(client: Client, *parts: str | types.Part, **more: Any) -> types.Task:
    """A task once it has come to its end."""
    events = await sent(client, message(*parts, **more))
    return await client.get_task(types.GetTaskRequest(id=id_of(events)))


def id_of(events: Sequence[types.StreamResponse]) -> str:
    first = events[0]
    return first.task.id or first.status_update.task_id or first.artifact_update.task_id


def text_of(task: types.Task) -> str:
    return "".join(part.text for artifact in task.artifacts for part in artifact.parts)


async def begun(client: Client, said: str) -> tuple[types.Task, AsyncGenerator[types.StreamResponse]]:
    """A task that has just begun, and the rest of its stream."""
    stream: Any = client.send_message(message(said))
    return (await anext(stream)).task, stream


# --- cards -------------------------------------------------------------------------------------------------------


@requirement("python.outward.a2a")
async def test_a_card_says_who_the_agent_is_and_how_it_is_asked(gateway: Watched) -> None:
    async with by_hand(gateway) as http:
        for place in ("/a2a/Milo", "/agents/Milo"):
            card = await A2ACardResolver(http, gateway.url + place).get_agent_card()
            assert (card.name, card.description) == ("Milo", "A cat who answers.")
            assert card.version
            assert card.capabilities.streaming
            assert [each.protocol_version for each in card.supported_interfaces] == ["1.0", "0.3"]
            assert {each.url for each in card.supported_interfaces} == {f"{gateway.url}/a2a/Milo"}
            assert [(skill.name, list(skill.tags)) for skill in card.skills] == [("Milo", ["soft"])]
            assert card.security_schemes["key"].http_auth_security_scheme.scheme == "bearer"
            assert list(card.security_requirements[0].schemes) == ["key"]


@pytest.mark.parametrize("name", ODD_NAMES)
@requirement("python.outward.a2a")
async def test_an_agent_is_found_by_any_name(gateway: Watched, name: str) -> None:
    async with client_of(gateway, name) as client:
        assert text_of(await asked(client, "Hello")) == "You said: Hello"
    async with by_hand(gateway) as http:
        for place in ("/a2a/", "/agents/"):
            card = await http.get(place + quote(name, safe="") + CARD)
            assert card.json()["name"] == name
            assert "swordfish" not in card.text


@requirement("python.outward.a2a")
async def test_a_card_is_for_those_who_may_use_its_agent(gateway: Watched) -> None:
    places = (f"/a2a/Milo{CARD}", f"/agents/Milo{CARD}")
    for secret, status, code in (
        ("", 401, "invalid_api_key"),
        ("mallory", 401, "invalid_api_key"),
        ("otis-only", 403, "agent_forbidden"),
    ):
        async with by_hand(gateway, secret) as http:
            answers = [await http.get(place) for place in places]
            answers.append(await http.post("/a2a/Milo", json={"jsonrpc": "2.0", "id": 1, "method": "SendMessage"}))
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    async with by_hand(gateway) as http:
        for place in (f"/a2a/nobody{CARD}", f"/agents/nobody{CARD}"):
            assert (await http.get(place)).json()["error"]["code"] == "model_not_found"


async def test_the_well_known_path_has_the_card_of_the_only_agent(
    gateway: Watched, settings: dict[str, Any], tmp_path: Path
) -> None:
    async with by_hand(gateway) as http:
        several = await http.get(CARD)
        assert several.status_code == 404
        assert f"/a2a/{{name}}{CARD}" in several.json()["error"]["message"]
    async with by_hand(gateway, "otis-only") as http:
        assert (await http.get(CARD)).json()["name"] == "Otis"
    more = settings | {"card_agent": "Milo", "public_url": "https://agents.example.com/"}
    with watched(tmp_path, **more) as other:
        async with by_hand(other) as http:
            card = (await http.get(CARD)).json()
            assert (card["name"], card["url"]) == ("Milo", "https://agents.example.com/a2a/Milo")
        async with by_hand(other, "otis-only") as http:
            assert (await http.get(CARD)).status_code == 403


async def test_a_card_that_has_not_changed_is_not_sent_again(gateway: Watched) -> None:
    async with by_hand(gateway) as http:
        tag = (await http.get(f"/a2a/Milo{CARD}")).headers["etag"]
        again = await http.get(f"/a2a/Milo{CARD}", headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert (await http.get(f"/a2a/Otis{CARD}", headers={"if-none-match": tag})).status_code == 200


async def test_a_card_tells_what_an_agent_can_do_and_not_how(tmp_path: Path) -> None:
    settings = {"agents": "tests.protocols.weather_agent:weather", "api_keys": "ann"}
    with watched(tmp_path, **settings) as gateway:
        async with by_hand(gateway) as http:
            text = (await http.get(CARD)).text
            found = (await http.get("/agents", params={"search": "snow and weather in the next days"})).json()["data"]
    card = json.loads(text)
    assert [(each["name"], each["description"]) for each in card["skills"]] == [
        ("forecast", "The weather of the next days.")
    ]
    assert "swordfish" not in text
    assert [each["a2a_url"] for each in found] == ["/a2a/weather"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/a2a/Milo", 405),
        ("POST", f"/a2a/Milo{CARD}", 405),
        ("DELETE", "/a2a/Milo", 405),
        ("POST", "/a2a", 404),
        ("POST", "/a2a/", 404),
        ("POST", "/a2a/Milo/v1", 404),
        ("GET", "/a2a/a/b" + CARD, 404),
        ("GET", "/agents/Milo/.well-known/other", 404),
        ("POST", "/v1/a2a/Milo", 404),
        ("POST", "/a2a/%ff", 404),
        ("POST", "/a2a/..%2Fmetrics", 404),
    ],
)
async def test_nothing_else_is_there(gateway: Watched, method: str, path: str, status: int) -> None:
    async with by_hand(gateway) as http:
        answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"]


# --- messages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_a_message_is_answered_as_the_agent_speaks(gateway: Watched, fake: FakeLetta, version: str) -> None:
    async with client_of(gateway, version=version) as client:
        events: list[types.StreamResponse] = []
        async for event in client.send_message(message("#held#")):
            events.append(event)
            if event.HasField("artifact_update"):
                fake.gate.set()  # what comes after has not been said when this is heard
        assert events[0].task.status.state in LIVE
        pieces = [event.artifact_update for event in events if event.HasField("artifact_update")]
        said = ["".join(part.text for part in piece.artifact.parts) for piece in pieces]
        assert (said[0], "".join(said)) == ("Begun, ", "Begun, and done.")
        assert [piece.append for piece in pieces] == [False, *(True for _ in pieces[1:])]
        assert [piece.last_chunk for piece in pieces] == [*(False for _ in pieces[1:]), True]
        assert events[-1].status_update.status.state == types.TASK_STATE_COMPLETED
        task = await client.get_task(types.GetTaskRequest(id=id_of(events)))
        assert text_of(task) == "Begun, and done."
        assert {piece.artifact.artifact_id for piece in pieces} == {task.artifacts[0].artifact_id}
        assert [part.text for part in task.history[0].parts] == ["#held#"]
        assert task.metadata["stop_reason"] == "stop"


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_a_message_may_be_answered_at_once(gateway: Watched, version: str) -> None:
    async with client_of(gateway, version=version, streaming=False) as client:
        (event,) = await sent(client, message("Hello"))
        assert event.task.status.state == types.TASK_STATE_COMPLETED
        assert text_of(event.task) == "You said: Hello"


async def test_who_does_not_wait_gets_a_task_to_ask_about(gateway: Watched, fake: FakeLetta) -> None:
    async with client_of(gateway, streaming=False) as client:
        request = message("#held#")
        request.configuration.return_immediately = True
        (event,) = await sent(client, request)
        assert event.task.status.state in LIVE
        await visited(fake, 1)
        fake.gate.set()
        while (task := await client.get_task(types.GetTaskRequest(id=event.task.id))).status.state in LIVE:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert text_of(task) == "Begun, and done."


async def test_a_context_is_a_conversation(gateway: Watched, fake: FakeLetta) -> None:
    async with client_of(gateway) as client:
        first = await asked(client, "Hello")
        second = await asked(client, "And again", context_id=first.context_id)
        assert second.context_id == first.context_id
        assert second.id != first.id
        assert users(fake.visits[-1]) == ["Hello", "And again"]
        assert (await asked(client, "Anew")).context_id != first.context_id
        assert users(fake.visits[-1]) == ["Anew"]


async def test_a_context_may_be_the_clients_own(gateway: Watched, fake: FakeLetta) -> None:
    async with client_of(gateway) as ann, client_of(gateway, secret="bob") as bob:
        for client, said in ((ann, "one"), (bob, "two"), (ann, "three")):
            assert (await asked(client, said, context_id="trip")).context_id == "trip"
        assert users(fake.visits[-1]) == ["one", "three"]


async def test_pictures_files_and_data_reach_the_agent(gateway: Watched, fake: FakeLetta) -> None:
    async with client_of(gateway) as client:
        data = types.Part()
        data.data.struct_value.update({"city": "Oslo", "days": 2})
        note = types.Part(raw=b"Buy milk", filename="note.txt", media_type="text/plain")
        picture = types.Part(raw=PNG, filename="dot.png", media_type="image/png")
        task = await asked(client, "Look:", picture, note, data)
        assert task.status.state == types.TASK_STATE_COMPLETED
        told = json.dumps(fake.visits[-1].body["messages"])
        assert base64.b64encode(PNG).decode() in told
        assert "Buy milk" in told
        assert json.dumps('{"city": "Oslo", "days": 2}') in told
        assert task.history[0].parts[1].raw == PNG


async def test_a_message_that_comes_again_is_the_same_task(gateway: Watched, fake: FakeLetta) -> None:
    async with client_of(gateway) as client, client_of(gateway, secret="bob") as bob:
        request = message("Hello")
        ids = {id_of(await sent(client, request)) for _ in range(2)}
        assert len(ids) == 1
        assert len(fake.visits) == 1
        assert id_of(await sent(bob, request)) not in ids
        other = message("Bye", message_id=request.message.message_id)
        assert id_of(await sent(client, other)) not in ids
        assert len(fake.visits) == 3


async def test_many_messages_at_once_have_their_own_answers(gateway: Watched) -> None:
    async with client_of(gateway) as milo, client_of(gateway, "Otis") as otis:
        tasks = await asyncio.gather(*(asked((milo, otis)[number % 2], f"number {number}") for number in range(20)))
        assert [text_of(task) for task in tasks] == [f"You said: number {number}" for number in range(20)]
        assert len({task.context_id for task in tasks}) == 20


async def test_an_agent_that_fails_fails_its_task(gateway: Watched) -> None:
    async with client_of(gateway) as client:
        for said in ("#limited#", "#refused#"):
            events = await sent(client, message(said))
            ended = events[-1].status_update.status
            assert ended.state == types.TASK_STATE_FAILED
            assert ended.message.metadata["code"] == "rate_limit_exceeded"
            task = await client.get_task(types.GetTaskRequest(id=id_of(events)))
            assert task.status == ended


async def test_a_keys_limit_of_turns_holds(gateway: Watched, fake: FakeLetta) -> None:
    async with client_of(gateway, secret="one-turn") as client:
        task, stream = await begun(client, "#held#")
        await visited(fake, 1)
        with pytest.raises(A2AError, match="1 turns at the same time"):
            await sent(client, message("Hello"))
        fake.gate.set()
        assert [event async for event in stream][-1].status_update.status.state == types.TASK_STATE_COMPLETED
        assert text_of(await asked(client, "Hello", context_id=task.context_id)) == "You said: Hello"


# --- tasks -------------------------------------------------------------------------------------------------------


async def test_a_task_outlives_its_client_and_can_be_heard_again(gateway: Watched, fake: FakeLetta) -> None:
    async with client_of(gateway) as client:
        task, _ = await begun(client, "#held#")
        await visited(fake, 1)
    async with client_of(gateway) as client:
        stream: Any = client.subscribe(types.SubscribeToTaskRequest(id=task.id))
        assert (await anext(stream)).task.id == task.id
        fake.gate.set()
        rest = [event async for event in stream]
        said = [part.text for event in rest for part in event.artifact_update.artifact.parts]
        assert "".join(said) == "Begun, and done."
        assert rest[-1].status_update.status.state == types.TASK_STATE_COMPLETED
        with pytest.raises(A2AError, match="come to its end"):
            await anext(aiter(client.subscribe(types.SubscribeToTaskRequest(id=task.id))))
    assert not fake.cancels


async def test_a_task_is_cancelled(gateway: Watched, fake: FakeLetta) -> None:
    async with client_of(gateway) as client:
        task, stream = await begun(client, "#held#")
        await visited(fake, 1)
        cancelled = await client.cancel_task(types.CancelTaskRequest(id=task.id))
        assert cancelled.status.state == types.TASK_STATE_CANCELED
        assert [event async for event in stream][-1].status_update.status.state == types.TASK_STATE_CANCELED
        assert len(fake.cancels) == 1
        with pytest.raises(A2AError, match="come to its end"):
            await client.cancel_task(types.CancelTaskRequest(id=task.id))


async def test_a_task_is_its_callers_and_its_agents_alone(gateway: Watched, fake: FakeLetta) -> None:
    async with client_of(gateway) as ann:
        task, _ = await begun(ann, "#held#")
        await visited(fake, 1)
        async with client_of(gateway, secret="bob") as bob, client_of(gateway, "Otis") as otis:
            for stranger in (bob, otis):
                for asking in (
                    stranger.get_task(types.GetTaskRequest(id=task.id)),
                    stranger.cancel_task(types.CancelTaskRequest(id=task.id)),
                    anext(aiter(stranger.subscribe(types.SubscribeToTaskRequest(id=task.id)))),
                    sent(stranger, message("More", task_id=task.id)),
                ):
                    with pytest.raises(A2AError, match="no such task"):
                        await asking
                with pytest.raises(A2AError, match="no conversation"):
                    await sent(stranger, message("What was said?", context_id=task.context_id))
                assert task.id not in [each.id for each in (await stranger.list_tasks(types.ListTasksRequest())).tasks]
        fake.gate.set()
        assert len(fake.visits) == 1
        assert not fake.cancels


async def test_a_task_takes_no_more_messages(gateway: Watched) -> None:
    async with client_of(gateway) as client:
        task = await asked(client, "Hello")
        with pytest.raises(A2AError, match="takes no more messages"):
            await sent(client, message("More", task_id=task.id))
        with pytest.raises(A2AError, match="another context"):
            await sent(client, message("More", task_id=task.id, context_id="elsewhere"))


async def test_tasks_are_listed_a_page_at_a_time(gateway: Watched, fake: FakeLetta) -> None:
    async with client_of(gateway, "Otis") as client:
        mine = [await asked(client, f"number {number}", context_id=f"list-{number % 2}") for number in range(5)]
        failed = await asked(client, "#refused#", context_id="list-0")
        newest = [task.id for task in reversed([*mine, failed])]

        async def listed(**more: Any) -> types.ListTasksResponse:
            return await client.list_tasks(types.ListTasksRequest(**more))

        found: list[str] = []
        token = ""
        while True:
            page = await listed(page_size=4, page_token=token)
            found += [task.id for task in page.tasks]
            token = page.next_page_token
            if not token:
                break
        assert found[:6] == newest
        assert page.total_size == len(found) == len(set(found))
        in_context = await listed(context_id="list-1", include_artifacts=True)
        assert [task.id for task in in_context.tasks] == [mine[3].id, mine[1].id]
        assert text_of(in_context.tasks[0]) == "You said: number 3"
        assert not (await listed()).tasks[0].artifacts
        assert [task.id for task in (await listed(status=types.TASK_STATE_FAILED)).tasks] == [failed.id]
        assert not (await listed(status=types.TASK_STATE_INPUT_REQUIRED)).tasks
        since = types.ListTasksRequest(status_timestamp_after=failed.status.timestamp)
        assert [task.id for task in (await client.list_tasks(since)).tasks] == [failed.id]
        assert not (await listed(context_id="nowhere")).tasks
        for wrong in ({"page_size": 101}, {"page_token": "nonsense"}):
            with pytest.raises(A2AError):
                await listed(**wrong)


async def test_tasks_survive_the_process_in_which_they_began(
    fake: FakeLetta, settings: dict[str, Any], tmp_path: Path
) -> None:
    with watched(tmp_path, **settings) as gateway:
        async with client_of(gateway) as client:
            done = await asked(client, "Hello")
            task, _ = await begun(client, "#held#")
            await visited(fake, 2)
    with watched(tmp_path, **settings) as gateway:
        fake.gate.set()
        async with client_of(gateway) as client:
            assert await client.get_task(types.GetTaskRequest(id=done.id)) == done
            while (later := await client.get_task(types.GetTaskRequest(id=task.id))).status.state in LIVE:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            assert text_of(later) == "Begun, and done."
            assert users(fake.visits[-1]) == ["#held#"]
            await asked(client, "And again", context_id=done.context_id)
            assert users(fake.visits[-1]) == ["Hello", "And again"]


async def test_a_task_is_cancelled_whichever_process_runs_it(
    fake: FakeLetta, settings: dict[str, Any], tmp_path: Path
) -> None:
    with watched(tmp_path, **settings) as one, watched(tmp_path, **settings) as other:
        async with client_of(one) as here, client_of(other) as there:
            task, stream = await begun(here, "#held#")
            await visited(fake, 1)
            cancelled = await there.cancel_task(types.CancelTaskRequest(id=task.id))
            assert cancelled.status.state == types.TASK_STATE_CANCELED
            assert [event async for event in stream][-1].status_update.status.state == types.TASK_STATE_CANCELED


async def test_a_task_is_no_response(gateway: Watched) -> None:
    async with client_of(gateway) as client, by_hand(gateway) as http:
        task = await asked(client, "Hello")
        answer = await http.get(f"/v1/responses/{task.id.replace('task_', 'resp_')}")
        assert answer.status_code == 404
        made = await http.post("/v1/responses", json={"model": "Milo", "input": "Hello"})
        id = made.json()["id"].replace("resp_", "task_")
        with pytest.raises(A2AError, match="no such task"):
            await client.get_task(types.GetTaskRequest(id=id))


# --- what is wrong -----------------------------------------------------------------------------------------------


def sending(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    told = {"messageId": f"message-{next(COUNT)}", "role": "ROLE_USER", "parts": list(parts)} | more
    return {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": told}}


HELLO = {"text": "Hello"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_000, -32600),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"SendMessage"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":["SendMessage"]}', -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "SendMassage"}, -32601),
        ({"jsonrpc": "2.0", "id": 1, "method": "tasks/nothing"}, -32601),
        ({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": []}, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": 7}}, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {}}, -32602),
        (sending(), -32602),
        (sending({}), -32602),
        (sending({"text": ""}), -32602),
        (sending({"text": "\ud800"}), -32700),
        (sending({"raw": "%%%"}), -32602),
        (sending({"url": "https://example.com/x.pdf", "mediaType": "application/pdf"}), -32005),
        (sending(HELLO, role="ROLE_AGENT"), -32602),
        (sending(HELLO, messageId=""), -32602),
        (sending(HELLO, messageId="x" * 257), -32602),
        (sending(HELLO, contextId="x" * 257), -32602),
        (sending(HELLO, contextId="conv_never"), -32602),
        (sending(HELLO, taskId="task_never"), -32001),
        ({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x' OR 1=1 --"}}, -32001),
        ({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {}}, -32602),
        ({"jsonrpc": "2.0", "id": 1, "method": "CancelTask", "params": {"id": "task_00"}}, -32001),
        ({"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": "task_00"}}, -32001),
        ({"jsonrpc": "2.0", "id": 1, "method": "GetExtendedAgentCard", "params": {}}, -32004),
        (
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "CreateTaskPushNotificationConfig",
                "params": {"taskId": "task_00", "url": "http://169.254.169.254/"},
            },
            -32003,
        ),
    ],
)
async def test_what_is_wrong_is_said_in_a2as_own_codes(
    gateway: Watched, fake: FakeLetta, body: bytes | dict[str, Any], code: int
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with by_hand(gateway) as http:
        answer = await http.post("/a2a/Milo", content=content, headers={"a2a-version": "1.0"})
    assert answer.status_code == 200
    assert answer.json()["error"]["code"] == code
    assert "Traceback" not in answer.text
    assert "site-packages" not in answer.text
    assert not fake.visits


@pytest.mark.parametrize("place", [{"raw": b"no picture"}, {"url": "http://127.0.0.1:9/x.png"}], ids=["raw", "url"])
async def test_a_picture_that_cannot_be_had_fails_its_task(
    gateway: Watched, fake: FakeLetta, place: dict[str, Any]
) -> None:
    async with client_of(gateway) as client:
        task = await asked(client, types.Part(media_type="image/png", **place))
    assert task.status.state == types.TASK_STATE_FAILED
    assert task.status.message.metadata["code"] == "invalid_image_url"
    assert not fake.visits


async def test_a_version_that_nobody_speaks_is_refused(gateway: Watched) -> None:
    async with by_hand(gateway) as http:
        answer = await http.post("/a2a/Milo", json=sending(HELLO), headers={"a2a-version": "9.0"})
    assert answer.json()["error"]["code"] == -32009


async def test_a_push_to_an_address_of_the_clients_is_refused(gateway: Watched, fake: FakeLetta) -> None:
    body = sending(HELLO)
    body["params"]["configuration"] = {"taskPushNotificationConfig": {"url": "http://169.254.169.254/"}}
    async with by_hand(gateway) as http:
        answer = await http.post("/a2a/Milo", json=body, headers={"a2a-version": "1.0"})
    assert answer.json()["error"]["code"] == -32003
    assert not fake.visits


async def test_a_huge_message_is_refused(gateway: Watched, fake: FakeLetta) -> None:
    async with by_hand(gateway) as http:
        answer = await http.post("/a2a/Milo", json=sending({"text": "x" * 200_000}), headers={"a2a-version": "1.0"})
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
        large = await http.post("/a2a/Milo", json=sending({"text": "x" * 190_000}), headers={"a2a-version": "1.0"})
        assert large.json()["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert len(fake.visits) == 1


async def test_a_large_file_is_not_kept_with_its_task(gateway: Watched) -> None:
    text = b"milk " * 20_000
    async with client_of(gateway) as client:
        task = await asked(client, "Read:", types.Part(raw=text, filename="list.txt", media_type="text/plain"))
        assert task.status.state == types.TASK_STATE_COMPLETED
        assert [part.text for part in task.history[0].parts] == ["Read:", "[a file: list.txt]"]


# --- without a key -----------------------------------------------------------------------------------------------


@pytest.fixture
def open_house(tmp_path: Path) -> Generator[Watched]:
    """A public agent and one that is not, for callers without a key."""
    with watched(tmp_path / "data", **open_to_all(tmp_path)) as gateway:
        yield gateway


async def test_a_stranger_is_answered_by_public_agents_and_nothing_is_kept(open_house: Watched) -> None:
    async with by_hand(open_house, "") as http:
        assert (await http.get(f"/a2a/butler{CARD}")).status_code == 401
        assert (await http.get(CARD)).json()["name"] == "oracle"
        assert "swordfish" not in (await http.get(CARD)).text
    for streaming in (True, False):
        async with client_of(open_house, "oracle", "", streaming=streaming) as client:
            (event,) = await sent(client, message("@say I see."))
            assert [part.text for part in event.message.parts] == ["I see."]
            (again,) = await sent(client, message("@say Again.", context_id="mine"))
            assert again.message.context_id == "mine"
    async with by_hand(open_house, "") as http:
        for method, params in (("ListTasks", {}), ("GetTask", {"id": "task_00"}), ("CancelTask", {"id": "task_00"})):
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            answer = await http.post("/a2a/oracle", json=body, headers={"a2a-version": "1.0"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        refused = await http.post("/a2a/butler", json=sending(HELLO), headers={"a2a-version": "1.0"})
        assert refused.status_code == 401
    async with client_of(open_house, "oracle", "master") as client:
        assert not (await client.list_tasks(types.ListTasksRequest())).tasks


async def test_requests_are_counted_by_the_template_of_their_path(gateway: Watched) -> None:
    async with by_hand(gateway) as http:
        await http.get("/a2a/" + quote(ODD_NAMES[1], safe="") + CARD)
        await http.post("/a2a/" + quote(ODD_NAMES[1], safe=""), json=sending(HELLO), headers={"a2a-version": "1.0"})
        page = (await http.get("/metrics")).text
    for route in ("/a2a/{name}", f"/a2a/{{name}}{CARD}"):
        assert f'route="{route}"' in page
    assert "/a2a/a" not in page


async def test_nothing_is_left_of_turns(gateway: Watched) -> None:
    await eventually(lambda: gateway.busy() == (0, 0, 0.0, []), lambda: f"still busy: {gateway.busy()}")
