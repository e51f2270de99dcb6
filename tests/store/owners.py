"""Transactions on the simplest of the tables, for tests."""

from collections.abc import Callable

from sqlalchemy import insert, select, update

from frontdesk.store.tables import owners
from frontdesk.store.transaction import Transaction


def add(name: str, beat: int = 0) -> Callable[[Transaction], None]:
    def work(connection: Transaction) -> None:
        connection.execute(insert(owners), {"id": name, "beat": beat, "started": 0.0})

    return work


def names(connection: Transaction) -> list[str]:
    return list(connection.scalars(select(owners.c.id).order_by(owners.c.id)))


def beat_of(name: str) -> Callable[[Transaction], int | None]:
    return lambda connection: connection.scalar(select(owners.c.beat).where(owners.c.id == name))


def count_up(name: str) -> Callable[[Transaction], None]:
    """Read, then write what follows from it: what another writes in between would be lost."""

    def work(connection: Transaction) -> None:
        beat = connection.scalars(select(owners.c.beat).where(owners.c.id == name).with_for_update()).one()
        connection.execute(update(owners).where(owners.c.id == name).values(beat=beat + 1))

    return work
