"""A response that is asked for again: the agent hears it once, and both ids are good."""

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.faults.fake import FakeLetta, echo
from tests.faults.watch import Watched, eventually, watched
from tests.protocols.responses.clients import (
    RETRIED,
    House,
    asked,
    create,
    ended,
    events,
    heard,
    message,
    open_house,
    said,
    until_text,
    users,
    visited,
)
from tests.protocols.responses.visitors import client, fake, gateway, who
from tests.requirements import requirement

__all__ = ["client", "fake", "gateway", "who"]

WAYS: list[Any] = [
    pytest.param({}, id="plain"),
    pytest.param({"stream": True}, id="stream"),
    pytest.param({"background": True}, id="background"),
]
KEY = {"Idempotency-Key": "one"}
AGAIN: list[Any] = [pytest.param(KEY, KEY, id="key"), pytest.param({}, RETRIED, id="retry-count")]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    with open_house(tmp_path_factory.mktemp("house")) as house:
        yield house


async def going_on(client: AsyncOpenAI, fake: FakeLetta, response: Any, conversation: str, told: list[Any]) -> None:
    """After this response, one goes on where the agent stood."""
    said = f"After {response.id}"
    after = await create(client, said, previous_response_id=response.id)
    assert heard(fake.visits[-1]) == [*told, ("user", said)]
    assert after.conversation.id == conversation


# --- the same again ----------------------------------------------------------------------------------------------


@requirement("responses.retries")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("headers", "again"), AGAIN)
async def test_what_is_asked_for_again_after_its_end_is_answered_without_the_agent(
    client: AsyncOpenAI, fake: FakeLetta, way: dict[str, Any], headers: Any, again: Any
) -> None:
    first = await asked(client, "hello", extra_headers=headers, **way)
    second = await asked(client, "hello", extra_headers=again, **way)
    assert first.id != second.id
    assert first.output == second.output
    assert len(fake.visits) == 1
    assert [(await client.responses.retrieve(each.id)).output for each in (first, second)] == [first.output] * 2
    assert first.conversation.id == second.conversation.id
    await going_on(client, fake, second, first.conversation.id, [("user", "hello"), ("assistant", first.output_text)])


@requirement("responses.retries")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("headers", "again"), AGAIN)
async def test_what_is_asked_for_again_while_it_runs_is_joined(
    house: House,
    client: AsyncOpenAI,
    fake: FakeLetta,
    who: dict[str, Any],
    way: dict[str, Any],
    headers: Any,
    again: Any,
) -> None:
    asking = asyncio.create_task(asked(client, "#held#", extra_headers=headers, **way))
    await visited(fake, 1)
    joining = asyncio.create_task(asked(client, "#held#", extra_headers=again, **way))
    (user,) = who["default_headers"].values()
    await eventually(lambda: receipts(house.folder, user) == 2)
    fake.gate.set()
    first, second = await asyncio.gather(asking, joining)
    assert first.id != second.id
    assert first.output_text == second.output_text == "Begun, and done."
    assert len(fake.visits) == 1
    told = [("user", "#held#"), ("assistant", "Begun, and done.")]
    await going_on(client, fake, first, second.conversation.id, told)


def receipts(folder: Path, user: str) -> int:
    """How many responses the store knows of: one that is about to be joined has nothing else to show for it."""
    with closing(sqlite3.connect(folder / "frontdesk.db")) as store:
        return store.execute("SELECT count(*) FROM receipts WHERE principal = ?", (f"app/{user}",)).fetchone()[0]


@requirement("responses.retries")
async def test_a_key_with_another_body_is_a_conflict(client: AsyncOpenAI, fake: FakeLetta) -> None:
    await create(client, "hello", extra_headers=KEY)
    for other in ({"said": "hello!"}, {"said": "hello", "background": True}, {"said": "hello", "metadata": {"a": "b"}}):
        with pytest.raises(openai.ConflictError) as info:
            await create(client, **other, extra_headers=KEY)
        assert info.value.code == "idempotency_key_conflict"
    chat: Any = client.chat.completions.create
    with pytest.raises(openai.ConflictError):
        await chat(model="Milo", messages=[message("user", "hello")], extra_headers=KEY)
    assert len(fake.visits) == 1


