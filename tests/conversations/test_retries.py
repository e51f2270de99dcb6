"""The same request sent again: the agent hears each message once, and whoever asks has the answer."""

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.conversations.clients import Told, shown, tell
from tests.faults import fake as letta
from tests.faults.asking import broken_off, create
from tests.faults.fake import DONE, KEPT, FakeLetta, Script, Visit, fake_letta, ping, say, stop, usage
from tests.faults.process import serving
from tests.faults.watch import Watched, eventually, watched
from tests.protocols.chat_completions.asking import PIN, Chat, Message, assistant, function, user
from tests.requirements import requirement

LIMITED = letta.failed("llm_rate_limit", "RATE_LIMIT_EXCEEDED: slow down")
KEYS = tuple({"name": name, "sha256": sha256(name.encode()).hexdigest()} for name in ("ann", "bob"))


@pytest.fixture
def fake() -> Generator[FakeLetta]:
    with fake_letta() as fake:

        async def held(_: Visit) -> AsyncGenerator[bytes, None]:
            for frame in (ping(), say("Begun, ")):
                yield frame
            await fake.wait()
            for frame in (say("and done."), stop(), usage(), DONE):
                yield frame

        fake.scripts["held"] = held
        yield fake


@pytest.fixture
def gateway(fake: FakeLetta, tmp_path: Path) -> Generator[Watched]:
    with watched(tmp_path, letta_base_url=fake.url) as gateway:
        yield gateway


@pytest.fixture
async def milo(gateway: Watched) -> AsyncGenerator[Chat]:
    async with gateway.client() as client:
        yield Chat(client, "Milo")


def first_time(*frames: bytes) -> Script:
    """Fails so when it is played first; afterwards the agent answers."""
    played: list[Visit] = []

    async def script(visit: Visit) -> AsyncGenerator[bytes, None]:
        played.append(visit)
        if len(played) == 1:
            for frame in frames:
                yield frame
        else:
            async for frame in letta.echo(visit):
                yield frame

    return script


WORKED = (
    letta.event(
        message_type="tool_call_message",
        id="message-1-call",
        tool_call={"name": "note", "arguments": '{"a": 1}', "tool_call_id": "own-1"},
    ),
    letta.event(
        message_type="tool_return_message",
        id="message-1-return",
        tool_call_id="own-1",
        tool_return="noted",
        status="ok",
    ),
)
NOTHING_KEPT = (ping(), say("Half"), LIMITED)
HALF_KEPT = (ping(), *WORKED, KEPT, say("Half"), LIMITED)


async def heard_of(stream: Any, until: str = "") -> str:
    """The text of a stream, to its end or until this has been said."""
    text = ""
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        if until and text == until:
            break
    return text


async def hang_up(chat: Chat, said: Sequence[Message], **headers: str) -> str:
    """Read the beginning of a stream, then leave it."""
    stream = await create(chat.client, model=chat.agent, messages=list(said), stream=True, extra_headers=headers)
    text = await heard_of(stream, "Begun, ")
    await stream.close()
    return text


def users(visit: Visit, marker: str) -> int:
    return sum(marker in text for role, text in visit.heard if role == "user")


# --- with a key ----------------------------------------------------------------------------------------------------


@requirement("retries.key")
@pytest.mark.parametrize("name", ["Idempotency-Key", "X-Idempotency-Key"])
async def test_a_key_that_comes_again_has_the_same_answer(fake: FakeLetta, milo: Chat, name: str) -> None:
    headers = {name: str(uuid.uuid4())}
    first = await milo.ask("hello", headers=headers)
    for stream in (False, True):
        again = await milo.ask("hello", headers=headers, stream=stream)
        assert (again.text, again.conversation, again.finish) == (first.text, first.conversation, "stop")
        assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len(fake.visits) == 1


