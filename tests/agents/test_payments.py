"""Turns that are paid by x402: with its own SDK as the client, and a facilitator that checks signatures.

They need the extra `frontdesk[x402]`.
"""

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI

from frontdesk import Agent
from frontdesk.agents.errors import AgentError
from frontdesk.agents.skills import X402, Budget
from frontdesk.store.budgets import StoredAccounts
from frontdesk.store.database import Database
from frontdesk.testing import ScriptedModel
from tests.agents import payees
from tests.agents.payees import NETWORK, PAYEE
from tests.cli.servers import listening
from tests.faults.asking import broken_off, create, failure
from tests.faults.watch import Watched, eventually, watched

depth = sys.getrecursionlimit()
x402: Any = pytest.importorskip("x402")
evm: Any = pytest.importorskip("x402.mechanisms.evm.exact")
client_of: Any = pytest.importorskip("x402.http.clients.httpx")
accounts: Any = pytest.importorskip("eth_account")
messages: Any = pytest.importorskip("eth_account.messages")
sys.setrecursionlimit(depth)  # which one of these has raised

Json = dict[str, Any]


@dataclass
class Facilitator:
    """Checks what it is shown as a real one does, but for the chain."""

    url: str = ""
    down: bool = False
    broke: bool = False
    """Whether payers have nothing left."""
    verified: list[Json] = field(default_factory=list[Json])
    settled: list[Json] = field(default_factory=list[Json])

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/supported", self._supported)
        app.router.add_post("/verify", self._verify)
        app.router.add_post("/settle", self._settle)
        return app

    async def _supported(self, _: web.Request) -> web.Response:
        kind = {"x402Version": 2, "scheme": "exact", "network": NETWORK}
        return web.json_response({"kinds": [kind], "extensions": [], "signers": {}})

    async def _verify(self, request: web.Request) -> web.Response:
        if self.down:
            return web.Response(status=500, text="a stack trace of theirs")
        asked = await request.json()
        self.verified.append(asked)
        reason = self._reason(asked["paymentPayload"]["payload"], asked["paymentRequirements"])
        return web.json_response({"isValid": not reason, "invalidReason": reason})

    def _reason(self, payload: Json, requirements: Json) -> str | None:
        if self.broke:
            return "invalid_exact_evm_insufficient_balance"
        if signer_of(payload, requirements) != payload["authorization"]["from"]:
            return "invalid_exact_evm_payload_signature"
        return None

    async def _settle(self, request: web.Request) -> web.Response:
        self.settled.append(await request.json())
        return web.json_response({"success": True, "transaction": "0x1", "network": NETWORK})


def signer_of(payload: Json, requirements: Json) -> str:
    """Who has signed it, by EIP-712."""
    authorization = payload["authorization"]
    names = ("from", "to", "value", "validAfter", "validBefore", "nonce")
    kinds = ("address", "address", "uint256", "uint256", "uint256", "bytes32")
    fields = [{"name": name, "type": kind} for name, kind in zip(names, kinds, strict=True)]
    domain = {
        "name": requirements["extra"]["name"],
        "version": requirements["extra"]["version"],
        "chainId": int(NETWORK.partition(":")[2]),
        "verifyingContract": requirements["asset"],
    }
    told = {
        name: int(authorization[name]) if kind == "uint256" else authorization[name]
        for name, kind in zip(names, kinds, strict=True)
    }
    told["nonce"] = bytes.fromhex(authorization["nonce"].removeprefix("0x"))
    signable = messages.encode_typed_data(domain, {"TransferWithAuthorization": fields}, told)
    return accounts.Account.recover_message(signable, signature=payload["signature"])


@dataclass(frozen=True)
class Shop:
    gateway: Watched
    facilitator: Facilitator
    folder: Path

    def payer(self) -> AsyncOpenAI:
        """A client that pays when it is asked to."""
        wallet = x402.x402Client()
        wallet.register(NETWORK, evm.ExactEvmClientScheme(accounts.Account.create()))
        return self.client(http_client=client_of.x402HttpxClient(wallet, timeout=30))

    def client(self, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.gateway.base_url, api_key="none", max_retries=0, **options)

    async def payment(self, **changes: Any) -> str:
        """A signed header, with other terms than those asked for."""
        async with self.client() as client:
            error: Any = await failure(client, **asking("paid"))
        required = x402.http.utils.decode_payment_required_header(error.response.headers["payment-required"])
        terms = required.accepts[0].model_copy(update=changes)
        scheme = evm.ExactEvmClientScheme(accounts.Account.create())
        payload = {"x402Version": 2, "payload": scheme.create_payment_payload(terms)}
        return encoded(payload | {"accepted": terms.model_dump(by_alias=True)})

    async def books(self) -> list[tuple[str, int, int]]:
        await self.gateway.idle()
        database = await Database.open(f"sqlite:///{self.folder / 'frontdesk.db'}")
        try:
            standings = await StoredAccounts(database, "the test").standings()
        finally:
            await database.aclose()
        return [(each.budget, each.spent, each.held) for each in standings]


