"""Older agents of a real Letta server, and the modern twins on which they use the caller's tools.

What counts is what the twin's model is sent, and that the agent itself is as it was.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from letta_client import Letta

from frontdesk.backends.letta import LettaBackend
from frontdesk.backends.letta.client import LettaClient
from frontdesk.backends.letta.server import OWN_THREAD
from frontdesk.backends.letta.twins import NOW, TAG, Twins, body_of, mark, rules, tag_of
from frontdesk.demo.local_letta import LocalLetta
from frontdesk.errors import AgentFailed, AgentNotFound, ConversationNotFound, InvalidRequest
from frontdesk.stream import Reply
from frontdesk.testing import ScriptedModel
from frontdesk.testing.model import Request
from frontdesk.testing.script import text_of
from frontdesk.turn import Agent, Message, StopReason, Thread, Tool, ToolCall, ToolResult
from tests.backends.letta.conftest import Calls, backend_of
from tests.backends.letta.test_conversations import a_turn, play, result, say
from tests.cli.servers import row
from tests.faults.fake import fake_letta
from tests.requirements import requirement

RELATIONS = "include=agent.blocks&include=agent.tools&include=agent.secrets&include=agent.sources&include=agent.tags"
OLDER = ("memgpt_agent", "memgpt_v2_agent", "react_agent", "workflow_agent")
TIME = Tool("get_time", "The time of day.")

Row = Mapping[str, Any]


@pytest.fixture
async def older(backend: LettaBackend, make_agent: Callable[..., Any]) -> Agent:
    """An agent of an older type, of this test's own."""
    return (await backend.find(make_agent(agent_type="memgpt_v2_agent").id))[0]


@asynccontextmanager
async def twins_of(url: str, patience_seconds: float = 5.0) -> AsyncGenerator[Twins]:
    client = LettaClient(url)
    twins = Twins(client, patience_seconds)
    try:
        yield twins
    finally:
        await twins.aclose()
        await client.aclose()


def whole(letta: Letta, agent_id: str) -> Any:
    """An agent with all that belongs to it, in one order."""
    found: Any = letta.get(f"/v1/agents/{agent_id}?{RELATIONS}", cast_to=object)
    return found | {name: sorted(found[name], key=lambda each: each["id"]) for name in ("blocks", "tools")}


def twins_in(letta: Letta, agent_id: str) -> list[Any]:
    """All that is there of an agent's twins, finished or not."""
    rows: Any = letta.get(f"/v1/agents/?show_hidden_agents=true&tags={tag_of(agent_id)}", cast_to=object)
    return rows


def twin_in(letta: Letta, agent_id: str) -> Any:
    (found,) = twins_in(letta, agent_id)
    return whole(letta, found["id"])


def names(agent: Row) -> list[str]:
    return sorted(tool["name"] for tool in agent["tools"])


def block(agent: Row, label: str = "human") -> Row:
    return next(each for each in agent["blocks"] if each["label"] == label)


def unfinished(letta: Letta, agent_id: str) -> str:
    """What is left where a process dies while it makes a twin."""
    tags, metadata = [TAG, tag_of(agent_id)], mark(agent_id)
    body = body_of(whole(letta, agent_id)) | {"hidden": True, "tags": tags, "metadata": metadata}
    made: Any = letta.post("/v1/agents/", body=body, cast_to=object)
    return str(made["id"])


async def opened(backend: LettaBackend, agent: Agent) -> Thread:
    thread = await backend.open(agent, a_turn(agent))
    assert not thread.own
    return thread


async def own_words(backend: LettaBackend, agent: Agent, script: str) -> Reply:
    return await play(backend, agent, OWN_THREAD, a_turn(agent, script, tools=()))


def prompt(request: Request) -> str:
    return text_of(request.messages[0]["content"])


def last(model: ScriptedModel, marker: str) -> Request:
    return model.requests_with(marker)[-1]


