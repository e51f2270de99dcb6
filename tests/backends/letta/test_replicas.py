"""Several modern twins of one agent on a real Letta server: one memory, one of each number, and none too many.

What counts is what the twins' model is sent, and what is left on the server.
"""

import asyncio
import uuid
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from letta_client import Letta

from frontdesk.backends.letta import LettaBackend
from frontdesk.backends.letta.server import OWN_THREAD, conv
from frontdesk.backends.letta.twins import NOW, TAG, Wanted, body_of, mark, tag_of, twin_in
from frontdesk.demo.local_letta import LocalLetta
from frontdesk.errors import ConversationNotFound, InvalidRequest
from frontdesk.testing import ScriptedModel
from frontdesk.turn import Agent, Thread, ToolCall
from tests.backends.letta.conftest import backend_of
from tests.backends.letta.test_conversations import a_turn, play, result, say
from tests.backends.letta.test_twins import block, last, prompt, twins_in, twins_of, whole
from tests.requirements import requirement

LONG_AGO = -1.0
"""So long ago that no conversation counts as used."""


@pytest.fixture(params=["memgpt_v2_agent", "letta_v1_agent"])
def original(make_agent: Callable[..., Any], request: pytest.FixtureRequest) -> Any:
    """An agent of this test's own, of an older type and of the modern one."""
    return make_agent(agent_type=request.param, system="You are Ann.")


@pytest.fixture
async def backend(letta: LocalLetta, original: Any) -> AsyncGenerator[LettaBackend]:
    async with backend_of(letta.base_url, replicas={original.name: 2}) as made:
        yield made


@pytest.fixture
async def agent(backend: LettaBackend, original: Any) -> Agent:
    return (await backend.find(original.id))[0]


def falling_on(number: int, among: int = 2) -> str:
    """The id of a turn whose conversation is begun on this twin."""
    ids = (str(uuid.uuid4()) for _ in range(10_000))
    return next(each for each in ids if zlib.crc32(each.encode()) % among + 1 == number)


async def opened_on(backend: LettaBackend, agent: Agent, number: int) -> Thread:
    return await backend.open(agent, replace(a_turn(agent, tools=()), id=falling_on(number)))


async def begun_on_both(backend: LettaBackend, agent: Agent) -> list[Thread]:
    """A conversation on each twin. Their first turns are over: these take the memory to be as it was a moment ago."""
    threads = [await opened_on(backend, agent, number) for number in (1, 2)]
    await asyncio.gather(*(say(backend, agent, thread, "@say Hello.") for thread in threads))
    return threads


def numbers(letta: Letta, agent_id: str) -> dict[int, str]:
    """An agent's twins that are finished, by their numbers."""
    found = [twin for row in twins_in(letta, agent_id) if (twin := twin_in(row)) and twin.made_from]
    assert len({twin.number for twin in found}) == len(found)
    return {twin.number: twin.id for twin in found}


def home(letta: Letta, thread: Thread) -> str:
    """The agent that a conversation is of."""
    row: Any = letta.get(f"/v1/conversations/{conv(thread)}", cast_to=object)
    return str(row["agent_id"])


def remembers(label: str, what: str) -> str:
    return f'@call memory_insert {{"label": "{label}", "new_string": "{what}", "insert_line": -1}}\n@then\n@say Noted.'


# --- where conversations are held ------------------------------------------------------------------------------------


async def test_conversations_are_held_by_twins_and_each_is_alone(
    model: ScriptedModel, letta_api: Letta, backend: LettaBackend, agent: Agent, original: Any, marker: str
) -> None:
    before = whole(letta_api, original.id)
    assert (agent.client_tools, agent.conversations, agent.bridged) == (True, True, False)
    threads = {number: await opened_on(backend, agent, number) for number in (2, 1)}
    twins = numbers(letta_api, original.id)
    assert {number: home(letta_api, thread) for number, thread in threads.items()} == twins
    assert sorted(each["name"] for each in twins_in(letta_api, original.id)) == [
        f"{original.name} - Frontdesk twin",
        f"{original.name} - Frontdesk twin 2",
    ]
    for number, thread in threads.items():
        await say(backend, agent, thread, f"{marker} {number}\n@say Well.")
        heard = last(model, f"{marker} {number}")
        assert len([text for text in heard.texts if marker in text]) == 1
        assert prompt(heard).startswith("You are Ann.")
        assert (NOW in prompt(heard)) == (before["agent_type"] != "letta_v1_agent")
    fork = await backend.fork(agent, threads[2])
    assert fork
    assert home(letta_api, fork) == twins[2]
    assert whole(letta_api, original.id) == before


