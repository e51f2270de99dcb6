"""What every database promises of the lists of receipts."""

from collections.abc import Iterable
from typing import Any

import pytest

from frontdesk.store import records
from frontdesk.store.database import Database
from frontdesk.store.transaction import Transaction

TURN: dict[str, Any] = {
    "scope": "hers",
    "conversation": "c1",
    "parent": "",
    "state": "completed",
    "owner": "",
    "left": False,
    "dedupe": None,
    "request": "",
    "message": "",
    "after": None,
    "spoken": None,
    "pair": None,
    "base": "",
    "plain": True,
    "input": "[]",
    "reply": "",
    "run": "",
    "error": "",
    "trouble": "",
    "created": 10.0,
    "ended": 0.0,
}


@pytest.fixture
async def filled(database: Database) -> Database:
    """Five tasks of hers, the latest of which began first; and what must not be among them."""

    def fill(tx: Transaction) -> None:
        for id, family in (("c1", "f1"), ("c2", "f1"), ("c3", "f3")):
            row = records.begun("hers", "ann", "letta", "agent-1", id=id, family=family)
            records.add_conversation(tx, row)
        for number, (state, conversation, ended) in enumerate(
            [
                ("completed", "c1", 60.25),
                ("cancelled", "c2", 20.5),
                ("completed", "c3", 30.125),
                ("streaming", "c3", 0.0),
                ("failed_after", "c1", 30.125),
            ]
        ):
            add(tx, f"turn_{number}", '{"a2a":{"context":""}}', state=state, conversation=conversation, ended=ended)
        add(tx, "turn_other", '{"a2a":{}}', scope="his")
        add(tx, "turn_response", '{"created_at":1,"a2a":{}}')
        add(tx, "turn_repeat", '{"a2a":{}}', answered_by="turn_0")

    await database.do(fill)
    return database


def add(tx: Transaction, id: str, body: str, answered_by: str = "", **fields: Any) -> None:
    if not answered_by:
        records.add_turn(tx, id=id, **TURN | fields)
    records.put_receipt(tx, id, "ann", answered_by or id, body)


async def listed(database: Database, **wanted: Any) -> tuple[list[str], int, str]:
    asked: dict[str, Any] = {"limit": 10} | wanted
    return await database.read(lambda tx: records.asked_for(tx, "hers", "a2a", **asked))


def turns(*numbers: int) -> list[str]:
    return [f"turn_{number}" for number in numbers]


async def test_the_latest_is_first(filled: Database) -> None:
    assert await listed(filled) == (turns(0, 4, 2, 1, 3), 5, "")


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_pages_leave_out_none_and_repeat_none(filled: Database, limit: int) -> None:
    found: list[str] = []
    after: tuple[float, int] | None = None
    while True:
        ids, total, more = await listed(filled, limit=limit, after=after)
        assert total == 5
        found += ids
        if not more:
            break
        after = records.moment_and_seq(more)
    assert found == turns(0, 4, 2, 1, 3)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"states": ["completed"]}, turns(0, 2)),
        ({"states": ["claimed", "streaming"]}, turns(3)),
        ({"states": []}, []),
        ({"family": "f1"}, turns(0, 4, 1)),
        ({"family": "nowhere"}, []),
        ({"since": 30.125}, turns(0, 4, 2)),
        ({"since": 30.125, "family": "f3", "states": ["completed"]}, turns(2)),
    ],
)
async def test_a_list_may_be_of_some(filled: Database, wanted: dict[str, Any], found: list[str]) -> None:
    ids, total, _ = await listed(filled, **wanted)
    assert (ids, total) == (found, len(found))


@pytest.mark.parametrize(
    "text", ["", "x", "1.5", "1.5-", "1.5-x", "-1", "'--1", "nan-1", "inf-1", "1-9223372036854775808"]
)
def test_what_is_no_place_in_a_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        records.moment_and_seq(text)


def test_a_place_in_a_list_is_exact() -> None:
    moments: Iterable[float] = (0.1 + 0.2, 1_795_294_099.7553453, 1e-7)
    assert [records.moment_and_seq(f"{moment!r}-7") for moment in moments] == [(moment, 7) for moment in moments]
