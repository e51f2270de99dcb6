"""What may be spent, and what happens when it is. Before a fake Letta whose turns take 10 tokens each."""

import asyncio
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI

from frontdesk.ports import Standing
from frontdesk.store.budgets import StoredAccounts
from frontdesk.store.database import Database
from tests.cli.servers import row
from tests.conversations.test_tasks import TITLE
from tests.faults.asking import broken_off, create, failure
from tests.faults.fake import FakeLetta, fake_letta, held, limited
from tests.faults.process import Process, serving
from tests.faults.watch import Watched, eventually, watched

TOKENS = 10
"""What each turn of the fake takes."""


@pytest.fixture
def fake() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        fake.scripts |= {"held": held(fake), "broken": limited}
        yield fake


def budget(limit: str = "25 tokens", **fields: Any) -> dict[str, Any]:
    return {"name": "daily", "limit": limit, "reserve": "10 tokens", "period": "day"} | fields


def gateway_of(fake: FakeLetta, folder: Path, *budgets: dict[str, Any], **settings: Any) -> Any:
    return watched(folder, letta_base_url=fake.url, budgets=budgets, **settings)


def asking(text: str = "Hello", **more: Any) -> Any:
    return {"model": "Milo", "messages": [{"role": "user", "content": text}]} | more


async def standings(folder: Path) -> Sequence[Standing]:
    database = await Database.open(f"sqlite:///{folder / 'frontdesk.db'}")
    try:
        return await StoredAccounts(database, "the test").standings()
    finally:
        await database.aclose()


async def books(folder: Path) -> list[tuple[str, int, int]]:
    """Holder, spent and held of each account."""
    return [(each.holder, each.spent, each.held) for each in await standings(folder)]


# --- when there is nothing left --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_without_budget_a_request_is_a_402_before_the_first_byte(
    fake: FakeLetta, tmp_path: Path, stream: bool
) -> None:
    with gateway_of(fake, tmp_path, budget()) as gateway:
        async with gateway.client() as client:
            for _ in range(2):
                await create(client, **asking())
            calls = len(fake.calls)
            error = await failure(client, **asking("too much"), stream=stream)
            assert isinstance(error, openai.APIStatusError)
            assert (error.status_code, error.code, error.type) == (402, "insufficient_budget", "insufficient_quota")
            headers = error.response.headers
            assert headers["content-type"] == "application/json"
            assert headers["x-should-retry"] == "false"
            assert 0 < int(headers["retry-after"]) <= 24 * 3600
            assert "5 tokens are left" in error.message
            assert "25 tokens a day" in error.message
            assert len(fake.calls) == calls, "nothing was made at the backend"
        assert gateway.metric("frontdesk_budget_spent_total") == 2 * TOKENS
        await gateway.idle()
    assert await books(tmp_path) == [("anonymous", 2 * TOKENS, 0)]


async def test_the_sdk_does_not_send_it_again(fake: FakeLetta, tmp_path: Path) -> None:
    with gateway_of(fake, tmp_path, budget("10 tokens")) as gateway:
        async with gateway.client(max_retries=3) as client:
            await create(client, **asking())
            await failure(client, **asking("again"))
        assert gateway.metric("frontdesk_errors_total") == 1


async def test_responses_are_refused_alike(fake: FakeLetta, tmp_path: Path) -> None:
    with gateway_of(fake, tmp_path, budget("10 tokens")) as gateway:
        async with gateway.client() as client:
            await client.responses.create(model="Milo", input="Hello")
            for stream in (False, True):
                with pytest.raises(openai.APIStatusError) as info:
                    await client.responses.create(model="Milo", input="too much", stream=stream)
                assert (info.value.status_code, info.value.code) == (402, "insufficient_budget")
            later = await client.responses.create(model="Milo", input="too much", background=True)
            async for _ in await client.responses.retrieve(later.id, stream=True):
                pass
            kept: Any = await client.responses.retrieve(later.id)
            assert kept.status == "failed"
            assert "used up" in kept.error.message
        assert len(fake.visits) == 1
        await gateway.idle()


