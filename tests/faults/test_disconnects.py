"""Clients that hang up, on a real Letta server: what goes on, what is told again, what is left over."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from tests.faults.asking import create, failure
from tests.faults.watch import Watched, eventually, watched
from tests.requirements import requirement

LONG = "@pace 0.05\n@long 600"  # half a minute


@pytest.fixture(scope="module")
def gateways(
    letta: LocalLetta, milo: str, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Callable[[str], Watched]]:
    """A gateway for each policy, made on first use."""
    with ExitStack() as stack:
        made: dict[str, Watched] = {}

        def make(policy: str) -> Watched:
            if policy not in made:
                folder = tmp_path_factory.mktemp("gateway")
                settings: dict[str, Any] = {"letta_base_url": letta.base_url, "on_disconnect": policy}
                made[policy] = stack.enter_context(watched(folder, **settings))
            return made[policy]

        yield make


class Chat:
    """A pinned conversation with Milo, and what is known of it on both sides."""

    def __init__(self, gateway: Watched, letta: Letta, model: ScriptedModel, pin: str) -> None:
        self.gateway, self.letta, self.model, self.pin = gateway, letta, model, pin
        self.headers = {"x-frontdesk-conversation": pin}
        self.conversation = ""

    def asking(self, text: str) -> Any:
        return {"model": "Milo", "messages": [{"role": "user", "content": text}], "extra_headers": self.headers}

    async def read(self, client: AsyncOpenAI, text: str, count: int) -> str:
        """Begin a stream, read some text, and hang up."""
        said = ""
        stream = await create(client, **self.asking(text), stream=True)
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""
            if len(said.split()) > count:
                break
        await stream.close()
        return said

    async def say(self, client: AsyncOpenAI, text: str) -> str:
        reply = await create(client, **self.asking(text))
        return reply.choices[0].message.content or ""

    def heard(self, marker: str) -> list[tuple[str, str]]:
        """Role and text of what the model was last sent, as far as it belongs to the conversation."""
        messages = self.model.requests_with(marker)[-1].messages
        return [(one["role"], str(one.get("content"))) for one in messages if one["role"] != "system"]

    def runs(self, count: int) -> list[str]:
        """How the latest runs of this conversation ended, newest first."""
        rows: Any = self.letta.get(f"/v1/runs/?conversation_id={self.of_letta()}&limit=20", cast_to=object)
        return [row["status"] for row in rows][:count]

    def of_letta(self) -> str:
        """The id of this conversation on the Letta server: the newest one, when it is first asked for."""
        if not self.conversation:
            path = f"/v1/conversations/?limit=200&order=desc&agent_id={self.agent()}"
            rows: Any = self.letta.get(path, cast_to=object)
            self.conversation = rows[0]["id"]
        return self.conversation

    def agent(self) -> str:
        return next(agent.id for agent in self.letta.agents.list(name="Milo"))


@pytest.fixture
def chat(
    gateways: Callable[[str], Watched], letta_api: Letta, model: ScriptedModel, request: pytest.FixtureRequest
) -> Callable[[str], Chat]:
    return lambda policy: Chat(gateways(policy), letta_api, model, f"pin of {request.node.name}")


@requirement("disconnect.grace", "disconnect.redelivery", "disconnect.no-leak")
async def test_after_the_grace_the_run_is_cancelled_and_what_was_dropped_is_told_again(
    chat: Callable[[str], Chat],
) -> None:
    talk = chat("grace:0.2s")
    async with talk.gateway.client() as client:
        said = await talk.read(client, f"#after-grace-1\n{LONG}", 5)
        await eventually(lambda: talk.runs(1) == ["cancelled"], lambda: f"runs: {talk.runs(5)}")
        await talk.gateway.idle()
        assert await talk.say(client, "#after-grace-2\n@say Here again.") == "Here again."
        heard = talk.heard("#after-grace-2")
        assert [role for role, _ in heard] == ["user", "assistant", "user"]
        assert "#after-grace-1" in heard[0][1]
        assert heard[1][1].startswith(said.strip())
        await talk.say(client, "#after-grace-3\n@say And on.")
        texts = [text for _, text in talk.heard("#after-grace-3")]
        assert sum("#after-grace-1" in text for text in texts) == 1
        assert "Here again." in texts
    await talk.gateway.idle()


@requirement("disconnect.grace")
async def test_within_the_grace_the_turn_may_finish(chat: Callable[[str], Chat]) -> None:
    talk = chat("grace:60s")
    async with talk.gateway.client() as client:
        await talk.read(client, "#in-grace-1\n@pace 0.02\n@long 40", 3)
        await eventually(lambda: talk.runs(1) == ["completed"], lambda: f"runs: {talk.runs(5)}")
        await talk.gateway.idle()
        await talk.say(client, "#in-grace-2\n@say Good.")
    heard = talk.heard("#in-grace-2")
    assert [role for role, _ in heard] == ["user", "assistant", "user"]
    assert "40" in heard[1][1].split()[-1]


@requirement("disconnect.detach")
async def test_detached_a_turn_finishes_whoever_listens(chat: Callable[[str], Chat]) -> None:
    talk = chat("detach")
    async with talk.gateway.client() as client:
        await talk.read(client, "#detach-1\n@pace 0.02\n@long 60", 3)
        await talk.say(client, "#detach-2\n@say Good.")  # waits for the first
    assert talk.runs(2) == ["completed", "completed"]
    heard = talk.heard("#detach-2")
    assert "60" in heard[1][1].split()[-1]
    await talk.gateway.idle()


@requirement("disconnect.cancel", "disconnect.no-leak")
@pytest.mark.parametrize("moment", ["streaming", "thinking", "plain"])
async def test_cancelled_at_once(chat: Callable[[str], Chat], moment: str, model: ScriptedModel) -> None:
    talk = chat("cancel")
    marker = f"#cancel-{moment}"
    async with talk.gateway.client() as client:
        if moment == "streaming":
            await talk.read(client, f"{marker}-1\n{LONG}", 3)
        else:
            script = f"{marker}-1\n{LONG}" if moment == "plain" else f"{marker}-1\n@slow 20\n@say late"
            asking = asyncio.create_task(create(client, **talk.asking(script), stream=moment != "plain"))
            await asyncio.to_thread(model.wait_for, lambda _: model.requests_with(f"{marker}-1"))
            asking.cancel()
            await asyncio.wait({asking})
        await eventually(lambda: talk.runs(1) == ["cancelled"], lambda: f"runs: {talk.runs(5)}")
        await talk.gateway.idle()
        await talk.say(client, f"{marker}-2\n@say Good.")
    texts = [text for _, text in talk.heard(f"{marker}-2")]
    assert sum(f"{marker}-1" in text for text in texts) == 1


@requirement("disconnect.cancel")
async def test_hung_up_before_letta_has_begun_the_message_is_there_once(
    chat: Callable[[str], Chat], gateways: Callable[[str], Watched]
) -> None:
    """Letta may take the message although nobody waits for its answer: then it must not be told again."""
    talk = chat("cancel")
    url = f"{talk.gateway.base_url}/chat/completions"
    milliseconds = (5, 10, 15, 20, 30, 45, 60, 90)
    for wait in milliseconds:
        body = {"model": "Milo", "messages": [{"role": "user", "content": f"#early-{wait}#"}], "stream": True}
        async with httpx.AsyncClient() as client:
            with suppress(httpx.ReadTimeout):
                timeout = httpx.Timeout(5, read=wait / 1000)
                await client.post(url, json=body, headers=talk.headers, timeout=timeout)
        await talk.gateway.idle()
    async with talk.gateway.client() as client:
        await talk.say(client, "#early-last#\n@say Good.")
    texts = [text for role, text in talk.heard("#early-last#") if role == "user"]
    heard = {wait: sum(f"#early-{wait}#" in text for text in texts) for wait in (*milliseconds, "last")}
    assert heard["last"] == 1
    assert max(heard.values()) == 1, f"told twice: {heard}"


@requirement("disconnect.new-message")
async def test_a_new_message_ends_the_grace_at_once(chat: Callable[[str], Chat]) -> None:
    talk = chat("grace:60s")
    async with talk.gateway.client() as client:
        await talk.read(client, f"#impatient-1\n{LONG}", 3)
        assert talk.gateway.health()["turns"]["in_flight"] == 1
        async with asyncio.timeout(10):
            assert await talk.say(client, "#impatient-2\n@say Now.") == "Now."
    assert talk.runs(2) == ["completed", "cancelled"]
    heard = talk.heard("#impatient-2")
    assert ["#impatient-1" in text for _, text in heard] == [True, False, False]
    await talk.gateway.idle()


@requirement("disconnect.new-message")
async def test_a_message_that_waits_already_ends_the_grace_too(chat: Callable[[str], Chat]) -> None:
    """The client sends again, then hangs up the first: an order in which browsers do it."""
    talk = chat("grace:60s")
    async with talk.gateway.client() as client, talk.gateway.client() as other:
        stream = await create(client, **talk.asking(f"#waits-1\n{LONG}"), stream=True)
        await anext(aiter(stream))
        second = asyncio.create_task(talk.say(other, "#waits-2\n@say Now."))
        await eventually(lambda: talk.gateway.metric("frontdesk_waiting_turns") >= 1)
        await stream.close()
        async with asyncio.timeout(10):
            assert await second == "Now."
    assert talk.runs(2) == ["completed", "cancelled"]


@requirement("disconnect.queued")
async def test_who_hangs_up_while_waiting_in_line_is_never_sent(
    chat: Callable[[str], Chat], model: ScriptedModel
) -> None:
    talk = chat("cancel")
    async with talk.gateway.client() as client, talk.gateway.client() as other:
        stream = await create(client, **talk.asking(f"#line-1\n{LONG}"), stream=True)
        await anext(aiter(stream))
        waiting = asyncio.create_task(talk.say(other, "#line-2\n@say never"))
        await eventually(lambda: talk.gateway.metric("frontdesk_waiting_turns") >= 1)
        waiting.cancel()
        await asyncio.wait({waiting})
        await eventually(lambda: talk.gateway.metric("frontdesk_waiting_turns") == 0)
        await stream.close()
        await talk.gateway.idle()
        assert await talk.say(client, "#line-3\n@say Good.") == "Good."
    assert not model.requests_with("#line-2")


@requirement("disconnect.no-leak")
async def test_ten_that_hang_up_at_once_leave_nothing(chat: Callable[[str], Chat]) -> None:
    talk = chat("cancel")

    async def visit(number: int) -> None:
        async with talk.gateway.client() as client:
            each = Chat(talk.gateway, talk.letta, talk.model, f"{talk.pin} {number}")
            await each.read(client, f"#many-{number}\n{LONG}", 1)

    await asyncio.gather(*(visit(number) for number in range(10)))
    await talk.gateway.idle()
    async with talk.gateway.client() as client:
        error = await failure(client, **talk.asking("hi") | {"model": "nobody"})
    assert error.code == "model_not_found"
