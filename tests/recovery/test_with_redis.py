"""A Letta with Redis locks a conversation while a run is in it, and goes on doing so for five minutes when it dies."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import openai
import pytest

from frontdesk.testing import ScriptedModel
from tests.faults.asking import broken_off, create, failure
from tests.faults.watch import Watched, eventually
from tests.protocols.chat_completions.asking import PIN, Chat, heard, user
from tests.recovery.conftest import Place, agent_of
from tests.recovery.redis import ask
from tests.requirements import requirement

LOCK = "conversation:lock:"
RECOVERED_SECONDS = 20.0
"""Two looks at the ledger, 2.5 seconds apart, one try in two seconds, and what Letta takes to end a run."""


@dataclass
class Foreign:
    """Another client of the same Letta, such as its own web page, and what it has heard."""

    status: int = 0
    text: str = ""
    stop: str = ""
    reading: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])


@asynccontextmanager
async def foreign_run(place: Place, conversation: str, text: str, **more: Any) -> AsyncGenerator[Foreign]:
    """Let another client say this, and come back when the agent has begun to answer it."""
    heard = Foreign()
    body = {"messages": [{"role": "user", "content": text}], "streaming": True, "stream_tokens": True} | more
    path = f"/v1/conversations/{conversation}/messages"

    async def read() -> None:
        async with aiohttp.ClientSession(place.letta.base_url) as client, client.post(path, json=body) as response:
            heard.status = response.status
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                message = json.loads(line[6:])
                heard.text += message.get("content") or ""
                heard.stop = message.get("stop_reason") or heard.stop

    task = asyncio.create_task(read())
    heard.reading.append(task)
    try:
        await eventually(lambda: heard.text or task.done())
        yield heard
    finally:
        task.cancel()


def texts(model: ScriptedModel, marker: str) -> list[str]:
    """What the agent's model was told by users, when it was last told this."""
    return [text for role, text in heard(model.requests_with(marker)[-1]) if role == "user"]


async def conversation_of(place: Place, chat: Chat, pin: str) -> str:
    """Begin a pinned conversation. Gives Letta's id of it."""
    await chat.ask(f"@say First. {pin}", pin=pin)
    return place.proxy.turns(pin)[-1].call.split("/")[3]


async def test_a_run_of_another_client_is_waited_for(
    redis_place: Place, serve: Callable[..., Watched], model: ScriptedModel, marker: str
) -> None:
    async with serve(redis_place).client() as client:
        chat = Chat(client, redis_place.agent)
        conversation = await conversation_of(redis_place, chat, marker)
        async with foreign_run(redis_place, conversation, f"foreign {marker}\n@pace 0.05\n@long 30") as foreign:
            answer = await chat.ask(f"@say Mine. {marker}", pin=marker)
        assert answer.text == f"Mine. {marker}"
        assert (foreign.status, foreign.stop) == (200, "end_turn")
    assert redis_place.proxy.turns(f"Mine. {marker}", status=409), "it was refused first"
    assert [text.split()[0] for text in texts(model, f"Mine. {marker}")] == ["@say", "foreign", "@say"]


@requirement("errors.matrix")
async def test_a_run_of_another_client_that_goes_on_is_told(
    redis_place: Place, serve: Callable[..., Watched], model: ScriptedModel, marker: str
) -> None:
    async with serve(redis_place, queue_wait_seconds=0.5).client() as client:
        chat = Chat(client, redis_place.agent)
        conversation = await conversation_of(redis_place, chat, marker)
        async with foreign_run(redis_place, conversation, "@pace 0.05\n@long 600"):
            asking: Any = {"model": chat.agent, "messages": [user(f"@say Mine. {marker}")]}
            error = await failure(client, **asking, extra_headers={PIN: marker})
            assert isinstance(error, openai.ConflictError)
            assert error.code == "conversation_busy"
            assert error.response.headers["x-should-retry"] == "true"
            assert int(error.response.headers["retry-after"]) > 0
        redis_place.api.post(f"/v1/conversations/{conversation}/cancel", cast_to=object)
        await chat.ask(f"@say Mine. {marker}", pin=marker)
    assert texts(model, f"Mine. {marker}") == [f"@say First. {marker}", f"@say Mine. {marker}"]