async def test_a_request_for_a_longer_answer_than_the_budget_allows_says_so(fake: FakeLetta, tmp_path: Path) -> None:
    fake.rows[0] |= {"model_settings": {"provider_type": "openai"}}
    with gateway_of(fake, tmp_path, budget("500 tokens")) as gateway:
        async with gateway.client() as client:
            for most in (500, 10**9, 2**63 - 1):
                error = await failure(client, **asking(max_completion_tokens=most))
                assert error.code == "insufficient_budget", most
                assert "more than the whole budget" in error.message
            await create(client, **asking(max_completion_tokens=400))
    assert await books(tmp_path) == [("anonymous", TOKENS, 0)]


async def test_how_much_others_have_left_is_not_told(fake: FakeLetta, tmp_path: Path) -> None:
    with gateway_of(fake, tmp_path, budget("10 tokens", per="agent")) as gateway:
        async with gateway.client() as client:
            await create(client, **asking())
            error = await failure(client, **asking())
    assert "used up" in error.message
    assert "tokens" not in error.message


# --- at the same time ------------------------------------------------------------------------------------------------


async def test_fifty_requests_at_once_never_overdraw(fake: FakeLetta, tmp_path: Path) -> None:
    with gateway_of(fake, tmp_path, budget("205 tokens")) as gateway:
        async with gateway.client() as client:

            async def one(number: int) -> str:
                try:
                    await create(client, **asking(f"number {number}"))
                except openai.APIStatusError as error:
                    return str(error.code)
                return "answered"

            outcomes = Counter(await asyncio.gather(*(one(number) for number in range(50))))
            while outcomes["answered"] < 20:  # some were refused for what others had only set aside
                outcomes[await one(0)] += 1
            assert await one(0) == "insufficient_budget"
        assert outcomes.keys() == {"answered", "insufficient_budget"}
        await gateway.idle()
    assert len(fake.visits) == 20
    assert await books(tmp_path) == [("anonymous", 200, 0)]


async def test_nor_do_two_servers_on_one_store(fake: FakeLetta, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        gateways = [stack.enter_context(gateway_of(fake, tmp_path, budget("75 tokens"))) for _ in range(2)]
        clients = [await stack.enter_async_context(gateway.client()) for gateway in gateways]
        running = [create(client, **asking("#held#")) for client in clients for _ in range(5)]
        tasks = [asyncio.create_task(each) for each in running]
        await eventually(lambda: fake.open_streams == 7)
        error = await failure(clients[0], **asking())
        assert isinstance(error, openai.APIStatusError)
        assert "set aside for other turns" in error.message
        assert error.response.headers["retry-after"] == "2"
        fake.gate.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, openai.APIStatusError) for each in done) == 3
    assert await books(tmp_path) == [("anonymous", 70, 0)]


# --- what is charged, and what is not --------------------------------------------------------------------------------


async def test_a_failed_run_gives_back_what_it_had_set_aside(fake: FakeLetta, tmp_path: Path) -> None:
    with gateway_of(fake, tmp_path, budget("10 tokens")) as gateway:
        async with gateway.client() as client:
            for _ in range(3):
                await broken_off(client, **asking("#broken#"))
            fake.answers["POST /v1/conversations/"] = unavailable
            assert (await failure(client, **asking())).code != "insufficient_budget"
            fake.answers.clear()
            await create(client, **asking())
        await gateway.idle()
    assert await books(tmp_path) == [("anonymous", TOKENS, 0)]


def unavailable(_: web.Request) -> web.Response:
    return web.json_response({"detail": "not now"}, status=503)


async def test_a_repeated_request_is_not_charged_again(fake: FakeLetta, tmp_path: Path) -> None:
    with gateway_of(fake, tmp_path, budget("10 tokens")) as gateway:
        async with gateway.client() as client:
            same = asking("#held#", extra_headers={"idempotency-key": "one"})
            joined = [asyncio.create_task(create(client, **same)) for _ in range(5)]
            await eventually(lambda: gateway.metric("frontdesk_active_turns") == 1)
            fake.gate.set()
            texts = {reply.choices[0].message.content for reply in await asyncio.gather(*joined)}
            texts |= {(await create(client, **same)).choices[0].message.content for _ in range(3)}
            assert texts == {"Begun, and done."}
        await gateway.idle()
    assert len(fake.visits) == 1
    assert await books(tmp_path) == [("anonymous", TOKENS, 0)]