async def test_the_first_conversation_makes_the_twins_up_to_its_own_and_no_more(
    letta_api: Letta, backend: LettaBackend, agent: Agent, original: Any
) -> None:
    await opened_on(backend, agent, 1)
    first = numbers(letta_api, original.id)
    assert [*first] == [1]
    await opened_on(backend, agent, 2)
    assert numbers(letta_api, original.id).items() > first.items()


async def test_the_caller_s_tools_are_used_on_a_twin_and_not_in_the_own_thread_of_an_older_agent(
    backend: LettaBackend, agent: Agent, original: Any
) -> None:
    thread = await opened_on(backend, agent, 2)
    asking = await say(backend, agent, thread, "@call get_weather {}\n@then\n@say Sun.")
    assert [call.name for call in asking.parts if isinstance(call, ToolCall)] == ["get_weather"]
    await say(backend, agent, thread, result(asking, "sun"))
    turn = replace(a_turn(agent, "@say Well."), mode="single")
    assert await backend.open(agent, turn) == OWN_THREAD
    if original.agent_type != "letta_v1_agent":
        with pytest.raises(InvalidRequest):
            await play(backend, agent, OWN_THREAD, turn)


# --- one memory ------------------------------------------------------------------------------------------------------


async def test_what_one_twin_remembers_the_others_and_the_agent_know(
    model: ScriptedModel, letta_api: Letta, backend: LettaBackend, agent: Agent, original: Any, marker: str
) -> None:
    one, two = await begun_on_both(backend, agent)
    await say(backend, agent, one, remembers("human", "Likes trees."))
    await say(backend, agent, two, f"{marker} 1\n@say Well.")
    assert "Likes trees." in prompt(last(model, f"{marker} 1"))
    await say(backend, agent, two, remembers("persona", "I keep bees."))
    await say(backend, agent, one, f"{marker} 2\n@say Well.")
    assert "I keep bees." in prompt(last(model, f"{marker} 2"))
    for twin in numbers(letta_api, original.id).values():
        for label in ("human", "persona"):
            assert block(whole(letta_api, twin), label) == block(whole(letta_api, original.id), label)


async def test_a_block_that_one_twin_makes_all_have_and_what_changes_on_the_agent_too(
    model: ScriptedModel, letta_api: Letta, backend: LettaBackend, agent: Agent, original: Any, marker: str
) -> None:
    tool = next(iter(letta_api.tools.list(name="memory")))
    letta_api.agents.tools.attach(tool.id, agent_id=original.id)
    one, two = await begun_on_both(backend, agent)
    file = '{"command": "create", "path": "/memories/garden", "description": "What grows.", "file_text": "Roses."}'
    await say(backend, agent, two, f"@call memory {file}\n@then\n@say Noted.")
    await say(backend, agent, one, f"{marker} 1\n@say Well.")
    assert "Roses." in prompt(last(model, f"{marker} 1"))
    garden = block(whole(letta_api, original.id), "garden")
    letta_api.agents.update(original.id, system="You are Bob.")
    for number, thread in enumerate((one, two), 2):
        await say(backend, agent, thread, f"{marker} {number}\n@say Well.")
        assert prompt(last(model, f"{marker} {number}")).startswith("You are Bob.")
    assert all(block(whole(letta_api, twin), "garden") == garden for twin in numbers(letta_api, original.id).values())


# --- one of each number ----------------------------------------------------------------------------------------------


