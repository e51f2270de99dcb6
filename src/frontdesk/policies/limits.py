"""How much one caller may ask: requests in a period, and turns at the same time. Counted in this process.

A period begins with the first request after the last one ended (limits' fixed window), so that what the headers say is
exact. Over the edge of two periods twice the rate may pass.
"""

import math
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from frontdesk.config import Settings
from frontdesk.errors import RateLimited
from frontdesk.policies.auth import Allowance, ConfigurationError

TURN_RETRY_SECONDS = 1.0  # a turn may end at any moment


@dataclass(frozen=True, slots=True)
class RateState:
    """Where a caller stands. `reset_seconds` is how long until all of their requests are free again."""

    limit: int
    remaining: int
    reset_seconds: float

    def headers(self) -> dict[str, str]:
        """As OpenAI names and writes them."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": duration(self.reset_seconds),
        }


class RequestRateExceeded(RateLimited):
    """Too many requests in the period. `state.headers()` belong on the answer."""

    def __init__(self, message: str, state: RateState) -> None:
        super().__init__(message, retry_after_seconds=state.reset_seconds)
        self.state = state


class Limits:
    """Raises ConfigurationError for a rate that cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self._rates: Mapping[str, RateLimitItem] = _rates(settings)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._turns: Counter[str] = Counter()

    async def hit(self, who: Allowance | None) -> RateState | None:
        """Count a request. None where there is no rate. Raises RequestRateExceeded, which is a RateLimited."""
        if who is None or not who.rate:
            return None
        rate = self._rates[who.rate]
        allowed = await self._limiter.hit(rate, who.name)
        stats = await self._limiter.get_window_stats(rate, who.name)
        state = RateState(rate.amount, stats.remaining, max(0.0, stats.reset_time - time.time()))
        if not allowed:
            raise RequestRateExceeded(
                f"You may send {_words(rate)}. Try again in {duration(state.reset_seconds)}.", state
            )
        return state

    @contextmanager
    def turn(self, who: Allowance | None) -> Generator[None]:
        """Count a turn while it runs. Raises RateLimited when as many are running as may."""
        if who is None or who.max_turns is None:
            yield
            return
        if self._turns[who.name] >= who.max_turns:
            raise RateLimited(
                f"You may run {who.max_turns} turns at the same time. Wait until one of them has ended.",
                retry_after_seconds=TURN_RETRY_SECONDS,
            )
        self._turns[who.name] += 1
        try:
            yield
        finally:
            self._turns[who.name] -= 1
            if not self._turns[who.name]:
                del self._turns[who.name]


def duration(seconds: float) -> str:
    """As OpenAI writes it, rounded up: `6m0s`, `1s`, `250ms`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _words(rate: RateLimitItem) -> str:
    unit = rate.GRANULARITY.name
    return f"{rate.amount} requests per {unit if rate.multiples == 1 else f'{rate.multiples} {unit}s'}"


def _rates(settings: Settings) -> dict[str, RateLimitItem]:
    """By what is written. Each key is one who asks; so is each subject of a token; all without a key are one."""
    written = [(key.rate, f"key {key.name!r}") for key in settings.keys]
    written += [(each.rate, f"[[jwt]] {each.name!r}") for each in settings.jwt]
    written.append((settings.anonymous_rate, "callers without a key"))
    return {rate: _rate(rate, whose) for rate, whose in written if rate}


def _rate(written: str, whose: str) -> RateLimitItem:
    try:
        (rate,) = parse_many(written)
    except ValueError:
        rate = None
    if rate is None or rate.amount < 1:
        raise ConfigurationError(
            f"The rate {written!r} of the {whose} cannot be read. Write it as 60/minute or 1000 per hour."
        )
    return rate