@requirement("responses.retries")
async def test_the_sdk_s_own_retry_after_its_time_is_up_is_heard_once(
    gateway: Watched, fake: FakeLetta, who: dict[str, Any]
) -> None:
    sent: list[httpx.Request] = []

    async def note(request: httpx.Request) -> None:
        sent.append(request)

    async with httpx.AsyncClient(event_hooks={"request": [note]}) as http:
        impatient = gateway.client(**who, timeout=httpx.Timeout(10.0, read=1.0), max_retries=3, http_client=http)
        asking = asyncio.create_task(create(impatient, "#held#"))
        await eventually(lambda: len(sent) == 2)
        fake.gate.set()
        response = await asking
        assert response.output_text == "Begun, and done."
        assert len(fake.visits) == 1
        told = [("user", "#held#"), ("assistant", "Begun, and done.")]
        await going_on(impatient, fake, response, response.conversation.id, told)


@requirement("responses.retries")
async def test_a_stream_that_was_cut_and_is_asked_for_again_is_joined(client: AsyncOpenAI, fake: FakeLetta) -> None:
    first = await create(client, "hello")
    more = {"previous_response_id": first.id, "stream": True}
    ids: list[str] = []
    for _ in range(2):
        stream = await create(client, "#held#", **more)
        ids.append((await until_text(stream))[0].response.id)
        await stream.close()
    stream = await create(client, "#held#", **more)
    heard_so_far = await until_text(stream)
    ids.append(heard_so_far[0].response.id)
    fake.gate.set()
    rest = [event async for event in stream]
    assert rest[-1].response.output_text == "Begun, and done."
    assert len(fake.visits) == 2
    assert len(set(ids)) == 3
    kept = [await client.responses.retrieve(each) for each in ids]
    assert [(each.status, each.output_text) for each in kept] == [("completed", "Begun, and done.")] * 3
    told = [*said("hello", "#held#"), ("assistant", "Begun, and done.")]
    await going_on(client, fake, kept[0], first.conversation.id, told)


@requirement("responses.retries")
async def test_a_request_that_failed_is_told_once_when_it_is_sent_again(client: AsyncOpenAI, fake: FakeLetta) -> None:
    first = await create(client, "hello")
    for _ in range(2):
        with pytest.raises(openai.RateLimitError):
            await create(client, "#refused#", previous_response_id=first.id, extra_headers=KEY)
    assert users(fake.visits[-1]) == ["hello", "#refused#"]
    fake.scripts["refused"] = echo
    await create(client, "#refused#", previous_response_id=first.id, extra_headers=KEY)
    assert users(fake.visits[-1]) == ["hello", "#refused#"]


# --- equal, and yet another --------------------------------------------------------------------------------------


@requirement("responses.retries")
@pytest.mark.parametrize("background", [False, True])
async def test_equal_requests_without_a_sign_of_a_retry_are_two(
    client: AsyncOpenAI, fake: FakeLetta, background: bool
) -> None:
    both = [asyncio.create_task(asked(client, "#held#", background=background)) for _ in range(2)]
    await visited(fake, 2)
    fake.gate.set()
    first, second = await asyncio.gather(*both)
    assert first.conversation.id != second.conversation.id
    third = await asked(client, "#held#", background=background)
    assert third.conversation.id not in (first.conversation.id, second.conversation.id)
    assert len(fake.visits) == 3


@requirement("responses.retries", "responses.branch")
async def test_equal_requests_after_one_response_are_two_which_do_not_know_each_other(
    client: AsyncOpenAI, fake: FakeLetta
) -> None:
    first = await create(client, "hello")
    both = [asyncio.create_task(create(client, "#held#", previous_response_id=first.id)) for _ in range(2)]
    await visited(fake, 2)
    fake.gate.set()
    answers = await asyncio.gather(*both)
    assert [users(visit) for visit in fake.visits[1:]] == [["hello", "#held#"]] * 2
    assert len({answer.conversation.id for answer in answers}) == 2
    assert not fake.overlaps


# --- clients that leave ------------------------------------------------------------------------------------------


