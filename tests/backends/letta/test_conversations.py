"""Conversations of a real Letta server: forked, deleted, looked at after the fact.

What counts is what the model is sent.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import structlog
from aiohttp import web
from letta_client import Letta

from frontdesk.backends.letta import LettaBackend
from frontdesk.backends.letta.server import OWN_THREAD
from frontdesk.demo.local_letta import LocalLetta
from frontdesk.errors import (
    ContextLengthExceeded,
    ConversationBusy,
    ConversationNotFound,
    EndpointNotFound,
    ProviderError,
    ProviderRateLimited,
)
from frontdesk.ports import Dropped, Kept, Outcome, Placement, Running
from frontdesk.stream import Reply, collect
from frontdesk.testing import ScriptedModel
from frontdesk.turn import (
    Agent,
    Batch,
    Identity,
    Item,
    Message,
    StopReason,
    Text,
    TextDelta,
    Thread,
    Tool,
    ToolCall,
    ToolResult,
    ToolRun,
    Turn,
)
from tests.backends.letta.conftest import Calls, backend_of
from tests.faults.fake import FakeLetta, fake_letta

WEATHER = Tool("get_weather", "The weather of a city.", {"type": "object", "properties": {"city": {"type": "string"}}})
REMEMBERS = '@call memory_insert {"label": "human", "new_string": "Likes trees.", "insert_line": 0}'


@pytest.fixture(scope="module")
def otis(make_agent: Callable[..., Any]) -> str:
    return make_agent().name


@pytest.fixture
async def agent(backend: LettaBackend, otis: str) -> Agent:
    return (await backend.find(otis))[0]


# --- saying things ---------------------------------------------------------------------------------------------------


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def a_turn(agent: Agent, *said: Item | str, tools: tuple[Tool, ...] = (WEATHER,)) -> Turn:
    items = tuple(user(each) if isinstance(each, str) else each for each in said)
    return Turn(str(uuid.uuid4()), agent.name, items, tools=tools)


def placed(agent: Agent, thread: Thread, turn: Turn) -> Placement:
    return Placement(agent, thread, Identity.NEW, turn.input)


async def opened(backend: LettaBackend, agent: Agent) -> Thread:
    return await backend.open(agent, a_turn(agent))


async def say(backend: LettaBackend, agent: Agent, thread: Thread, *said: Item | str) -> Reply:
    return await play(backend, agent, thread, a_turn(agent, *said))


async def play(backend: LettaBackend, agent: Agent, thread: Thread, turn: Turn) -> Reply:
    return await collect(backend.run(turn, placed(agent, thread, turn)))


def result(reply: Reply, text: str) -> ToolResult:
    call = next(part for part in reply.parts if isinstance(part, ToolCall))
    return ToolResult(call.call_id, (Text(text),))


async def heard(
    model: ScriptedModel, backend: LettaBackend, agent: Agent, thread: Thread
) -> list[tuple[str, str, list[str]]]:
    """What the model is sent in this conversation: role, text, called tools. Asking leaves a trace in it."""
    marker = f"What do you see? {uuid.uuid4()}"
    await say(backend, agent, thread, f"{marker}\n@say Everything.")
    sent = model.requests_with(marker)[-1].messages
    assert sent[-1]["content"].startswith(marker)
    return [
        (each["role"], str(each["content"]), [call["function"]["name"] for call in each.get("tool_calls") or ()])
        for each in sent[1:-1]
    ]


# --- forks -----------------------------------------------------------------------------------------------------------


async def test_a_fork_holds_the_same_history_and_then_goes_its_own_way(
    model: ScriptedModel, backend: LettaBackend, agent: Agent
) -> None:
    thread = await opened(backend, agent)
    asking = await say(
        backend, agent, thread, '@think hm\n@say Wait.\n@call get_weather {"city":"Oslo"}\n@then\n@say Sun.'
    )
    await say(backend, agent, thread, result(asking, "sunny"))
    fork = await backend.fork(agent, thread)
    assert fork
    assert fork.id != thread.id
    await say(backend, agent, fork, "only in the fork\n@say Yes.")
    in_fork = await heard(model, backend, agent, fork)
    in_thread = await heard(model, backend, agent, thread)
    assert in_fork[: len(in_thread)] == in_thread
    assert [role for role, _, _ in in_thread] == ["user", "assistant", "tool", "assistant"]
    assert in_thread[1][1:] == ("Wait.", ["get_weather"])
    assert json.loads(in_thread[2][1])["message"] == "sunny"
    assert [text for _, text, _ in in_fork[4:]] == ["only in the fork\n@say Yes.", "Yes."]


async def test_a_call_that_waits_is_answered_in_the_fork_and_in_the_original(
    model: ScriptedModel, backend: LettaBackend, agent: Agent
) -> None:
    thread = await opened(backend, agent)
    asking = await say(backend, agent, thread, "@call get_weather {}\n@then\n@say Good.")
    fork = await backend.fork(agent, thread)
    assert fork
    for each, weather in ((fork, "rain"), (thread, "sun")):
        assert [call.pending for call in await backend.calls(agent, each)] == [True]
        await say(backend, agent, each, result(asking, weather))
        tool = next(text for role, text, _ in await heard(model, backend, agent, each) if role == "tool")
        assert json.loads(tool)["message"] == weather


async def test_the_last_message_is_forked_at_by_every_server(
    model: ScriptedModel, backend: LettaBackend, agent: Agent
) -> None:
    thread = await opened(backend, agent)
    scripts = [
        "@say Hello.",
        f"@think hm\n{REMEMBERS}\n@then\n@say Noted.",
        "@say Look.\n@call get_weather {}\n@call get_weather {}",
    ]
    mark = ""
    for script in scripts:
        mark = (await say(backend, agent, thread, script)).end.mark
        assert mark
        assert await backend.fork(agent, thread, at=mark)
    earlier = await opened(backend, agent)
    before = (await say(backend, agent, earlier, "@say One.")).end.mark
    await say(backend, agent, earlier, "@say Two.")
    assert await backend.fork(agent, earlier, at=before) is None  # now it is known what this server cannot do
    fork = await backend.fork(agent, thread, at=mark)
    assert fork
    assert [call.pending for call in await backend.calls(agent, fork)] == [True, True]


async def test_a_server_which_cannot_fork_at_a_message_is_tried_once_and_left_clean(
    letta_api: Letta, backend: LettaBackend, make_agent: Callable[..., Any], asked: Calls
) -> None:
    agent = (await backend.find(make_agent().name))[0]
    thread = await opened(backend, agent)
    mark = (await say(backend, agent, thread, "@say One.")).end.mark
    await say(backend, agent, thread, "@say Two.")
    for _ in range(3):
        assert await backend.fork(agent, thread, at=mark) is None
    assert asked.count("POST /v1/conversations/{id}/fork") == 1
    assert [each.id for each in letta_api.conversations.list(agent_id=agent.id)] == [f"conv-{thread.id}"]
    assert await backend.fork(agent, thread)


async def test_a_server_which_can_fork_at_a_message_does_so() -> None:
    made = {"id": f"conv-{uuid.uuid4()}", "agent_id": "agent", "summary": None}
    with fake_letta() as fake:
        fake.answers[f"GET /v1/conversations/{made['id']}"] = lambda _: web.json_response(
            made | {"in_context_message_ids": ["message-0", "message-7"]}
        )
        async with backend_of(fake.url) as backend:
            agent = (await backend.find("Milo"))[0]
            thread = await opened(backend, agent)
            fake.answers["POST /v1/conversations/conv-"] = lambda _: web.json_response(made)
            for _ in range(2):
                fork = await backend.fork(agent, thread, at="message-7")
                assert fork
                assert f"conv-{fork.id}" == made["id"]
        path = f"POST /v1/conversations/conv-{thread.id}/fork?message_id=message-7"
        assert [call for call in fake.calls if "/fork" in call] == [path, path]


async def test_an_agents_own_thread_is_forked_into_a_conversation(
    letta_api: Letta, model: ScriptedModel, backend: LettaBackend, make_agent: Callable[..., Any]
) -> None:
    agent = (await backend.find(make_agent().name))[0]
    reply = await say(backend, agent, OWN_THREAD, "between us\n@say A secret.")
    fork = await backend.fork(agent, OWN_THREAD, at=reply.end.mark)
    assert fork
    assert not fork.own
    assert ("assistant", "A secret.", []) in await heard(model, backend, agent, fork)
    assert "What do you see?" not in str(await heard(model, backend, agent, OWN_THREAD))
    made = letta_api.conversations.retrieve(f"conv-{fork.id}")
    assert made.summary == "Frontdesk"
    settings = made.to_dict()["model_settings"]
    assert isinstance(settings, dict)
    assert settings["parallel_tool_calls"] is True


async def test_what_cannot_be_forked_makes_no_fork(letta: LocalLetta, backend: LettaBackend, agent: Agent) -> None:
    assert await backend.fork(replace(agent, conversations=False), OWN_THREAD) is None
    assert await backend.fork(agent, Thread(str(uuid.uuid4()))) is None


async def test_a_server_from_before_forks_is_asked_once(old: FakeLetta) -> None:
    calls: Calls = []
    async with backend_of(old.url, calls) as backend:
        agent = (await backend.find("Milo"))[0]
        thread = await opened(backend, agent)
        for _ in range(2):
            assert await backend.fork(agent, thread) is None
    assert calls.count("POST /v1/conversations/{id}/fork") == 1


# --- deletion --------------------------------------------------------------------------------------------------------


async def test_a_fork_outlives_what_it_was_forked_from(
    model: ScriptedModel, backend: LettaBackend, agent: Agent
) -> None:
    thread = await opened(backend, agent)
    asking = await say(backend, agent, thread, "@call get_weather {}\n@then\n@say Sun.")
    await say(backend, agent, thread, result(asking, "sunny"))
    fork = await backend.fork(agent, thread)
    assert fork
    await say(backend, agent, fork, "@say Further.")
    second = await backend.fork(agent, fork)
    assert second
    for gone in (thread, fork):
        await backend.delete(agent, gone)
        assert await backend.fork(agent, gone) is None
    told = await heard(model, backend, agent, second)
    assert [role for role, _, _ in told] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert told[1][2] == ["get_weather"]


async def test_a_conversation_outlives_its_fork(model: ScriptedModel, backend: LettaBackend, agent: Agent) -> None:
    thread = await opened(backend, agent)
    await say(backend, agent, thread, "@say One.")
    fork = await backend.fork(agent, thread)
    assert fork
    await backend.delete(agent, fork)
    assert await heard(model, backend, agent, thread) == [("user", "@say One.", []), ("assistant", "One.", [])]


async def test_what_is_gone_is_deleted_again_without_complaint(backend: LettaBackend, agent: Agent) -> None:
    thread = await opened(backend, agent)
    for _ in range(2):
        await backend.delete(agent, thread)
    with pytest.raises(ConversationNotFound):
        await say(backend, agent, thread, "@say No.")


async def test_an_agents_own_thread_is_never_deleted(backend: LettaBackend, agent: Agent, asked: Calls) -> None:
    await backend.delete(agent, OWN_THREAD)
    assert not [call for call in asked if call.startswith("DELETE")]


async def test_a_conversation_has_a_label(letta_api: Letta, backend: LettaBackend, agent: Agent) -> None:
    thread = await opened(backend, agent)
    assert letta_api.conversations.retrieve(f"conv-{thread.id}").summary == "Frontdesk"


# --- what became of a turn -------------------------------------------------------------------------------------------

SCRIPTS = {
    "text": "@say Hello.",
    "reasoning": "@think hm\n@say Hello.",
    "own tool": f"@think hm\n@say One moment.\n{REMEMBERS}\n@then\n@think ah\n@say Noted.",
    "own tools": f"{REMEMBERS}\n{REMEMBERS}\n@then\n@say Noted.",
    "calls": '@think hm\n@say Wait.\n@call get_weather {"city":"Oslo"}\n@call get_weather {"city":"Rome"}',
    "both kinds of tools": f"@say Wait.\n{REMEMBERS}\n@call get_weather {{}}",
    "nothing": "@empty",
    "usage": "@usage 100 20 64 7\n@say Counted.",
}


def kept(reply: Reply) -> Kept:
    """What is to be found of a turn whose client heard this."""
    return Kept(reply.parts, reply.end.stop_reason, reply.end.usage, complete=True, mark=reply.end.mark)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=list(SCRIPTS))
async def test_a_turn_is_found_as_it_was_heard(backend: LettaBackend, agent: Agent, script: str) -> None:
    thread = await opened(backend, agent)
    turn = a_turn(agent, "@say An earlier turn.")
    await play(backend, agent, thread, turn)
    turn = a_turn(agent, script)
    run_ids: set[str] = set()
    batches: list[Batch] = []
    async for batch in backend.run(turn, placed(agent, thread, turn)):
        run_ids.add(backend.run_id(turn.id))
        batches.append(batch)
    reply = await collect(each(batches))
    await play(backend, agent, thread, a_turn(agent, *answers(reply), "@say A later turn."))
    run_id = max(run_ids)
    assert run_id.startswith("run-")
    assert backend.run_id(turn.id) == ""
    assert await backend.outcome(turn.id, agent, thread, run_id) == kept(reply)
    assert await backend.outcome(turn.id, agent, thread) == kept(reply)  # as after a restart before the run was known


async def each(batches: list[Batch]) -> AsyncGenerator[Batch]:
    for batch in batches:
        yield batch


def answers(reply: Reply) -> list[Item]:
    return [ToolResult(part.call_id, (Text("sun"),)) for part in reply.parts if isinstance(part, ToolCall)]


async def test_a_turn_of_results_alone_is_found_by_its_calls(backend: LettaBackend, agent: Agent) -> None:
    thread = await opened(backend, agent)
    asking = await say(backend, agent, thread, f"@say Wait.\n{REMEMBERS}\n@call get_weather {{}}\n@then\n@say Sun.")
    turn = a_turn(agent, *answers(asking))
    call_ids = [part.call_id for part in asking.parts if isinstance(part, ToolCall)]
    assert await backend.outcome(turn.id, agent, thread, call_ids=call_ids) == Dropped()
    reply = await play(backend, agent, thread, turn)
    found = await backend.outcome(turn.id, agent, thread, call_ids=call_ids)
    assert isinstance(found, Kept)
    assert found == kept(reply)
    run, words = found.reply  # the agent's own tool was called in the turn before, and ran in this one
    assert isinstance(run, ToolRun)
    assert run.call_id not in call_ids
    assert words == Message("assistant", (Text("Sun."),))


async def test_a_turn_goes_on_without_its_listener_and_is_kept_whole(backend: LettaBackend, agent: Agent) -> None:
    thread = await opened(backend, agent)
    turn = a_turn(agent, "@think hm\n@pace 0.02\n@long 60")
    run_id = await cut_short(backend, agent, thread, turn)
    assert await backend.outcome(turn.id, agent, thread, run_id) == Running()
    assert await backend.outcome(turn.id, agent, thread) == Running()
    found = await ended(backend, agent, thread, turn, run_id)
    assert isinstance(found, Kept)
    assert found.complete
    assert found.stop_reason is StopReason.STOP
    last = found.reply[-1]
    assert isinstance(last, Message)
    assert len(last.text.split()) == 60
    assert found.usage.output_tokens > 0


async def cut_short(backend: LettaBackend, agent: Agent, thread: Thread, turn: Turn) -> str:
    """Read to the first words, and hang up. Gives the run's id."""
    async with aclosing(backend.run(turn, placed(agent, thread, turn))) as batches:
        async for batch in batches:
            if any(isinstance(event, TextDelta) for event in batch):
                break
    return backend.run_id(turn.id)


