"""How much one key may ask."""

import asyncio

import pytest

from frontdesk.config import JwtSettings, KeySettings, Settings
from frontdesk.errors import RateLimited
from frontdesk.policies.auth import ConfigurationError
from frontdesk.policies.limits import Limits, RateState, RequestRateExceeded, duration


def key(name: str = "bot", rate: str = "", max_turns: int | None = None) -> KeySettings:
    return KeySettings(name=name, sha256="0" * 64, rate=rate, max_turns=max_turns)


def limits(*keys: KeySettings) -> Limits:
    return Limits(Settings(keys=keys))


async def test_a_key_without_a_rate_has_no_state() -> None:
    bot = key()
    assert await limits(bot).hit(bot) is None
    assert await limits(bot).hit(None) is None


async def test_each_request_leaves_one_less() -> None:
    bot = key(rate="3/minute")
    counted = limits(bot)
    states = [await counted.hit(bot) for _ in range(3)]
    assert [(state.limit, state.remaining) for state in states if state] == [(3, 2), (3, 1), (3, 0)]
    assert all(state and 59 < state.reset_seconds <= 60 for state in states)


async def test_a_request_too_many_is_rate_limited_with_the_time_to_wait_and_the_state() -> None:
    bot = key(rate="2 per hour")
    counted = limits(bot)
    for _ in range(2):
        await counted.hit(bot)
    with pytest.raises(RequestRateExceeded) as info:
        await counted.hit(bot)
    assert isinstance(info.value, RateLimited)
    assert info.value.public_code == "rate_limit_exceeded"
    assert info.value.retry_after_seconds == pytest.approx(3600, abs=1)
    assert info.value.state.headers() == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1h0m0s",
    }
    assert "2 requests per hour" in info.value.message


async def test_the_next_period_starts_afresh_at_the_promised_moment() -> None:
    bot = key(rate="1/second")
    counted = limits(bot)
    await counted.hit(bot)
    with pytest.raises(RateLimited) as info:
        await counted.hit(bot)
    assert info.value.retry_after_seconds is not None
    await asyncio.sleep(info.value.retry_after_seconds + 0.02)
    assert await counted.hit(bot)


async def test_keys_do_not_share_a_rate() -> None:
    one, two = key("one", "1/minute"), key("two", "1/minute")
    counted = limits(one, two)
    await counted.hit(one)
    assert await counted.hit(two)


@pytest.mark.parametrize("rate", ["fast", "60", "60/fortnight", "0/minute", "-1/minute", "1/second; 60/hour"])
def test_a_rate_that_cannot_be_read_names_its_key_at_the_start(rate: str) -> None:
    with pytest.raises(ConfigurationError, match="of the key 'bot' cannot be read"):
        limits(key(rate=rate))


def test_so_does_one_of_an_issuer_or_of_callers_without_a_key() -> None:
    issuer = JwtSettings(name="idp", issuer="i", audience="a", jwks_url="https://i.example/keys", rate="fast")
    with pytest.raises(ConfigurationError, match=r"of the \[\[jwt\]\] 'idp' cannot be read"):
        Limits(Settings(jwt=(issuer,)))
    with pytest.raises(ConfigurationError, match="callers without a key cannot be read"):
        Limits(Settings(anonymous_rate="fast"))
    assert Limits(Settings(anonymous_rate=""))


@pytest.mark.parametrize("rate", ["60/minute", "1000 per hour", "5/10 seconds", "1/DAY"])
def test_rates_are_read_in_several_spellings(rate: str) -> None:
    limits(key(rate=rate))


def test_turns_at_the_same_time_are_counted_for_each_key() -> None:
    one, two = key("one", max_turns=2), key("two", max_turns=1)
    counted = limits(one, two)
    with counted.turn(one), counted.turn(one), counted.turn(two):
        with pytest.raises(RateLimited, match="2 turns") as info, counted.turn(one):
            pass
        assert info.value.retry_after_seconds
    with counted.turn(one), counted.turn(one):
        pass


def test_a_turn_that_fails_gives_its_place_back() -> None:
    bot = key(max_turns=1)
    counted = limits(bot)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), counted.turn(bot):
            raise ZeroDivisionError


def test_turns_of_keys_without_a_limit_are_not_counted() -> None:
    counted = limits()
    with counted.turn(None), counted.turn(key()):
        pass


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0171, "18ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3725, "1h2m5s"), (86400, "24h0m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert RateState(1, 0, seconds).headers()["x-ratelimit-reset-requests"] == text
