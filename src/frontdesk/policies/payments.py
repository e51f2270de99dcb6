"""Payments by x402, through its SDK: https://github.com/coinbase/x402

Callers sign that a facilitator may move so much of a stablecoin from them to the operator (EIP-3009). It is checked
before their turn begins, and collected when the turn has come to something. The SDK is an extra, `frontdesk[x402]`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import structlog

from frontdesk.amounts import Payment
from frontdesk.errors import PaymentRequired, PaymentUnavailable
from frontdesk.ports import Offer, Paid
from frontdesk.sdks import x402_sdk

if TYPE_CHECKING:
    import httpx  # loaded with the SDK, for servers that take payments

log = structlog.get_logger(__name__)

CALL_SECONDS = 10.0  # while a caller waits
COLLECT_SECONDS = 90.0  # a chain takes its time

REASONS = {
    "insufficient": "payment_insufficient",
    "value": "payment_insufficient",
    "amount": "payment_insufficient",
    "valid_before": "payment_expired",
    "expired": "payment_expired",
    "nonce_already_used": "payment_used",
}
"""What facilitators say, by words in it, and our codes. Anything else is `payment_refused`."""

SENTENCES = {
    "payment_malformed": "The header PAYMENT-SIGNATURE holds no payment that can be read.",
    "payment_insufficient": "This payment is of less than this turn costs, or its payer has not got as much.",
    "payment_expired": "This payment is not good for long enough. Sign a new one.",
    "payment_used": "This payment has been used already. Sign a new one.",
    "payment_refused": "This payment was refused. Sign a new one for what is accepted here.",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """A payment and what it answers, in the SDK's words."""

    payload: Any
    requirements: Any


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a payer signs, as far as we look at it ourselves."""

    payer: int
    value: int
    valid_before: int
    nonce: int


class X402Payments:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._servers: dict[tuple[str, str], Any] = {}  # the SDK's, by facilitator and network
        self._starting = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None

    async def offer(self, payment: Payment) -> Offer:
        wanted = await self._wanted(payment)
        accepts = tuple(each.model_dump(by_alias=True, exclude_none=True) for each in wanted)
        whole = x402_sdk("schemas").PaymentRequired(accepts=wanted)
        return Offer(x402_sdk("http.utils").encode_payment_required_header(whole), accepts)

    async def read(self, payment: Payment, sent: str) -> Paid:
        payload, signed = decoded(sent)
        server, wanted = await self._server(payment), await self._wanted(payment)
        requirements = server.find_matching_requirements(wanted, payload)
        if requirements is None:
            raise refused("payment_insufficient" if is_less(payload, wanted[0]) else "payment_refused")
        if signed.value < int(requirements.amount):
            raise refused("payment_insufficient")
        if signed.valid_before < self._clock() + payment.valid_seconds / 2:  # it must be good when the turn has ended
            raise refused("payment_expired")
        names = (requirements.network, requirements.asset.lower(), f"{signed.payer:x}", f"{signed.nonce:x}")
        return Paid("/".join(names), payment, Proof(payload, requirements))

    async def verify(self, paid: Paid) -> None:
        from httpx import HTTPError

        server, proof = await self._server(paid.payment), cast("Proof", paid.proof)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                outcome = (await server.verify_payment(proof.payload, proof.requirements)).verify
        except (HTTPError, ValueError, TimeoutError) as error:
            raise unavailable(paid.payment, error) from error
        if not outcome.is_valid:
            log.info("a payment was refused", reason=str(outcome.invalid_reason)[:200])
            raise refused(code_of(outcome.invalid_reason or ""))

    async def collect(self, paid: Paid) -> str:
        from httpx import HTTPError

        server, proof = await self._server(paid.payment), cast("Proof", paid.proof)
        try:
            async with asyncio.timeout(COLLECT_SECONDS):
                outcome = await server.settle_payment(proof.payload, proof.requirements)
        except (HTTPError, ValueError, TimeoutError) as error:
            return type(error).__name__
        return "" if outcome.success else str(outcome.error_reason)[:200]

    async def aclose(self) -> None:
        if self._client:
            await self._client.aclose()

    async def _wanted(self, payment: Payment) -> list[Any]:
        server = await self._server(payment)
        dollars = str(payment.price).removesuffix(" USD")
        return server.build_payment_requirements(
            x402_sdk("schemas").ResourceConfig(
                scheme="exact",
                pay_to=payment.pay_to,
                price=f"${dollars}",
                network=payment.network,
                max_timeout_seconds=payment.valid_seconds,
            )
        )

    async def _server(self, payment: Payment) -> Any:
        """Once its facilitator has said what it supports. Raises PaymentUnavailable."""
        place = (payment.facilitator, payment.network)
        async with self._starting:
            if place not in self._servers:
                self._servers[place] = await self._started(payment)
        return self._servers[place]

    async def _started(self, payment: Payment) -> Any:
        import httpx

        http, missing = x402_sdk("http"), x402_sdk().SchemeNotFoundError
        self._client = self._client or httpx.AsyncClient(timeout=COLLECT_SECONDS)
        config = http.FacilitatorConfig(url=payment.facilitator, timeout=CALL_SECONDS, http_client=self._client)
        server = x402_sdk().x402ResourceServer(http.HTTPFacilitatorClient(config))
        server.register(payment.network, x402_sdk("mechanisms.evm.exact").ExactEvmServerScheme())
        try:
            await asyncio.to_thread(server.initialize)  # which asks, and waits
            if server.get_supported_kind(2, payment.network, "exact") is None:
                raise missing("exact", payment.network)
        except (httpx.HTTPError, ValueError, RuntimeError, missing) as error:
            raise unavailable(payment, error) from error
        return server


def decoded(sent: str) -> tuple[Any, Authorization]:
    """Read the header of the protocol's version 2. Raises PaymentRequired."""
    try:
        payload = x402_sdk("http.utils").decode_payment_signature_header(sent)
        if not isinstance(payload, x402_sdk("schemas").PaymentPayload):
            raise TypeError("version 1")
        signed = payload.payload["authorization"]
        return payload, Authorization(
            payer=number(signed["from"], 16),
            value=number(signed["value"], 10),
            valid_before=number(signed["validBefore"], 10),
            nonce=number(signed["nonce"], 16),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refused("payment_malformed") from error


def number(text: Any, base: int) -> int:
    """An unsigned number of at most 256 bits. Raises ValueError."""
    if not isinstance(text, str) or len(text) > 80:
        raise ValueError("no number")
    value = int(text, base)
    if not 0 <= value < 2**256:
        raise ValueError("out of range")
    return value


def is_less(payload: Any, wanted: Any) -> bool:
    """Whether it is for the same thing, but for less."""
    offered = payload.accepted
    same = (offered.network, offered.asset, offered.pay_to) == (wanted.network, wanted.asset, wanted.pay_to)
    return same and offered.amount.isdecimal() and int(offered.amount[:80]) < int(wanted.amount)


def code_of(reason: str) -> str:
    return next((code for word, code in REASONS.items() if word in reason), "payment_refused")


def refused(code: str) -> PaymentRequired:
    return PaymentRequired(SENTENCES[code], code=code)


def unavailable(payment: Payment, error: Exception) -> PaymentUnavailable:
    log.warning("a facilitator of payments cannot be used", facilitator=payment.facilitator, error=repr(error)[:300])
    return PaymentUnavailable(
        "Payments cannot be checked just now. Nothing was sent to the agent, and nothing charged."
    )