# --- the caller's tools ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_type", OLDER)
async def test_an_older_agent_uses_the_caller_s_tools_and_is_afterwards_exactly_as_it_was(
    model: ScriptedModel,
    letta_api: Letta,
    backend: LettaBackend,
    make_agent: Callable[..., Any],
    marker: str,
    agent_type: str,
) -> None:
    made = make_agent(agent_type=agent_type, system=f"You are {marker}.", description="An older one.")
    before = whole(letta_api, made.id)
    agent = (await backend.find(made.id))[0]
    assert (agent.client_tools, agent.conversations, agent.bridged) == (True, False, True)
    thread = await opened(backend, agent)
    script = f'{marker}\n@say Two.\n@call get_weather {{"city": "Oslo"}}\n@call get_time\n@then\n@say "\\"Fine\\"."'
    turn = a_turn(agent, script, tools=(*a_turn(agent).tools, TIME))
    asking = await play(backend, agent, thread, turn)
    calls = [part for part in asking.parts if isinstance(part, ToolCall)]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("get_time", {}),
    ]
    assert asking.end.stop_reason is StopReason.TOOL_CALLS
    weather, time = calls
    answer = await say(
        backend,
        agent,
        thread,
        ToolResult(weather.call_id, result(asking, "-3 °C").content),
        ToolResult(time.call_id, result(asking, "no clock").content, is_error=True),
    )
    assert [part.text for part in answer.parts if isinstance(part, Message)] == ['"Fine".']
    heard = last(model, marker)
    assert [(said["status"], said["message"]) for said in map(json.loads, heard.texts[3:])] == [
        ("OK", "-3 °C"),
        ("Failed", "no clock"),
    ]
    assert prompt(heard).startswith(f"You are {marker}.\n{NOW}")
    assert "I am a test agent." in prompt(heard)
    own = [name for name in names(before) if name != "send_message"]
    assert sorted(model.requests_with(marker)[0].tool_names) == sorted([*own, "get_weather", "get_time"])
    assert whole(letta_api, made.id) == before


async def test_a_twin_is_hidden_and_marked_and_never_served(
    letta_api: Letta, letta: LocalLetta, backend: LettaBackend, older: Agent
) -> None:
    await opened(backend, older)
    twin = twin_in(letta_api, older.id)
    assert twin["hidden"]
    assert twin["agent_type"] == "letta_v1_agent"
    assert twin["name"] == f"{older.name} - Frontdesk twin"
    assert twin["metadata"]["frontdesk"]["twin_of"] == older.id
    async with backend_of(letta.base_url, include_hidden=True) as curious:
        for served in (backend, curious):
            assert twin["id"] not in [agent.id for agent in await served.agents()]
            assert await served.find(twin["id"]) == []
            assert await served.find(twin["name"]) == []


async def test_in_single_mode_it_is_the_agent_s_own_thread(
    letta_api: Letta, backend: LettaBackend, older: Agent
) -> None:
    assert await backend.open(older, replace(a_turn(older), mode="single")) == OWN_THREAD
    assert twins_in(letta_api, older.id) == []


async def test_where_tools_are_to_be_rejected_no_older_agent_has_them(letta: LocalLetta, older: Agent) -> None:
    async with backend_of(letta.base_url, bridge="reject") as strict:
        agent = (await strict.find(older.id))[0]
        assert (agent.client_tools, agent.conversations, agent.bridged) == (False, False, False)


async def test_a_twin_s_conversation_is_forked_like_any_other(
    model: ScriptedModel, backend: LettaBackend, older: Agent, marker: str
) -> None:
    thread = await opened(backend, older)
    await say(backend, older, thread, f"{marker}\n@say One.")
    fork = await backend.fork(older, thread)
    assert fork
    await say(backend, older, fork, "@say Two.")
    assert [text_of(each["content"]) for each in last(model, "@say Two.").messages[1:]] == [
        f"{marker}\n@say One.",
        "One.",
        "@say Two.",
    ]
    await backend.delete(older, thread)
    with pytest.raises(ConversationNotFound):
        await say(backend, older, thread, "@say Three.")


# --- one memory ------------------------------------------------------------------------------------------------------


@requirement("older.memory")
async def test_what_the_twin_remembers_the_agent_knows_and_the_other_way_round(
    model: ScriptedModel, letta_api: Letta, backend: LettaBackend, older: Agent, marker: str
) -> None:
    def remembers(what: str) -> str:
        return f'@call memory_insert {{"label": "human", "new_string": "{what}", "insert_line": -1}}\n@then\n'

    thread = await opened(backend, older)
    await say(backend, older, thread, f"{remembers('Likes trees.')}@say Noted.")
    await own_words(backend, older, f'{marker} 1\n@call send_message {{"message": "Well."}}')
    assert "Likes trees." in prompt(last(model, f"{marker} 1"))
    await own_words(backend, older, f'{remembers("Likes bees.")}@call send_message {{"message": "Noted."}}')
    await say(backend, older, thread, f"{marker} 2\n@say Well.")
    assert "Likes bees." in prompt(last(model, f"{marker} 2"))
    another = await opened(backend, older)
    await say(backend, older, another, f"{marker} 3\n@say Well.")
    assert "Likes bees." in prompt(last(model, f"{marker} 3"))
    assert block(whole(letta_api, older.id)) == block(twin_in(letta_api, older.id))


