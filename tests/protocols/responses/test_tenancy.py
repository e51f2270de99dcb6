"""Whose a response is: nobody else finds it, goes on after it, hears it or ends it, whatever they name."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jwt
import openai
import pytest
from openai import AsyncOpenAI

from tests.faults.fake import FakeLetta, fake_letta
from tests.faults.watch import Watched, watched
from tests.protocols.responses.clients import CALL, TOOLS, calls, create, ended, events, rehearsed, result, users
from tests.requirements import requirement

SECRET = "0123456789abcdef0123456789abcdef"


def key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": sha256(name.encode()).hexdigest()} | more


KEYS = (
    key("ann"),
    key("bob"),
    key("cleo", agents=("Milo",)),
    key("webui", trust_user_headers=True),
)


@pytest.fixture(scope="module")
def fake() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        yield rehearsed(fake)


@pytest.fixture(scope="module")
def gateway(fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Watched]:
    folder = tmp_path_factory.mktemp("tenants")
    with watched(folder, letta_base_url=fake.url, keys=KEYS, probe_key="ann", webui_jwt_secret=SECRET) as gateway:
        yield gateway


def token(user: str) -> str:
    claims = {"sub": user, "iss": "open-webui", "exp": int(time.time()) + 7200}  # tests may run long after this
    return jwt.encode(claims, SECRET, algorithm="HS256")  # pyright: ignore[reportUnknownMemberType]


PEOPLE: dict[str, dict[str, Any]] = {
    "another key": {"api_key": "bob"},
    "a key of some agents": {"api_key": "cleo"},
    "a user of a trusted key": {"api_key": "webui", "default_headers": {"X-OpenWebUI-User-Id": "bob"}},
    "a user with a token": {"api_key": "ann", "default_headers": {"X-OpenWebUI-User-Jwt": token("bob")}},
    "a user who calls himself by her name": {"api_key": "webui", "default_headers": {"X-OpenWebUI-User-Id": "ann"}},
}


@pytest.fixture
async def ann(gateway: Watched) -> AsyncGenerator[AsyncOpenAI]:
    async with gateway.client(api_key="ann") as client:
        yield client


@pytest.fixture(params=list(PEOPLE))
async def stranger(gateway: Watched, request: pytest.FixtureRequest) -> AsyncGenerator[AsyncOpenAI]:
    async with gateway.client(**PEOPLE[request.param]) as client:
        yield client


async def refused(asking: Awaitable[Any]) -> tuple[int, str | None]:
    with pytest.raises(openai.APIStatusError) as info:
        await asking
    return info.value.status_code, info.value.code


NOT_FOUND = (404, "response_not_found")
NO_PREVIOUS = (400, "previous_response_not_found")


@requirement("responses.tenancy")
async def test_a_stranger_can_do_nothing_with_a_response(
    fake: FakeLetta, ann: AsyncOpenAI, stranger: AsyncOpenAI
) -> None:
    hers = await create(ann, "My secret")
    before = len(fake.visits)
    responses: Any = stranger.responses
    assert await refused(responses.retrieve(hers.id)) == NOT_FOUND
    assert await refused(responses.retrieve(hers.id, stream=True)) == NOT_FOUND
    assert await refused(responses.retrieve(hers.id, stream=True, starting_after=3)) == NOT_FOUND
    assert await refused(responses.cancel(hers.id)) == NOT_FOUND
    assert await refused(responses.delete(hers.id)) == NOT_FOUND
    assert await refused(responses.input_items.list(hers.id)) == NOT_FOUND
    for more in ({}, {"stream": True}, {"background": True}, {"store": False}):
        assert await refused(create(stranger, "What did she say?", previous_response_id=hers.id, **more)) == NO_PREVIOUS
    named = create(stranger, "What did she say?", conversation=hers.conversation.id)
    assert await refused(named) == (404, "conversation_not_found")
    for item_id in (hers.output[0].id, f"msg_{hers.id.removeprefix('resp_')}i0"):
        told = [{"type": "item_reference", "id": item_id}, {"role": "user", "content": "What did she say?"}]
        assert await refused(create(stranger, told)) == (400, "item_not_found")
    assert len(fake.visits) == before
    assert await ann.responses.retrieve(hers.id) == hers
    await create(ann, "And on", previous_response_id=hers.id)
    assert users(fake.visits[-1]) == ["My secret", "And on"]


@requirement("responses.tenancy", "responses.cancel")
async def test_a_stranger_does_not_end_what_runs_in_the_background(
    fake: FakeLetta, ann: AsyncOpenAI, stranger: AsyncOpenAI
) -> None:
    fake.gate.clear()
    hers = await create(ann, "#held#", background=True)
    cancels = len(fake.cancels)
    assert await refused(stranger.responses.cancel(hers.id)) == NOT_FOUND
    assert await refused(stranger.responses.delete(hers.id)) == NOT_FOUND
    fake.gate.set()
    assert (await ended(ann, hers.id)).output_text == "Begun, and done."
    assert len(fake.cancels) == cancels


@requirement("responses.tenancy")
async def test_a_stranger_does_not_answer_a_tool_call(fake: FakeLetta, ann: AsyncOpenAI, stranger: AsyncOpenAI) -> None:
    hers = await create(ann, CALL, tools=TOOLS)
    (call,) = calls(hers)
    before = len(fake.visits)
    status, _ = await refused(create(stranger, [result(call.call_id, "sunny")], tools=TOOLS))
    assert status == 400
    assert len(fake.visits) == before
    answered = await create(ann, [result(call.call_id, "sunny")], tools=TOOLS)
    assert answered.conversation.id == hers.conversation.id


@requirement("responses.tenancy")
async def test_strangers_who_say_the_same_do_not_meet(fake: FakeLetta, ann: AsyncOpenAI, stranger: AsyncOpenAI) -> None:
    said = [{"role": "user", "content": "Equal"}]
    hers, his = await create(ann, said), await create(stranger, said)
    assert hers.conversation.id != his.conversation.id
    more = [*said, hers.output[0].model_dump(exclude={"id"}), {"role": "user", "content": "More"}]
    before = fake.visits[-1].conversation
    await create(ann, more)
    assert fake.visits[-1].conversation != before


@requirement("responses.tenancy")
async def test_each_user_of_a_key_has_responses_of_their_own(gateway: Watched) -> None:
    """By a header, or by a token. The `user` of a body counts for the response, which is then found by the header."""
    ways: list[Callable[[str], dict[str, str]]] = [
        lambda user: {"X-OpenWebUI-User-Id": user},
        lambda user: {"X-OpenWebUI-User-Jwt": token(user)},
    ]
    async with gateway.client(api_key="webui") as client:
        for way in ways:
            first = await create(client, "Mine", extra_headers=way("eva"))
            assert (await client.responses.retrieve(first.id, extra_headers=way("eva"))).id == first.id
            for other in (way("finn"), {}):
                assert await refused(client.responses.retrieve(first.id, extra_headers=other)) == NOT_FOUND
        by_body = await create(client, "Mine", user="gus")
        assert await refused(client.responses.retrieve(by_body.id)) == NOT_FOUND
        found = await client.responses.retrieve(by_body.id, extra_headers=ways[0]("gus"))
        assert found.id == by_body.id


# --- agents ------------------------------------------------------------------------------------------------------


@requirement("responses.tenancy")
async def test_another_agent_does_not_go_on_after_a_response(fake: FakeLetta, ann: AsyncOpenAI) -> None:
    hers = await create(ann, "To Milo alone")
    before = len(fake.visits)
    for more in ({}, {"stream": True}):
        assert await refused(create(ann, "Hm?", model="Otis", previous_response_id=hers.id, **more)) == NO_PREVIOUS
    named = create(ann, "Hm?", model="Otis", conversation=hers.conversation.id)
    assert await refused(named) == (404, "conversation_not_found")
    called = await create(ann, CALL, tools=TOOLS)
    answer = [result(calls(called)[0].call_id, "sunny")]
    assert (await refused(create(ann, answer, model="Otis", tools=TOOLS)))[0] == 400
    assert len(fake.visits) == before + 1
    await create(ann, "And on", model="letta/Milo", previous_response_id=hers.id)
    assert users(fake.visits[-1]) == ["To Milo alone", "And on"]


@requirement("responses.tenancy")
async def test_a_key_that_may_use_an_agent_no_longer_finds_none_of_its_responses(
    fake: FakeLetta, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"letta_base_url": fake.url, "probe_key": "dan"}
    fake.gate.clear()
    with watched(tmp_path, **settings, keys=(key("dan"),)) as gateway:
        async with gateway.client(api_key="dan") as dan:
            his = [await create(dan, "Hello"), await create(dan, "Hello", background=True)]
            await ended(dan, his[1].id)
    with watched(tmp_path, **settings, keys=(key("dan", agents=("Otis",), scopes=("metrics",)),)) as gateway:
        async with gateway.client(api_key="dan") as dan:
            for each in his:
                assert await refused(dan.responses.retrieve(each.id)) == NOT_FOUND
                assert await refused(dan.responses.cancel(each.id)) == NOT_FOUND
                assert await refused(dan.responses.delete(each.id)) == NOT_FOUND
                told = [{"type": "item_reference", "id": his[0].output[0].id}, {"role": "user", "content": "Hm?"}]
                assert await refused(create(dan, told, model="Otis")) == (400, "item_not_found")
                status, _ = await refused(create(dan, "Hm?", previous_response_id=each.id))
                assert status in (403, 404)
                assert await refused(create(dan, "Hm?", model="Otis", previous_response_id=each.id)) == NO_PREVIOUS
    with watched(tmp_path, **settings, keys=(key("dan"),)) as gateway:
        async with gateway.client(api_key="dan") as dan:
            assert (await dan.responses.retrieve(his[0].id)).output_text == "You said: Hello"


# --- ids that are none -------------------------------------------------------------------------------------------

NO_IDS = (
    "resp_0",
    "resp_" + "0" * 64,
    "resp_" + "0" * 65,
    "resp_" + "f" * 20_000,
    "resp_0\n",
    "resp_ABC",
    "turn_0",
    "conv_0",
    "msg_0o0",
    "resp_",
    "resp_0-rest",
    "../../etc/passwd",
    "resp_0/../../conversations",
    "resp_'; DROP TABLE receipts; --",
    "résp_\U0001f600",
    "resp_\0",
    "resp_%00",
    "null",
    "0",
)


@requirement("responses.tenancy")
async def test_what_is_no_id_of_a_response_finds_nothing(gateway: Watched, fake: FakeLetta) -> None:
    before = len(fake.visits)
    async with httpx.AsyncClient(base_url=gateway.base_url, headers={"authorization": "Bearer ann"}) as http:
        for value in NO_IDS:
            place = f"/responses/{quote(value, safe='')}"
            asked = [("GET", place), ("DELETE", place), ("POST", f"{place}/cancel"), ("GET", f"{place}/input_items")]
            for method, path in [*asked, ("GET", f"{place}?stream=true")]:
                response = await http.request(method, path)
                assert response.status_code in (404, 405), (method, path, response.text)
                assert set(response.json()) == {"error"}
            body = {"model": "Milo", "input": "Hm?", "previous_response_id": value}
            response = await http.post("/responses", json=body)
            told = response.json()["error"]
            assert (response.status_code, told["code"], told["param"]) == (*NO_PREVIOUS, "previous_response_id"), value
            assert len(response.content) < 1000
    assert len(fake.visits) == before


@requirement("responses.tenancy", "responses.store")
@pytest.mark.parametrize("how", [{}, {"stream": True}])
async def test_a_response_that_was_not_stored_is_nobodys(fake: FakeLetta, ann: AsyncOpenAI, how: Any) -> None:
    made = await create(ann, "Hello", store=False, **how)
    told = [event async for event in made] if how else [made]
    response_id = told[0].response.id if how else made.id
    assert await refused(ann.responses.retrieve(response_id)) == NOT_FOUND
    assert await refused(create(ann, "More", previous_response_id=response_id)) == NO_PREVIOUS
    assert await refused(events(ann, response_id)) == NOT_FOUND