@requirement("retries.key")
async def test_a_key_with_another_body_is_a_conflict(fake: FakeLetta, milo: Chat) -> None:
    headers = {"Idempotency-Key": "one"}
    await milo.ask("hello", headers=headers)
    with pytest.raises(openai.ConflictError) as info:
        await milo.ask("hello!", headers=headers)
    assert info.value.code == "idempotency_key_conflict"
    assert info.value.response.headers["x-should-retry"] == "false"
    assert len(fake.visits) == 1


@requirement("retries.key")
async def test_the_same_key_at_once_is_one_turn(fake: FakeLetta, milo: Chat) -> None:
    headers = {"Idempotency-Key": "one"}
    asked = [asyncio.create_task(milo.ask("#held#", headers=headers, stream=stream)) for stream in (True, False, True)]
    await eventually(lambda: fake.visits)
    asked.append(asyncio.create_task(milo.ask("#held#", headers=headers, stream=True)))
    fake.gate.set()
    answers = await asyncio.gather(*asked)
    assert [answer.text for answer in answers] == ["Begun, and done."] * 4
    assert len(fake.visits) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 3


@requirement("retries.key")
async def test_a_key_is_its_principals_own(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path / "keys", letta_base_url=fake.url, keys=KEYS, probe_key="ann") as gateway:
        for name, text in (("ann", "mine"), ("bob", "theirs")):
            async with gateway.client(api_key=name) as client:
                answer = await Chat(client, "Milo").ask(text, headers={"Idempotency-Key": "one"})
                assert answer.text == f"You said: {text}"


@requirement("retries.key", "retries.after-failure")
async def test_a_key_of_what_came_to_nothing_is_tried_again(fake: FakeLetta, milo: Chat) -> None:
    fake.scripts["once"] = first_time(*NOTHING_KEPT)
    headers = {"Idempotency-Key": "one", PIN: "a pin"}
    with pytest.raises(openai.RateLimitError):
        await milo.ask("#once#", headers=headers)
    answer = await milo.ask("#once#", headers=headers)
    assert answer.text == "You said: #once#"
    assert users(fake.visits[-1], "#once#") == 1


@requirement("retries.key")
async def test_a_clients_id_for_its_answer_is_a_key(fake: FakeLetta, milo: Chat) -> None:
    headers = {"X-OpenWebUI-Chat-Id": "a chat", "X-OpenWebUI-Message-Id": "m1"}
    first, again = [await milo.ask("hello", headers=headers) for _ in range(2)]
    assert again.text == first.text
    assert len(fake.visits) == 1
    await milo.ask("hello", headers=headers | {"X-OpenWebUI-Message-Id": "m2"})
    assert len(fake.visits) == 2


# --- a client that gave up waiting ---------------------------------------------------------------------------------

BEFORE = [user("Hello"), assistant("You said: Hello")]
PLACES: list[Any] = [
    pytest.param([], {}, id="first"),
    pytest.param(BEFORE, {}, id="history"),
    pytest.param([], {PIN: "a pin"}, id="pin"),
    pytest.param([], {"X-OpenWebUI-Chat-Id": "a chat"}, id="chat"),
]


async def begin(milo: Chat, before: Sequence[Message], headers: dict[str, str]) -> None:
    """Say what the history says, so that it is known."""
    if before:
        await milo.ask(before[:1], headers=headers)


@requirement("retries.sdk")
@pytest.mark.parametrize(("before", "headers"), PLACES)
async def test_a_request_that_timed_out_and_is_retried_is_heard_once(
    gateway: Watched, fake: FakeLetta, milo: Chat, before: list[Message], headers: dict[str, str]
) -> None:
    await begin(milo, before, headers)
    count = len(fake.visits)
    sent: list[httpx.Request] = []

    async def note(request: httpx.Request) -> None:
        sent.append(request)

    async with httpx.AsyncClient(event_hooks={"request": [note]}) as http:
        impatient = gateway.client(timeout=httpx.Timeout(10.0, read=1.0), max_retries=3, http_client=http)
        asking = asyncio.create_task(Chat(impatient, "Milo").ask([*before, user("#held#")], headers=headers))
        await eventually(lambda: len(sent) == 2)
        fake.gate.set()
        answer = await asking
    assert answer.text == "Begun, and done."
    assert answer.headers["idempotency-replayed"] == "true"
    assert len(fake.visits) == count + 1


