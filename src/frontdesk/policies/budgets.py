"""What a turn may spend: set aside before it begins, more of it as it goes on, charged at its end.

reserve ──► extend ──► settle       what was used is charged, the rest given back
   │           └─────► settle       there is no more: the turn ends, and what was used is charged
   └─────────────────► settle       it came to nothing: all is given back

The rules and the arithmetic are here; `ports.Accounts` keeps the books.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import structlog

from frontdesk import prices
from frontdesk.amounts import MILLION, Budget, Payment, Unit, counted, label, next_begins, told
from frontdesk.errors import GatewayError, InsufficientBudget, PaymentRequired, PriceUnknown
from frontdesk.ports import Account, Accounts, Held, Paid, Payments, Shortage, Wanted
from frontdesk.turn import (
    Agent,
    Content,
    File,
    Item,
    Message,
    Part,
    Principal,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    ToolRun,
    Turn,
    Usage,
)

T = TypeVar("T")

log = structlog.get_logger(__name__)

ASSUMED_OUTPUT_TOKENS = 1000
"""What an answer is taken to be long, where neither the caller nor a budget's `reserve` says."""

PICTURE_TOKENS = 1000
BYTES_IN_TOKEN = 4

CLOSE_SECONDS = 10.0

BUSY_SECONDS = 2.0
"""When to come again, where other turns hold what is left."""

KEPT_SECONDS = 400 * 24 * 3600.0
"""How long an account can be looked at after its last use."""

Count = Callable[[str, Unit, Decimal], object]


@dataclass(slots=True)
class Position:
    """One budget of a turn. `held` is as `amounts` counts it, `used` in dollars or tokens."""

    budget: Budget
    account: Account
    held: int = 0
    used: Decimal = Decimal(0)
    noted: bool = False  # there is a hold, be it of nothing: only what has one can be charged

    def need(self, more: int = 0) -> int:
        """What must be held for what is used and so much more."""
        return counted(self.budget.unit, self.used) + more


class Budgets:
    """`count` is told of what has been spent: a budget's name, its unit, and how much."""

    def __init__(
        self,
        accounts: Accounts,
        budgets: Sequence[Budget] = (),
        count: Count = lambda budget, unit, spent: None,
        clock: Callable[[], float] = time.time,
        payments: Payments | None = None,
    ) -> None:
        self.accounts = accounts
        self.payments = payments
        self.count = count
        self.clock = clock
        self._budgets = tuple(budgets)
        self._loaded = False
        self._collecting: set[asyncio.Task[None]] = set()

    def hold(self, turn: Turn, agent: Agent) -> "TurnHold":
        """What a turn is to spend from, with nothing set aside yet. Where no budget concerns it, nothing ever is,
        unless it goes to another agent."""
        return TurnHold(self, turn, turn.options.model or agent.model, self.positions(turn.principal, agent))

    def positions(self, principal: Principal, agent: Agent) -> list[Position]:
        """The budgets that concern a caller's turn with an agent, with nothing set aside."""
        if not self._budgets and not agent.budgets:
            return []
        now = self.clock()
        budgets = [each for each in self._budgets if concerns(each, principal, agent)] + own_budgets(agent)
        return [Position(each, account(each, principal, agent, now)) for each in budgets]

    async def settle(self, turn_id: str, agent: Agent | None, usage: Usage | None) -> None:
        """The end of a turn whose process is gone, as far as it could be found out."""
        holds = await self.accounts.held(turn_id)
        if not holds:
            return
        await self.load(each.unit for each in holds)
        budgets = {each.name: each for each in (*self._budgets, *(own_budgets(agent) if agent else ()))}
        charges = {each.account: charge(each, budgets.get(each.budget), usage) for each in holds}
        await self.accounts.settle(turn_id, charges)

    async def tidy(self) -> None:
        """Forget what is long over."""
        await self.accounts.tidy(self.clock() - KEPT_SECONDS)

    def collect(self, paid: Paid, turn_id: str) -> None:
        """Have a payment, without making anybody wait for it."""
        task = asyncio.create_task(self._collect(paid, turn_id))
        self._collecting.add(task)
        task.add_done_callback(self._collecting.discard)

    async def _collect(self, paid: Paid, turn_id: str) -> None:
        assert self.payments
        try:
            trouble = await self.payments.collect(paid)
        except GatewayError as error:
            trouble = error.message
        if trouble:
            log.error("a payment could not be collected", turn=turn_id, payment=paid.id, reason=trouble)

    async def aclose(self) -> None:
        """Wait, but not for long, until what has been earned is collected."""
        if self._collecting:
            await asyncio.wait(self._collecting, timeout=CLOSE_SECONDS)
        if self.payments:
            await self.payments.aclose()

    async def load(self, units: Iterable[Unit]) -> None:
        """Have the prices at hand where one of these is money: to read them holds everybody up."""
        if not self._loaded and "USD" in units:
            await asyncio.to_thread(prices.load)
            self._loaded = True


