"""The skill that limits what is spent on an agent's turns. The server does the counting."""

import re
from decimal import Decimal
from typing import Any

from frontdesk import amounts, prices
from frontdesk.agents.agent import Agent
from frontdesk.agents.errors import AgentError
from frontdesk.agents.skill import Skill
from frontdesk.amounts import Payment, Per, Period
from frontdesk.sdks import x402_sdk

FACILITATOR = "https://x402.org/facilitator"
"""The SDK's default, which is for trying things out: on test networks alone."""

ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
NETWORK = re.compile(r"eip155:[0-9]{1,20}")


class Budget(Skill):
    """No more than `limit` is spent on this agent: `Budget("0.10 USD")` by each user a day.

    limit: `5 USD`, or `200000 tokens`.
    per: who has so much: each `key`, each `user`, the `agent` itself whoever asks (and so has `all`).
    period: in a `day` or a `month` (in UTC), or ever (`total`).
    reserve: what a turn sets aside before it begins, and before each further call of its model, at least.
    name: by which what has been spent is remembered; an agent's budgets have different ones.
    price_input_per_mtok, price_output_per_mtok: dollars for a million tokens of a model whose price is not known.
    x402: how a caller for whom nothing is left can have a turn all the same. With it, `limit` may be nothing.

    Raises AgentError.
    """

    name = "budget"

    def __init__(
        self,
        limit: str,
        *,
        per: Per = "user",
        period: Period = "day",
        reserve: str = "",
        name: str = "",
        price_input_per_mtok: Decimal | str | int | None = None,
        price_output_per_mtok: Decimal | str | int | None = None,
        x402: "X402 | None" = None,
    ) -> None:
        try:
            self.budget = amounts.budget(
                name or f"{per}-{period}",
                limit,
                per=per,
                period=period,
                reserve=reserve,
                price_input_per_mtok=price_input_per_mtok,
                price_output_per_mtok=price_output_per_mtok,
                payment=x402.payment if x402 else None,
            )
        except ValueError as error:
            raise AgentError(f"The skill Budget({limit!r:.50}) cannot be had: {error}.") from None

    def join(self, agent: Agent) -> None:
        """Raises AgentError for a second budget of this name, and for a model of which nobody knows what it costs."""
        budget = self.budget
        if [each.name for each in budgets_of(agent)].count(budget.name) > 1:
            raise AgentError(
                f"{agent.name} has two budgets that are called {budget.name}: give each its own, with"
                ' Budget(…, name="…").'
            )
        if budget.unit == "tokens" or budget.has_prices:
            return
        for model in agent.models:
            spec = model if isinstance(model, str) else f"{model.system}/{model.model_name}"
            if not prices.known(spec):
                raise AgentError(
                    f"The budget of {agent.name} is in US dollars, and nobody knows what {spec} costs. Give the Budget"
                    " price_input_per_mtok and price_output_per_mtok (0 where it is free), or set it in tokens."
                )


class X402:
    """A price for one turn, in dollars, which callers pay in the stablecoin of a network: `X402(pay_to="0x…",
    network="eip155:8453", price="0.01")`.

    pay_to: the address that is paid.
    network: as CAIP-2 names it: `eip155:8453` is Base, `eip155:84532` its test network.
    facilitator: the address of who checks and collects payments.
    valid_seconds: for how long a payment must be good; its turn may take half of that.

    Raises AgentError.
    """

    def __init__(
        self,
        *,
        pay_to: str,
        network: str,
        price: str | Decimal | int,
        facilitator: str = FACILITATOR,
        valid_seconds: int = 1200,
    ) -> None:
        try:
            cost = amounts.amount(f"{price} USD")
        except ValueError as error:
            raise AgentError(f"X402 cannot have the price {price!r:.50}: {error}.") from None
        if cost.count == 0:
            raise AgentError("X402 with a price of 0 is nothing to pay; leave it out, or give it a price.")
        if not ADDRESS.fullmatch(pay_to):
            raise AgentError(f"X402 cannot pay to {pay_to!r:.80}: write an address, 0x and 40 hexadecimal digits.")
        if not facilitator.startswith(("https://", "http://")):
            raise AgentError(f"X402 cannot have the facilitator {facilitator!r:.80}: write its URL.")
        if valid_seconds < 60:
            raise AgentError("X402 needs valid_seconds of 60 or more: a turn takes its time.")
        check_network(network)
        self.payment = Payment(cost, pay_to, network, facilitator, valid_seconds)


def check_network(network: str) -> None:
    """See that the SDK is there, and knows a stablecoin on this network which can be paid by a signature alone."""
    try:
        assets: Any = x402_sdk("mechanisms.evm.default_assets")
    except ImportError:
        raise AgentError("X402 needs its SDK. Install it with: pip install 'frontdesk[x402]'") from None
    known = assets.DEFAULT_ASSETS.get(network) if NETWORK.fullmatch(network) else None
    if not known or known[0].get("asset_transfer_method"):
        raise AgentError(f"X402 knows no stablecoin for signed payments on {network!r:.50}: try eip155:8453, Base.")


def budgets_of(agent: Agent) -> tuple[amounts.Budget, ...]:
    """Those of an agent's skills."""
    return tuple(skill.budget for skill in agent.parts.skills if isinstance(skill, Budget))