async def test_a_turn_that_its_client_cuts_short_is_charged_by_its_length(fake: FakeLetta, tmp_path: Path) -> None:
    """Else whoever hangs up before the end would pay nothing."""
    with gateway_of(fake, tmp_path, budget("1000 tokens", reserve="500 tokens"), on_disconnect="cancel") as gateway:
        async with gateway.client() as client:
            text = "#held# " + 393 * "x"
            async with await create(client, **asking(text), stream=True) as stream:
                async for chunk in stream:
                    if chunk.choices[0].delta.content:
                        break
            await eventually(lambda: fake.cancels)
        await gateway.idle()
    assert await books(tmp_path) == [("anonymous", 102, 0)]  # 400 + 7 characters


async def test_a_title_by_the_agents_model_is_charged_by_its_length(fake: FakeLetta, tmp_path: Path) -> None:
    with gateway_of(fake, tmp_path, budget("1000 tokens")) as gateway:
        async with gateway.client() as client:
            await create(client, **asking(TITLE))
        assert len(fake.prompts) == 1
        await gateway.idle()
    ((_, spent, held),) = await books(tmp_path)
    assert len(TITLE) // 4 < spent < len(TITLE) // 3
    assert held == 0


async def test_and_by_no_model_when_nothing_is_left(fake: FakeLetta, tmp_path: Path) -> None:
    with gateway_of(fake, tmp_path, budget("10 tokens")) as gateway:
        async with gateway.client() as client:
            await create(client, **asking())
            reply = await create(client, **asking(TITLE))
            assert "title" in (reply.choices[0].message.content or "")
    assert fake.prompts == []


# --- whose it is -----------------------------------------------------------------------------------------------------


def key(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "sha256": sha256(name.encode()).hexdigest()} | fields


async def spend(gateway: Watched, api_key: str, user: str = "", model: str = "Milo") -> str:
    """`answered`, or the code of the error."""
    async with AsyncOpenAI(base_url=gateway.base_url, api_key=api_key, max_retries=0) as client:
        try:
            await create(client, **asking(model=model, **({"user": user} if user else {})))
        except openai.APIStatusError as error:
            return str(error.code)
        return "answered"


async def test_each_user_has_a_budget_and_each_key_one_for_all_its_users(fake: FakeLetta, tmp_path: Path) -> None:
    keys = (key("chat", trust_user_headers=True), key("script"))
    budgets = (budget("10 tokens", name="users", per="user"), budget("25 tokens", name="keys", per="key"))
    with gateway_of(fake, tmp_path, *budgets, keys=keys, probe_key="chat") as gateway:
        assert await spend(gateway, "chat", "ann") == "answered"
        assert await spend(gateway, "chat", "ann") == "insufficient_budget"
        assert await spend(gateway, "chat", "bob") == "answered"
        assert await spend(gateway, "chat", "eve") == "insufficient_budget"
        assert await spend(gateway, "script") == "answered"
    spent = {(each.budget, each.holder): each.spent for each in await standings(tmp_path)}
    assert spent == {
        ("users", "chat/ann"): 10,
        ("users", "chat/bob"): 10,
        ("users", "script"): 10,
        ("keys", "chat"): 20,
        ("keys", "script"): 10,
    }


async def test_a_budget_concerns_the_keys_and_agents_that_it_names(fake: FakeLetta, tmp_path: Path) -> None:
    fake.rows.append(row(3, "Otto"))
    limited = budget("10 tokens", per="all", keys=["gu*"], agents=["letta/O*"])
    with gateway_of(fake, tmp_path, limited, keys=(key("guest"), key("staff")), probe_key="staff") as gateway:
        for name in ("guest", "guest", "staff", "staff"):
            assert await spend(gateway, name) == "answered"
            assert await spend(gateway, "staff", model="Otis") == "answered"
        assert await spend(gateway, "guest", model="Otis") == "answered"
        assert await spend(gateway, "guest", model="Otto") == "insufficient_budget"
        assert await spend(gateway, "staff", model="Otto") == "answered"
    assert await books(tmp_path) == [("", TOKENS, 0)]