class TurnHold:
    """What one turn has set aside, as `ports.Hold`. It may be asked by several tasks at once."""

    def __init__(self, budgets: Budgets, turn: Turn, model: str, positions: list[Position]) -> None:
        self.model = model
        self._budgets = budgets
        self._turn = turn
        self._positions = positions
        self._metered = False
        self._settled = False
        self._lock = asyncio.Lock()
        self._lacking: Position | None = None  # where there was not enough
        self._till: Account | None = None  # what its caller has paid with: an account that is good for one turn
        self._paid: Paid | None = None

    @property
    def binds(self) -> bool:
        return bool(self._positions)

    async def reserve(self) -> None:
        """Set aside what the turn may need. Raises InsufficientBudget, PriceUnknown, StoreUnavailable. Whatever comes
        of it, it is to be settled."""
        if not self.binds:
            return
        await self._budgets.load(each.budget.unit for each in self._positions)
        first = (self.model, told_tokens(self._turn), self._turn.options.max_output_tokens)
        try:
            await self.call_model(*first)
        except PriceUnknown:
            raise
        except InsufficientBudget as error:
            await self._pay(error)
            await self.call_model(*first)

    async def _pay(self, error: InsufficientBudget) -> None:
        """Do without the budget that does not suffice, where its caller has paid for the turn. Raises PaymentRequired,
        PaymentUnavailable, or the error."""
        payments, lacking = self._budgets.payments, self._lacking
        payment = lacking.budget.payment if lacking else None
        if payments is None or lacking is None or payment is None:
            raise error
        sent = self._turn.signals.payment
        if not sent:
            free = f"{error.message} Or pay" if lacking.budget.limit.count else "Pay"
            raise await self._offered(payment, f"{free} {payment.price} for this turn, as `accepts` says.")
        try:
            paid = await payments.read(payment, sent)
            self._till = till(lacking, paid, self._budgets.clock())
            reserve = self._budgets.accounts.reserve(self._turn.id, [Wanted(self._till, payment.price.count)])
            if await whole(reserve):
                raise PaymentRequired("This payment has been used already. Sign a new one.", code="payment_used")
            await payments.verify(paid)
        except PaymentRequired as refused:
            raise await self._offered(payment, refused.message, refused.public_code) from refused
        self._paid = paid
        self._positions.remove(lacking)

    async def _offered(self, payment: Payment, message: str, code: str | None = None) -> PaymentRequired:
        assert self._budgets.payments
        offer = await self._budgets.payments.offer(payment)
        return PaymentRequired(message, accepts=offer.accepts, offer=offer.header, code=code)

    async def call_model(self, model: str, input_tokens: int, max_output_tokens: int | None = None) -> None:
        async with self._lock:
            await self._see_to(
                [
                    (each, each.need(estimate(each.budget, model, input_tokens, max_output_tokens)))
                    for each in self._positions
                ]
            )

    def used(self, model: str, usage: Usage) -> None:
        self._metered = True
        for each in self._positions:
            try:
                each.used += worth(each.budget, model, usage)
            except PriceUnknown:  # it fell back to another model: that costs what the turn was to cost
                each.used += worth(each.budget, self.model, usage)

    async def call_tool(self, price: Decimal) -> None:
        async with self._lock:
            paying = [each for each in self._positions if each.budget.unit == "USD"]
            for each in paying:
                each.used += price
            try:
                await self._see_to([(each, each.need()) for each in paying])
            except BaseException:
                for each in paying:
                    each.used -= price
                raise

    async def hand_over(self, agent: Agent) -> None:
        known = {each.account.id for each in self._positions}
        more = self._budgets.positions(self._turn.principal, agent)
        new = [each for each in more if each.account.id not in known]
        await self._budgets.load(each.budget.unit for each in new)
        self._positions += new
        await self.call_model(agent.model, 0)

    async def settle(self, usage: Usage | None = None, said: Iterable[Part] | None = None) -> None:
        """Charge what was used, and give back the rest: by what was told on the way, else by the turn's `usage`. Where
        that says nothing either, but the agent has `said` this, by its length. Only the first call counts."""
        async with self._lock:
            if self._settled:
                return
            self._settled = True
            if not self._positions and not self._till:
                return
            if not self._metered:
                self._use(usage, said)
            charges = {each.account.id: each.need() for each in self._positions}
            came_to_something = usage is not None or said is not None
            if self._till:
                charges[self._till.id] = self._till.limit if self._paid and came_to_something else 0
            await self._budgets.accounts.settle(self._turn.id, charges)
        for each in self._positions:
            if each.used:
                self._budgets.count(each.budget.name, each.budget.unit, each.used)
        if self._paid and came_to_something:
            self._budgets.collect(self._paid, self._turn.id)

    def _use(self, usage: Usage | None, said: Iterable[Part] | None) -> None:
        if usage and says(usage):
            self.used(self.model, usage)
        elif said is not None:
            self.used(self.model, Usage(told_tokens(self._turn), tokens_of(size(part) for part in said)))

    async def _see_to(self, needs: Sequence[tuple[Position, int]]) -> None:
        """See that so much is held in all."""
        if self._settled:  # what comes too late would hold something for ever
            raise InsufficientBudget("This turn has ended, and can spend no more.")
        for each, need in needs:
            if need > each.budget.limit.count:
                self._lacking = each
                raise too_much(each.budget, need)
        short_of = [(each, max(need - each.held, 0)) for each, need in needs if need > each.held or not each.noted]
        wanted = [Wanted(each.account, more, each.need()) for each, more in short_of]
        if not wanted:
            return
        if short := await whole(self._budgets.accounts.reserve(self._turn.id, wanted, self.model)):
            self._lacking = lacking = next(each for each, _ in needs if each.account == short.account)
            raise refusal(lacking, short, self._budgets.clock())
        for each, more in short_of:
            each.held += more
            each.noted = True


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Do this to its end, also while we are being cancelled: what is settled next must find what was set aside."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        _ = task.cancelled() or task.exception()  # seen, so that nobody complains of it
        raise


