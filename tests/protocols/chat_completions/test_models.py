"""Agents as models: which are listed, by which names they are found."""

import uuid
from collections.abc import Callable, Generator
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import httpx
import openai
import pytest
from aiohttp import web
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.backends.letta.roster import PAGE
from frontdesk.testing import ScriptedModel
from tests.cli.servers import listening
from tests.protocols.chat_completions.asking import Chat
from tests.protocols.conftest import Serve
from tests.requirements import requirement
from tests.served import Served

MakeAgent = Callable[..., Any]


async def listed(gateway: Served, **options: Any) -> dict[str, Any]:
    async with gateway.client(**options) as client:
        return {each.id: each async for each in client.models.list()}


async def answers(client: AsyncOpenAI, name: str) -> bool:
    return (await Chat(client, name).ask("@say Yes.")).text == "Yes."


@requirement("models.list", "models.fields")
async def test_an_agent_is_described(serve: Serve, make_agent: MakeAgent) -> None:
    agent = make_agent(f"Tell {uuid.uuid4()}", description="Knows things.", tags=["one", "two"])
    gateway = serve()
    async with httpx.AsyncClient() as http:
        body = (await http.get(f"{gateway.base_url}/models")).json()
        alone = (await http.get(f"{gateway.base_url}/models/{quote(agent.name)}")).json()
    assert body["object"] == "list"
    (row,) = [each for each in body["data"] if each["id"] == agent.name]
    assert alone == row
    assert (row["object"], row["owned_by"], row["name"]) == ("model", "letta", agent.name)
    assert row["description"] == "Knows things."
    assert row["created"] == int(agent.created_at.timestamp())
    assert row["context_length"] == row["max_model_len"] == agent.llm_config.context_window
    assert row["capabilities"] == {
        "vision": True,
        "tools": True,
        "client_tools": True,
        "reasoning": True,
        "structured_output": True,
        "stateful": True,
    }
    assert {"tools", "temperature", "max_tokens", "response_format"} <= set(row["supported_parameters"])
    assert not {"top_p", "reasoning_effort"} & set(row["supported_parameters"])
    assert row["metadata"]["agent_id"] == agent.id
    assert row["metadata"]["model"] == "openai-proxy/scripted"


@requirement("models.paths")
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/models", "/models/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_list_is_found_without_v1_and_by_head(gateway: Served, milo: str, path: str, method: str) -> None:
    async with httpx.AsyncClient() as http:
        response = await http.request(method, gateway.url + path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) > 0
    assert bool(response.content) is (method == "GET")


@requirement("models.paths")
async def test_head_of_an_agent(gateway: Served, milo: str) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as http:
        assert (await http.head(f"/models/{milo}")).status_code == 200
        assert (await http.head("/models/nobody")).status_code == 404


@requirement("models.hidden")
async def test_hidden_and_sleeptime_agents_are_shown_on_demand(serve: Serve, make_agent: MakeAgent) -> None:
    hidden = make_agent(f"Hidden {uuid.uuid4()}", hidden=True)
    sleeper = make_agent(f"Sleeper {uuid.uuid4()}", agent_type="sleeptime_agent")
    ordinary = make_agent(f"Ordinary {uuid.uuid4()}")

    async def shown(**settings: Any) -> list[bool]:
        gateway = serve(**settings)
        names = await listed(gateway)
        found: list[bool] = []
        async with httpx.AsyncClient(base_url=gateway.base_url) as http:
            for agent in (ordinary, hidden, sleeper):
                by_id, by_name = [await http.get(f"/models/{quote(key)}") for key in (agent.id, agent.name)]
                assert by_id.status_code == by_name.status_code
                assert (by_id.status_code == 200) is (agent.name in names)
                found.append(agent.name in names)
        return found

    assert await shown() == [True, False, False]
    assert await shown(include_hidden=True) == [True, True, False]
    assert await shown(include_sleeptime=True) == [True, False, True]