async def test_a_block_that_the_twin_makes_is_the_agent_s_too(
    model: ScriptedModel, letta_api: Letta, backend: LettaBackend, make_agent: Callable[..., Any], marker: str
) -> None:
    made = make_agent(agent_type="memgpt_agent")
    agent = (await backend.find(made.id))[0]
    thread = await opened(backend, agent)
    file = {"command": "create", "path": "/memories/garden", "description": "What grows.", "file_text": "Roses."}
    await say(backend, agent, thread, f"@call memory {json.dumps(file)}\n@then\n@say Noted.")
    await say(backend, agent, thread, f"{marker} 1\n@say Well.")
    assert "Roses." in prompt(last(model, f"{marker} 1"))
    letta_api.agents.update(made.id, system="You are another.")
    await say(backend, agent, thread, f"{marker} 2\n@say Well.")
    assert "Roses." in prompt(last(model, f"{marker} 2"))
    assert "You are another." in prompt(last(model, f"{marker} 2"))
    garden = block(whole(letta_api, made.id), "garden")
    assert garden == block(twin_in(letta_api, made.id), "garden")
    letta_api.agents.blocks.detach(garden["id"], agent_id=made.id)
    await say(backend, agent, thread, f"{marker} 3\n@say Well.")
    assert "Roses." not in prompt(last(model, f"{marker} 3"))
    assert [each["label"] for each in whole(letta_api, made.id)["blocks"]].count("garden") == 0


# --- kept in step ----------------------------------------------------------------------------------------------------


@requirement("older.in-step")
async def test_what_is_changed_on_the_agent_is_brought_over_before_the_next_turn(
    model: ScriptedModel, letta_api: Letta, backend: LettaBackend, older: Agent, marker: str
) -> None:
    thread = await opened(backend, older)
    await say(backend, older, thread, f"{marker} 1\n@say Well.")
    added = letta_api.blocks.create(label="garden", value="Roses and thorns.")
    letta_api.agents.blocks.attach(added.id, agent_id=older.id)
    tool = next(iter(letta_api.tools.list(name="memory_rethink")))
    letta_api.agents.tools.attach(tool.id, agent_id=older.id)
    letta_api.agents.update(older.id, system=f"You are {marker}.", secrets={"KEY": "value"})
    await say(backend, older, thread, f"{marker} 2\n@say Well.")
    heard = last(model, f"{marker} 2")
    assert "memory_rethink" in heard.tool_names
    assert "Roses and thorns." in prompt(heard)
    assert prompt(heard).startswith(f"You are {marker}.\n")
    twin = twin_in(letta_api, older.id)
    assert [(each["key"], each["value"]) for each in twin["secrets"]] == [("KEY", "value")]
    letta_api.agents.blocks.detach(added.id, agent_id=older.id)
    letta_api.agents.tools.detach(tool.id, agent_id=older.id)
    await say(backend, older, thread, f"{marker} 3\n@say Well.")
    heard = last(model, f"{marker} 3")
    assert "memory_rethink" not in heard.tool_names
    assert "Roses and thorns." not in prompt(heard)
    assert twin_in(letta_api, older.id)["id"] == twin["id"]


async def test_a_model_that_is_changed_on_the_agent_is_the_twin_s_too(
    letta_api: Letta, backend: LettaBackend, older: Agent
) -> None:
    await opened(backend, older)
    settings = whole(letta_api, older.id)["model_settings"] | {"temperature": 0.25}
    letta_api.agents.update(older.id, model_settings=settings)
    await opened(backend, older)
    twin = twin_in(letta_api, older.id)
    assert twin["model_settings"]["temperature"] == 0.25
    assert twin["llm_config"]["parallel_tool_calls"]
    assert not twin["llm_config"]["put_inner_thoughts_in_kwargs"]


