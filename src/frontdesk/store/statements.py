"""SQLAlchemy's statements as SQLite's own driver runs them.

SQLAlchemy says what the SQL is, once for each statement; the driver is then called directly. Running a statement the
usual way takes 20 to 60 µs more than SQLite itself needs (docs/why/0011).
"""

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import ClauseElement, Executable
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import NoResultFound
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import ReturnsRows

from frontdesk.store.transaction import Values

DIALECT = SQLiteDialect_pysqlite(paramstyle="named")

REMEMBERED = 512
"""Statements whose SQL is kept: those made at import are far fewer, those made for one question come and go."""

NOTHING: Values = {}

Convert = Callable[[Any], Any]


@dataclass(slots=True)
class Prepared:
    """A statement in SQL. `own` are the values it brings itself, `lists` the names of the members of each list."""

    sql: str
    own: Values
    lists: Mapping[str, Sequence[str]]
    converts: Sequence[tuple[int, Convert]]  # columns whose values are others for Python, by their place
    row: Callable[[Sequence[Any]], Any] | None = None  # known once it has found something

    def run(self, driver: sqlite3.Connection, values: Values) -> "Found":
        """Raises sqlite3.Error."""
        given = {**self.own, **values}
        for name, members in self.lists.items():
            given |= zip(members, values[name], strict=True)
        cursor = driver.execute(self.sql, given)
        found = cursor.fetchall()
        return Found(self._rows(cursor, found) if found else [], cursor.rowcount)

    def _rows(self, cursor: sqlite3.Cursor, found: list[tuple[Any, ...]]) -> list[Any]:
        if self.row is None:
            names: list[str] = [column[0] for column in cursor.description]
            self.row = namedtuple("Row", names, rename=True)._make  # pyright: ignore[reportUntypedNamedTuple]
        return list(map(self.row, map(self._converted, found) if self.converts else found))

    def _converted(self, row: tuple[Any, ...]) -> list[Any]:
        values = list(row)
        for place, convert in self.converts:
            values[place] = convert(values[place])
        return values


class Found:
    """What a statement has found, all of it; see `transaction.Rows` and `transaction.Scalars`."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int = -1) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> Sequence[Any]:
        return self._rows

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        """Raises NoResultFound."""
        if not self._rows:
            raise NoResultFound("No row was found when one was required")
        return self._rows[0]

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        return self.one()[0]


class DriverTransaction:
    """A transaction that has begun on a connection of SQLite's driver, as a `transaction.Transaction`."""

    __slots__ = ("_driver",)

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._driver = driver

    def execute(self, statement: Executable, values: Values | None = None, /) -> Found:
        """Raises sqlite3.Error."""
        given = values or NOTHING
        lists = (
            (name, cast("Sequence[Any]", value)) for name, value in given.items() if isinstance(value, list | tuple)
        )
        lengths = tuple((name, len(members)) for name, members in lists)
        return prepared(statement, tuple(given), lengths).run(self._driver, given)

    def scalar(self, statement: Executable, values: Values | None = None, /) -> Any:
        return self.execute(statement, values).scalar()

    def scalars(self, statement: Executable, values: Values | None = None, /) -> Found:
        return Found([row[0] for row in self.execute(statement, values)])


@lru_cache(REMEMBERED)
def prepared(statement: Executable, names: tuple[str, ...], lengths: tuple[tuple[str, int], ...]) -> Prepared:
    """A statement for values of these names; those which are lists have `lengths`."""
    # The names say what is inserted or changed; beside these, statements have values under names of their own.
    compiled = cast("ClauseElement", statement).compile(dialect=DIALECT, column_keys=list(names) or None)
    assert isinstance(compiled, SQLCompiler)
    sizes = dict(lengths)
    example = {name: [None] * sizes[name] if name in sizes else None for name in names}
    state = compiled.construct_expanded_state(example)
    lists = {name: state.parameter_expansion[name] for name in sizes}
    given = {*names, *(member for members in lists.values() for member in members)}
    own = {name: value for name, value in state.parameters.items() if name not in given}
    return Prepared(state.statement, own, lists, converts(statement))


def converts(statement: Executable) -> list[tuple[int, Convert]]:
    """How what is found becomes what Python has for it: SQLite knows no truth values, only 0 and 1."""
    columns = statement.exported_columns if isinstance(statement, ReturnsRows) else ()
    found = ((place, column.type.dialect_impl(DIALECT)) for place, column in enumerate(columns))
    by_place = ((place, type_.result_processor(DIALECT, None)) for place, type_ in found)
    return [(place, convert) for place, convert in by_place if convert]
