"""`python -m bench.placing`: what it costs to place a request and open its ledger row, with many stored turns.

Chats of ten turns are written through the ledger's own rows; then requests are placed that go on with one of them (with
and without a pin), begin a new one, or edit an earlier message. SQLite in a temporary folder, or `--url postgresql://…`.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import insert

from frontdesk.conversations.desk import Customs, Desk
from frontdesk.conversations.ids import Ids
from frontdesk.conversations.ledger import Entry, Ledger, base_text
from frontdesk.conversations.lineage import ROOT, points, reply_point
from frontdesk.ports import Backend
from frontdesk.store import codec
from frontdesk.store.database import Database
from frontdesk.store.tables import conversations, pins, turns
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Agent, Item, Message, Principal, Signals, StopReason, Text, Turn, TurnFinished, Usage

TURNS_PER_CHAT = 10
AGENT = Agent("agent-1", "Milo", "letta")
PRINCIPAL = Principal("somebody")


def message(role: str, text: str) -> Message:
    return Message("user" if role == "user" else "assistant", (Text(text),))


def transcript(chat: int, count: int) -> tuple[Item, ...]:
    """The first so many turns of a chat, as its client shows them."""
    told: list[Item] = []
    for number in range(count):
        told.append(message("user", f"Question {number} of chat {chat}: " + "what of this? " * 20))
        told.append(message("assistant", f"Answer {number} of chat {chat}: " + "that is so. " * 40))
    return tuple(told)


def rows(chat: int, scope: str) -> tuple[dict[str, object], list[dict[str, object]]]:
    conversation_id, now = uuid.uuid4().hex, time.time()
    told, parent, point = transcript(chat, TURNS_PER_CHAT), "", ROOT
    made: list[dict[str, object]] = []
    for number in range(TURNS_PER_CHAT):
        said, reply = told[2 * number], told[2 * number + 1]
        assert isinstance(reply, Message)
        base, point = point, reply_point(point, (said, reply))
        kept = codec.Saved((reply,), TurnFinished(StopReason.STOP, Usage(), "message-1"))
        turn_id = f"turn_{chat}_{number}"
        made.append(
            {
                "id": turn_id,
                "scope": scope,
                "conversation": conversation_id,
                "parent": parent,
                "state": "completed",
                "owner": "nobody",
                "left": False,
                "dedupe": None,
                "request": uuid.uuid4().hex,
                "message": "",
                "after": point.after,
                "spoken": point.spoken,
                "pair": point.pair or None,
                "base": base_text(base),
                "plain": True,
                "input": codec.items_text((said,)),
                "reply": codec.reply_text(kept),
                "run": "run-1",
                "error": "",
                "created": now,
                "ended": now,
            }
        )
        parent = turn_id
    row: dict[str, object] = {
        "system": "",
        "pin": "",
        "id": conversation_id,
        "scope": scope,
        "family": conversation_id,
        "principal": PRINCIPAL.id,
        "backend": AGENT.backend,
        "agent": AGENT.id,
        "kind": "chat",
        "thread": str(uuid.uuid4()),
        "head": parent,
        "metadata": "{}",
        "created": now,
        "used": now,
    }
    return row, made


ADD_CONVERSATION, ADD_TURN, ADD_PIN = insert(conversations), insert(turns), insert(pins)


async def fill(database: Database, scope: str, first: int, last: int) -> None:
    for start in range(first, last, 500):
        batch = [rows(chat, scope) for chat in range(start, min(start + 500, last))]

        def write(tx: Transaction, batch: list[tuple[dict[str, object], list[dict[str, object]]]] = batch) -> None:
            for row, made in batch:
                tx.execute(ADD_CONVERSATION, row)
                for turn in made:
                    tx.execute(ADD_TURN, turn)
                named = {"scope": scope, "pin": row["id"], "conversation": row["id"], "family": row["id"]}
                tx.execute(ADD_PIN, named)

        await database.do(write)


def turn(history: tuple[Item, ...], *, pin: str = "") -> Turn:
    signals = Signals(digest=uuid.uuid4().hex)
    said = (message("user", f"And now? {uuid.uuid4().hex}"),)
    return Turn(
        f"turn_{uuid.uuid4().hex}", "Milo", said, history, conversation=pin, signals=signals, principal=PRINCIPAL
    )


async def measure(
    ledger: Ledger, desk: Desk, backend: Backend, make: Callable[[int], Turn], count: int
) -> tuple[float, float]:
    """Milliseconds, median and 99th percentile, of placing and entering one request, from the decoded turn on."""
    times: list[float] = []
    for number in range(count):
        asked = make(number)
        began = time.perf_counter()
        ask = await desk.ask(backend, AGENT, asked, frozenset())
        entry = await ledger.claim(ask)
        times.append((time.perf_counter() - began) * 1000)
        assert isinstance(entry, Entry)
        await ledger.end(entry, "failed_before")
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


async def bench(url: str, sizes: list[int], count: int) -> None:
    database = await Database.open(url)
    ledger = Ledger(database)

    async def attach(items: tuple[Item, ...]) -> tuple[Item, ...]:
        return items

    desk = Desk(Ids(b"secret"), ledger, Customs(), attach)
    backend: Backend = None  # type: ignore[assignment] # nothing here answers a tool call
    scope = (await desk.ask(backend, AGENT, turn(()), frozenset())).scope
    print(f"{'stored turns':>12}  {'request':<22}{'p50 ms':>8}{'p99 ms':>8}")  # noqa: T201
    have = 0
    for size in sizes:
        chats = size // TURNS_PER_CHAT
        await fill(database, scope, have, chats)
        have = chats
        step = max(1, chats // count)
        cases: dict[str, Callable[[int], Turn]] = {
            "new chat": lambda _: turn(()),
            "goes on": lambda n, step=step: turn(transcript(n * step, TURNS_PER_CHAT)),
            "edits an early message": lambda n, step=step: turn(transcript(n * step, 4)),
            "unknown history": lambda n: turn(transcript(10**9 + n, TURNS_PER_CHAT)),
        }
        for name, make in cases.items():
            p50, p99 = await measure(ledger, desk, backend, make, min(count, chats))
            print(f"{size:>12,}  {name:<22}{p50:>8.2f}{p99:>8.2f}")  # noqa: T201
    began = time.perf_counter()
    for number in range(100):
        points(transcript(number, 100))
    print(f"reading a transcript of 200 messages: {(time.perf_counter() - began) * 10:.2f} ms")  # noqa: T201
    await database.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.placing", description=__doc__)
    parser.add_argument("--url", default="")
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.url or f"sqlite:///{Path(folder) / 'frontdesk.db'}"
        asyncio.run(bench(url, [int(size) for size in options.sizes.split(",")], options.count))


if __name__ == "__main__":
    main()