async def test_two_gateways_which_need_them_at_once_make_one_of_each_number(
    letta: LocalLetta, letta_api: Letta, backend: LettaBackend, agent: Agent, original: Any
) -> None:
    async with backend_of(letta.base_url, replicas={original.id: 2}) as other:
        await asyncio.gather(*(opened_on(each, agent, number) for each in (backend, other) for number in (1, 2, 2)))
    assert [*sorted(numbers(letta_api, original.id))] == [1, 2]
    assert len(twins_in(letta_api, original.id)) == 2


async def test_what_a_dead_process_left_unfinished_of_a_number_is_used_for_that_number(
    letta: LocalLetta, letta_api: Letta, original: Any
) -> None:
    async with twins_of(letta.base_url, patience_seconds=0.3) as twins:
        await twins.of(original.id)
        made = {"hidden": True, "tags": [TAG, tag_of(original.id)], "metadata": mark(original.id, number=2)}
        left: Any = letta_api.post(
            "/v1/agents/",
            body=body_of(whole(letta_api, original.id)) | made | {"agent_type": "letta_v1_agent"},
            cast_to=object,
        )
        twin, _ = await twins.of(original.id, 2)
    assert twin.id == left["id"]
    assert numbers(letta_api, original.id)[2] == left["id"]


# --- tidying up ------------------------------------------------------------------------------------------------------


@requirement("replicas.swept")
async def test_twins_that_are_too_many_stay_while_their_conversations_are_used(
    letta: LocalLetta, letta_api: Letta, backend: LettaBackend, agent: Agent, original: Any, marker: str
) -> None:
    threads = await begun_on_both(backend, agent)
    twins = numbers(letta_api, original.id)
    before = whole(letta_api, original.id)
    async with backend_of(letta.base_url) as without:
        await without.sweep()
        assert numbers(letta_api, original.id) == twins
        await without.hidden()
        now = (await without.find(original.id))[0]
        letta_api.agents.update(original.id, description="Changed.", system=f"You are {marker}.")
        for thread in threads:
            await say(without, now, thread, "@say Well.")
        assert all(marker in whole(letta_api, twin)["system"] for twin in twins.values())
    async with backend_of(letta.base_url, kept_seconds=LONG_AGO) as without:
        assert await without.sweep() >= 1
        assert await without.sweep() == 0
    needed = {} if original.agent_type == "letta_v1_agent" else {1: twins[1]}  # for the caller's tools
    assert numbers(letta_api, original.id) == needed
    assert block(whole(letta_api, original.id)) == block(before)
    with pytest.raises(ConversationNotFound):
        await say(backend, agent, threads[1], "@say Well.")
    await say(backend, agent, await opened_on(backend, agent, 2), "@say Well.")


async def test_a_twin_that_is_too_many_goes_at_once_if_nobody_has_spoken_there(
    letta: LocalLetta, letta_api: Letta, original: Any
) -> None:
    async with twins_of(letta.base_url) as twins:
        await twins.of(original.id, 3)

        def wanted(row: Mapping[str, Any]) -> Wanted:
            return Wanted(1 if row["id"] == original.id else 9)

        await twins.sweep(wanted)
    assert [*numbers(letta_api, original.id)] == [1]


# --- who has how many ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "older", "modern"),
    [({}, 0, 0), ({"*": 2}, 2, 0), ({"*": 2, "Ann": 3}, 3, 3), ({"*": 2, "agent-1": 0}, 0, 0)],
)
async def test_replicas_are_set_by_name_or_id_and_for_all_older_agents(
    replicas: Mapping[str, int], older: int, modern: int
) -> None:
    row = {"id": "agent-1", "name": "Ann"}
    async with backend_of("http://127.0.0.1:1", replicas=replicas) as backend:
        for kind, count in (("memgpt_agent", older), ("letta_v1_agent", modern)):
            found = backend._roster.described(row | {"agent_type": kind})  # pyright: ignore[reportPrivateUsage]
            assert found.settings["replicas"] == count