@requirement("retries.join")
@pytest.mark.parametrize(("before", "headers"), PLACES)
async def test_a_stream_that_was_cut_and_is_sent_again_is_joined(
    fake: FakeLetta, milo: Chat, before: list[Message], headers: dict[str, str]
) -> None:
    await begin(milo, before, headers)
    count = len(fake.visits)
    said = [*before, user("#held#")]
    for _ in range(2):
        assert await hang_up(milo, said, **headers) == "Begun, "
    stream = await create(milo.client, model="Milo", messages=said, stream=True, extra_headers=headers)
    assert await heard_of(stream, "Begun, ") == "Begun, "
    fake.gate.set()
    assert await heard_of(stream) == "and done."
    assert len(fake.visits) == count + 1
    said += [assistant("Begun, and done."), user("and on")]
    delta = said[-1:] if PIN in headers else said
    told = await tell(fake, milo, delta, headers=headers)
    assert told.heard == shown(said)


@requirement("retries.join", "retries.honest")
async def test_an_answer_which_its_client_missed_is_given_again(gateway: Watched, fake: FakeLetta, milo: Chat) -> None:
    headers = {PIN: "a pin"}
    await hang_up(milo, [user("#held#")], **headers)
    fake.gate.set()
    await gateway.idle()
    answer = await milo.ask("#held#", headers=headers)
    assert (answer.text, answer.headers["idempotency-replayed"]) == ("Begun, and done.", "true")
    assert len(fake.visits) == 1
    second = await milo.ask("#held#", headers=headers)  # now it has been delivered, so this is another
    assert "idempotency-replayed" not in second.headers
    assert len(fake.visits) == 2


@requirement("retries.honest")
async def test_equal_messages_are_two_while_both_clients_wait(fake: FakeLetta, milo: Chat) -> None:
    said = [user("#held#")]
    both = [asyncio.create_task(milo.ask(said, stream=True)) for _ in range(2)]
    await eventually(lambda: len(fake.visits) == 2)
    fake.gate.set()
    answers = await asyncio.gather(*both)
    assert len({answer.conversation for answer in answers}) == 2


@requirement("retries.honest")
async def test_equal_messages_to_one_pin_are_two_while_both_clients_wait(fake: FakeLetta, milo: Chat) -> None:
    both = [asyncio.create_task(milo.ask("#held#", pin="a pin", stream=True)) for _ in range(2)]
    await eventually(lambda: fake.visits)
    fake.gate.set()
    await asyncio.gather(*both)
    assert [users(visit, "#held#") for visit in fake.visits] == [1, 2]
    assert not fake.overlaps


@requirement("retries.honest")
async def test_an_honest_message_is_not_taken_for_the_retry_of_an_earlier_one(fake: FakeLetta, milo: Chat) -> None:
    """The second `ok` was refused before the agent heard of it, and is retried: the first one was answered long ago."""
    await milo.ask("ok", pin="a pin")
    fake.answers["POST /v1/conversations/conv-"] = unavailable(fake)
    async with milo.client.with_options(max_retries=2) as patient:
        answer = await Chat(patient, "Milo").ask("ok", pin="a pin")
    assert "idempotency-replayed" not in answer.headers
    assert users(fake.visits[-1], "ok") == 2


def unavailable(fake: FakeLetta) -> letta.Answer:
    def answer(_: Any) -> Any:
        fake.answers.clear()
        return letta.web.json_response({"detail": "not ready"}, status=503)

    return answer


# --- after a failure -----------------------------------------------------------------------------------------------


