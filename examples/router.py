"""A router: one agent that receives everybody, and hands each turn to the one who knows.

    export OPENAI_API_KEY=sk-…
    cd examples
    frontdesk serve --agents router:agents
    frontdesk chat reception                        # in another terminal

Whoever takes over sees the whole conversation, with instructions and tools of its own. The next turn begins at the
reception again. `orders` can be asked by its own name too; `repairs` is known to the reception alone.
"""

import structlog

from frontdesk import Agent, handoff, hook, tool
from frontdesk.agents.hooks import HandingOver

log = structlog.get_logger(__name__)

SHIPPED = {7: "left the harbour this morning", 8: "is at your neighbour's"}


@tool
def track(order: int) -> str:
    """Tell where an order is.

    Args:
        order: Its number.
    """
    if order not in SHIPPED:
        raise ValueError(f"There is no order {order}. Ask for the number on the invoice.")
    return f"Order {order} {SHIPPED[order]}."


@tool
def book_repair(device: str, day: str) -> str:
    """Book a visit of the mechanic."""
    return f"The mechanic comes on {day} for the {device}."


@hook("handoff")
def noted(moment: HandingOver) -> None:
    log.info("handed over", source=moment.source, target=moment.target)


orders = Agent(
    "orders",
    model="openai/gpt-5-mini",
    description="Knows where orders are.",
    instructions="You look after orders. You never guess where one is: you track it.",
    tools=[track],
)

repairs = Agent(
    "repairs",
    model="openai/gpt-5-mini",
    instructions="You book repairs. You need the device and the day.",
    tools=[book_repair],
)

reception = Agent(
    "reception",
    model="openai/gpt-5-mini",
    description="Receives everybody.",
    instructions="You receive customers, and hand them to whoever can help. Small talk you do yourself.",
    handoffs=["orders", handoff(repairs, "For whatever is broken.")],
    hooks=[noted],
)

agents = [reception, orders]
