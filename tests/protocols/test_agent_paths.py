"""Each agent by its own URL, as the official client uses it; and that this opens no other door."""

import hashlib
import http.client
import re
from collections.abc import AsyncGenerator, Generator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.cli.servers import row
from tests.faults.asking import create, failure
from tests.faults.fake import FakeLetta, fake_letta
from tests.served import TLS, Served, served

EVERY, OTIS_ONLY, RARE = "key-to-all", "key-for-otis-only", "key-used-rarely"
SECRET = "You are the keeper, and the password is swordfish."

ODD_NAMES = ["Zoë von Ö", "a/b", "a/", "100%", "%2F", "v1", "a.b", "..x", "Milo/v1/models", "q?#&=+ ;", "日本"]
NAMES = ["Milo", "Otis", "Twin", "Twin", *ODD_NAMES, "Keeper"]


def agent_id(number: int) -> str:
    return row(number, "")["id"]


MILO, OTIS, TWIN = agent_id(1), agent_id(2), agent_id(3)


@pytest.fixture(scope="module")
def fake() -> Generator[FakeLetta]:
    rows = [row(number, name) for number, name in enumerate(NAMES, 1)]
    rows[0] |= {"description": "A cat.", "tags": ["soft"]}
    rows[-1] |= {"system": SECRET}
    with fake_letta(rows=rows) as letta:
        yield letta


def key(name: str, secret: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), **more}