async def ended(backend: LettaBackend, agent: Agent, thread: Thread, turn: Turn, run_id: str = "") -> Outcome:
    async with asyncio.timeout(30):
        while (found := await backend.outcome(turn.id, agent, thread, run_id)) == Running():  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # it can only be asked again
    return found


async def test_a_turn_that_was_stopped_is_dropped_and_may_be_given_again(backend: LettaBackend, agent: Agent) -> None:
    thread = await opened(backend, agent)
    turn = a_turn(agent, "@pace 0.1\n@long 200")
    run_id = await cut_short(backend, agent, thread, turn)
    assert await backend.active(agent, thread) == [run_id]
    await backend.stop(turn.id, agent, thread, run_id)
    assert await backend.active(agent, thread) == []
    assert await backend.outcome(turn.id, agent, thread, run_id) == Dropped()
    assert await backend.outcome(turn.id, agent, thread) == Dropped()
    assert await backend.dropped(turn.id, placed(agent, thread, turn)) == turn.input


async def test_a_turn_stopped_after_its_first_step_is_kept_but_not_complete(
    backend: LettaBackend, agent: Agent
) -> None:
    thread = await opened(backend, agent)
    turn = a_turn(agent, f"{REMEMBERS}\n@then\n@pace 0.1\n@long 200")
    run_id = await cut_short(backend, agent, thread, turn)
    await backend.stop(turn.id, agent, thread, run_id)
    found = await backend.outcome(turn.id, agent, thread, run_id)
    assert isinstance(found, Kept)
    assert not found.complete
    assert [type(part) for part in found.reply] == [ToolRun]
    assert await backend.dropped(turn.id, placed(agent, thread, turn)) == ()


