"""Amounts of money and of tokens, and the budgets that are set in them. Pure, and the standard library alone.

Money is counted in whole millionths of a US dollar, never in floats; what is less than one is rounded up.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Literal, get_args

Unit = Literal["USD", "tokens"]
Per = Literal["key", "user", "agent", "all"]
Period = Literal["day", "month", "total"]

MILLION = 1_000_000
MOST = 10**15
"""Millionths of a dollar, or tokens: nothing that is counted is larger, so that sums fit a database's numbers."""

AMOUNT = re.compile(r"(\d[\d_]{0,20}(?:\.\d{1,12})?)\s*(usd|tokens?)", re.ASCII | re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Amount:
    """So many millionths of a dollar, or so many tokens."""

    unit: Unit
    count: int

    def __str__(self) -> str:
        return told(self.unit, self.count)


@dataclass(frozen=True, slots=True)
class Payment:
    """What a turn costs a caller for whom nothing is left: to whom it is paid, by x402, and on which network.

    `facilitator` is the address of who checks and collects payments. One must be good for `valid_seconds`.
    """

    price: Amount
    pay_to: str
    network: str
    facilitator: str
    valid_seconds: int


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent, by each key, user or agent or by all together, in a day, a month or ever.

    `keys` and `agents` are shell patterns of those whom it concerns; none means all. `reserve` is what a turn sets
    aside before it begins, at least. The prices are in dollars for a million tokens, for models whose own is not known.
    """

    name: str
    limit: Amount
    per: Per = "key"
    period: Period = "month"
    keys: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    reserve: Amount | None = None
    price_input_per_mtok: Decimal | None = None
    price_output_per_mtok: Decimal | None = None
    payment: Payment | None = None  # how a turn can be had all the same

    @property
    def unit(self) -> Unit:
        return self.limit.unit

    @property
    def has_prices(self) -> bool:
        return self.price_input_per_mtok is not None and self.price_output_per_mtok is not None


def budget(
    name: str,
    limit: str,
    *,
    per: Per = "key",
    period: Period = "month",
    keys: Sequence[str] = (),
    agents: Sequence[str] = (),
    reserve: str = "",
    price_input_per_mtok: Decimal | str | int | None = None,
    price_output_per_mtok: Decimal | str | int | None = None,
    payment: Payment | None = None,
) -> Budget:
    """A budget as people write it: `budget("daily", "5 USD", per="user", period="day")`. Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(f"a budget cannot be called {name[:80]!r}: use 1 to 64 letters, digits, `_`, `-` and `.`")
    if per not in get_args(Per):
        raise ValueError(f"{per!r:.80} is nobody who could have a budget: there are {', '.join(get_args(Per))}")
    if period not in get_args(Period):
        raise ValueError(f"{period!r:.80} is no period: there are {', '.join(get_args(Period))}")
    most = amount(limit)
    aside = amount(reserve) if reserve else None
    if most.count == 0 and payment is None:
        raise ValueError(f"the limit {limit!r} lets nobody spend anything; write more than 0")
    if aside and aside.unit != most.unit:
        raise ValueError(f"the reserve {reserve!r} and the limit {limit!r} must both be in USD, or both in tokens")
    if aside and aside.count > most.count:
        raise ValueError(f"the reserve {reserve!r} is more than the limit {limit!r}: no turn could ever begin")
    if (price_input_per_mtok is None) != (price_output_per_mtok is None):
        raise ValueError("give both prices, for input and for output, or neither")
    return Budget(
        name,
        most,
        per,
        period,
        tuple(keys),
        tuple(agents),
        aside,
        price(price_input_per_mtok),
        price(price_output_per_mtok),
        payment,
    )


def amount(text: str) -> Amount:
    """Read `5 USD`, `0.10 USD` or `200_000 tokens`. Raises ValueError for anything else."""
    found = AMOUNT.fullmatch(str(text).strip())
    if not found:
        raise ValueError(f"{text!r:.80} is no amount; write it as '5 USD', '0.10 USD' or '200000 tokens'")
    number = Decimal(found[1].replace("_", ""))
    unit: Unit = "USD" if found[2].lower() == "usd" else "tokens"
    count = number * MILLION if unit == "USD" else number
    if count != count.to_integral_value():
        smallest = "a millionth of a dollar" if unit == "USD" else "a token"
        raise ValueError(f"{text[:80]!r} is finer than {smallest}")
    if count > MOST:
        raise ValueError(f"{text[:80]!r} is more than can be counted; the most is {told(unit, MOST)}")
    return Amount(unit, int(count))


def price(value: Decimal | str | int | None) -> Decimal | None:
    """A price in dollars, exactly as it is written. Raises ValueError for a negative one, and for what is no number."""
    if value is None:
        return None
    try:
        dollars = Decimal(str(value))  # of a float what was written, not what it is
    except InvalidOperation:
        dollars = Decimal(-1)
    if not dollars.is_finite() or dollars < 0 or dollars > MILLION:
        raise ValueError(f"{str(value)[:80]!r} is no price in US dollars; write one as '0.25'")
    return dollars


def counted(unit: Unit, value: Decimal) -> int:
    """Dollars or tokens as they are counted: whole, rounded up, and never more than can be summed."""
    exact = value * MILLION if unit == "USD" else value
    return min(int(exact.to_integral_value(ROUND_CEILING)), MOST) if exact > 0 else 0


def told(unit: Unit, count: int) -> str:
    """As people read it: `0.02 USD`, `200,000 tokens`."""
    if unit == "tokens":
        return f"{count:,} token{'' if count == 1 else 's'}"
    whole, rest = divmod(abs(count), MILLION)
    cents = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if count < 0 else ''}{whole}.{cents} USD"


def label(period: Period, moment: float) -> str:
    """The day or month of a moment (seconds since 1970), in UTC; empty for `total`."""
    match period:
        case "day":
            return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
        case "month":
            return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m")
        case "total":
            return ""


def next_begins(period: Period, moment: float) -> datetime | None:
    """When the next day or month begins, in UTC."""
    midnight = datetime.fromtimestamp(moment, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "day":
            return midnight + timedelta(days=1)
        case "month":
            return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
        case "total":
            return None
