"""What a real Letta does on a bad day, provoked through a proxy before it, with and without Redis behind it.

What counts is what the client is told, and what the agent's model is given with the next message. The list of quirks,
with the test of each, is docs/recovery.md.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import letta_client
import openai
import pytest

from frontdesk.testing import ScriptedModel
from tests.faults.asking import broken_off, create, failure, said
from tests.faults.watch import Watched, eventually
from tests.protocols.chat_completions.asking import PIN, Chat, function, heard, user
from tests.recovery.conftest import Place, agent_of
from tests.recovery.proxy import Body, Frames, Reset, frame, kind
from tests.requirements import requirement

TOOLS = [function("get_weather"), function("get_time")]
WORDS = "One two three four five six seven eight."
GARBAGE = "This is not for the client."


# --- streams -----------------------------------------------------------------------------------------------------


async def with_an_odd_end(frames: Frames) -> Frames:
    """Two stop reasons, and no `[DONE]`."""
    async for each in frames:
        if b"[DONE]" not in each:
            yield each
        if kind(each) == "stop_reason":
            yield each


async def with_what_is_not_for_the_client(frames: Frames) -> Frames:
    """A notice to the agent that its history was condensed, kinds nobody knows, a comment: in small pieces."""
    notice = json.dumps({"type": "system_alert", "message": GARBAGE})
    more = (
        frame(message_type="user_message", id="message-0", content=notice)
        + frame(message_type="hidden_reasoning_message", id="message-0", state="redacted", hidden_reasoning=GARBAGE)
        + frame(message_type="event_message", id="message-0", event_type="compaction", event_data={"a": GARBAGE})
        + frame(message_type="something_new", id="message-0", content=GARBAGE)
        + b": a comment\n\n"
    )
    async for each in frames:
        data = each + more if kind(each) == "assistant_message" else each
        for start in range(0, len(data), 50):
            yield data[start : start + 50]


def in_whole_steps(body: Body) -> Body:
    """As with a provider whose streams Letta does not pass on: then it falls back to this and does not say so."""
    return body | {"stream_tokens": False}


HARMLESS: dict[str, dict[str, Any]] = {
    "odd end": {"frames": with_an_odd_end},
    "not for the client": {"frames": with_what_is_not_for_the_client},
    "whole steps": {"body": in_whole_steps},
}


@requirement("errors.no-done")
@pytest.mark.parametrize("fault", HARMLESS.values(), ids=list(HARMLESS))
async def test_an_odd_stream_is_an_answer_and_a_call_all_the_same(
    place: Place, gateway: Watched, model: ScriptedModel, marker: str, fault: dict[str, Any]
) -> None:
    calling = f'@call get_weather {{"city": "Oslo"}}\n@call get_time {{}}\n@then\n@think Hm.\n@say {WORDS}'
    place.proxy.spoil(marker, times=2, **fault)
    async with gateway.client() as client:
        chat = Chat(client, place.agent)
        asked = [user(f"{marker}\n{calling}")]
        answer = await chat.ask(asked, tools=TOOLS, stream=True)
        assert [(call.name, call.values) for call in answer.calls] == [
            ("get_weather", {"city": "Oslo"}),
            ("get_time", {}),
        ]
        assert answer.finish == "tool_calls"
        asked += [answer.message, *(call.result(f"{call.name} {marker}") for call in answer.calls)]
        answer = await chat.ask(asked, tools=TOOLS, stream=True)
        assert (answer.text, answer.reasoning, answer.finish) == (WORDS, "Hm.", "stop")
        again = await chat.ask([*asked, answer.message, user(f"@say On. {marker}-next")], tools=TOOLS)
        assert (again.text, again.conversation) == (f"On. {marker}-next", answer.conversation)
    roles = [role for role, _ in heard(model.requests_with(f"{marker}-next")[-1])]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]


def after_words(count: int, how: Callable[[], None]) -> Callable[[Frames], Frames]:
    """The stream up to its first words, then its end."""

    async def cut(frames: Frames) -> Frames:
        left = count
        async for each in frames:
            yield each
            left -= kind(each) == "assistant_message"
            if not left:
                how()
                return

    return cut


def reset() -> None:
    raise Reset


BROKEN = [
    pytest.param(after_words(3, lambda: None), id="ended"),
    pytest.param(after_words(3, reset), id="reset"),
]


@requirement("errors.in-band", "retries.after-failure")
@pytest.mark.parametrize("cut", BROKEN)
async def test_a_stream_that_breaks_off_is_an_error_and_the_message_sent_again_is_heard_once(
    place: Place, gateway: Watched, model: ScriptedModel, marker: str, cut: Callable[[Frames], Frames]
) -> None:
    """The run goes on at Letta, which nobody would hear: it is ended before anything else is said there."""
    place.proxy.spoil(marker, frames=cut)
    asking: Any = {"model": place.agent, "messages": [user(f"{marker}\n@pace 0.1\n@long 100")]}
    asking |= {"extra_headers": {PIN: marker}}
    async with gateway.client() as client:
        choices, error = await broken_off(client, **asking)
        assert said(choices).startswith("word1")
        assert error.code == "agent_error"
        chat = Chat(client, place.agent)
        answer = await chat.ask(f"{marker}\n@say All of it.", pin=marker)
        assert answer.text == "All of it."
        conversation = place.proxy.turns(marker)[-1].call.split("/")[3]
        assert [run["status"] for run in place.runs(conversation)] == ["completed", "cancelled"]
        await chat.ask(f"@say On. {marker}-next", pin=marker)
    asked = [text for role, text in heard(model.requests_with(f"{marker}-next")[-1]) if role == "user"]
    assert [text.split("\n")[-1] for text in asked] == ["@say All of it.", f"@say On. {marker}-next"]


@requirement("errors.in-band", "errors.provider")
async def test_an_error_after_words_on_a_good_status_is_an_error_and_leaves_nothing(
    place: Place, gateway: Watched, model: ScriptedModel, marker: str
) -> None:
    """Letta sends two stop reasons, then the error, and no `[DONE]`."""
    kinds: list[str] = []

    async def noted(frames: Frames) -> Frames:
        async for each in frames:
            kinds.append(kind(each) or each.decode())
            yield each

    place.proxy.spoil(marker, frames=noted)
    asking: Any = {"model": place.agent, "messages": [user(f"{marker}\n@say Half an ans\n@error")]}
    async with gateway.client() as client:
        choices, error = await broken_off(client, **asking, extra_headers={PIN: marker})
        assert said(choices) == "Half an ans"
        assert error.code == "provider_error"
        answer = await Chat(client, place.agent).ask(f"@say Well. {marker}-next", pin=marker)
        assert answer.text == f"Well. {marker}-next"
    assert kinds[-3:] == ["stop_reason", "stop_reason", "error_message"]
    assert [role for role, _ in heard(model.requests_with(f"{marker}-next")[-1])] == ["user"]


@requirement("errors.watchdog")
async def test_a_model_that_hangs_is_told_and_given_up_and_the_next_message_goes_through(
    place: Place, serve: Callable[..., Watched], model: ScriptedModel, marker: str
) -> None:
    """Letta sends pings and waits for half an hour; its own timeouts do not hold."""
    gateway = serve(place, silence_seconds=3.0, keepalive_seconds=1.0)
    async with gateway.client() as client:
        await Chat(client, place.agent).ask("@say Warm.", pin=marker)
        asking: Any = {"model": place.agent, "messages": [user(f"{marker}\n@say Begun.\n@hang")]}
        error = await failure(client, **asking, extra_headers={PIN: marker})
        assert isinstance(error, openai.InternalServerError)
        assert (error.status_code, error.code) == (504, "agent_timeout")
        assert error.response.headers["x-should-retry"] == "false"
        await gateway.idle()
        answer = await Chat(client, place.agent).ask(f"@say Well. {marker}-next", pin=marker)
        assert answer.text == f"Well. {marker}-next"
    conversation = place.proxy.turns(marker)[-1].call.split("/")[3]
    assert [run["status"] for run in place.runs(conversation)] == ["completed", "cancelled", "completed"]
    assert [role for role, _ in heard(model.requests_with(f"{marker}-next")[-1])] == ["user", "assistant", "user"]


# --- calls -------------------------------------------------------------------------------------------------------


def one_call_at_a_time(body: Body) -> Body:
    """As an agent is by default."""
    return body | {"model_settings": body["model_settings"] | {"parallel_tool_calls": False}}


@requirement("tools.parallel")
async def test_where_letta_loses_the_second_of_two_calls_the_first_is_answered_and_the_agent_goes_on(
    place: Place, gateway: Watched, model: ScriptedModel, marker: str
) -> None:
    """Letta streams both and keeps one: results for both are refused, and would be for ever."""
    place.proxy.spoil(call="POST /v1/conversations/", marker="model_settings", body=one_call_at_a_time)
    async with gateway.client() as client:
        chat = Chat(client, place.agent)
        asked = [user(f"{marker}\n@call get_weather {{}}\n@call get_time {{}}\n@then\n@say Both {marker}.")]
        answer = await chat.ask(asked, tools=TOOLS)
        assert [call.name for call in answer.calls] == ["get_weather", "get_time"]
        asked += [answer.message, *(call.result(f"{call.name} {marker}") for call in answer.calls)]
        answer = await chat.ask(asked, tools=TOOLS)
        assert answer.text == f"Both {marker}."
        assert (await chat.ask([*asked, answer.message, user("@say On.")], tools=TOOLS)).text == "On."
    results = [text for role, text in heard(model.requests_with(marker)[-1]) if role == "tool"]
    assert [f"get_weather {marker}" in text for text in results] == [True]


@requirement("tools.retry")
@pytest.mark.parametrize("pin", [False, True], ids=["unpinned", "pinned"])
async def test_results_whose_answer_was_lost_on_the_way_are_heard_once_when_they_come_again(
    place: Place, gateway: Watched, model: ScriptedModel, marker: str, pin: bool
) -> None:
    """Letta has them already, and would give the model a message about keep-alive pings in their place."""
    headers = {PIN: marker} if pin else {}
    async with gateway.client() as client:
        chat = Chat(client, place.agent)
        asked = [user(f"{marker}\n@call get_weather {{}}\n@then\n@pace 0.05\n@say {WORDS}")]
        answer = await chat.ask(asked, tools=TOOLS, headers=headers)
        asked += [answer.message, answer.calls[0].result(f"sunny {marker}")]
        place.proxy.spoil(f"sunny {marker}", frames=after_words(2, reset))
        resuming: Any = {"model": place.agent, "messages": asked, "tools": TOOLS, "extra_headers": headers}
        _, error = await broken_off(client, **resuming)
        assert error.code == "agent_error"
        answer = await chat.ask(asked, tools=TOOLS, headers=headers)
        said = [*asked, answer.message, user(f"@say On. {marker}-next")]
        assert (await chat.ask(said, tools=TOOLS, headers=headers)).text == f"On. {marker}-next"
    told = heard(model.requests_with(f"{marker}-next")[-1])
    assert sum(f"sunny {marker}" in text for _, text in told) == 1
    assert sum(marker in text for role, text in told if role == "user") == 2
    assert not any("keep-alive" in text for _, text in told)


# --- connections -------------------------------------------------------------------------------------------------


async def test_connections_which_letta_closed_while_they_were_idle_are_not_used(
    place: Place, gateway: Watched, model: ScriptedModel, marker: str
) -> None:
    async with gateway.client() as client:
        chat = Chat(client, place.agent)
        for number in range(4):
            answer = await chat.ask(f"@say {number} {marker}", pin=marker)
            assert answer.text == f"{number} {marker}"
            assert place.proxy.hang_up()
    users = [text for role, text in heard(model.requests_with(marker)[-1]) if role == "user"]
    assert len(users) == 4


@requirement("errors.backend-down")
@pytest.mark.parametrize(
    ("call", "retry"), [("GET /v1/conversations/conv-", "true"), ("POST /v1/conversations/conv-", "false")]
)
async def test_a_connection_that_breaks_as_a_request_comes_is_told_and_nothing_is_sent_twice(
    place: Place, gateway: Watched, model: ScriptedModel, marker: str, call: str, retry: str
) -> None:
    """Letta closes idle connections after five seconds, and sometimes just then a request is on its way."""
    async with gateway.client() as client:
        chat = Chat(client, place.agent)
        await chat.ask(f"@say One. {marker}", pin=marker)
        conversation = place.proxy.turns(marker)[-1].call.split("/")[3]
        place.proxy.spoil(call=call.replace("conv-", conversation), resets=True)
        asking: Any = {"model": place.agent, "messages": [user(f"@say Two. {marker}")], "extra_headers": {PIN: marker}}
        error = await failure(client, **asking)
        assert isinstance(error, openai.InternalServerError)
        assert (error.status_code, error.code) == (503, "backend_unavailable")
        assert error.response.headers["x-should-retry"] == retry
        assert (await chat.ask(f"@say Two. {marker}", pin=marker)).text == f"Two. {marker}"
    users = [text for role, text in heard(model.requests_with(marker)[-1]) if role == "user"]
    assert users == [f"@say One. {marker}", f"@say Two. {marker}"]


# --- what is asked of Letta, and what is never -------------------------------------------------------------------


async def test_letta_is_only_asked_in_ways_that_it_does_well(
    place: Place, serve: Callable[..., Watched], marker: str
) -> None:
    """Each of these has a quirk: JSON mode, foreign clients, upserted and attached tools, isolated blocks."""
    gateway = serve(place)
    first = len(place.proxy.seen)
    async with gateway.client() as client:
        for agent in (place.agent, f"{place.agent}:single", f"{place.agent}:stateless"):
            chat = Chat(client, agent)
            asked = [user(f"{marker}\n@call get_weather {{}}\n@then\n@say Sun.")]
            answer = await chat.ask(asked, tools=TOOLS, temperature=0.5)
            await chat.ask([*asked, answer.message, answer.calls[0].result("sun")], tools=TOOLS)
        assert len([model async for model in client.models.list()]) > 0
    seen = place.proxy.seen[first:]
    turns = [passage.body for passage in seen if passage.is_turn]
    assert len(turns) == 6
    wanted = {"streaming": True, "stream_tokens": True, "include_pings": True}
    assert [body for body in turns if not body.items() >= wanted.items()] == []
    allowed = wanted.keys() | {"messages", "client_tools", "override_system", "agent_id"}
    assert {name for body in turns for name in body} <= allowed
    assert {passage.headers.get("X-Stainless-Package-Version") for passage in seen} == {"1.12.1"}
    made = [passage.body for passage in seen if passage.call == "POST /v1/conversations/"]
    assert {name for body in made for name in body} == {"summary", "model", "model_settings"}
    agents = {row["provider_type"] for row in (body["model_settings"] for body in made)}
    assert agents == {"openai"}
    assert not [passage.call for passage in seen if "/tools" in passage.call or "attach" in passage.call]
    assert not [passage.call for passage in seen if passage.call.startswith(("PUT ", "PATCH /v1/agents/"))]


async def test_no_run_is_left_behind(place: Place, serve: Callable[..., Watched], marker: str) -> None:
    agent = agent_of(place.letta)
    gateway = serve(place)
    async with gateway.client() as client:
        for stream in (False, True):
            await Chat(client, agent.name).ask(f"@say Well. {marker}", stream=stream)
    active = f"/v1/runs/?agent_id={agent.id}&active=true"
    await eventually(lambda: place.rows(active) == [], lambda: str(place.rows(active)))
    runs = place.rows(f"/v1/runs/?agent_id={agent.id}&limit=50")
    assert [run["status"] for run in runs] == ["completed", "completed"]


@requirement("disconnect.cancel")
async def test_who_stops_an_answer_in_an_agents_own_thread_stops_nothing_else_of_that_agent(
    place: Place, serve: Callable[..., Watched], marker: str
) -> None:
    """Letta cancels all runs of an agent where none is named, and with Redis the latest."""
    gateway = serve(place, on_disconnect="cancel")
    agent = agent_of(place.letta)
    async with gateway.client() as client:
        single, chat = Chat(client, f"{agent.name}:single"), Chat(client, agent.name)
        stream = await create(client, model=single.agent, messages=[user("@pace 0.05\n@long 600")], stream=True)
        await first_words(stream)
        other = asyncio.create_task(chat.ask(f"{marker}\n@pace 0.05\n@long 80", stream=True))
        await eventually(lambda: place.proxy.turns(marker))
        await stream.close()
        answer = await other
    assert answer.text.split()[-1] == "word80"
    runs = place.rows(f"/v1/runs/?agent_id={agent.id}&limit=50")
    assert {run["status"]: bool(run["conversation_id"]) for run in runs} == {"completed": True, "cancelled": False}


async def first_words(stream: Any) -> None:
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            return


@requirement("errors.no-internals")
async def test_a_conversation_deleted_at_letta_is_not_found_without_lettas_words(
    place: Place, gateway: Watched, marker: str
) -> None:
    async with gateway.client() as client:
        answer = await Chat(client, place.agent).ask(f"@say One. {marker}", pin=marker)
        conversation = place.proxy.turns(marker)[-1].call.split("/")[3]
        place.api.conversations.delete(conversation)
        pinned = {PIN: answer.conversation}
        error = await failure(client, model=place.agent, messages=[user("@say Two.")], extra_headers=pinned)
    assert isinstance(error, openai.NotFoundError)
    assert error.code == "conversation_not_found"
    with pytest.raises(letta_client.NotFoundError) as info:
        place.api.conversations.retrieve(conversation)
    assert "actor" in str(info.value), "there was something to hide"
    assert all(word not in error.response.text for word in ("actor", "organization", conversation))