@pytest.mark.parametrize("first", ["", f"{REMEMBERS}\n@then\n"], ids=["at once", "after a step"])
async def test_a_turn_whose_model_failed_is_dropped_or_kept_in_part(
    backend: LettaBackend, agent: Agent, first: str
) -> None:
    thread = await opened(backend, agent)
    turn = a_turn(agent, f"{first}@fail 400")
    with pytest.raises(ProviderError):
        await play(backend, agent, thread, turn)
    found = await ended(backend, agent, thread, turn)
    if not first:
        assert found == Dropped()
    else:
        assert isinstance(found, Kept)
        assert (found.complete, [type(part) for part in found.reply]) == (False, [ToolRun])


async def test_a_turn_that_was_never_sent_is_dropped(backend: LettaBackend, agent: Agent) -> None:
    thread = await opened(backend, agent)
    await say(backend, agent, thread, "@say Another turn.")
    assert await backend.outcome("a turn", agent, thread) == Dropped()
    assert await backend.outcome("a turn", agent, thread, f"run-{uuid.uuid4()}") == Dropped()


async def test_a_turn_given_a_second_run_is_found_in_that(backend: LettaBackend, agent: Agent) -> None:
    thread = await opened(backend, agent)
    await say(backend, agent, thread, "@call get_weather {}")
    turn = a_turn(agent, "Never mind.\n@say As you like.")  # Letta refuses it until the call is denied
    run_ids = [backend.run_id(turn.id) async for _ in backend.run(turn, placed(agent, thread, turn))]
    first, *_, last = filter(None, run_ids)
    assert first != last
    for run_id in (first, last):
        found = await backend.outcome(turn.id, agent, thread, run_id)
        assert isinstance(found, Kept)
        assert found.reply == (Message("assistant", (Text("As you like."),)),)