@requirement("responses.retries")
async def test_a_response_whose_client_left_is_cancelled_and_can_be_gone_on_after(
    fake: FakeLetta, tmp_path: Path
) -> None:
    with watched(tmp_path, letta_base_url=fake.url, on_disconnect="cancel") as gateway:
        async with gateway.client() as client:
            stream = await create(client, "#held#", stream=True)
            response_id = (await until_text(stream))[0].response.id
            await stream.close()
            kept = await ended(client, response_id)
            assert (kept.status, kept.output_text) == ("cancelled", "Begun, ")
            with pytest.raises(openai.BadRequestError):
                await client.responses.cancel(response_id)
            await create(client, "Go on.", previous_response_id=response_id)
            assert heard(fake.visits[-1]) == [("user", "#held#"), ("assistant", "Begun, "), ("user", "Go on.")]
            await gateway.idle()


@requirement("responses.retries")
async def test_of_those_who_hear_a_response_the_last_to_leave_ends_it(fake: FakeLetta, tmp_path: Path) -> None:
    """Also who came to hear it by its id: unless it runs in the background."""
    with watched(tmp_path, letta_base_url=fake.url, on_disconnect="cancel") as gateway:
        async with gateway.client() as client:
            stream = await create(client, "#held#", stream=True)
            response_id = (await until_text(stream))[0].response.id
            retrieve: Any = client.responses.retrieve
            beside = await retrieve(response_id, stream=True)
            await until_text(beside)
            await stream.close()
            assert (await create(client, "Beside them")).status == "completed"
            assert (await client.responses.retrieve(response_id)).status == "in_progress"
            assert not fake.cancels
            await beside.close()
            assert (await ended(client, response_id)).status == "cancelled"
            assert len(fake.cancels) == 1
            await gateway.idle()


@requirement("responses.background", "responses.retries")
async def test_whoever_leaves_a_background_response_leaves_it_running(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url, on_disconnect="cancel") as gateway:
        async with gateway.client() as client:
            stream = await create(client, "#held#", background=True, stream=True)
            response_id = (await until_text(stream))[0].response.id
            await stream.close()
            for _ in range(5):
                retrieve: Any = client.responses.retrieve
                later = await retrieve(response_id, stream=True)
                await until_text(later)
                await later.close()
            assert (await create(client, "Beside them")).status == "completed"
            fake.gate.set()
            assert (await ended(client, response_id)).output_text == "Begun, and done."
            assert not fake.cancels
            await gateway.idle()


# --- in the background -------------------------------------------------------------------------------------------


@requirement("responses.retries", "responses.cancel")
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("script", ["#silent#", "#held#"])
async def test_a_background_response_that_was_asked_for_twice_is_cancelled_by_either_id(
    gateway: Watched, client: AsyncOpenAI, fake: FakeLetta, which: int, script: str
) -> None:
    both = [await create(client, script, background=True, extra_headers=KEY) for _ in range(2)]
    await visited(fake, 1)
    assert (await client.responses.cancel(both[which].id)).status == "cancelled"
    await gateway.idle()
    assert [(await client.responses.retrieve(each.id)).status for each in both] == ["cancelled"] * 2
    assert len(fake.visits) == 1


@requirement("responses.retries", "responses.background.stream")
async def test_a_repeated_background_response_has_the_same_events_also_when_the_first_is_forgotten(
    client: AsyncOpenAI, fake: FakeLetta
) -> None:
    first = await create(client, "hello", background=True, extra_headers=KEY)
    told = await events(client, first.id)
    second = await create(client, "hello", background=True, extra_headers=KEY)
    await client.responses.delete(first.id)
    again = await events(client, second.id)
    assert [(each.type, each.sequence_number) for each in again] == [(each.type, each.sequence_number) for each in told]
    assert len(fake.visits) == 1


@requirement("responses.retries", "responses.background")
async def test_a_background_response_whose_client_never_heard_its_id_is_found_by_the_retry(
    gateway: Watched, fake: FakeLetta, who: dict[str, Any]
) -> None:
    async with gateway.client(**who, timeout=httpx.Timeout(10.0, read=0.000_1)) as hasty:
        with suppress(openai.APITimeoutError):
            await create(hasty, "#held#", background=True)
    await visited(fake, 1)
    async with gateway.client(**who) as client:
        response = await create(client, "#held#", background=True, extra_headers=RETRIED)
        fake.gate.set()
        assert (await ended(client, response.id)).output_text == "Begun, and done."
    assert len(fake.visits) == 1
