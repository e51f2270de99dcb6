"""Tools: what the model is shown of a function, and how that is called."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Literal

import anyio
import pydantic_ai
import pytest
from pydantic import BaseModel, Field, ValidationError

from frontdesk import Context, tool
from frontdesk.agents.context import entered
from frontdesk.agents.errors import AgentError
from frontdesk.agents.tools import TIMEOUT_SECONDS, Tool
from frontdesk.turn import Principal, Turn
from tests.requirements import requirement

mood: ContextVar[str] = ContextVar("mood")


class Unit(StrEnum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Place(BaseModel):
    city: str
    zip: str | None = None


@dataclass
class Span:
    first: int
    last: int = 9


def schema(tool: Tool) -> dict[str, Any]:
    return tool.definition.parameters_json_schema


async def call(tool: Tool, **arguments: Any) -> Any:
    """As a model calls it: with JSON."""
    return await tool.run(tool.validator.validate_json(json.dumps(arguments)))


# --- what the model is shown ---------------------------------------------------------------------------------------


def test_name_description_and_parameters_come_from_the_function_and_its_docstring() -> None:
    @tool
    def forecast(city: str, days: int = 3) -> str:
        """Tell how the weather will be.

        Args:
            city: Where, in plain words.
            days: How far to look ahead.
        """
        return f"{city} {days}"

    assert (forecast.name, forecast.definition.description) == ("forecast", "Tell how the weather will be.")
    assert schema(forecast) == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "city": {"type": "string", "description": "Where, in plain words."},
            "days": {"type": "integer", "default": 3, "description": "How far to look ahead."},
        },
        "required": ["city"],
    }


@requirement("python.tools.schema")
async def test_optional_literal_union_enum_nested_and_annotated_types_are_all_shown_and_read() -> None:
    @tool
    def plan(
        place: Place,
        unit: Unit,
        how: Literal["fast", "slow"],
        when: int | str,
        until: float | None = None,
        spans: list[Span] | None = None,
        share: Annotated[float, Field(ge=0, le=1, description="From 0 to 1.")] = 0.5,
    ) -> str:
        return repr((place, unit, how, when, until, spans, share))

    shown = schema(plan)["properties"]
    assert shown["how"] == {"enum": ["fast", "slow"], "type": "string"}
    assert shown["when"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert shown["until"] == {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None}
    assert shown["share"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0.5,
        "description": "From 0 to 1.",
    }
    assert set(schema(plan)["$defs"]) == {"Place", "Unit", "Span"}
    answer = await call(plan, place={"city": "Rome"}, unit="c", how="fast", when="noon", spans=[{"first": 1}])
    assert answer == repr((Place(city="Rome"), Unit.CELSIUS, "fast", "noon", None, [Span(1)], 0.5))


@pytest.mark.parametrize("wrong", [{}, {"a": "x"}, {"a": 1, "b": 2}, {"a": [1]}, []])
def test_arguments_that_do_not_fit_are_refused(wrong: object) -> None:
    @tool
    def one(a: int) -> int:
        return a

    with pytest.raises(ValidationError):
        one.validator.validate_json(json.dumps(wrong))


def test_the_context_is_given_and_not_shown_wherever_it_stands() -> None:
    @tool
    async def first(context: Context, city: str) -> str:
        return f"{context.principal.id} {city}"

    @tool
    def last(city: str, context: Context | None = None) -> str:
        assert context
        return f"{context.principal.id} {city}"

    @tool
    def amid(city: str, context: Context, /, *more: str, last: str = "!") -> str:
        return " ".join([context.principal.id, city, *more]) + last

    async def run() -> list[str]:
        entered(Context("weather", Turn("t", "weather", (), principal=Principal("ann"))))
        return [
            await call(first, city="Rome"),
            await call(last, city="Rome"),
            await call(amid, city="Rome", more=["Oslo"], last="?"),
        ]

    assert [list(schema(each)["properties"]) for each in (first, last, amid)] == [
        ["city"],
        ["city"],
        ["city", "more", "last"],
    ]
    assert asyncio.run(run()) == ["ann Rome", "ann Rome", "ann Rome Oslo?"]


async def test_a_caller_cannot_send_the_context() -> None:
    @tool
    def who(context: Context) -> str:
        return context.principal.id

    with pytest.raises(ValidationError):
        await call(who, context={"agent": "x", "turn": {}})


def test_options_of_the_decorator_go_onto_the_tool() -> None:
    @tool(name="weather", description="How it is.", scope="owner", timeout_seconds=2, retries=0, price="0.002")
    def forecast() -> None:
        """Not this."""

    assert (forecast.name, forecast.definition.description) == ("weather", "How it is.")
    assert (forecast.scope, forecast.timeout_seconds, forecast.retries) == ("owner", 2, 0)
    assert forecast.price == Decimal("0.002")


def test_a_tool_has_sensible_defaults() -> None:
    plain = Tool.of(lambda: None, name="plain")
    assert (plain.scope, plain.timeout_seconds, plain.retries, plain.price) == ("user", TIMEOUT_SECONDS, 1, None)


# --- how it is called ----------------------------------------------------------------------------------------------


def test_a_decorated_function_can_still_be_called() -> None:
    @tool
    def double(n: int) -> int:
        return 2 * n

    @tool
    async def triple(n: int) -> int:
        return 3 * n

    assert double(4) == 8
    assert asyncio.run(triple(4)) == 12


async def test_functions_run_in_threads_with_the_context_of_the_turn_and_coroutines_on_the_loop() -> None:
    @tool
    def where() -> tuple[int, str]:
        return threading.get_ident(), mood.get()

    @tool
    async def here() -> tuple[int, str]:
        return threading.get_ident(), mood.get()

    mood.set("calm")
    here_thread, here_mood = await call(here)
    there_thread, there_mood = await call(where)
    assert here_thread == threading.get_ident() != there_thread
    assert here_mood == there_mood == "calm"


async def test_a_slow_function_holds_up_nobody_and_can_be_given_up() -> None:
    go_on, ended = threading.Event(), threading.Event()

    @tool
    def slow() -> str:
        go_on.wait(10)
        ended.set()
        return "done"

    with pytest.raises(TimeoutError), anyio.fail_after(0.05):
        await call(slow)
    assert not ended.is_set()
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 10)


async def test_what_a_function_raises_comes_out_as_it_is() -> None:
    @tool
    def broken() -> None:
        raise LookupError("no such city")

    with pytest.raises(LookupError, match="no such city"):
        await call(broken)


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    @tool
    def sell(self, what: str) -> str:
        """Sell something."""
        return f"{self.name} sells {what}"

    @tool(name="hours")
    @staticmethod
    def opening(day: str) -> str:
        return f"open on {day}"

    @tool
    @classmethod
    def kind(cls) -> str:
        return cls.__name__

    def stock(self, what: str) -> str:
        return f"{self.name} has {what}"

    def __call__(self, n: int) -> int:
        return n + 1


async def test_methods_are_bound_to_their_object() -> None:
    one, other = Shop("A"), Shop("B")
    assert await call(one.sell, what="tea") == "A sells tea"
    assert await call(other.sell, what="tea") == "B sells tea"
    assert one.sell("ink") == "A sells ink"
    assert one.sell is one.sell is not other.sell
    assert list(schema(one.sell)["properties"]) == ["what"]


async def test_static_and_class_methods_bound_methods_partials_and_callable_objects_are_tools_too() -> None:
    shop = Shop("A")
    assert await call(shop.opening, day="Monday") == "open on Monday"
    assert await call(shop.kind) == "Shop"
    assert await call(Tool.of(shop.stock), what="tea") == "A has tea"
    assert await call(Tool.of(partial(shop.stock, what="tea"))) == "A has tea"
    assert await call(Tool.of(shop, name="next"), n=1) == 2


def test_a_subclass_method_can_call_the_one_it_overrides() -> None:
    class Kiosk(Shop):
        @tool
        def sell(self, what: str) -> str:
            return super().sell(what) + ", cheaply"

    kiosk = Kiosk("K")
    assert [kiosk.sell("tea"), kiosk.sell("ink")] == ["K sells tea, cheaply", "K sells ink, cheaply"]


# --- what cannot be a tool -----------------------------------------------------------------------------------------


def yields() -> Generator[int]:
    yield 1


async def yields_too() -> AsyncGenerator[int]:
    yield 1


def wants_run_context(ctx: pydantic_ai.RunContext[None]) -> None: ...


def wants_a_lock(lock: threading.Barrier) -> None: ...


def unknown_hint(a: Any) -> None: ...


unknown_hint.__annotations__["a"] = "Nothing"


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (yields, "it yields"),
        (yields_too, "it yields"),
        (wants_run_context, "annotate it with frontdesk.Context"),
        (wants_a_lock, "Barrier"),
        (unknown_hint, "name 'Nothing' is not defined"),
        (lambda: None, 'name="…"'),
    ],
)
def test_what_cannot_be_a_tool_is_refused_with_a_sentence(function: Callable[..., Any], sentence: str) -> None:
    with pytest.raises(AgentError, match=sentence):
        Tool.of(function)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "get weather"}, "letters, digits"),
        ({"name": "x" * 65}, "1 to 64"),
        ({"name": "ünïcode"}, "letters, digits"),
        ({"timeout_seconds": 0}, "must be > 0"),
        ({"timeout_seconds": float("inf")}, "must be > 0"),
        ({"timeout_seconds": float("nan")}, "must be > 0"),
        ({"retries": -1}, "0 means none"),
        ({"price": "-1"}, "0 or more"),
        ({"price": "NaN"}, "0 or more"),
        ({"price": Decimal("Infinity")}, "0 or more"),
        ({"price": "cheap"}, "is no price"),
        ({"price": 0.1}, "not 0.1"),
        ({"price": True}, "not True"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_a_sentence(options: dict[str, Any], sentence: str) -> None:
    def ping() -> None: ...

    with pytest.raises(AgentError, match=sentence):
        tool(**options)(ping)


@pytest.mark.parametrize(
    ("price", "dollars"), [("0.1", "0.1"), (2, "2"), ("1e-6", "0.000001"), (Decimal("0.30"), "0.3")]
)
def test_prices_are_exact(price: Any, dollars: str) -> None:
    assert Tool.of(lambda: None, name="x", price=price).price == Decimal(dollars)