def encoded(payload: Any) -> str:
    return base64.b64encode(json.dumps(payload).encode()).decode()


def asking(agent: str, script: str = "@usage 20 20\n@say Thanks.", payment: str = "") -> Json:
    body: Json = {"model": agent, "messages": [{"role": "user", "content": script}]}
    return body | ({"extra_headers": {"payment-signature": payment}} if payment else {})


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


@pytest.fixture
def shop(model: ScriptedModel, tmp_path: Path) -> Generator[Shop]:
    facilitator = Facilitator()
    providers = {"openai": {"base_url": model.base_url, "api_key": "sk-scripted"}}
    with listening(facilitator.app()) as facilitator.url:
        payees.facilitator = facilitator.url
        with watched(tmp_path, agents=("tests.agents.payees:agents",), providers=providers) as gateway:
            yield Shop(gateway, facilitator, tmp_path)


TILL = "python/paid/user-day/x402"


@pytest.mark.parametrize("stream", [False, True])
async def test_without_a_payment_the_402_says_what_would_do(shop: Shop, stream: bool) -> None:
    async with shop.client() as client:
        error = await failure(client, **asking("paid"), stream=stream)
    assert isinstance(error, openai.APIStatusError)
    assert (error.status_code, error.code, error.type) == (402, "payment_required", "insufficient_quota")
    (accepted,) = error.response.json()["error"]["accepts"]
    assert {name: accepted[name] for name in ("scheme", "network", "amount", "payTo")} == {
        "scheme": "exact",
        "network": NETWORK,
        "amount": "10000",
        "payTo": PAYEE,
    }
    assert accepted["asset"].startswith("0x")
    header = x402.http.utils.decode_payment_required_header(error.response.headers["payment-required"])
    assert [each.model_dump(by_alias=True, exclude_none=True) for each in header.accepts] == [accepted]
    assert "0.01 USD" in error.message


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_pays_has_its_turn_and_pays_once(shop: Shop, stream: bool) -> None:
    async with shop.payer() as client:
        reply = await create(client, **asking("paid"), stream=stream)
        if stream:
            said = "".join([chunk.choices[0].delta.content or "" async for chunk in reply])
        else:
            said = reply.choices[0].message.content
        assert said == "Thanks."
        await eventually(lambda: shop.facilitator.settled)
    assert len(shop.facilitator.verified) == len(shop.facilitator.settled) == 1
    assert await shop.books() == [(TILL, 10_000, 0)]


async def test_what_is_free_is_spent_first(shop: Shop) -> None:
    async with shop.payer() as client:
        for _ in range(3):
            await create(client, **asking("trial"))
        await eventually(lambda: len(shop.facilitator.settled) == 2)
    books = await shop.books()
    assert books[0] == ("python/trial/user-day", 40, 0)
    assert [each[1:] for each in books[1:]] == [(10_000, 0)] * 2


async def test_one_payment_is_good_for_one_turn_however_it_is_written(shop: Shop) -> None:
    payment = await shop.payment()
    same = json.loads(base64.b64decode(payment))
    authorization = same["payload"]["authorization"]
    authorization["nonce"] = "0x" + authorization["nonce"][2:].upper()
    ways = [payment, encoded(same), payment, encoded(same)]
    async with shop.client() as client:
        outcomes = await asyncio.gather(
            *(create(client, **asking("paid", payment=each)) for each in ways), return_exceptions=True
        )
        codes = [each.code for each in outcomes if isinstance(each, openai.APIStatusError)]
        assert codes == ["payment_used"] * 3
        error = await failure(client, **asking("paid", payment=payment))
        assert error.code == "payment_used"
    assert await shop.books() == [(TILL, 10_000, 0)]


async def test_a_turn_that_fails_is_not_paid_for_and_the_payment_is_still_good(shop: Shop) -> None:
    payment = await shop.payment()
    async with shop.client() as client:
        await failure(client, **asking("paid", "@fail 500", payment))
        await broken_off(client, **asking("paid", "@say Half\n@error", payment))
        assert await shop.books() == [(TILL, 0, 0)]
        await create(client, **asking("paid", payment=payment))
    await eventually(lambda: shop.facilitator.settled)
    assert len(shop.facilitator.settled) == 1