async def test_an_agents_own_thread_tells_of_its_turns(backend: LettaBackend, make_agent: Callable[..., Any]) -> None:
    agent = (await backend.find(make_agent().name))[0]
    turn = a_turn(agent, "@pace 0.02\n@long 40")
    await cut_short(backend, agent, OWN_THREAD, turn)
    assert await backend.outcome(turn.id, agent, OWN_THREAD) == Running()
    found = await ended(backend, agent, OWN_THREAD, turn)
    assert isinstance(found, Kept)
    assert found.complete
    elsewhere = a_turn(agent, "@pace 0.1\n@long 200")
    thread = await opened(backend, agent)
    run_id = await cut_short(backend, agent, thread, elsewhere)
    assert await backend.active(agent, OWN_THREAD) == []
    await backend.stop(elsewhere.id, agent, thread, run_id)


async def test_an_older_agent_tells_of_its_turns(backend: LettaBackend, make_agent: Callable[..., Any]) -> None:
    agent = (await backend.find(make_agent(agent_type="memgpt_v2_agent").name))[0]
    turn = a_turn(agent, '@call send_message {"message": "Hello."}', tools=())
    reply = await play(backend, agent, OWN_THREAD, turn)
    found = await ended(backend, agent, OWN_THREAD, turn)
    assert isinstance(found, Kept)
    assert found.complete
    assert [part for part in found.reply if isinstance(part, Message)] == [
        part for part in reply.parts if isinstance(part, Message)
    ]
    assert not [part for part in found.reply if isinstance(part, ToolRun)]