# --- whom a budget concerns ----------------------------------------------------------------------------------------


def own_budgets(agent: Agent) -> list[Budget]:
    """An agent's own budgets, under names that no other agent's and none of the settings' can have."""
    return [replace(each, name=f"{agent.backend}/{agent.name}/{each.name}") for each in agent.budgets]


def key_of(principal: Principal) -> str:
    """The key, or the issuer of tokens, that stands for this user."""
    return principal.id.partition("/")[0]


def concerns(budget: Budget, principal: Principal, agent: Agent) -> bool:
    names = (agent.name, agent.id, f"{agent.backend}/{agent.name}")
    return matches(budget.keys, key_of(principal)) and matches(budget.agents, *names)


def matches(patterns: Sequence[str], *names: str) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def unpriced(budgets: Iterable[Budget], agent: Agent) -> str:
    """Why an agent cannot be served with these: a sentence, or nothing."""
    names = (agent.name, agent.id, f"{agent.backend}/{agent.name}")
    for each in budgets:
        counts = each.unit == "USD" and not each.has_prices and matches(each.agents, *names)
        if counts and not prices.known(agent.model):
            return (
                f"The budget {each.name!r} is in US dollars, and nobody knows what {agent.model}, the model of"
                f" {agent.name}, costs. Give that budget price_input_per_mtok and price_output_per_mtok (0 where it is"
                " free), set it in tokens, or have it leave this agent out."
            )
    return ""


def account(budget: Budget, principal: Principal, agent: Agent, now: float) -> Account:
    """Whose account, and of which period, a turn spends from."""
    match budget.per:
        case "key":
            holder = key_of(principal)
        case "user":
            holder = principal.id
        case "agent":
            holder = f"{agent.backend}/{agent.id}"
        case "all":
            holder = ""
    period = label(budget.period, now)
    id = digest(budget.name, budget.unit, budget.per, holder, period)
    return Account(id, budget.name, budget.unit, holder, period, budget.limit.count)


def till(lacking: Position, paid: Paid, now: float) -> Account:
    """An account that one payment fills, once: to spend from it is to use that payment."""
    name = f"{lacking.budget.name}/x402"
    price = paid.payment.price
    return Account(digest(name, paid.id), name, price.unit, lacking.account.holder, label("day", now), price.count)


def digest(*names: str) -> str:
    return hashlib.blake2b("\0".join(names).encode(), digest_size=16).hexdigest()


# --- what it costs -------------------------------------------------------------------------------------------------


def worth(budget: Budget, model: str, usage: Usage) -> Decimal:
    """What some usage of a model takes from a budget, in dollars or tokens. Raises PriceUnknown."""
    if budget.unit == "tokens":
        return Decimal(max(usage.input_tokens, 0) + max(usage.output_tokens, 0))
    cost = prices.cost(model, usage)
    if cost is not None:
        return cost
    if budget.price_input_per_mtok is None or budget.price_output_per_mtok is None:
        log.warning("nobody knows what a model costs", budget=budget.name, model=model[:200])
        raise PriceUnknown(
            f"The budget {budget.name!r} is in US dollars, and nobody knows what this model costs. The operator can"
            " give that budget a price_input_per_mtok and a price_output_per_mtok, or set it in tokens."
        )
    tokens = (
        max(usage.input_tokens, 0) * budget.price_input_per_mtok
        + max(usage.output_tokens, 0) * budget.price_output_per_mtok
    )
    return tokens / MILLION