async def test_who_gives_up_waiting_for_another_clients_run_does_not_end_it(
    redis_place: Place, serve: Callable[..., Watched], marker: str
) -> None:
    gateway = serve(redis_place, on_disconnect="cancel")
    async with gateway.client() as client:
        chat = Chat(client, redis_place.agent)
        conversation = await conversation_of(redis_place, chat, marker)
        async with foreign_run(redis_place, conversation, "@pace 0.05\n@long 80") as foreign:
            waiting = asyncio.create_task(chat.ask(f"@say Mine. {marker}", pin=marker))
            await eventually(lambda: len(redis_place.proxy.turns(f"Mine. {marker}", status=409)) == 3)
            waiting.cancel()
            await asyncio.wait({waiting})
            await gateway.idle()
            await asyncio.wait(foreign.reading)
    assert (foreign.stop, foreign.text.split()[-1]) == ("end_turn", "word80")


@pytest.mark.parametrize("script", ["@pace 0.05\n@long 600", "@say Begun.\n@hang"], ids=["speaks", "hangs"])
async def test_an_agents_own_thread_goes_on_at_once_after_a_turn_that_was_stopped(
    redis_place: Place, serve: Callable[..., Watched], marker: str, script: str
) -> None:
    """Letta does not unlock it then: it looks for the lock of a conversation, and there is none."""
    gateway = serve(redis_place, on_disconnect="cancel", queue_wait_seconds=3.0)
    agent = agent_of(redis_place.letta)
    async with gateway.client() as client:
        single = Chat(client, f"{agent.name}:single")
        stream = await create(client, model=single.agent, messages=[user(f"{marker}\n{script}")], stream=True)
        await anext(aiter(stream))
        await stream.close()
        await gateway.idle()
        assert ask(redis_place.redis_port, f"EXISTS {LOCK}{agent.id}") == ":1"
        assert (await single.ask("@say Well.")).text == "Well."


async def test_two_gateways_that_share_an_agents_own_thread_lose_nothing(
    redis_place: Place, serve: Callable[..., Watched], model: ScriptedModel, marker: str
) -> None:
    """They know nothing of each other; Letta's lock is what keeps their turns apart."""
    name = f"{agent_of(redis_place.letta).name}:single"
    async with serve(redis_place).client() as one, serve(redis_place).client() as other:
        chats = [Chat(one, name), Chat(other, name)]
        said = [f"@pace 0.02\n@say Number {number}. {marker}" for number in range(6)]
        answers = await asyncio.gather(*(chats[number % 2].ask(text) for number, text in enumerate(said)))
        assert [answer.text for answer in answers] == [f"Number {number}. {marker}" for number in range(6)]
        await chats[0].ask(f"@say All? {marker}-last")
    told = texts(model, f"{marker}-last")
    assert sorted(told[:-1]) == said
    roles = [role for role, _ in heard(model.requests_with(f"{marker}-last")[-1])]
    assert roles == ["user", "assistant"] * 6 + ["user"]


@requirement("crash.in-band", "crash.recovers", "crash.conversations")
async def test_a_letta_killed_in_mid_run_leaves_its_lock_and_the_conversation_goes_on_all_the_same(
    redis_place: Place, serve: Callable[..., Watched], model: ScriptedModel, marker: str
) -> None:
    """Its run counts as running for ever, and its lock stays for five minutes: ending the one undoes the other."""
    gateway = serve(redis_place, models_refresh_seconds=0.5, queue_wait_seconds=60.0)
    long = f"{marker}\n@pace 0.05\n@long 2000"
    async with gateway.client() as client, gateway.client(max_retries=10) as patient:
        chat = Chat(client, redis_place.agent)
        conversation = await conversation_of(redis_place, chat, marker)
        asking: Any = {"model": chat.agent, "messages": [user(long)], "extra_headers": {PIN: marker}}
        doomed = asyncio.create_task(broken_off(client, **asking))
        await eventually(lambda: model.requests_with(long))
        assert ask(redis_place.redis_port, f"EXISTS {LOCK}{conversation}") == ":1"
        await asyncio.to_thread(redis_place.letta.kill)
        _, error = await doomed
        assert error.code == "agent_error"
        await asyncio.to_thread(redis_place.letta.restart)
        assert ask(redis_place.redis_port, f"EXISTS {LOCK}{conversation}") == ":1"
        began = time.monotonic()
        answer = await Chat(patient, chat.agent).ask(f"{marker}\n@say Still here. {marker}-again", pin=marker)
        assert answer.text == f"Still here. {marker}-again"
        assert time.monotonic() - began < RECOVERED_SECONDS
    assert [run["status"] for run in redis_place.runs(conversation)] == ["completed", "cancelled", "completed"]
    told = texts(model, f"{marker}-again")
    assert [text.split("\n")[-1] for text in told] == [f"@say First. {marker}", f"@say Still here. {marker}-again"]