# --- a condensed history ---------------------------------------------------------------------------------------------


async def test_a_condensed_conversation_is_still_seen_in_order(
    model: ScriptedModel, backend: LettaBackend, make_agent: Callable[..., Any]
) -> None:
    """Letta lists what it put away among what came later, even before it."""
    made = make_agent(context_window_limit=9000, compaction_settings={"mode": "all", "model": "openai-proxy/scripted"})
    agent = (await backend.find(made.name))[0]
    thread = await opened(backend, agent)
    for number in range(25):
        assert not (await say(backend, agent, thread, f"@say Answer {number}.")).end.condensed
    condensing = a_turn(agent, "@usage 12000 20\n@say The last answer before.")
    reply = await play(backend, agent, thread, condensing)
    assert reply.end.condensed
    found = await backend.outcome(condensing.id, agent, thread)
    assert isinstance(found, Kept)
    assert found == replace(kept(reply), condensed=True, usage=found.usage)
    asking = await say(backend, agent, thread, "@call get_weather {}\n@then\n@say Sun.")
    assert [call.pending for call in await backend.calls(agent, thread)] == [True]
    turn = a_turn(agent, result(asking, "sunny"), "and\n@say Well.")
    await play(backend, agent, thread, turn)
    assert await backend.dropped(turn.id, placed(agent, thread, turn)) == ()
    fork = await backend.fork(agent, thread)
    assert fork
    assert await heard(model, backend, agent, fork) == await heard(model, backend, agent, thread)