def charge(held: Held, budget: Budget | None, usage: Usage | None) -> int:
    """What to charge for a turn that nobody has settled: at least what it had noted itself."""
    if budget is None or usage is None:
        return held.used
    try:
        return max(held.used, counted(budget.unit, worth(budget, held.model, usage)))
    except PriceUnknown:
        return held.used


def estimate(budget: Budget, model: str, input_tokens: int, max_output_tokens: int | None) -> int:
    """What to set aside for one model call. Raises PriceUnknown."""
    told = counted(budget.unit, worth(budget, model, Usage(input_tokens)))
    reserve = budget.reserve.count if budget.reserve else 0
    if max_output_tokens is not None:
        return max(reserve, counted(budget.unit, worth(budget, model, Usage(input_tokens, max_output_tokens))))
    if reserve:
        return max(reserve, told)
    assumed = counted(budget.unit, worth(budget, model, Usage(input_tokens, ASSUMED_OUTPUT_TOKENS)))
    return max(told, min(assumed, budget.limit.count))  # a small budget is for short answers


def says(usage: Usage) -> bool:
    return usage.input_tokens > 0 or usage.output_tokens > 0


def told_tokens(turn: Turn) -> int:
    """About how long a turn's transcript is, with its instructions and tools. What the agent remembers beside it,
    nobody here can tell."""
    tools = (f"{tool.name}{tool.description}{tool.parameters}" for tool in turn.tools)
    texts = [len(text.encode(errors="replace")) for text in (turn.instructions, *tools)]
    return tokens_of([*texts, *(size(item) for item in (*turn.history, *turn.input))])


def tokens_of(sizes: Iterable[int]) -> int:
    return -(-sum(sizes) // BYTES_IN_TOKEN)


def size(part: Part | Item) -> int:
    """In bytes of text."""
    match part:
        case Message(_, content) | ToolResult(_, content):
            return sum(content_size(each) for each in content)
        case Reasoning(text):
            return len(text.encode(errors="replace"))
        case ToolCall(_, name, arguments):
            return len(f"{name}{arguments}".encode(errors="replace"))
        case ToolRun(_, name, arguments, output):
            return len(f"{name}{arguments}{output}".encode(errors="replace"))


def content_size(content: Content) -> int:
    match content:
        case Text(text):
            return len(text.encode(errors="replace"))
        case File() if content.is_text:
            return len(content.data)
        case _:
            return PICTURE_TOKENS * BYTES_IN_TOKEN


# --- in words ------------------------------------------------------------------------------------------------------

WHOSE = {"key": "this API key", "user": "this user", "agent": "this agent", "all": "this server"}
EVERY = {"day": " a day", "month": " a month", "total": ""}


def too_much(budget: Budget, need: int) -> InsufficientBudget:
    return InsufficientBudget(
        f"This turn would set aside {told(budget.unit, need)}, more than the whole budget {named(budget)}. Ask for a"
        " shorter answer, or say less at once."
    )


def refusal(lacking: Position, short: Shortage, now: float) -> InsufficientBudget:
    """Why there is not enough. How much is left of what others use too is nobody's business."""
    budget = lacking.budget
    if short.spent + lacking.held + short.more <= budget.limit.count:
        return InsufficientBudget(
            f"What is left of the budget {named(budget)} is set aside for other turns that are running. Try again when"
            " they have ended.",
            retry_after_seconds=BUSY_SECONDS,
        )
    rest = max(budget.limit.count - short.spent - lacking.held, 0) if personal(budget) else 0
    lack = "is used up"
    if rest:
        left, more = told(budget.unit, rest), told(budget.unit, short.more)
        lack = f"does not suffice: {left} are left of it, and this turn needs {more} more"
    begins = next_begins(budget.period, now)
    again = f" It begins anew at {begins:%Y-%m-%d %H:%M} UTC." if begins else ""
    return InsufficientBudget(
        f"The budget {named(budget)} {lack}.{again}",
        retry_after_seconds=begins.timestamp() - now if begins else None,
    )


def named(budget: Budget) -> str:
    limit = f" ({budget.limit}{EVERY[budget.period]})" if personal(budget) else ""
    return f"{budget.name!r} of {WHOSE[budget.per]}{limit}"


def personal(budget: Budget) -> bool:
    return budget.per in ("key", "user")
