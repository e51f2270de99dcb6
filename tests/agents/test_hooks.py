"""Hooks, prompts, handoffs and endpoints: what functions can be, and what is made of them."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from frontdesk import Agent, Context, handoff, hook, http, prompt
from frontdesk.agents.endpoints import Endpoint
from frontdesk.agents.errors import AgentError
from frontdesk.agents.hooks import EVENTS, BeforeToolCall, Chunk, Hook, Incoming
from frontdesk.turn import Turn

HERE = Context("weather", Turn("t", "weather", ()))


# --- hooks ---------------------------------------------------------------------------------------------------------


async def test_a_hook_gives_nothing_or_a_changed_copy() -> None:
    @hook("chunk")
    def shout(chunk: Chunk) -> Chunk:
        return replace(chunk, text=chunk.text.upper())

    @hook("chunk", priority=1, on_error="ignore")
    async def look(chunk: Chunk) -> None: ...

    assert await shout.run(Chunk("hi")) == Chunk("HI")
    assert await look.run(Chunk("hi")) is None
    assert (shout.event, shout.priority, shout.on_error) == (Chunk, 50, "abort")
    assert (look.event, look.priority, look.on_error) == (Chunk, 1, "ignore")
    assert shout(Chunk("x")) == Chunk("X")


async def test_a_hook_that_gives_something_else_fails_and_says_what_was_wanted() -> None:
    @hook("chunk")
    def wrong(chunk: Chunk) -> str:
        return chunk.text

    with pytest.raises(TypeError, match="gave a str: it must return None or a changed copy of the Chunk"):
        await wrong.run(Chunk("hi"))


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_can_be_hooked(event: str) -> None:
    assert hook(event)(takes_one).event is EVENTS[event]


def takes_nothing() -> None: ...


def takes_one(event: object) -> None: ...


def takes_it_by_name(*, context: Context) -> str:
    return context.agent


def takes_two(a: object, b: object) -> None: ...


def takes_another(event: Incoming) -> None: ...


def yields(event: object) -> Generator[None]:
    yield


@pytest.mark.parametrize(
    ("event", "function", "sentence"),
    [
        ("request", takes_one, "never happens. Use connection, message"),
        ("chunk", takes_nothing, "must take one argument, the Chunk"),
        ("chunk", takes_two, "must take one argument"),
        ("chunk", takes_another, "takes the Incoming, but at 'chunk' it is given the Chunk"),
        ("chunk", yields, "it yields"),
    ],
)
def test_what_cannot_be_a_hook_is_refused(event: str, function: Any, sentence: str) -> None:
    with pytest.raises(AgentError, match=sentence):
        hook(event)(function)


def test_on_error_is_one_of_two() -> None:
    with pytest.raises(AgentError, match='"abort" or "ignore"'):
        hook("chunk", on_error="log")(takes_one)  # pyright: ignore[reportArgumentType]


def test_hooks_are_in_order_of_priority_and_then_as_declared() -> None:
    class Watched(Agent):
        name, model = "watched", "scripted/x"

        @hook("before_tool_call")
        def second(self, event: BeforeToolCall) -> None: ...

        @hook("before_tool_call", priority=10)
        def first(self, event: BeforeToolCall) -> None: ...

        @hook("before_tool_call")
        def third(self, event: BeforeToolCall) -> None: ...

        @hook("chunk")
        def other(self, event: Chunk) -> None: ...

    hooks = Watched(hooks=[hook("chunk", priority=60)(takes_one)]).parts.hooks
    assert [told(each) for each in hooks[BeforeToolCall]] == ["first", "second", "third"]
    assert [told(each) for each in hooks[Chunk]] == ["other", "takes_one"]


def told(hook: Hook) -> str:
    return getattr(hook.function, "__name__", "")


# --- prompts -------------------------------------------------------------------------------------------------------


async def test_prompts_are_functions_of_nothing_or_of_the_context_and_may_be_coroutines() -> None:
    @prompt
    def nothing() -> str:
        return "Be brief."

    @prompt(priority=5, scope="owner")
    async def about(context: Context) -> str:
        return f"You are {context.agent}."

    @prompt
    def silent() -> None: ...

    assert [await each.run(HERE) for each in (nothing, about, silent)] == ["Be brief.", "You are weather.", ""]
    assert (nothing.priority, nothing.scope, about.priority, about.scope) == (50, "user", 5, "owner")
    assert nothing() == "Be brief."


async def test_a_prompt_that_gives_no_text_fails() -> None:
    @prompt
    def number() -> int:
        return 1

    with pytest.raises(TypeError, match="gave a int"):
        await number.run(HERE)


@pytest.mark.parametrize("function", [takes_two, takes_it_by_name, yields])
def test_what_cannot_be_a_prompt_is_refused(function: Any) -> None:
    with pytest.raises(AgentError, match="cannot be a prompt"):
        prompt(function)


# --- handoffs ------------------------------------------------------------------------------------------------------


def test_a_handoff_is_shown_as_a_tool_that_models_take() -> None:
    assert handoff("Billing & Söhne.2").tool_name == "transfer_to_Billing___S_hne_2"
    assert len(handoff("x" * 64).tool_name) == 64


def test_what_a_handoff_is_for_comes_from_it_or_from_its_target() -> None:
    billing = Agent("billing", model="scripted/x", description="Knows all invoices.")
    plain = "Hand this conversation over to billing, who answers in your place."
    assert handoff(billing).told == f"{plain} Knows all invoices."
    assert handoff(billing, "For money.").told == "For money."
    assert handoff("billing").told == plain


def test_a_handoff_needs_a_target() -> None:
    with pytest.raises(AgentError, match="needs a target"):
        handoff("")


# --- endpoints -----------------------------------------------------------------------------------------------------


def test_an_endpoint_is_a_plain_marker() -> None:
    @http("/orders/{id}", method=["get", "delete"], scope="owner")
    def order(id: int) -> int:
        return id

    assert isinstance(order, Endpoint)
    assert (order.path, order.methods, order.scope) == ("/orders/{id}", ("GET", "DELETE"), "owner")
    assert order(3) == 3


@pytest.mark.parametrize("path", ["", "/", "orders", "/a//b", "/../x", "/a/", "/./a"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(AgentError, match="write a path such as"):
        http(path)(takes_nothing)


@pytest.mark.parametrize("method", ["connect", [], ["get", "fetch"]])
def test_a_method_that_is_none_is_refused(method: Any) -> None:
    with pytest.raises(AgentError, match="use one or more of get, post, put, patch, delete"):
        http("/a", method=method)(takes_nothing)