# --- the model alone -------------------------------------------------------------------------------------------------


async def test_the_model_alone_is_asked_without_history_tools_and_memory(
    letta_api: Letta, model: ScriptedModel, backend: LettaBackend, make_agent: Callable[..., Any]
) -> None:
    agent = (await backend.find(make_agent().name))[0]
    await say(backend, agent, OWN_THREAD, "@say Before.")
    marker = str(uuid.uuid4())
    assert await backend.generate(agent, f"{marker}\n@say A fine title", "You make titles.") == "A fine title"
    request = model.requests_with(marker)[-1]
    assert request.messages == [
        {"role": "system", "content": "You make titles."},
        {"role": "user", "content": f"{marker}\n@say A fine title"},
    ]
    assert request.tool_names == []
    await say(backend, agent, OWN_THREAD, f"{marker} again\n@say After.")
    assert "A fine title" not in str(model.requests_with(f"{marker} again")[-1].messages)
    assert list(letta_api.conversations.list(agent_id=agent.id)) == []


async def test_the_model_alone_may_speak_only_so_long(backend: LettaBackend, agent: Agent) -> None:
    assert await backend.generate(agent, "@say 0123456789", max_characters=4) == "0123"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("@fail 429 should-retry=false", ProviderRateLimited),
        ("@fail 400", ProviderError),
        ("@fail 400 context_length_exceeded", ContextLengthExceeded),
        ("@empty", ProviderError),
    ],
)
async def test_the_model_alone_fails_as_it_does_in_a_turn(
    backend: LettaBackend, agent: Agent, script: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as info:
        await backend.generate(agent, script)
    assert type(info.value) is error


async def test_a_server_that_cannot_ask_the_model_alone_says_so(old: FakeLetta) -> None:
    async with backend_of(old.url) as backend:
        agent = (await backend.find("Milo"))[0]
        with pytest.raises(EndpointNotFound):
            await backend.generate(agent, "Anything?")


# --- a conversation in which another client is talking ---------------------------------------------------------------

BUSY = "CONFLICT: Cannot send a new message: Another request (run_id=run-7) is currently being processed"
TURN = "POST /v1/conversations/conv-"


@pytest.fixture
def old() -> Generator[FakeLetta]:
    """A server which knows less."""

    def unknown(_: web.Request) -> web.Response:
        return web.json_response({"detail": "Not Found"}, status=404)

    with fake_letta() as fake:
        fake.answers["POST /v1/agents/"] = fake.answers[TURN] = unknown
        yield fake


async def test_calls_that_another_client_left_unanswered_are_given_up_and_that_is_logged(
    model: ScriptedModel, backend: LettaBackend, agent: Agent
) -> None:
    thread = await opened(backend, agent)
    await say(backend, agent, thread, "@call get_weather {}")
    with structlog.testing.capture_logs() as logs:
        await say(backend, agent, thread, "@say Something else.")
    assert [(entry["event"], entry["tools"]) for entry in logs] == [
        ("calls that waited for an answer are given up", ["get_weather"])
    ]
    told = await heard(model, backend, agent, thread)
    assert [role for role, _, _ in told] == ["user", "assistant", "tool", "user", "assistant"]


async def test_a_busy_conversation_is_waited_for() -> None:
    with fake_letta() as fake:
        refused: list[str] = []

        def busy(request: web.Request) -> web.Response:
            refused.append(request.path)
            if len(refused) == 2:
                del fake.answers[TURN]
            return web.json_response({"detail": BUSY, "run_id": "run-7"}, status=409)

        async with backend_of(fake.url) as backend:
            agent = (await backend.find("Milo"))[0]
            thread = await opened(backend, agent)
            fake.answers[TURN] = busy
            with structlog.testing.capture_logs() as logs:
                await say(backend, agent, thread, "At last.")
        assert len(refused) == 2
        assert fake.texts("At last.") == [["At last."]]
        assert [entry["event"] for entry in logs] == ["conversation is busy with a run of another client"]


async def test_a_conversation_that_stays_busy_is_refused() -> None:
    with fake_letta() as fake:
        async with backend_of(fake.url, busy_seconds=0.5) as backend:
            agent = (await backend.find("Milo"))[0]
            thread = await opened(backend, agent)
            fake.answers[TURN] = lambda _: web.json_response({"detail": BUSY, "run_id": "run-7"}, status=409)
            with pytest.raises(ConversationBusy):
                await say(backend, agent, thread, "Hello?")
        assert len([call for call in fake.calls if call.endswith("/messages")]) == 3
        assert fake.visits == []
