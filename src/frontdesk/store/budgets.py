"""What is spent and what is set aside, as `ports.Accounts`.

An account never holds more than its limit: the check and the booking are one statement, on whose row others wait. What
a turn has set aside is a row of its own, so that it can be given back when the turn's process is gone.
"""

import time
from collections.abc import Mapping, Sequence
from operator import attrgetter

from sqlalchemy import BigInteger, bindparam, delete, exists, select, text, update

from frontdesk.ports import Held, Shortage, Standing, Wanted
from frontdesk.store.database import Database
from frontdesk.store.records import LIVE
from frontdesk.store.tables import accounts, holds, owners, turns
from frontdesk.store.transaction import Transaction

STANDINGS = 10_000


class StoredAccounts:
    """`owner` is this process, as the table of owners has it."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner

    async def reserve(self, turn: str, wanted: Sequence[Wanted], model: str = "") -> Shortage | None:
        ordered = sorted(wanted, key=lambda each: each.account.id)  # all in one order, so that none wait in a circle
        short = await self._try(turn, ordered, model)
        if short and short.held and await self._give_back_lost([each.account.id for each in ordered]):
            short = await self._try(turn, ordered, model)
        return short

    async def _try(self, turn: str, wanted: Sequence[Wanted], model: str) -> Shortage | None:
        try:
            await self._database.do(lambda tx: _reserve(tx, turn, wanted, model, self._owner))
        except _Short as error:  # raised, so that nothing of it is kept
            return error.shortage
        return None

    async def settle(self, turn: str, charges: Mapping[str, int]) -> None:
        await self._database.do(lambda tx: _settle(tx, turn, charges))

    async def held(self, turn: str) -> Sequence[Held]:
        return await self._database.read(lambda tx: [Held(*row) for row in tx.execute(_held, {"turn": turn})])

    async def standings(self) -> Sequence[Standing]:
        return await self._database.read(lambda tx: [Standing(*row) for row in tx.execute(_standings)], long=True)

    async def tidy(self, before: float) -> None:
        await self._give_back_lost(None)
        await self._database.do(lambda tx: tx.execute(_forget, {"before": before}), long=True)

    async def _give_back_lost(self, account_ids: Sequence[str] | None) -> bool:
        """Settle what is held in these accounts, or in all, for turns that nobody is at work on any more."""
        query = _lost if account_ids is None else _lost.where(holds.c.account.in_(account_ids))
        lost = await self._database.read(lambda tx: list(tx.scalars(query)), long=True)
        for turn in lost:
            await self.settle(turn, {})
        return bool(lost)


class _Short(Exception):
    def __init__(self, shortage: Shortage) -> None:
        super().__init__()
        self.shortage = shortage


_hold = text(
    "INSERT INTO holds (turn, account, amount, used, model, owner, created) "
    "VALUES (:turn, :account, :amount, :used, :model, :owner, :now) ON CONFLICT (turn, account) "
    "DO UPDATE SET amount = holds.amount + excluded.amount, used = excluded.used, model = excluded.model"
).bindparams(bindparam("amount", type_=BigInteger), bindparam("used", type_=BigInteger))
_open = text(
    "INSERT INTO accounts (id, budget, unit, holder, period, spent, held, used) "
    "VALUES (:id, :budget, :unit, :holder, :period, 0, 0, :now) ON CONFLICT (id) DO NOTHING"
)
_book = (
    update(accounts)
    .where(
        accounts.c.id == bindparam("this"),
        accounts.c.spent + accounts.c.held + bindparam("more") <= bindparam("limit"),
    )
    .values(held=accounts.c.held + bindparam("more"), used=bindparam("now"))
)
_stands = select(accounts.c.spent, accounts.c.held).where(accounts.c.id == bindparam("this"))
_of_turn = select(holds).where(holds.c.turn == bindparam("turn")).order_by(holds.c.account).with_for_update()
_drop = delete(holds).where(holds.c.turn == bindparam("turn"))
_charge = (
    update(accounts)
    .where(accounts.c.id == bindparam("this"))
    .values(
        held=accounts.c.held - bindparam("amount"),
        spent=accounts.c.spent + bindparam("charge"),
        used=bindparam("now"),
    )
)
_held = (
    select(holds.c.account, accounts.c.budget, accounts.c.unit, holds.c.amount, holds.c.used, holds.c.model)
    .join(accounts, accounts.c.id == holds.c.account)
    .where(holds.c.turn == bindparam("turn"))
    .order_by(holds.c.account)
)
_standings = (
    select(*(accounts.c[name] for name in Standing.__slots__))
    .order_by(accounts.c.budget, accounts.c.holder, accounts.c.period.desc())
    .limit(STANDINGS)
)
_lost = (
    select(holds.c.turn)
    .where(
        ~exists().where(owners.c.id == holds.c.owner),
        ~exists().where(turns.c.id == holds.c.turn, turns.c.state.in_(LIVE)),  # else its outcome is yet to be found out
    )
    .distinct()
)
_forget = delete(accounts).where(
    accounts.c.period != "",
    accounts.c.used < bindparam("before"),
    ~exists().where(holds.c.account == accounts.c.id),
)


def _reserve(tx: Transaction, turn: str, wanted: Sequence[Wanted], model: str, owner: str) -> None:
    """Holds before accounts, here and where they are settled: whoever waits for the one never has the other."""
    now = time.time()
    for each in wanted:
        row = {"turn": turn, "account": each.account.id, "amount": each.more, "used": each.used}
        tx.execute(_hold, row | {"model": model, "owner": owner, "now": now})
    for each in wanted:
        account = each.account
        named = {name: getattr(account, name) for name in ("id", "budget", "unit", "holder", "period")}
        tx.execute(_open, named | {"now": now})
        booked = {"this": account.id, "more": each.more, "limit": account.limit, "now": now}
        if each.more and not tx.execute(_book, booked).rowcount:
            spent, held = tx.execute(_stands, {"this": account.id}).one()
            raise _Short(Shortage(account, each.more, spent, held))


def _settle(tx: Transaction, turn: str, charges: Mapping[str, int]) -> None:
    rows = sorted(tx.execute(_of_turn, {"turn": turn}), key=attrgetter("account"))
    if not rows:
        return
    tx.execute(_drop, {"turn": turn})
    now = time.time()
    for row in rows:
        charge = charges.get(row.account, row.used)
        tx.execute(_charge, {"this": row.account, "amount": row.amount, "charge": charge, "now": now})
