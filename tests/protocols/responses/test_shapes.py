"""What clients really send: recorded requests, each gone on with over three turns, as their clients do it."""

import json
import re
import uuid
from collections.abc import AsyncGenerator, Generator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults import fake as letta
from tests.faults.fake import DONE, FakeLetta, Visit, call, fake_letta, ping, say, stop, usage
from tests.faults.watch import Watched, watched
from tests.protocols.responses.clients import heard
from tests.requirements import requirement

SHAPES = Path(__file__).parent / "shapes"
NAMES = sorted(path.stem for path in SHAPES.glob("*.json"))


@pytest.fixture(scope="module")
def fake() -> Generator[FakeLetta]:
    """Its agent thinks, and asks for the first tool it is offered; when it has the result it says so."""

    async def works(visit: Visit) -> AsyncGenerator[bytes, None]:
        name = visit.body["client_tools"][0]["name"]
        yield ping()
        yield letta.event(message_type="reasoning_message", id="r-1", reasoning="I shall look.")
        for frame in (call(name, '{"a": 1}'), stop("requires_approval"), usage(), DONE):
            yield frame

    async def thinks(visit: Visit) -> AsyncGenerator[bytes, None]:
        yield ping()
        yield letta.event(message_type="reasoning_message", id="r-1", reasoning="Hm.")
        for frame in (say("Found."), stop(), usage(), DONE):
            yield frame

    with fake_letta() as fake:
        fake.scripts |= {"works": works, "thinks": thinks}
        yield fake


@pytest.fixture(scope="module")
def gateway(fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Watched]:
    """Without the instructions, which say nothing of who hears what."""
    folder = tmp_path_factory.mktemp("shapes")
    with watched(folder, letta_base_url=fake.url, system_prompt="message") as gateway:
        yield gateway


@pytest.fixture
async def http(gateway: Watched) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=30) as http:
        yield http


def shape(name: str) -> dict[str, Any]:
    return json.loads((SHAPES / f"{name}.json").read_text())


def fresh(headers: Mapping[str, str]) -> dict[str, str]:
    """The same with ids of chats that are new, each the same wherever it was the same."""
    new: dict[str, str] = {}
    pattern = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
    return {
        name: pattern.sub(lambda found: new.setdefault(found[0], str(uuid.uuid4())), value)
        for name, value in headers.items()
    }


def filled(template: Any, values: Mapping[str, str]) -> Any:
    """A recorded piece of a request with what it stands for in place of `<…>`."""
    match template:
        case str():
            for name, value in values.items():
                template = template.replace(f"<{name}>", value)
            return template
        case list():
            return [filled(each, values) for each in template]  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return {key: filled(value, values) for key, value in template.items()}  # pyright: ignore[reportUnknownVariableType]
        case _:
            return template