async def test_a_payment_that_is_none_is_told_so(shop: Shop) -> None:
    good = json.loads(base64.b64decode(await shop.payment()))
    odd: list[Any] = [
        {},
        [],
        None,
        1,
        good | {"x402Version": 1},
        good | {"payload": {}},
        good | {"payload": {"authorization": {}}},
        good | {"payload": {"authorization": good["payload"]["authorization"] | {"value": 10_000}}},
        good | {"payload": {"authorization": good["payload"]["authorization"] | {"nonce": "-0x1"}}},
        good | {"payload": {"authorization": good["payload"]["authorization"] | {"from": "0x" + "f" * 79}}},
        good | {"accepted": None},
    ]
    headers = ["x", "e30", "=", "ä".encode().hex(), *map(encoded, odd), base64.b64encode(b"[" * 20_000).decode()]
    async with shop.client() as client:
        for header in headers:
            error = await failure(client, **asking("paid", payment=header))
            assert isinstance(error, openai.APIStatusError)
            assert (error.status_code, error.code) == (402, "payment_malformed"), header[:80]
            assert error.response.json()["error"]["accepts"]
            assert "payment-required" in error.response.headers
    assert shop.facilitator.verified == []
    assert await shop.books() == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"amount": "9999"}, "payment_insufficient"),
        ({"pay_to": "0x" + "cd" * 20}, "payment_refused"),
        ({"max_timeout_seconds": 60}, "payment_refused"),
        ({"asset": "0x" + "cd" * 20}, "payment_refused"),
        ({"network": "eip155:8453"}, "payment_refused"),
    ],
)
async def test_a_payment_for_other_terms_will_not_do(shop: Shop, changes: Json, code: str) -> None:
    async with shop.client() as client:
        error = await failure(client, **asking("paid", payment=await shop.payment(**changes)))
    assert error.code == code
    assert shop.facilitator.verified == []
    assert await shop.books() == []


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("value", "1", "payment_insufficient"),
        ("validBefore", "0", "payment_expired"),
        ("validBefore", "in 300 seconds", "payment_expired"),
        ("to", "0x" + "cd" * 20, "payment_refused"),
    ],
)
async def test_terms_that_differ_from_what_is_signed_are_found(shop: Shop, name: str, value: str, code: str) -> None:
    payload = json.loads(base64.b64decode(await shop.payment()))
    soon = str(int(time.time()) + 300)
    payload["payload"]["authorization"][name] = soon if value == "in 300 seconds" else value
    async with shop.client() as client:
        error = await failure(client, **asking("paid", payment=encoded(payload)))
    assert error.code == code
    assert shop.facilitator.settled == []
    assert all(not held and not spent for _, spent, held in await shop.books())


async def test_a_payer_who_has_nothing_gets_nothing(shop: Shop) -> None:
    shop.facilitator.broke = True
    async with shop.payer() as client:
        error = await failure(client, **asking("paid"))
    assert error.code == "payment_insufficient"
    assert await shop.books() == [(TILL, 0, 0)]


async def test_a_facilitator_that_is_down_is_a_503_and_says_nothing_of_its_own(shop: Shop) -> None:
    payment = await shop.payment()
    shop.facilitator.down = True
    async with shop.client() as client:
        error = await failure(client, **asking("paid", payment=payment))
        assert isinstance(error, openai.APIStatusError)
        assert (error.status_code, error.code) == (503, "payment_unavailable")
        assert error.response.headers["x-should-retry"] == "true"
        assert "stack trace" not in error.message
        shop.facilitator.down = False
        await create(client, **asking("paid", payment=payment))


async def test_nobody_else_is_asked_for_a_payment(shop: Shop) -> None:
    """Of an error that has no offer."""
    async with shop.client() as client:
        error = await failure(client, **asking("nobody"))
    assert isinstance(error, openai.NotFoundError)
    assert "accepts" not in error.response.json()["error"]
    assert "payment-required" not in error.response.headers


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"price": "0"}, "nothing to pay"),
        ({"price": "much"}, "cannot have the price"),
        ({"pay_to": "me"}, "write an address"),
        ({"network": "base"}, "try eip155:8453"),
        ({"network": "eip155:4326"}, "no stablecoin for signed payments"),
        ({"facilitator": "x402.org"}, "write its URL"),
        ({"valid_seconds": 5}, "60 or more"),
    ],
)
def test_a_price_that_cannot_be_paid_is_refused_when_it_is_made(fields: Json, complaint: str) -> None:
    values: Json = {"pay_to": PAYEE, "network": NETWORK, "price": "0.01"} | fields
    with pytest.raises(AgentError, match=complaint):
        X402(**values)


def test_without_a_price_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(AgentError, match="lets nobody spend anything"):
        Agent("paid", model="openai/scripted", skills=[Budget("0 tokens")])


def test_the_sdk_does_not_let_requests_nest_deeper() -> None:
    code = (
        "import sys; before = sys.getrecursionlimit(); from frontdesk.sdks import x402_sdk;"
        " x402_sdk('mechanisms.evm.exact'); sys.exit(sys.getrecursionlimit() != before)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