async def test_an_archive_is_shared(letta_api: Letta, backend: LettaBackend, make_agent: Callable[..., Any]) -> None:
    made = make_agent(agent_type="memgpt_agent", tools=["archival_memory_search"])
    archive = letta_api.archives.create(name="What was")
    letta_api.agents.archives.attach(archive.id, agent_id=made.id)
    await opened(backend, (await backend.find(made.id))[0])
    twin = twin_in(letta_api, made.id)
    assert [each.id for each in letta_api.archives.list(agent_id=twin["id"])] == [archive.id]


async def test_an_agent_is_looked_at_once_a_turn_and_not_between_a_call_and_its_result(
    backend: LettaBackend, older: Agent, asked: Calls
) -> None:
    await opened(backend, older)
    asked.clear()
    thread = await opened(backend, older)
    assert sorted(asked) == ["GET /v1/agents/", "GET /v1/agents/{id}", "POST /v1/conversations/"]
    await say(backend, older, thread, "@say Well.")
    assert asked.count("GET /v1/agents/") == 1
    asking = await say(backend, older, thread, "@call get_weather {}\n@then\n@say Sun.")
    assert asked.count("GET /v1/agents/") == 2
    await say(backend, older, thread, result(asking, "sun"))
    assert asked.count("GET /v1/agents/") == 2
    assert "PATCH /v1/agents/{id}" not in asked


# --- one for each ----------------------------------------------------------------------------------------------------


async def test_two_gateways_which_need_it_at_once_make_one(
    letta: LocalLetta, letta_api: Letta, backend: LettaBackend, older: Agent
) -> None:
    async with backend_of(letta.base_url) as other:
        threads = await asyncio.gather(*(opened(each, older) for each in (backend, other) * 3))
        assert len(set(threads)) == 6
        assert twin_in(letta_api, older.id)["metadata"]["frontdesk"]["made_from"]
        await asyncio.gather(*(say(backend, older, thread, "@say Well.") for thread in threads))


async def test_what_a_dead_process_left_unfinished_is_used(letta: LocalLetta, letta_api: Letta, older: Agent) -> None:
    left = [unfinished(letta_api, older.id) for _ in range(2)]
    async with twins_of(letta.base_url, patience_seconds=0.3) as twins:
        twin, _ = await twins.of(older.id)
    assert twin.id == left[0]
    assert twin_in(letta_api, older.id)["metadata"]["frontdesk"]["made_from"] == twin.made_from != ""


async def test_what_a_living_process_is_making_is_waited_for(letta: LocalLetta, letta_api: Letta, older: Agent) -> None:
    theirs = unfinished(letta_api, older.id)
    looks = asyncio.Semaphore(0)

    def watch(name: str, _seconds: float, _answered: bool) -> None:
        if name == "GET /v1/agents/":
            looks.release()

    client = LettaClient(letta.base_url, watch=watch)
    waiting = asyncio.ensure_future(Twins(client, patience_seconds=30).of(older.id))
    for _ in range(4):
        await looks.acquire()
    assert not waiting.done()
    letta_api.agents.update(theirs, metadata=mark(older.id, "their fingerprint"))
    twin, _ = await waiting
    await client.aclose()
    assert twin.id == theirs
    assert twin_in(letta_api, older.id)["metadata"]["frontdesk"]["made_from"] == twin.made_from != ""


async def test_a_client_that_goes_away_leaves_nothing_half_made(
    letta: LocalLetta, letta_api: Letta, older: Agent
) -> None:
    made = asyncio.Event()

    def watch(name: str, _seconds: float, _answered: bool) -> None:
        if name == "POST /v1/agents/":
            made.set()

    client = LettaClient(letta.base_url, watch=watch)
    twins = Twins(client)
    opening = asyncio.ensure_future(twins.of(older.id))
    await made.wait()
    opening.cancel()
    await asyncio.wait({opening})
    assert opening.cancelled()
    await twins.aclose()
    await client.aclose()
    assert twin_in(letta_api, older.id)["metadata"]["frontdesk"]["made_from"]


async def test_a_twin_that_somebody_deletes_is_made_again(
    letta_api: Letta, backend: LettaBackend, older: Agent
) -> None:
    thread = await opened(backend, older)
    await say(backend, older, thread, "@say Well.")
    letta_api.agents.delete(twin_in(letta_api, older.id)["id"])
    with pytest.raises(ConversationNotFound):
        await say(backend, older, thread, "@say Well?")
    await say(backend, older, await opened(backend, older), "@say Well.")


# --- tidying up ------------------------------------------------------------------------------------------------------