@requirement("models.filter")
async def test_agents_are_filtered_by_tag_and_name(serve: Serve, letta: Any, make_agent: MakeAgent) -> None:
    tag = uuid.uuid4().hex
    one, two = make_agent(f"Sales {tag}", tags=[tag, "x"]), make_agent(f"Support {tag}", tags=["x"])
    server = {"name": "letta", "base_url": letta.base_url}
    assert set(await listed(serve(letta=[server | {"tags": [tag]}]))) == {one.name}
    assert set(await listed(serve(letta=[server | {"names": [f"S*{tag}"]}]))) == {one.name, two.name}
    gateway = serve(letta=[server | {"names": ["Sales *"]}])
    assert two.name not in await listed(gateway)
    async with gateway.client() as client:
        for key in (two.name, two.id):
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve(key)
        assert await answers(client, one.name)


@requirement("models.duplicates")
async def test_agents_of_one_name_are_known_by_id(
    serve: Serve, make_agent: MakeAgent, model: ScriptedModel, marker: str
) -> None:
    name = f"Twin {uuid.uuid4()}"
    twins = [make_agent(name), make_agent(name)]
    gateway = serve()
    names = await listed(gateway)
    assert name not in names
    assert {twin.id for twin in twins} <= set(names)
    async with gateway.client() as client:
        with pytest.raises(openai.NotFoundError) as info:
            await Chat(client, name).ask(marker)
        assert info.value.code == "model_not_found"
        assert all(twin.id in str(info.value) for twin in twins)
        assert model.requests_with(marker) == []
        for twin in twins:
            assert await answers(client, twin.id)


@requirement("models.names")
async def test_an_agent_answers_to_all_of_its_names(serve: Serve, letta: Any, make_agent: MakeAgent) -> None:
    agent = make_agent(f"Many {uuid.uuid4()}")
    gateway = serve(
        letta=[{"name": "home", "base_url": letta.base_url}], aliases={"gpt-4o": agent.name, "by-id": agent.id}
    )
    async with gateway.client() as client:
        for name in (agent.name, agent.id, f"home/{agent.name}", f"home/{agent.id}", "gpt-4o", "by-id"):
            assert await answers(client, name), name
            assert (await client.models.retrieve(name)).id == name
        for name in (f"{agent.name}:stateless", f"{agent.name}:single", "gpt-4o:stateless", f"{agent.id}:stateless"):
            assert await answers(client, name), name
        for name in (
            agent.name.lower(),
            f"{agent.name} ",
            f"away/{agent.name}",
            f"{agent.name}:other",
            "gpt-4",
            "home/",
        ):
            with pytest.raises(openai.NotFoundError) as info:
                await Chat(client, name).ask("@say Yes.")
            assert (info.value.code, info.value.param) == ("model_not_found", "model")


@requirement("models.two-servers")
async def test_one_name_on_two_servers_is_told_apart_by_the_server(
    serve: Serve, letta: Any, make_agent: MakeAgent
) -> None:
    agent = make_agent(f"Shared {uuid.uuid4()}")
    gateway = serve(letta=[{"name": name, "base_url": letta.base_url} for name in ("north", "south")])
    async with gateway.client() as client:
        with pytest.raises(openai.NotFoundError):
            await Chat(client, agent.name).ask("@say Yes.")
        assert await answers(client, f"north/{agent.name}")
        assert await answers(client, f"south/{agent.name}")


@requirement("models.any-name")
@pytest.mark.parametrize("name", ["Ada Lovelace", "Zoë 漢字", "O'Brien", "a-b_c", "agent-123", "o1"])
async def test_any_name_which_letta_takes_works(
    client: AsyncOpenAI, make_agent: MakeAgent, name: str, marker: str
) -> None:
    agent = make_agent(f"{name} {marker[1:]}")
    assert await answers(client, agent.name)
    assert (await client.models.retrieve(agent.name)).id == agent.name