@pytest.fixture(scope="module")
def gateway(fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    keys = [key("otis-only", OTIS_ONLY, agents=["Otis"]), key("rare", RARE, rate="3/hour")]
    options: dict[str, Any] = {"api_keys": EVERY, "keys": keys, "probe_key": EVERY, "max_body_bytes": 2048}
    aliases = {"gpt-4o": "Milo"}
    with served(tmp_path_factory.mktemp("paths"), letta_base_url=fake.url, aliases=aliases, **options) as running:
        yield running


def client_of(gateway: Served, agent: str, prefix: str = "/v1") -> AsyncOpenAI:
    """The official client at an agent's own base URL."""
    return gateway.client(base_url=f"{gateway.url}/agents/{quote(agent, safe='')}{prefix}", api_key=EVERY)


@pytest.fixture
async def milo(gateway: Served) -> AsyncGenerator[AsyncOpenAI]:
    async with client_of(gateway, "Milo") as client:
        yield client


def ask(gateway: Served, method: str, path: str, secret: str = EVERY, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    return httpx.request(method, gateway.url + path, headers=headers, verify=TLS, **more)


def ask_exactly(gateway: Served, path: str, secret: str = EVERY, method: str = "GET") -> tuple[int, str]:
    """The status and body for a path as it stands: other clients tidy it up."""
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=10)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        if secret:
            connection.putheader("authorization", f"Bearer {secret}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


HELLO: list[Any] = [{"role": "user", "content": "Hello"}]

# --- chat --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/v1", ""])
@pytest.mark.parametrize("model", ["", "Milo", "letta/Milo", MILO, "gpt-4o", "Milo:stateless"])
async def test_an_agent_answers_by_its_own_url(gateway: Served, model: str, prefix: str) -> None:
    async with client_of(gateway, "Milo", prefix) as client:
        answer = await create(client, model=model, messages=HELLO)
        assert answer.choices[0].message.content == "You said: Hello"
        assert answer.model == (model or "Milo")
        chunks = [chunk async for chunk in await create(client, model=model, messages=HELLO, stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: Hello"
        assert {chunk.model for chunk in chunks} == {model or "Milo"}


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}])
@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_the_model_may_be_left_out(gateway: Served, path: str, body: dict[str, Any]) -> None:
    said = {"messages": HELLO} if path == "chat/completions" else {"input": "Hello"}
    answer = ask(gateway, "POST", f"/agents/Milo/v1/{path}", json=body | said)
    assert answer.status_code == 200
    assert answer.json()["model"] == "Milo"
    shared = ask(gateway, "POST", f"/v1/{path}", json=body | said)
    assert (shared.status_code, shared.json()["error"]["param"]) == (400, "model")


def test_the_mode_may_be_in_the_url(gateway: Served) -> None:
    answer = ask(gateway, "POST", "/agents/Milo:stateless/v1/chat/completions", json={"messages": HELLO})
    assert answer.headers["x-frontdesk-identity"] == "stateless"


@pytest.mark.parametrize("model", ["Otis", OTIS, "letta/Otis", "Otis:stateless", "nobody", "milo"])
async def test_another_model_is_not_found_there(milo: AsyncOpenAI, fake: FakeLetta, model: str) -> None:
    turns = len(fake.visits)
    for body in ({"messages": HELLO}, {"messages": HELLO, "stream": True}):
        error = await failure(milo, model=model, **body)
        assert isinstance(error, openai.NotFoundError)
        assert (error.code, error.param) == ("model_not_found", "model")
        assert model in error.message
        assert "'Milo'" in error.message
    with pytest.raises(openai.NotFoundError):
        await milo.responses.create(model=model, input="Hello")
    assert len(fake.visits) == turns


@pytest.mark.parametrize("model", [7, ["Milo"], {"name": "Milo"}, False])
def test_what_cannot_be_a_model_is_wrong_there_too(gateway: Served, model: Any) -> None:
    answer = ask(gateway, "POST", "/agents/Milo/v1/chat/completions", json={"model": model, "messages": HELLO})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


async def test_two_of_one_name_are_told_apart_by_their_ids(gateway: Served) -> None:
    by_name = ask(gateway, "POST", "/agents/Twin/v1/chat/completions", json={"messages": HELLO})
    assert (by_name.status_code, by_name.json()["error"]["code"]) == (404, "model_not_found")
    assert TWIN in by_name.json()["error"]["message"]
    async with client_of(gateway, TWIN) as client:
        for model in ("", "Twin", TWIN):
            answer = await client.chat.completions.with_raw_response.create(model=model, messages=HELLO)
            conversation = answer.headers["x-frontdesk-conversation"]
            assert ask(gateway, "GET", f"/v1/conversations/{conversation}").json()["agent_id"] == TWIN


# --- responses, models, conversations ----------------------------------------------------------------------------


async def test_a_response_is_found_at_the_url_of_its_agent(gateway: Served, milo: AsyncOpenAI) -> None:
    response = await milo.responses.create(input="Hello")
    assert response.output_text == "You said: Hello"
    assert response.model == "Milo"
    assert (await milo.responses.retrieve(response.id)).output_text == "You said: Hello"
    after = await milo.responses.create(input="And?", previous_response_id=response.id)
    assert after.output_text == "You said: And?"
    async with client_of(gateway, "Otis") as otis:
        with pytest.raises(openai.NotFoundError):
            await otis.responses.retrieve(response.id)
        with pytest.raises(openai.NotFoundError):
            await otis.responses.delete(response.id)
    async with gateway.client(api_key=EVERY) as anybody:
        assert (await anybody.responses.retrieve(response.id)).output_text == "You said: Hello"


async def test_one_agent_is_listed_there(milo: AsyncOpenAI, gateway: Served) -> None:
    assert [model.id async for model in await milo.models.list()] == ["Milo"]
    assert (await milo.models.retrieve("Milo")).id == "Milo"
    with pytest.raises(openai.NotFoundError) as info:
        await milo.models.retrieve("Otis")
    assert info.value.code == "model_not_found"
    async with client_of(gateway, TWIN) as twin:
        assert [model.id async for model in await twin.models.list()] == [TWIN]


def test_only_its_conversations_are_there(gateway: Served) -> None:
    made = {name: ask(gateway, "POST", f"/agents/{name}/v1/conversations", json={}).json() for name in ("Milo", "Otis")}
    unbound = ask(gateway, "POST", "/v1/conversations", json={}).json()["id"]
    assert {name: each["agent_id"] for name, each in made.items()} == {"Milo": MILO, "Otis": OTIS}
    for query in ("", "?agent=Milo", "?agent=gpt-4o"):
        listed = ask(gateway, "GET", f"/agents/Milo/v1/conversations{query}").json()["data"]
        assert {each["agent_id"] for each in listed} == {MILO}
        assert made["Milo"]["id"] in [each["id"] for each in listed]
    for query in ("?agent=Otis", f"?agent={OTIS}"):
        assert ask(gateway, "GET", f"/agents/Milo/v1/conversations{query}").status_code == 404
    theirs = made["Otis"]["id"]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/fork"), ("GET", "/items"), ("GET", "/approvals")):
        answer = ask(gateway, method, f"/agents/Milo/v1/conversations/{theirs}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "conversation_not_found"), path
    assert ask(gateway, "POST", "/agents/Milo/v1/conversations", json={"agent": "Otis"}).status_code == 404
    assert ask(gateway, "GET", f"/v1/conversations/{theirs}").status_code == 200
    begun = {"conversation": unbound, "input": "Hello"}
    assert ask(gateway, "POST", "/agents/Milo/v1/responses", json=begun).status_code == 200
    assert ask(gateway, "GET", f"/v1/conversations/{unbound}").json()["agent_id"] == MILO


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_a_name_is_one_segment_however_odd(gateway: Served, name: str) -> None:
    number = NAMES.index(name) + 1
    described = ask(gateway, "GET", f"/agents/{quote(name, safe='')}").json()
    assert (described["id"], described["agent_id"]) == (name, agent_id(number))
    assert described["url"] == f"/agents/{quote(name, safe='')}"
    async with client_of(gateway, name) as client:
        answer = await client.chat.completions.with_raw_response.create(model=name, messages=HELLO)
        conversation = answer.headers["x-frontdesk-conversation"]
        assert answer.parse().choices[0].message.content == "You said: Hello"
        assert [model.id async for model in await client.models.list()] == [name]
    assert ask(gateway, "GET", f"/v1/conversations/{conversation}").json()["agent_id"] == agent_id(number)


NOBODY = [
    "/agents/nobody",
    "/agents/milo/v1/models",
    "/agents/%254dilo/v1/models",
    "/agents/Milo%00/v1/models",
    "/agents/%00/v1/models",
    "/agents/Milo%0a/v1/models",
    "/agents/Milo%2f/v1/models",
    "/agents/%ff/v1/models",
    "/agents/%C0%AEMilo/v1/models",
    f"/agents/{'x' * 5000}/v1/models",
    "/agents/Twin/v1/models",
]
NOTHING = [
    "/agents/./v1/models",
    "/agents/../v1/models",
    "/agents/%2e%2e/v1/models",
    "/agents/%2E/v1/models",
    "/agents//v1/models",
    "/agents//Milo/v1/models",
    "/agents%2fMilo/v1/models",
    "/agents/Milo//v1/models",
    "/agents/Milo/../Otis/v1/models",
    "/agents/Milo/v1",
    "/agents/Milo/v1/v1/models",
    "/agents/Milo/v1/nothing",
    "/agents/Milo/nothing",
    "/agents/Milo/.well-known/nothing",
    "/v1/agents/Milo/v1/models",
    "/agentsx",
]


@pytest.mark.parametrize(
    ("path", "code"),
    [*((path, "model_not_found") for path in NOBODY), *((path, "unknown_endpoint") for path in NOTHING)],
)
def test_where_nobody_is(gateway: Served, path: str, code: str) -> None:
    status, body = ask_exactly(gateway, path)
    assert (status, httpx.Response(status, text=body).json()["error"]["code"]) == (404, code)


@pytest.mark.parametrize(
    "path",
    ["/agents/Mil%6f/v1/models", "/%61gents/Milo/v1/models", "/agents/Milo/%76%31/models", "/agents/Milo/models/"],
)
def test_a_name_may_be_encoded_as_one_likes(gateway: Served, path: str) -> None:
    status, body = ask_exactly(gateway, path)
    assert status == 200
    assert [each["id"] for each in httpx.Response(200, text=body).json()["data"]] == ["Milo"]


# --- the door ----------------------------------------------------------------------------------------------------

OPERATORS = [
    "/agents/Otis/v1/metrics",
    "/agents/Otis/metrics",
    "/agents/Otis/v1/health",
    "/agents/Otis/health/live",
    "/agents/Otis/v1/openapi.json",
    "/agents/Otis/docs",
    "/agents/Otis/../../metrics",
    "/agents/Otis/v1/../../../metrics",
    "/agents/Otis/v1/models/../../../../metrics",
    "/agents/Otis%2f..%2f..%2fmetrics",
    "/agents/Otis/..%2f..%2fmetrics",
    "/agents/Otis/v1%0a/metrics",
    "/agents/../metrics",
    "/agents/%2e%2e%2fmetrics",
    "/agents//metrics",
]


@pytest.mark.parametrize("path", OPERATORS)
@pytest.mark.parametrize("secret", [EVERY, OTIS_ONLY])
def test_nothing_of_the_operators_is_behind_an_agent(gateway: Served, path: str, secret: str) -> None:
    status, body = ask_exactly(gateway, path, secret)
    assert status in (403, 404)
    assert "frontdesk_" not in body
    assert not body.startswith(("<", '{"openapi"'))


@pytest.mark.parametrize("path", [*NOBODY, *NOTHING, *OPERATORS, "/agents", "/agents/Milo", "/agents/Milo/v1/models"])
def test_nobody_comes_in_without_a_key(gateway: Served, path: str) -> None:
    for secret in ("", "wrong"):
        status, body = ask_exactly(gateway, path, secret)
        assert (status, httpx.Response(status, text=body).json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_key_of_some_agents_opens_theirs_alone(gateway: Served) -> None:
    body = {"messages": HELLO}
    assert ask(gateway, "POST", "/agents/Otis/v1/chat/completions", OTIS_ONLY, json=body).status_code == 200
    for method, path in (
        ("POST", "/agents/Milo/v1/chat/completions"),
        ("POST", "/agents/Milo/v1/responses"),
        ("GET", f"/agents/{MILO}/v1/models"),
        ("GET", "/agents/gpt-4o/conversations"),
        ("GET", "/agents/Milo"),
        ("GET", "/agents/Milo/anything"),
    ):
        answer = ask(gateway, method, path, OTIS_ONLY, json=body if method == "POST" else None)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "agent_forbidden"), path
    listed = ask(gateway, "GET", "/agents", OTIS_ONLY).json()["data"]
    assert [agent["id"] for agent in listed] == ["Otis"]
    wrong = ask(gateway, "POST", "/agents/Otis/v1/chat/completions", OTIS_ONLY, json=body | {"model": "Milo"})
    assert wrong.status_code == 404


def test_a_request_is_counted_once(gateway: Served) -> None:
    for left in (2, 1, 0):
        answer = ask(gateway, "GET", "/agents/Milo/v1/models", RARE)
        assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (200, str(left))
    assert ask(gateway, "GET", "/agents/Milo/v1/models", RARE).status_code == 429


@pytest.mark.parametrize("path", ["chat/completions", "responses", "conversations"])
def test_a_body_is_as_large_as_elsewhere(gateway: Served, path: str) -> None:
    big = {"model": "Milo", "user": "x" * 4000}
    answer = ask(gateway, "POST", f"/agents/Milo/v1/{path}", json=big)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/agents"),
        ("POST", "/agents/Milo"),
        ("DELETE", "/agents/Milo"),
        ("GET", "/agents/Milo/v1/chat/completions"),
        ("PUT", "/agents/Milo/v1/conversations"),
        ("OPTIONS", "/agents/Milo/v1/chat/completions"),
        ("OPTIONS", "/agents/nobody/v1/chat/completions"),
    ],
)
def test_a_method_that_is_not_allowed(gateway: Served, method: str, path: str) -> None:
    answer = ask(gateway, method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


def test_metrics_name_the_place_and_not_the_agent(gateway: Served) -> None:
    for path in (
        "/agents/a%2Fb/v1/models",
        "/agents/a%2Fb",
        "/agents/a%2Fb/none/of/ours",
        "/agents/a%2Fb/models/a%2Fb",
    ):
        ask(gateway, "GET", path)
    ask(gateway, "POST", "/agents/a%2Fb/v1/chat/completions", json={"messages": HELLO})
    page = ask(gateway, "GET", "/metrics").text
    routes = set(re.findall(r'route="(/agents[^"]*)"', page))
    below = ("/models", "/models/{id}", "/chat/completions", "/{endpoint}")
    assert routes >= {"/agents/{name}", *(f"/agents/{{name}}{each}" for each in below)}
    assert not [route for route in routes if "a/b" in route or "%" in route]


# --- descriptions ------------------------------------------------------------------------------------------------


def test_all_agents_are_listed(gateway: Served) -> None:
    body = ask(gateway, "GET", "/agents").json()
    assert body["object"] == "list"
    assert sorted(agent["name"] for agent in body["data"]) == sorted(NAMES)
    milo = next(agent for agent in body["data"] if agent["id"] == "Milo")
    assert milo == {
        "id": "Milo",
        "object": "agent",
        "name": "Milo",
        "agent_id": MILO,
        "backend": "letta",
        "created": milo["created"],
        "description": "A cat.",
        "tags": ["soft"],
        "model": "openai-proxy/scripted",
        "scope": "user",
        "context_window": 128000,
        "skills": [],
        "url": "/agents/Milo",
        "base_url": "/agents/Milo/v1",
        "a2a_url": "/a2a/Milo",
    }


def test_an_agent_is_described(gateway: Served) -> None:
    body = ask(gateway, "GET", "/agents/Milo").json()
    assert body["urls"] == {
        "chat_completions": "/agents/Milo/v1/chat/completions",
        "responses": "/agents/Milo/v1/responses",
        "models": "/agents/Milo/v1/models",
        "conversations": "/agents/Milo/v1/conversations",
    }
    works = {ability["name"]: ability["works"] for ability in body["abilities"]}
    assert works["streaming"] == works["client tools"] == "yes"
    assert body["endpoints"] == []
    for name in (MILO, "gpt-4o", "letta%2FMilo"):
        assert ask(gateway, "GET", f"/agents/{name}").json() == body


def test_instructions_are_shown_nowhere(gateway: Served) -> None:
    paths = ["/agents", "/v1/models", *(f"/agents/Keeper{each}" for each in ("", "/v1/models"))]
    for path in paths:
        answer = ask(gateway, "GET", path)
        assert answer.status_code == 200
        assert "swordfish" not in answer.text
