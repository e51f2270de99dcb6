"""Turns in which the agent's own tools waited for a human, as they are found after a crash; and what Letta is asked."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from frontdesk.backends.letta import LettaBackend
from frontdesk.demo.local_letta import LocalLetta
from frontdesk.errors import ApprovalRequired
from frontdesk.ports import Dropped, Kept
from frontdesk.stream import collect
from frontdesk.turn import Agent, Message, Text, ToolCall, ToolResult, ToolRun
from tests.backends.letta.conftest import backend_of
from tests.backends.letta.test_conversations import REMEMBERS, a_turn, opened, placed, play, say

RULES = [{"type": "requires_approval", "tool_name": "memory_insert"}]
SCRIPT = f"@say Wait.\n{REMEMBERS}\n@then\n@say Done."


@pytest.fixture(scope="module")
def gated(make_agent: Callable[..., Any]) -> str:
    return make_agent(tools=["memory_insert"], tool_rules=RULES, include_base_tools=False).name


@pytest.fixture(params=["denies", "allows"])
async def backend(letta: LocalLetta, request: pytest.FixtureRequest) -> AsyncGenerator[LettaBackend]:
    allowed = ("memory_insert",) if request.param == "allows" else ()
    async with backend_of(letta.base_url, allowed_tools=allowed) as made:
        yield made


@pytest.fixture
async def surfacing(letta: LocalLetta) -> AsyncGenerator[LettaBackend]:
    async with backend_of(letta.base_url, approvals="surface") as made:
        yield made


@pytest.fixture
async def agent(letta: LocalLetta, gated: str) -> Agent:
    async with backend_of(letta.base_url) as made:
        return (await made.find(gated))[0]


def texts(kept: Kept) -> list[str]:
    return [part.text for part in kept.reply if isinstance(part, Message)]


async def test_all_stretches_of_a_turn_are_found_whichever_of_its_runs_was_noted(
    backend: LettaBackend, agent: Agent
) -> None:
    thread = await opened(backend, agent)
    turn = a_turn(agent, SCRIPT)
    runs: list[str] = []
    async for _ in backend.run(turn, placed(agent, thread, turn)):
        runs += [run for run in [backend.run_id(turn.id)] if run and run not in runs]
    assert len(runs) == 2
    for known in ("", runs[0]):
        found = await backend.outcome(turn.id, agent, thread, known)
        assert isinstance(found, Kept)
        assert (texts(found), found.complete) == (["Wait.", "Done."], True)
        assert [part.name for part in found.reply if isinstance(part, ToolRun)] == ["memory_insert"]
        assert not [part for part in found.reply if isinstance(part, ToolCall)]


async def test_a_turn_that_broke_off_while_its_call_waited_is_not_complete_and_shows_the_caller_no_call(
    surfacing: LettaBackend, agent: Agent
) -> None:
    thread = await opened(surfacing, agent)
    turn = a_turn(agent, SCRIPT)
    with pytest.raises(ApprovalRequired):
        await play(surfacing, agent, thread, turn)
    (waiting,) = await surfacing.awaiting(agent, thread)
    assert await surfacing.dropped(turn.id, placed(agent, thread, turn)) == ()
    found = await surfacing.outcome(turn.id, agent, thread)
    assert isinstance(found, Kept)
    assert not found.complete
    assert not [part for part in found.reply if isinstance(part, ToolCall)]
    await say(surfacing, agent, thread, "@say Never mind.")
    assert not await surfacing.awaiting(agent, thread)
    found = await surfacing.outcome(turn.id, agent, thread)
    assert isinstance(found, Kept)
    assert texts(found) == ["Wait."], "what came after is another turn's"
    assert waiting.name == "memory_insert"


@pytest.mark.parametrize("approve", [True, False])
async def test_a_turn_of_decisions_alone_is_found_by_its_calls(
    surfacing: LettaBackend, agent: Agent, approve: bool
) -> None:
    thread = await opened(surfacing, agent)
    with pytest.raises(ApprovalRequired):
        await say(surfacing, agent, thread, SCRIPT)
    (waiting,) = await surfacing.awaiting(agent, thread)
    turn = a_turn(agent, ToolResult(waiting.call_id, (Text("Because."),), approved=approve))
    assert await surfacing.outcome(turn.id, agent, thread, call_ids=[waiting.call_id]) == Dropped()
    reply = await collect(surfacing.run(turn, placed(agent, thread, turn)))
    assert await surfacing.dropped(turn.id, placed(agent, thread, turn)) == ()
    found = await surfacing.outcome(turn.id, agent, thread, call_ids=[waiting.call_id])
    assert isinstance(found, Kept)
    assert texts(found) == ["Done."] == [part.text for part in reply.parts if isinstance(part, Message)]