async def answer(
    http: httpx.AsyncClient, headers: Mapping[str, str], body: dict[str, Any]
) -> tuple[Any, httpx.Headers]:
    """The response, plain or as the last event of its stream."""
    reply = await http.post("/responses", headers=headers, json=body)
    assert reply.status_code == 200, reply.text
    if not body.get("stream"):
        return reply.json(), reply.headers
    events = [json.loads(data) for data in re.findall(r"^data: (\{.*\})$", reply.text, re.MULTILINE)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert reply.text.endswith("data: [DONE]\n\n")
    return events[-1]["response"], reply.headers


def named(response: Any) -> dict[str, str]:
    """What later requests name of a response."""
    values: dict[str, str] = {}
    for item in response["output"]:
        values[f"{item['type']} id"] = item["id"]
        match item["type"]:
            case "reasoning":
                values["reasoning"] = item["summary"][0]["text"]
            case "function_call":
                values |= {"call id": item["call_id"], "arguments": item["arguments"]}
            case "message":
                values["answer"] = item["content"][0]["text"]
            case _:
                pass
    return values


def users_of(items: list[Any]) -> list[str]:
    """What the user says in these items."""
    return [
        "".join(part["text"] for part in item["content"])
        for item in items
        if item.get("role") == "user" and item.get("type", "message") == "message"
    ]


@requirement("responses.shapes")
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_clients_chat_over_three_turns_is_heard_once(
    http: httpx.AsyncClient, fake: FakeLetta, name: str, stream: bool
) -> None:
    recorded, marker = shape(name), uuid.uuid4().hex[:8]
    headers = fresh(recorded["headers"])
    values = {"agent": "Milo", "say": f"#works# {marker}", "say again": f"And? {marker}", "result": f"sunny {marker}"}
    body = filled(recorded["body"], values) | {"stream": stream}
    before = len(fake.visits)

    first, told = await answer(http, headers, body)
    assert first["status"] == "completed"
    kinds = [item["type"] for item in first["output"]]
    assert kinds == ["reasoning", "function_call"]
    others = sorted({tool["type"] for tool in body["tools"]} - {"function"})
    reported = told.get("x-frontdesk-ignored-params", "").split(",")
    assert sorted(each for each in reported if each.startswith("tools.") and each != "tools.strict") == [
        f"tools.{kind}" for kind in others
    ]
    wants_encrypted = "reasoning.encrypted_content" in body.get("include", ())
    assert ("encrypted_content" in first["output"][0]) == wants_encrypted

    values |= named(first)
    body["input"] += filled(recorded["then"][0], values)
    second, _ = await answer(http, headers, body)
    assert [item["type"] for item in second["output"]] == ["message"]

    values |= named(second)
    body["input"] += filled(recorded["then"][1], values)
    third, _ = await answer(http, headers, body)
    assert third["status"] == "completed"

    visits = fake.visits[before:]
    assert len(visits) == 3
    assert len({visit.conversation for visit in visits}) == 1
    assert {each["conversation"]["id"] for each in (first, second, third)} == {first["conversation"]["id"]}
    asked = users_of(body["input"])
    path = heard(visits[-1])
    assert [text for role, text in path if role == "user"] == asked
    (result,) = [text for role, text in path if role == "tool"]
    assert f"sunny {marker}" in result
    assert [role for role, _ in path[-5:]] == ["user", "call", "tool", "assistant", "user"]


def message(role: str, text: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


@requirement("responses.shapes")
async def test_open_webui_edits_and_regenerates_under_the_id_of_its_chat(
    http: httpx.AsyncClient, fake: FakeLetta
) -> None:
    recorded = shape("open_webui")
    headers = fresh(recorded["headers"])
    body = filled(recorded["body"], {"agent": "Milo"})
    conversations: list[str] = []

    async def shows(*texts: str) -> None:
        """Send a chat of these texts, the user's first; the agent must have heard just that."""
        roles = ["user", "assistant"] * len(texts)
        chat = [(role, text) for role, text in zip(roles, texts, strict=False)]
        before = len(fake.visits)
        await answer(http, headers, body | {"input": [message(role, text) for role, text in chat]})
        (visit,) = fake.visits[before:]
        assert heard(visit) == chat
        conversations.append(visit.conversation)

    await shows("One")
    await shows("One", "You said: One", "Two")
    await shows("One", "You said: One", "Two")  # regenerated
    await shows("One", "You said: One", "Two, but edited")
    await shows("One", "You said: One", "Two, but edited", "You said: Two, but edited", "Three")
    await shows("One, but edited")
    await shows("One", "You said: One", "Two", "You said: Two", "Back on the first branch")
    assert conversations[0] == conversations[1]
    assert len({conversations[1], conversations[2], conversations[3], conversations[5]}) == 4
    assert conversations[3] == conversations[4]
    assert not fake.overlaps


@requirement("responses.shapes")
async def test_codex_sends_its_reasoning_back_and_stores_nothing(http: httpx.AsyncClient, fake: FakeLetta) -> None:
    recorded = shape("codex")
    headers = fresh(recorded["headers"])
    body = filled(recorded["body"], {"agent": "Milo", "say": "#thinks#"}) | {"store": False}
    first, _ = await answer(http, headers, body)
    assert [item["type"] for item in first["output"]] == ["reasoning", "message"]
    assert (await http.get(f"/responses/{first['id']}")).status_code == 404
    body["input"] += [*first["output"], message("user", "And?")]
    second, _ = await answer(http, headers, body)
    assert heard(fake.visits[-1])[-3:] == [("user", "#thinks#"), ("assistant", "Found."), ("user", "And?")]
    body["input"] = body["input"][:-1]  # the user has gone back a step
    body["input"] += [message("user", "Or?")]
    third, _ = await answer(http, headers, body)
    assert heard(fake.visits[-1])[-3:] == [("user", "#thinks#"), ("assistant", "Found."), ("user", "Or?")]
    assert first["conversation"] == second["conversation"] != third["conversation"]