FAILURES = [
    pytest.param(*place.values, frames, id=f"{name}-{place.id}")
    for place in PLACES
    for name, frames in (("nothing-kept", NOTHING_KEPT), ("half-kept", HALF_KEPT))
]


@requirement("retries.after-failure")
@pytest.mark.parametrize(("before", "headers", "frames"), FAILURES)
async def test_a_message_sent_again_after_a_failure_in_the_stream_is_heard_once(
    fake: FakeLetta, milo: Chat, before: list[Message], headers: dict[str, str], frames: tuple[bytes, ...]
) -> None:
    """Roo Code sends the whole turn again."""
    await begin(milo, before, headers)
    fake.scripts["once"] = first_time(*frames)
    said = [*before, user("#once#")]
    await broken_off(milo.client, model="Milo", messages=said, extra_headers=headers)
    told = await tell(fake, milo, said, headers=headers)
    assert told_by(told, headers) == shown_by(said, headers)
    more = [*said, told.answer.message, user("and on")]
    told = await tell(fake, milo, more[-1:] if PIN in headers else more, headers=headers)
    assert told_by(told, headers) == shown_by(more, headers)


def told_by(told: Told, headers: dict[str, str]) -> list[tuple[str, str]]:
    """What the agent heard; under a pin what it was told, for what it said itself before it failed is there too."""
    return [each for each in told.heard if PIN not in headers or each[0] == "user"]


def shown_by(said: list[Message], headers: dict[str, str]) -> list[tuple[str, str]]:
    return [each for each in shown(said) if PIN not in headers or each[0] == "user"]


@requirement("retries.after-failure")
async def test_tool_results_sent_again_after_a_failure_are_heard_once(fake: FakeLetta, milo: Chat) -> None:
    fake.scripts["once"] = first_time(*NOTHING_KEPT)
    tools = [function("read")]
    said = [user('#call read {"city": "Bern"}#')]
    called = await tell(fake, milo, said, tools=tools)
    said += [called.answer.message, called.answer.calls[0].result("sunny"), user("#once#")]
    with pytest.raises(openai.RateLimitError):
        await milo.ask(said, tools=tools)
    told = await tell(fake, milo, said, tools=tools)
    texts = [text for _, text in told.heard]
    assert sum("sunny" in text for text in texts) == 1
    assert sum("#once#" in text for text in texts) == 1


# --- another message -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pin", "history"])
async def test_another_message_ends_the_grace_and_both_are_told(fake: FakeLetta, tmp_path: Path, way: str) -> None:
    with watched(tmp_path / "patient", letta_base_url=fake.url, on_disconnect="grace:60s") as gateway:
        async with gateway.client() as client:
            milo = Chat(client, "Milo")
            headers = {PIN: "a pin"} if way == "pin" else {}
            said = [user("Hello")]
            said.append((await milo.ask(said, headers=headers)).message)
            said.append(user("#held#"))
            half = await hang_up(milo, said[-1:] if headers else said, **headers)
            said += [assistant(half), user("never mind")]
            async with asyncio.timeout(10):
                told = await tell(fake, milo, said[-1:] if headers else said, headers=headers)
            assert told.heard == shown(said)
            assert len(fake.cancels) == 1
            assert told.conversation == fake.visits[0].conversation
            said += [told.answer.message, user("and on")]
            told = await tell(fake, milo, said[-1:] if headers else said, headers=headers)
            assert len(told.heard) == len(said)
            assert told.conversation == fake.visits[0].conversation
            assert not fake.overlaps


async def test_two_messages_that_were_cancelled_are_both_told_once(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path / "hasty", letta_base_url=fake.url, on_disconnect="cancel") as gateway:
        async with gateway.client() as client:
            milo = Chat(client, "Milo")
            for number in range(2):
                await hang_up(milo, [user(f"{number} #held#")], **{PIN: "a pin"})
                await gateway.idle()
            for count in (5, 7):
                told = await tell(fake, milo, [user("now")], pin="a pin")
                assert len(told.heard) == count
            assert [text for role, text in told.heard if role == "user"] == ["0 #held#", "1 #held#", "now", "now"]


