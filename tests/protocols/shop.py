"""Agents with HTTP endpoints of their own, of every kind that there is."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from itertools import count
from typing import Annotated, Literal

from fastapi import Depends, HTTPException, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from frontdesk import Agent, Context, Skill, context, http, tool
from frontdesk.agents.services import Services
from frontdesk.errors import InvalidRequest

MODEL = "scripted/model"
SECRET = "the password of the database is swordfish"


class Item(BaseModel):
    name: str
    count: int = Field(gt=0)


class Order(BaseModel):
    items: list[Item]
    rush: bool = False


@http("/orders/{number}")
async def order(number: int, limit: Annotated[int, Query(le=10)] = 5, kind: Literal["new", "old"] = "new") -> object:
    """One order.

    Of those there are.
    """
    return {"number": number, "limit": limit, "kind": kind}


@http("/orders", method="post")
def place(order: Order, ctx: Context) -> Order:
    return Order(items=[*order.items, Item(name=ctx.principal.id, count=1)], rush=order.rush)


@http("/orders", method=["put", "patch"])
async def change(request: Request) -> dict[str, object]:
    return {"method": request.method, "path": request.url.path, "bytes": len(await request.body())}


@http("/orders/{number}", method="delete", scope="owner")
def forget(number: int) -> None:
    forgotten.append(number)


forgotten: list[int] = []
"""What an owner has had forgotten."""


@http("/orders/{number}/items", method="post", scope="owner")
def add(number: int, item: Item) -> Item:
    return item


@http("/premium", scope="premium")
def premium() -> str:
    return "a chair"


meeting = asyncio.Barrier(2)


@http("/who")
async def who(mine: "Context", tag: str = "") -> dict[str, object]:
    """Waits for another request, so that two run at the same time."""
    assert mine is context()
    mine.scratch["tag"] = tag
    await meeting.wait()
    return {"agent": mine.agent, "principal": mine.principal.id, "tag": context().scratch["tag"]}


@http("/thread")
def in_a_thread() -> dict[str, object]:
    return {"principal": context().principal.id, "loop": threading.current_thread() is threading.main_thread()}


def caller(request: Request) -> str:
    return request.headers["x-caller"]


@http("/depends")
def depends(caller: Annotated[str, Depends(caller)]) -> str:
    return caller


@http("/fails")
async def fails() -> None:
    raise RuntimeError(SECRET)


@http("/fails/to-fit")
async def unfit() -> Item:
    return Item.model_construct(name=SECRET, count="many")


@http("/sold-out")
async def sold_out() -> None:
    raise HTTPException(409, "Sold out.", {"x-next": "friday"})


@http("/refuses")
async def refuses() -> None:
    raise InvalidRequest("Not on a Sunday.", param="day", code="unsupported_value")


going_on = threading.Event()


@http("/stream")
async def stream() -> StreamingResponse:
    async def pieces() -> AsyncGenerator[str]:
        yield f"{context().agent} "
        await asyncio.to_thread(going_on.wait, 20)
        yield "goes on"

    return StreamingResponse(pieces(), media_type="text/plain")


@http("/lines")
def lines(ctx: Context) -> Generator[Item]:
    yield Item(name=ctx.agent, count=1)
    yield Item(name=context().agent, count=2)


class Till(Skill):
    """Endpoints of a skill, which is open as long as the server is."""

    name = "till"

    def __init__(self) -> None:
        self.open = False

    @asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncGenerator[None]:
        self.open = True
        yield
        self.open = False

    @http("/till")
    async def look(self, ctx: Context) -> dict[str, object]:
        return {"open": self.open, "agent": ctx.agent}


@tool
def elsewhere() -> str:
    """Whether the caller may be taken to other agents."""
    return "bound" if context().principal.at else "free"


shop = Agent(
    "shop",
    model=MODEL,
    instructions=SECRET,
    tools=[elsewhere],
    skills=[Till()],
    endpoints=[
        order,
        place,
        change,
        forget,
        add,
        premium,
        who,
        in_a_thread,
        depends,
        fails,
        unfit,
        sold_out,
        refuses,
        stream,
        lines,
    ],
)


class Office(Agent):
    """Its endpoints are found by themselves."""

    name = "back office"
    model = MODEL
    scope = "owner"

    @http("/safe")
    def safe(self) -> str:
        """The safe, of the agent itself."""
        return self.name


agents = [shop, Office()]


@http("/models")
def taken() -> str:
    return "where every agent has its models"


faulty = Agent("faulty", model=MODEL, endpoints=[taken])

visits = count(1)


def made(name: str) -> Agent | None:
    """Agents that are made when asked for, each time anew."""
    number = next(visits)

    @http("/number")
    def look() -> int:
        return number

    @http("/owned", scope="owner")
    def owned() -> int:
        return number

    if name == "made":
        return Agent("made", model=MODEL, endpoints=[look, owned])
    return faulty if name == "faulty" else None