# --- in money --------------------------------------------------------------------------------------------------------


def dollars(limit: str, **fields: Any) -> dict[str, Any]:
    return {"name": "money", "limit": limit, "period": "total"} | fields


def priced(fake: FakeLetta, model: str) -> None:
    fake.rows[0]["llm_config"]["handle"] = model


async def test_a_turn_costs_what_its_model_costs(fake: FakeLetta, tmp_path: Path) -> None:
    priced(fake, "openai/gpt-4o")  # 2.50 dollars for a million tokens in, 10 out
    with gateway_of(fake, tmp_path, dollars("1 USD")) as gateway:
        async with gateway.client() as client:
            await create(client, **asking())
    ((_, spent, held),) = await books(tmp_path)
    assert (spent, held) == (48, 0)  # millionths: 7 * 2.5 + 3 * 10, rounded up


async def test_a_model_of_which_nobody_knows_the_price_is_not_used(fake: FakeLetta, tmp_path: Path) -> None:
    with gateway_of(fake, tmp_path, dollars("1 USD")) as gateway:
        async with gateway.client() as client:
            error = await failure(client, **asking())
    assert isinstance(error, openai.APIStatusError)
    assert (error.status_code, error.code) == (402, "price_unknown")
    assert "scripted" not in error.message
    assert fake.visits == []


async def test_unless_the_budget_has_a_price_for_such(fake: FakeLetta, tmp_path: Path) -> None:
    fixed = dollars("0.10 USD", reserve="0.05 USD", price_input_per_mtok="1000", price_output_per_mtok="10000")
    with gateway_of(fake, tmp_path, fixed) as gateway:
        async with gateway.client() as client:
            await create(client, **asking())
            await create(client, **asking())
            error = await failure(client, **asking())
    assert "0.026 USD are left of it, and this turn needs 0.05 USD more" in error.message
    assert await books(tmp_path) == [("anonymous", 2 * 37_000, 0)]


async def test_a_free_model_takes_nothing(fake: FakeLetta, tmp_path: Path) -> None:
    free = dollars("0.01 USD", price_input_per_mtok=0, price_output_per_mtok=0)
    with gateway_of(fake, tmp_path, free) as gateway:
        async with gateway.client() as client:
            for _ in range(3):
                await create(client, **asking(max_completion_tokens=100_000))
    assert await books(tmp_path) == [("anonymous", 0, 0)]


# --- when a process ends ---------------------------------------------------------------------------------------------


async def test_what_a_process_held_when_it_ended_is_settled_by_the_next(fake: FakeLetta, tmp_path: Path) -> None:
    environment = {
        "FRONTDESK_BUDGETS": '[{"name": "daily", "limit": "100 tokens", "reserve": "100 tokens"}]',
        "FRONTDESK_SHUTDOWN_SECONDS": "0",
    }
    with serving(tmp_path, fake.url, **environment) as process:
        async with openai_of(process) as client:
            response = await client.responses.create(model="Milo", input="#held#", background=True)
        await eventually(lambda: fake.visits)
        process.popen.terminate()
        process.popen.wait(30)
    assert [held for _, _, held in await books(tmp_path)] == [100]
    calls = [{"prompt_tokens": 30, "completion_tokens": 12}]
    fake.answers[f"GET /v1/runs/{fake.visits[0].run}/steps"] = lambda _: web.json_response(calls)
    fake.gate.set()
    with serving(tmp_path, fake.url, **environment) as process:
        async with openai_of(process) as client:
            async for _ in await client.responses.retrieve(response.id, stream=True):
                pass
    assert await books(tmp_path) == [("anonymous", 42, 0)]


def openai_of(process: Process) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0)