@requirement("retries.after-failure")
async def test_a_cancelled_message_that_is_sent_again_is_told_once(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path / "hasty", letta_base_url=fake.url, on_disconnect="cancel") as gateway:
        async with gateway.client() as client:
            milo = Chat(client, "Milo")
            await hang_up(milo, [user("#held#")], **{PIN: "a pin"})
            await gateway.idle()
            fake.gate.set()
            told = await tell(fake, milo, [user("#held#")], pin="a pin")
            assert told.heard == [("user", "#held#")]
            told = await tell(fake, milo, [user("now")], pin="a pin")
            assert [role for role, _ in told.heard] == ["user", "assistant", "user"]


@requirement("retries.join")
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
async def test_a_message_sent_again_while_it_is_being_cancelled_is_answered(
    fake: FakeLetta, tmp_path: Path, stream: bool
) -> None:
    """Whoever comes too late to keep a turn from being stopped is not told of that: they have a turn of their own."""
    with watched(tmp_path / "hasty", letta_base_url=fake.url, on_disconnect="cancel") as gateway:
        async with gateway.client() as client:
            milo = Chat(client, "Milo")
            await hang_up(milo, [user("#held#")], **{PIN: "a pin"})
            await eventually(lambda: fake.cancels)  # now, and for half a second, its end is looked after
            fake.gate.set()
            answer = await milo.ask("#held#", pin="a pin", stream=stream)
            assert answer.text == "Begun, and done."
            told = await tell(fake, milo, [user("now")], pin="a pin")
            assert told.heard == [("user", "#held#"), ("assistant", "Begun, and done."), ("user", "now")]


async def test_results_that_come_after_the_calls_were_given_up_are_heard(fake: FakeLetta, tmp_path: Path) -> None:
    """The user wrote something else, thought better of it, and lets the tool run after all."""
    with watched(tmp_path / "hasty", letta_base_url=fake.url, on_disconnect="cancel") as gateway:
        async with gateway.client() as client:
            milo = Chat(client, "Milo")
            tools = [function("read")]
            said = [user('#call read {"city": "Bern"}#')]
            called = await tell(fake, milo, said, tools=tools)
            said.append(called.answer.message)
            await hang_up(milo, [*said, user("#held#")])
            await gateway.idle()
            said.append(called.answer.calls[0].result("sunny"))
            told = await tell(fake, milo, said, tools=tools)
            assert any("sunny" in text for _, text in told.heard)


async def test_of_three_who_hear_a_turn_the_last_to_leave_ends_it(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path / "hasty", letta_base_url=fake.url, on_disconnect="grace:1s") as gateway:
        async with gateway.client() as client:
            milo, key = Chat(client, "Milo"), {"Idempotency-Key": "one"}
            body: Any = {"model": "Milo", "messages": [user("#held#")], "stream": True, "extra_headers": key}
            streams = [await create(client, **body) for _ in range(3)]
            for stream in streams:
                async for chunk in stream:
                    if chunk.choices[0].delta.content:
                        break
            for stream in streams[:2]:
                await stream.close()
            await asyncio.sleep(1.5)  # longer than the grace
            assert not fake.cancels
            await streams[2].close()
            await eventually(lambda: fake.cancels)
            await gateway.idle()
            fake.gate.set()
            assert (await milo.ask("#held#", headers=key)).text == "Begun, and done."
    assert len(fake.visits) == 2


# --- a gateway that ends in the middle -----------------------------------------------------------------------------


