"""Amounts as people write them and as they are counted: exact, whole, and bounded."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontdesk.amounts import MOST, Amount, Period, Unit, amount, budget, counted, label, next_begins, told


@pytest.mark.parametrize(
    ("text", "unit", "count"),
    [
        ("5 USD", "USD", 5_000_000),
        ("0.10 USD", "USD", 100_000),
        (" 0.000001usd ", "USD", 1),
        ("200000 tokens", "tokens", 200_000),
        ("200_000 Tokens", "tokens", 200_000),
        ("1 token", "tokens", 1),
    ],
)
def test_an_amount_is_read_as_people_write_it(text: str, unit: Unit, count: int) -> None:
    assert amount(text) == Amount(unit, count)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "USD",
        "-5 USD",
        "5 EUR",
        "1e9 USD",
        "0.0000001 USD",
        "1.5 tokens",
        "٥ USD ",
        "9" * 20 + " tokens",
        "∞ USD",
    ],
)
def test_anything_else_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no amount|is finer than|more than can be counted"):
        amount(text)


@given(st.integers(0, MOST))
def test_what_is_told_is_read_as_the_same(count: int) -> None:
    assert amount(told("USD", count)) == Amount("USD", count)
    assert amount(told("tokens", count).replace(",", "")) == Amount("tokens", count)


@pytest.mark.parametrize(
    ("unit", "value", "count"),
    [
        ("USD", "0.0000001", 1),
        ("USD", "0.0000010", 1),
        ("USD", "0.0000011", 2),
        ("USD", "1e30", MOST),
        ("USD", "-1", 0),
        ("tokens", "7", 7),
        ("tokens", "1e400", MOST),
    ],
)
def test_what_is_counted_is_rounded_up_and_bounded(unit: Unit, value: str, count: int) -> None:
    assert counted(unit, Decimal(value)) == count


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": "a b"}, "cannot be called"),
        ({"name": "a/b"}, "cannot be called"),
        ({"limit": "0 USD"}, "lets nobody spend anything"),
        ({"limit": 5}, "is no amount"),
        ({"reserve": "10 tokens"}, "both be in USD, or both in tokens"),
        ({"reserve": "6 USD"}, "no turn could ever begin"),
        ({"per": "team"}, "key, user, agent, all"),
        ({"period": "week"}, "day, month, total"),
        ({"price_input_per_mtok": 1}, "give both prices"),
        ({"price_input_per_mtok": 1, "price_output_per_mtok": -1}, "no price in US dollars"),
        ({"price_input_per_mtok": 1, "price_output_per_mtok": "nan"}, "no price in US dollars"),
        ({"price_input_per_mtok": 1, "price_output_per_mtok": "much"}, "no price in US dollars"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_in_words(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        budget(**{"name": "daily", "limit": "5 USD"} | fields)  # pyright: ignore[reportArgumentType]


def test_a_price_is_what_was_written() -> None:
    made = budget("daily", "5 USD", price_input_per_mtok="0.1", price_output_per_mtok=0.3)  # pyright: ignore[reportArgumentType]
    assert (made.price_input_per_mtok, made.price_output_per_mtok) == (Decimal("0.1"), Decimal("0.3"))


LEAP_DAY = 1_709_251_199.0  # 2024-02-29 23:59:59 UTC


@pytest.mark.parametrize(
    ("period", "name", "next_day"),
    [("day", "2024-02-29", "2024-03-01"), ("month", "2024-02", "2024-03-01"), ("total", "", None)],
)
def test_a_period_goes_by_the_calendar_in_utc(period: Period, name: str, next_day: str | None) -> None:
    assert label(period, LEAP_DAY) == name
    begins = next_begins(period, LEAP_DAY)
    assert (begins and f"{begins:%Y-%m-%d}") == next_day
    if begins:
        assert begins.timestamp() == LEAP_DAY + 1
        assert label(period, begins.timestamp()) != name
