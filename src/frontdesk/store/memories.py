"""What agents remember beyond a conversation, as `ports.Memories`.

A memory has a row, which is made when something is first put there, and locked by whoever changes anything in it.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import msgspec
from sqlalchemy import (
    Row,
    TextClause,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from frontdesk.ports import Block, Passage, Whose
from frontdesk.store.database import Database, Dialect
from frontdesk.store.tables import blocks, memories, passages
from frontdesk.store.transaction import Transaction
from frontdesk.store.words import fts5, marked, tsquery, tsvector

ERASED_AT_A_TIME = 100


class StoredMemories:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._index = _INDEX[database.dialect]

    async def blocks(self, whose: Whose) -> Mapping[str, Block]:
        rows = await self._database.read(lambda tx: tx.execute(_blocks, _named(whose)).all())
        return {row.label: Block(*row) for row in rows}

    async def edit(self, whose: Whose, label: str, change: Callable[[Block], str]) -> Block:
        return await self._database.do(lambda tx: _edit(tx, whose, label, change))

    async def keep(self, whose: Whose, text: str, tags: Sequence[str], most: int) -> Passage | None:
        told, labels = storable(text), tuple(dict.fromkeys(map(storable, tags)))
        return await self._database.do(lambda tx: self._keep(tx, whose, told, labels, most))

    async def search(
        self,
        whose: Whose,
        query: str = "",
        tags: Sequence[str] = (),
        *,
        every_tag: bool = False,
        since: float = 0.0,
        until: float = inf,
        limit: int = 10,
        skip: int = 0,
    ) -> Sequence[Passage]:
        page = {"since": since, "until": until, "limit": limit, "skip": skip}
        labels = tuple(map(storable, tags))

        def find(tx: Transaction) -> list[Passage]:
            memory = tx.scalar(_memory, _named(whose))
            if memory is None:
                return []
            if not (query.strip() or labels):
                return _passages(tx.execute(_latest, page | {"memory": memory}))
            asked = self._index.query(memory, query, labels, every_tag)
            if not asked:
                return []
            ranked = {"memory": memory, "query": asked, "ranked": bool(query.strip())}
            return _passages(tx.execute(self._index.find, page | ranked))

        return await self._database.read(find, long=True)

    async def count(self, whose: Whose) -> int:
        return await self._database.read(lambda tx: tx.scalars(_count_named, _named(whose)).one())

    async def known(self, tenant: str | None = None, user: str | None = None, agent: str = "") -> Sequence[Whose]:
        found = await self._database.read(lambda tx: _known(tx, tenant, user, agent), long=True)
        return [whose for _, whose in found]

    async def delete(self, tenant: str, user: str | None = None, agent: str = "") -> int:
        deleted = 0
        while some := await self._database.do(lambda tx: self._delete(tx, tenant, user, agent), long=True):
            deleted += some
        return deleted

    def _keep(self, tx: Transaction, whose: Whose, told: str, tags: tuple[str, ...], most: int) -> Passage | None:
        memory = _locked(tx, whose)
        if tx.scalars(_count, {"memory": memory}).one() >= most:
            return None
        created = time.time()
        values = {"memory": memory, "text": told, "tags": msgspec.json.encode(tags).decode(), "created": created}
        id = tx.scalars(_add_passage, values).one()
        tx.execute(self._index.add, {"passage": id, "words": self._index.words(marked(memory, told, tags))})
        return Passage(str(id), told, tags, created)

    def _delete(self, tx: Transaction, tenant: str, user: str | None, agent: str) -> int:
        found = _known(tx, tenant, user, agent, lock=ERASED_AT_A_TIME)
        for memory, _ in found:
            for statement in (self._index.drop, _drop_passages, _drop_blocks, _drop_memory):
                tx.execute(statement, {"memory": memory})
        return len(found)


_tags = msgspec.json.Decoder(tuple[str, ...])


def storable(text: str) -> str:
    """Without what no database holds: NUL, and halves of characters."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "")


# --- memories ------------------------------------------------------------------------------------------------------

_by_name = (
    memories.c.tenant == bindparam("tenant"),
    memories.c.user == bindparam("user"),
    memories.c.agent == bindparam("agent"),
)
_memory = select(memories.c.id).where(*_by_name)
_lock = _memory.with_for_update()
_begin = text('INSERT INTO memories (tenant, "user", agent) VALUES (:tenant, :user, :agent) ON CONFLICT DO NOTHING')
_drop_memory = delete(memories).where(memories.c.id == bindparam("memory"))


def _named(whose: Whose) -> dict[str, str]:
    return {"tenant": whose.tenant, "user": whose.user, "agent": whose.agent}


def _locked(tx: Transaction, whose: Whose) -> int:
    """The memory, made if need be. Nobody else changes anything in it before this transaction ends."""
    while (found := tx.scalar(_lock, _named(whose))) is None:
        tx.execute(_begin, _named(whose))
    return found