@requirement("older.swept")
async def test_only_twins_that_nobody_needs_are_swept(
    letta: LocalLetta, letta_api: Letta, backend: LettaBackend, older: Agent, make_agent: Callable[..., Any]
) -> None:
    gone, half = (make_agent(agent_type="memgpt_agent").id for _ in range(2))
    for agent_id in (gone, older.id):
        await opened(backend, (await backend.find(agent_id))[0])
    unfinished(letta_api, half)
    letta_api.agents.delete(gone)
    lookalikes = [
        make_agent(tags=[TAG, tag_of(gone)]),
        make_agent(agent_type="memgpt_v2_agent", tags=[TAG], metadata=mark(gone, "something")),
    ]
    async with twins_of(letta.base_url, patience_seconds=0.2) as twins:
        await twins.sweep()
    assert [each["id"] for each in twins_in(letta_api, gone)] == [lookalikes[0].id]
    assert twins_in(letta_api, half) == []
    assert twin_in(letta_api, older.id)
    for each in lookalikes:
        assert letta_api.agents.retrieve(each.id).name == each.name
        letta_api.agents.delete(each.id)
    async with twins_of(letta.base_url, patience_seconds=0) as twins:
        assert await twins.sweep() == 0


async def test_where_tools_are_rejected_all_twins_are_swept_and_their_memory_stays(
    letta: LocalLetta, letta_api: Letta, backend: LettaBackend, older: Agent
) -> None:
    before = whole(letta_api, older.id)
    await opened(backend, older)
    async with backend_of(letta.base_url, bridge="reject") as strict:
        assert await strict.sweep() >= 1
        assert await strict.sweep() == 0
    assert twins_in(letta_api, older.id) == []
    assert whole(letta_api, older.id) == before


async def test_an_agent_that_is_gone_has_no_twin(letta_api: Letta, backend: LettaBackend, older: Agent) -> None:
    letta_api.agents.delete(older.id)
    with pytest.raises(AgentNotFound):
        await backend.open(older, a_turn(older))
    assert twins_in(letta_api, older.id) == []


# --- servers that know less ------------------------------------------------------------------------------------------


async def test_a_server_that_does_not_list_hidden_agents_is_left_as_it_was() -> None:
    with fake_letta(rows=[row(1, "Old", "memgpt_agent")], shows_hidden=False) as fake:
        async with backend_of(fake.url) as backend:
            agent = (await backend.find("Old"))[0]
            with pytest.raises(AgentFailed, match="hidden"):
                await backend.open(agent, a_turn(agent))
        assert [each["name"] for each in fake.rows] == ["Old"]


async def test_a_server_from_before_conversations_takes_no_tools_for_older_agents() -> None:
    with fake_letta(rows=[row(1, "Old", "memgpt_agent")]) as fake:
        fake.answers["POST /v1/conversations/"] = lambda _: web.json_response({"detail": "Not Found"}, status=404)
        async with backend_of(fake.url) as backend:
            agent = (await backend.find("Old"))[0]
            with pytest.raises(InvalidRequest):
                await backend.open(agent, a_turn(agent))
            assert not (await backend.find("Old"))[0].client_tools


# --- what a twin is like ---------------------------------------------------------------------------------------------


def rule(kind: str, tool: str = "search", **more: Any) -> dict[str, Any]:
    return {"type": kind, "tool_name": tool, "prompt_template": None, **more}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (rule("continue_loop"), None),
        (rule("exit_loop", "send_message"), None),
        (rule("exit_loop"), rule("exit_loop")),
        (rule("requires_approval"), rule("requires_approval")),
        (rule("constrain_child_tools", children=["send_message"]), None),
        (
            rule("constrain_child_tools", children=["send_message", "read"]),
            rule("constrain_child_tools", children=["read"]),
        ),
        (rule("conditional", child_output_mapping={"yes": "send_message"}), None),
    ],
)
def test_of_the_rules_a_twin_has_those_that_mean_something_to_it(given: Row, kept: Row | None) -> None:
    assert rules([given]) == ([kept] if kept else [])


def test_names_which_letta_would_refuse_are_mended() -> None:
    old: dict[str, Any] = {name: [] for name in ("tools", "tool_rules", "blocks", "sources", "secrets")}
    body = body_of(old | {"name": "Über/Ann: 2?", "system": "You are Ann.", "llm_config": {}})
    assert body["name"] == "Über-Ann- 2- - Frontdesk twin"