@requirement("conversations.restart", "retries.after-failure")
@pytest.mark.parametrize(("before", "headers"), PLACES)
async def test_a_turn_which_a_restart_cut_short_is_heard_once(
    fake: FakeLetta, tmp_path: Path, before: list[Message], headers: dict[str, str]
) -> None:
    settings: dict[str, Any] = {"letta_base_url": fake.url, "shutdown_seconds": 0}
    said = [*before, user("#held#")]
    with watched(tmp_path, **settings) as gateway:
        async with gateway.client() as client:
            await begin(Chat(client, "Milo"), before, headers)
            asked = {"model": "Milo", "messages": said, "extra_headers": headers}
            stream = await create(client, **asked, stream=True)
            assert await anext(aiter(stream))
    with suppress(openai.APIError, httpx.HTTPError):
        async for _ in stream:
            pass
    fake.gate.set()
    with watched(tmp_path, **settings) as gateway:
        async with gateway.client() as client:
            milo = Chat(client, "Milo")
            answer = await milo.ask(said, headers=headers)
            assert answer.text == "Begun, and done."
            assert [users(visit, "#held#") for visit in fake.visits][-1] == 1
            said += [answer.message, user("and on")]
            told = await tell(fake, milo, said[-1:] if PIN in headers else said, headers=headers)
            assert told.heard == shown(said)


@requirement("retries.crash")
async def test_a_turn_whose_gateway_was_killed_is_found_again(fake: FakeLetta, tmp_path: Path) -> None:
    """Letta ends it alone. Who asks again has its answer, when the dead process's lease is over."""
    headers = {PIN: "a pin"}

    with serving(tmp_path, fake.url) as process, suppress(openai.APIError, httpx.HTTPError):
        async with AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0) as client:
            milo = Chat(client, "Milo")
            stream = await create(
                milo.client, model="Milo", messages=[user("#held#")], stream=True, extra_headers=headers
            )
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            process.popen.kill()
            process.popen.wait()
            await stream.close()
    with serving(tmp_path, fake.url) as process:
        async with AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0) as client:
            milo = Chat(client, "Milo")
            again = asyncio.create_task(milo.ask("#held#", headers=headers, stream=True))
            fake.gate.set()
            answer = await again
            assert answer.text == "Begun, and done."
            assert len(fake.visits) == 1, "it was heard once"
            told = await tell(fake, milo, [user("and on")], headers=headers)
    assert told.heard == [("user", "#held#"), ("assistant", "Begun, and done."), ("user", "and on")]


# --- a store that is out of order ----------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path) -> Generator[Callable[[], None]]:
    """Nobody can write to the store, until the block ends or what it yields is called."""
    connection = sqlite3.connect(folder / "frontdesk.db", check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection.rollback
    finally:
        connection.close()


@requirement("store.down")
async def test_without_a_store_the_agent_hears_nothing(
    fake: FakeLetta, milo: Chat, tmp_path: Path, gateway: Watched
) -> None:
    assert gateway.url
    with locked(tmp_path):
        with pytest.raises(openai.InternalServerError) as info:
            await milo.ask("hello", pin="a pin")
        assert (info.value.status_code, info.value.code) == (503, "store_unavailable")
        assert info.value.response.headers["x-should-retry"] == "true"
    assert fake.visits == []
    told = await tell(fake, milo, [user("hello")], pin="a pin")
    assert told.heard == [("user", "hello")]


@requirement("store.down")
async def test_when_the_store_goes_away_in_mid_turn_the_answer_is_finished_and_noted_later(
    fake: FakeLetta, milo: Chat, tmp_path: Path, gateway: Watched
) -> None:
    assert gateway.url
    headers = {PIN: "a pin"}
    stream = await create(milo.client, model="Milo", messages=[user("#held#")], stream=True, extra_headers=headers)
    assert await heard_of(stream, "Begun, ") == "Begun, "
    with locked(tmp_path):
        fake.gate.set()
        assert await heard_of(stream) == "and done."
    async with asyncio.timeout(25):
        told = await tell(fake, milo, [user("and on")], pin="a pin")
    assert told.heard == [("user", "#held#"), ("assistant", "Begun, and done."), ("user", "and on")]