@requirement("models.fresh")
async def test_an_agent_made_a_moment_ago_is_found(serve: Serve, make_agent: MakeAgent) -> None:
    gateway = serve(models_refresh_seconds=3600)
    agent = make_agent()
    assert agent.name not in await listed(gateway)
    async with gateway.client() as client:
        assert await answers(client, agent.name)
    assert agent.name in await listed(gateway)


@requirement("models.deleted")
async def test_a_deleted_agent_is_a_404(serve: Serve, make_agent: MakeAgent, letta_api: Letta) -> None:
    agent = make_agent()
    gateway = serve(models_refresh_seconds=3600)
    async with gateway.client() as client:
        assert await answers(client, agent.name)
        first = await Chat(client, agent.name).ask("@say Hello.", pin="x")
        letta_api.agents.delete(agent.id)
        for pin in ("", "x", first.conversation):
            with pytest.raises(openai.NotFoundError) as info:
                await Chat(client, agent.name).ask("@say Hello.", pin=pin)
            assert info.value.code == "model_not_found"
        assert agent.name not in await listed(gateway)


@requirement("models.keys")
async def test_a_key_sees_only_its_own_agents(
    serve: Serve, make_agent: MakeAgent, milo: str, model: ScriptedModel, marker: str
) -> None:
    agent = make_agent()
    gateway = serve(
        keys=[
            {"name": "ann", "sha256": sha256(b"ann").hexdigest(), "agents": [agent.name]},
            {"name": "root", "sha256": sha256(b"root").hexdigest()},
        ]
    )
    await listed(gateway, api_key="root")
    async with gateway.client(api_key="root") as root:
        assert await answers(root, agent.name)
        assert await answers(root, milo)
    assert set(await listed(gateway, api_key="ann")) <= {agent.name}
    async with gateway.client(api_key="ann") as ann:
        assert await answers(ann, agent.name)
        with pytest.raises(openai.PermissionDeniedError) as info:
            await Chat(ann, milo).ask(marker)
        assert info.value.code == "agent_forbidden"
        with pytest.raises(openai.PermissionDeniedError):
            await ann.models.retrieve(milo)
    assert model.requests_with(marker) == []


# --- more agents than fit on a page ------------------------------------------------------------------------------

COUNT = 2 * PAGE + 50
ODD_NAMES = ["🦊 fox", "100% #1 & more", "a/b", "What?", "a:b", "x.y", "%2F", "a+b", "../x"]


@pytest.fixture(scope="module")
def many() -> Generator[str]:
    """A Letta server with more than two pages of agents, which has nothing else."""
    rows = [
        {
            "id": f"agent-{uuid.UUID(int=number)}",
            "name": f"agent {number}",
            "agent_type": "letta_v1_agent",
            "created_at": "2026-01-01T00:00:00+00:00",
        }
        for number in range(COUNT)
    ]
    for row, name in zip(rows, ODD_NAMES, strict=False):
        row["name"] = name

    async def health(request: web.Request) -> web.Response:
        return web.json_response({"version": "0.16.7", "status": "ok"})

    async def agents(request: web.Request) -> web.Response:
        ids = [row["id"] for row in rows]
        start = ids.index(request.query["after"]) + 1 if "after" in request.query else 0
        found = [row for row in rows if request.query.get("name", row["name"]) == row["name"]]
        return web.json_response(found[start : start + int(request.query.get("limit", "50"))])

    app = web.Application()
    app.router.add_get("/v1/health/", health)
    app.router.add_get("/v1/agents/", agents)
    with listening(app) as url:
        yield url


@requirement("models.pages")
async def test_more_agents_than_fit_on_a_page_are_all_listed(serve: Serve, many: str) -> None:
    numbered = {f"agent {number}" for number in range(len(ODD_NAMES), COUNT)}
    assert set(await listed(serve(letta_base_url=many))) == numbered | set(ODD_NAMES)


@requirement("models.any-name")
async def test_names_which_need_escaping_in_a_path_are_found(serve: Serve, many: str) -> None:
    async with serve(letta_base_url=many).client() as client:
        for name in ODD_NAMES:
            assert (await client.models.retrieve(name)).id == name
