"""The histories of agents that keep none themselves, as `ports.Threads`.

A stretch is never changed. A fork names the same stretches in places of its own, so that it costs little however long
the history is; a stretch goes when no thread has it any more.
"""

import time
import uuid
from collections.abc import Sequence

from sqlalchemy import bindparam, delete, func, insert, select, update

from frontdesk.errors import ConversationNotFound
from frontdesk.ports import Stretch
from frontdesk.store.database import Database
from frontdesk.store.tables import conversations, places, stretches, threads
from frontdesk.store.transaction import Transaction

STRAY_SECONDS = 24 * 3600.0
"""A thread that no conversation has by then was left over by a process that died in the midst of making one."""

STRAYS_AT_A_TIME = 200
END = 2**31 - 1


class StoredThreads:
    """One row for each turn, however many threads have it, and a small one for each place where it stands."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def make(self, agent: str) -> str:
        return await self._database.do(lambda tx: _made(tx, agent))

    async def read(self, thread: str) -> Sequence[Stretch] | None:
        return await self._database.read(lambda tx: _read(tx, thread))

    async def append(self, thread: str, stretch: Stretch) -> None:
        await self._database.do(lambda tx: _append(tx, thread, stretch))

    async def find(self, thread: str, turn: str) -> Stretch | None:
        return await self._database.read(lambda tx: _find(tx, thread, turn))

    async def fork(self, thread: str, at: str = "") -> str | None:
        return await self._database.do(lambda tx: _fork(tx, thread, at), long=True)

    async def delete(self, thread: str) -> None:
        await self._database.do(lambda tx: _delete(tx, thread), long=True)

    async def sweep(self) -> int:
        before = time.time() - STRAY_SECONDS
        strays = await self._database.read(lambda tx: _strays(tx, before), long=True)
        for thread in strays:
            await self.delete(thread)
        return len(strays)


_this = bindparam("this", type_=threads.c.id.type)
_mine = places.c.thread == _this

# --- reading -------------------------------------------------------------------------------------------------------

_content = select(places.c.turn, stretches.c.messages, stretches.c.state)
_all = (
    _content.select_from(threads)
    .outerjoin(places, places.c.thread == threads.c.id)
    .outerjoin(stretches, stretches.c.id == places.c.stretch)
    .where(threads.c.id == _this)
    .order_by(places.c.place)
)
_one = _content.join(stretches, stretches.c.id == places.c.stretch).where(_mine, places.c.turn == bindparam("turn"))


def _read(tx: Transaction, thread: str) -> list[Stretch] | None:
    rows = tx.execute(_all, {"this": thread}).all()
    return [Stretch(*row) for row in rows if row.turn is not None] if rows else None


def _find(tx: Transaction, thread: str, turn: str) -> Stretch | None:
    row = tx.execute(_one, {"this": thread, "turn": turn}).first()
    return Stretch(*row) if row else None


# --- writing -------------------------------------------------------------------------------------------------------

_add = insert(threads)
_locked = select(threads.c.agent).where(threads.c.id == _this).with_for_update()
_place = select(places.c.place, places.c.stretch).where(_mine, places.c.turn == bindparam("turn"))
_end = select(func.coalesce(func.max(places.c.place), 0)).where(_mine)
_add_stretch = insert(stretches).returning(stretches.c.id)
_add_place = insert(places)
_put = update(places).where(_mine, places.c.place == bindparam("at")).values(stretch=bindparam("new"))
_copy = insert(places).from_select(
    ["thread", "place", "turn", "stretch"],
    select(bindparam("copy", type_=threads.c.id.type), places.c.place, places.c.turn, places.c.stretch).where(
        _mine, places.c.place <= bindparam("end")
    ),
)


def _made(tx: Transaction, agent: str) -> str:
    thread = uuid.uuid4().hex
    tx.execute(_add, {"id": thread, "agent": agent, "created": time.time()})
    return thread


def _agent(tx: Transaction, thread: str) -> str | None:
    """Whose thread it is; nobody else changes it before this transaction ends. None if there is no such thread."""
    return tx.scalar(_locked, {"this": thread})


def _append(tx: Transaction, thread: str, stretch: Stretch) -> None:
    if _agent(tx, thread) is None:
        raise ConversationNotFound("This conversation has been deleted. Begin a new one.")
    there = tx.execute(_place, {"this": thread, "turn": stretch.turn}).first()
    new = tx.scalars(_add_stretch, {"messages": stretch.messages, "state": stretch.state}).one()
    if there is None:
        end = tx.scalars(_end, {"this": thread}).one()
        tx.execute(_add_place, {"thread": thread, "place": end + 1, "turn": stretch.turn, "stretch": new})
        return
    tx.execute(_put, {"this": thread, "at": there.place, "new": new})
    tx.execute(_held, {"old": there.stretch})
    tx.execute(_drop, {"old": there.stretch})


def _fork(tx: Transaction, thread: str, at: str) -> str | None:
    agent = _agent(tx, thread)
    if agent is None:
        return None
    end = tx.scalar(_place, {"this": thread, "turn": at}) if at else END
    if end is None:
        return None
    copy = _made(tx, agent)
    tx.execute(_copy, {"this": thread, "copy": copy, "end": end})
    return copy


# --- removing ------------------------------------------------------------------------------------------------------
# Two threads that let go of a stretch at once must not each leave it to the other: so it is locked before it is looked
# at who has it still.

_held = select(stretches.c.id).where(stretches.c.id == bindparam("old")).with_for_update()
_drop = delete(stretches).where(
    stretches.c.id == bindparam("old"), ~select(places.c.stretch).where(places.c.stretch == stretches.c.id).exists()
)
_ours = stretches.c.id.in_(select(places.c.stretch).where(_mine))
_elsewhere = select(places.c.stretch).where(places.c.stretch == stretches.c.id, places.c.thread != _this).exists()
_all_held = select(stretches.c.id).where(_ours).order_by(stretches.c.id).with_for_update()
_drop_all = delete(stretches).where(_ours, ~_elsewhere)
_leave = delete(places).where(_mine)
_remove = delete(threads).where(threads.c.id == _this)
_stray = (
    select(threads.c.id)
    .where(threads.c.created < bindparam("before"), threads.c.id.not_in(select(conversations.c.thread)))
    .limit(STRAYS_AT_A_TIME)
)


def _delete(tx: Transaction, thread: str) -> None:
    if _agent(tx, thread) is None:
        return
    for statement in (_all_held, _drop_all, _leave, _remove):
        tx.execute(statement, {"this": thread})


def _strays(tx: Transaction, before: float) -> Sequence[str]:
    return tx.scalars(_stray, {"before": before}).all()