def _known(
    tx: Transaction, tenant: str | None, user: str | None, agent: str, *, lock: int = 0
) -> list[tuple[int, Whose]]:
    """With `lock`, only so many, and nobody else changes them before this transaction ends."""
    columns = memories.c.tenant, memories.c.user, memories.c.agent
    query = select(memories.c.id, *columns).order_by(*columns)
    for column, wanted in zip(columns, (tenant, user, agent or None), strict=True):
        if wanted is not None:
            query = query.where(column == wanted)
    rows = tx.execute(query.limit(lock).with_for_update() if lock else query)
    return [(id, Whose(*names)) for id, *names in rows]


# --- blocks --------------------------------------------------------------------------------------------------------

_content = select(blocks.c.label, blocks.c.text, blocks.c.version, blocks.c.changed)
_blocks = _content.join(memories, memories.c.id == blocks.c.memory).where(*_by_name).order_by(blocks.c.label)
_this = (blocks.c.memory == bindparam("memory_"), blocks.c.label == bindparam("label_"))
_block = _content.where(*_this)
_add_block = insert(blocks)
_put_block = update(blocks).where(*_this)
_drop_blocks = delete(blocks).where(blocks.c.memory == bindparam("memory"))


def _edit(tx: Transaction, whose: Whose, label: str, change: Callable[[Block], str]) -> Block:
    memory = _locked(tx, whose)
    place = {"memory_": memory, "label_": label}
    row = tx.execute(_block, place).first()
    before = Block(*row) if row else Block(label)
    after = Block(label, storable(change(before)), before.version + 1, time.time())
    values = {"text": after.text, "version": after.version, "changed": after.changed}
    if row:
        tx.execute(_put_block, place | values)
    else:
        tx.execute(_add_block, {"memory": memory, "label": label} | values)
    return after


# --- passages ------------------------------------------------------------------------------------------------------

_mine = passages.c.memory == bindparam("memory")
_count = select(func.count()).where(_mine)
_count_named = select(func.count()).select_from(passages).join(memories, memories.c.id == passages.c.memory)
_count_named = _count_named.where(*_by_name)
_add_passage = insert(passages).returning(passages.c.id)
_drop_passages = delete(passages).where(_mine)

_timed = (passages.c.created >= bindparam("since"), passages.c.created < bindparam("until"))
_latest = (
    select(passages.c.id, passages.c.text, passages.c.tags, passages.c.created)
    .where(_mine, *_timed)
    .order_by(passages.c.id.desc())
    .limit(bindparam("limit"))
    .offset(bindparam("skip"))
)


def _passages(rows: Iterable[Row[Any, Any, Any, Any]]) -> list[Passage]:
    return [Passage(str(id), told, _tags.decode(tags), created) for id, told, tags, created in rows]


# --- their words ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Index:
    """How a database searches text. `find` has the parameters of `_latest`, `query`, and `ranked`: whether those come
    first that fit best; else the latest do."""

    words: Callable[[Sequence[str]], str]
    query: Callable[[int, str, Sequence[str], bool], str]
    add: TextClause
    drop: TextClause
    find: TextClause


_sqlite = Index(
    words=" ".join,
    query=fts5,
    add=text("INSERT INTO passage_words (rowid, words) VALUES (:passage, :words)"),
    drop=text("DELETE FROM passage_words WHERE rowid IN (SELECT id FROM passages WHERE memory = :memory)"),
    find=text(
        """
        SELECT p.id, p.text, p.tags, p.created FROM passage_words JOIN passages p ON p.id = passage_words.rowid
        WHERE passage_words MATCH :query AND p.memory = :memory AND p.created >= :since AND p.created < :until
        ORDER BY CASE WHEN :ranked THEN bm25(passage_words) END, p.id DESC LIMIT :limit OFFSET :skip
        """
    ),
)
_postgresql = Index(
    words=tsvector,
    query=tsquery,
    add=text("INSERT INTO passage_words (passage, words) VALUES (:passage, CAST(CAST(:words AS text) AS tsvector))"),
    drop=text("DELETE FROM passage_words WHERE passage IN (SELECT id FROM passages WHERE memory = :memory)"),
    find=text(
        """
        SELECT p.id, p.text, p.tags, p.created FROM CAST(CAST(:query AS text) AS tsquery) AS wanted
        JOIN passage_words w ON w.words @@ wanted JOIN passages p ON p.id = w.passage
        WHERE p.memory = :memory AND p.created >= :since AND p.created < :until
        ORDER BY CASE WHEN CAST(:ranked AS boolean) THEN ts_rank(w.words, wanted) END DESC, p.id DESC
        LIMIT :limit OFFSET :skip
        """
    ),
)
_INDEX: dict[Dialect, Index] = {"sqlite": _sqlite, "postgresql": _postgresql}
