"""What every database promises of what agents remember."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest
from sqlalchemy import func, select, table, text

from frontdesk.ports import Block, Passage, Whose
from frontdesk.store.database import Database
from frontdesk.store.memories import ERASED_AT_A_TIME, StoredMemories
from frontdesk.store.tables import blocks, memories, passages
from frontdesk.store.transaction import Transaction

ALICE = Whose("acme", "alice", "milo")
MANY = 1000


@pytest.fixture
def kept(database: Database) -> StoredMemories:
    return StoredMemories(database)


@pytest.fixture
async def other(database_url: str) -> AsyncGenerator[StoredMemories]:
    """The memories as another process has them."""
    opened = await Database.open(database_url)
    yield StoredMemories(opened)
    await opened.aclose()


def put(text: str) -> Callable[[Block], str]:
    return lambda _: text


def add(word: str) -> Callable[[Block], str]:
    return lambda block: f"{block.text} {word}".strip()


async def keep(kept: StoredMemories, *texts: str, whose: Whose = ALICE, tags: tuple[str, ...] = ()) -> None:
    for each in texts:
        assert await kept.keep(whose, each, tags, MANY)


def said(found: Sequence[Passage]) -> list[str]:
    return [passage.text for passage in found]


# --- blocks --------------------------------------------------------------------------------------------------------


async def test_a_block_that_was_never_edited_is_not_there(kept: StoredMemories) -> None:
    assert await kept.blocks(ALICE) == {}


async def test_an_edit_is_given_the_block_and_leaves_what_it_makes_of_it(
    kept: StoredMemories, other: StoredMemories
) -> None:
    seen: list[Block] = []

    def change(block: Block) -> str:
        seen.append(block)
        return block.text + "Likes tea. "

    first = await kept.edit(ALICE, "human", change)
    second = await other.edit(ALICE, "human", change)
    assert seen == [Block("human"), first]
    assert (first.text, first.version) == ("Likes tea. ", 1)
    assert (second.text, second.version) == ("Likes tea. Likes tea. ", 2)
    assert second.changed >= first.changed > 0
    assert await kept.blocks(ALICE) == {"human": second}


async def test_an_edit_that_is_refused_changes_nothing(kept: StoredMemories) -> None:
    def refuse(block: Block) -> str:
        raise ValueError(f"not {block.text}")

    await kept.edit(ALICE, "human", put("this"))
    with pytest.raises(ValueError, match="not this"):
        await kept.edit(ALICE, "human", refuse)
    block = (await kept.blocks(ALICE))["human"]
    assert (block.text, block.version) == ("this", 1)


async def test_no_edit_is_lost_between_processes(kept: StoredMemories, other: StoredMemories) -> None:
    """Also not the first ones, when there is no row yet."""
    words = [f"w{number}" for number in range(40)]
    await asyncio.gather(
        *(by.edit(ALICE, "human", add(word)) for word, by in zip(words, [kept, other] * 20, strict=True))
    )
    block = (await kept.blocks(ALICE))["human"]
    assert sorted(block.text.split()) == sorted(words)
    assert block.version == 40


OTHERS = [
    Whose("acme", "bob", "milo"),
    Whose("acme", "", "milo"),
    Whose("acme", "alice", "otto"),
    Whose("umbrella", "alice", "milo"),
    Whose("", "", "milo"),
    Whose("acme/alice", "", "milo"),
    Whose("ACME", "alice", "milo"),
]


async def test_nobody_sees_or_changes_the_memory_of_another(kept: StoredMemories) -> None:
    await kept.edit(ALICE, "human", put("a secret"))
    await keep(kept, "a secret", tags=("secrets",))
    for stranger in OTHERS:
        assert await kept.blocks(stranger) == {}
        assert await kept.count(stranger) == 0
        assert await kept.search(stranger) == []
        await keep(kept, "nothing of interest", whose=stranger)
        for query, tags in (("secret", ()), ("s", ()), ("", ("secrets",)), ("secret", ("secrets",)), ("1wsecret", ())):
            assert await kept.search(stranger, query, tags) == []
        await kept.edit(stranger, "human", put("mine"))
    assert (await kept.blocks(ALICE))["human"].text == "a secret"
    for stranger in OTHERS:
        assert await kept.delete(stranger.tenant, stranger.user, stranger.agent) == 1
    assert said(await kept.search(ALICE, "secret")) == ["a secret"]


# --- passages ------------------------------------------------------------------------------------------------------


async def test_what_is_kept_is_found_by_its_words(kept: StoredMemories, other: StoredMemories) -> None:
    await keep(kept, "The dog is called Rex.", "Tea is drunk at five.", "She went to Tokyo.")
    assert said(await other.search(ALICE, "what is the DOG's name?"))[0] == "The dog is called Rex."
    assert said(await other.search(ALICE, "tea")) == ["Tea is drunk at five."]
    assert said(await other.search(ALICE, "cat")) == []


async def test_a_passage_is_given_as_it_was_kept(kept: StoredMemories) -> None:
    made = await kept.keep(ALICE, "It's “Grüße” 𝄞; \\ ' \" --", ("a", "b, c", "a"), MANY)
    assert made
    assert (made.text, made.tags) == ("It's “Grüße” 𝄞; \\ ' \" --", ("a", "b, c"))
    assert await kept.search(ALICE, "grusse") == [made]
    assert await kept.search(ALICE) == [made]


async def test_accents_case_and_endings_do_not_matter(kept: StoredMemories) -> None:
    await keep(kept, "Er trinkt gern Kaffee im Café.", "犬の名前はポチです。", "Она живёт в Москве.")
    assert said(await kept.search(ALICE, "cafe")) == ["Er trinkt gern Kaffee im Café."]
    assert said(await kept.search(ALICE, "TRINK")) == ["Er trinkt gern Kaffee im Café."]
    assert said(await kept.search(ALICE, "名前")) == ["犬の名前はポチです。"]
    assert said(await kept.search(ALICE, "犬")) == ["犬の名前はポチです。"]
    assert said(await kept.search(ALICE, "москв")) == ["Она живёт в Москве."]


async def test_what_has_more_of_the_words_comes_first(kept: StoredMemories) -> None:
    await keep(kept, "a red house", "a red car with a roof", "a blue house with a red roof")
    assert said(await kept.search(ALICE, "blue roof house"))[0] == "a blue house with a red roof"


async def test_without_a_query_the_latest_come_first_page_by_page(kept: StoredMemories) -> None:
    await keep(kept, *(f"note {number}" for number in range(7)))
    pages = [said(await kept.search(ALICE, limit=3, skip=skip)) for skip in (0, 3, 6, 9)]
    assert pages == [["note 6", "note 5", "note 4"], ["note 3", "note 2", "note 1"], ["note 0"], []]


async def test_pages_of_a_search_overlap_nowhere_and_leave_nothing_out(kept: StoredMemories) -> None:
    notes = [f"note {number}" for number in range(7)]
    await keep(kept, *notes)
    pages = [said(await kept.search(ALICE, "notes note", limit=3, skip=skip)) for skip in (0, 3, 6, 9)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert sorted(note for page in pages for note in page) == notes


async def test_tags_narrow_a_search(kept: StoredMemories) -> None:
    await keep(kept, "tea with Ann", tags=("meetings", "Ann"))
    await keep(kept, "tea with Bob", tags=("meetings",))
    await keep(kept, "tea alone")
    assert said(await kept.search(ALICE, "tea", ["MEETINGS"])) == ["tea with Bob", "tea with Ann"]
    assert said(await kept.search(ALICE, "", ["ann", "meetings"])) == ["tea with Bob", "tea with Ann"]
    assert said(await kept.search(ALICE, "", ["ann", "meetings"], every_tag=True)) == ["tea with Ann"]
    assert said(await kept.search(ALICE, "ann", ["ann"])) == ["tea with Ann"]
    assert said(await kept.search(ALICE, "meetings")) == []
    assert said(await kept.search(ALICE, "tea", ["ann' | 'meetings"])) == []


async def test_a_search_may_be_bounded_in_time(kept: StoredMemories) -> None:
    first = await kept.keep(ALICE, "the first note", (), MANY)
    second = await kept.keep(ALICE, "the second note", (), MANY)
    assert first
    assert second
    middle = (first.created + second.created) / 2
    for query in ("", "note"):
        assert said(await kept.search(ALICE, query, until=middle)) == ["the first note"]
        assert said(await kept.search(ALICE, query, since=middle)) == ["the second note"]
        assert said(await kept.search(ALICE, query, since=middle, until=middle)) == []


NASTY = [
    "'",
    '"',
    "''; DROP TABLE passages; --",
    '" OR words:*',
    "NEAR(a b, 2)",
    "a AND",
    "NOT a",
    "(",
    "a*",
    "words : a",
    "-",
    "^a",
    ":*",
    "a & ! b",
    "a <-> b",
    "\\",
    "%",
    "_",
    "$1",
    ":memory",
    "\0",
    "\ud800",
    "🎉",
    "x" * 100_000,
    "a b " * 50_000,
]


async def test_no_query_is_a_wrong_one(kept: StoredMemories) -> None:
    await keep(kept, "this is of that kind", tags=("tag",))
    for query in NASTY:
        assert said(await kept.search(ALICE, query)) == [], query
        assert said(await kept.search(ALICE, "", [query])) == [], query
        assert said(await kept.search(ALICE, query, ["tag"])) in ([], ["this is of that kind"]), query
    assert said(await kept.search(ALICE, "kind")) == ["this is of that kind"]


async def test_no_query_of_odd_characters_fails(kept: StoredMemories) -> None:
    await keep(kept, "something")
    dice = random.Random(5)
    odd = "\"'\\*:&|!()<->-^+~{}[]%_$?;,.#@`\0\n\t\ud800\u200f aAsS日ँ́½ⅷ𞤀"
    for _ in range(200):
        query = "".join(dice.choices(odd, k=dice.randrange(1, 12)))
        await kept.search(ALICE, query, [query], every_tag=dice.random() < 0.5)


async def test_any_passage_can_be_kept_and_found(kept: StoredMemories) -> None:
    odd = "a\0b \ud83d 🎉 '" + "word " * 20_000 + "needle " + "x" * 5000 + " " + "語" * 1000
    made = await kept.keep(ALICE, odd, ("\0", "\ud800"), MANY)
    assert made
    assert made.text == odd.replace("\0", "").replace("\ud83d", "\ufffd")
    assert await kept.search(ALICE, "needle") == [made]
    block = await kept.edit(ALICE, "human", put("\ud800 \0 𝄞"))
    assert await kept.blocks(ALICE) == {"human": block}
    assert block.text == "\ufffd  𝄞"


async def test_there_are_never_more_passages_than_allowed(kept: StoredMemories, other: StoredMemories) -> None:
    made = await asyncio.gather(*(by.keep(ALICE, "note", (), 5) for by in [kept, other] * 10))
    assert sum(passage is not None for passage in made) == 5
    assert await kept.count(ALICE) == 5
    assert await kept.keep(Whose("acme", "bob", "milo"), "note", (), 5)


# --- erasing -------------------------------------------------------------------------------------------------------


async def rows(database: Database) -> list[int]:
    def count(tx: Transaction) -> list[int]:
        words = table("passage_words")
        return [
            tx.scalars(select(func.count()).select_from(each)).one() for each in (memories, blocks, passages, words)
        ]

    return await database.read(count)


async def test_of_what_is_deleted_nothing_is_left(kept: StoredMemories, database: Database) -> None:
    await kept.edit(ALICE, "human", put("a secret"))
    await keep(kept, "a secret", tags=("secrets",))
    assert await kept.delete("acme", "alice") == 1
    assert await kept.delete("acme", "alice") == 0
    assert await rows(database) == [0, 0, 0, 0]
    assert await kept.blocks(ALICE) == {}
    await keep(kept, "something else")
    assert await kept.search(ALICE, "secret") == []


async def test_a_user_an_agent_and_a_whole_tenant_can_be_forgotten(kept: StoredMemories) -> None:
    everybody = [
        Whose(tenant, user, agent) for tenant in ("acme", "umbrella") for user in ("", "a", "b") for agent in "xy"
    ]
    for whose in everybody:
        await keep(kept, "note", whose=whose)
    assert await kept.known() == everybody
    assert await kept.known("acme") == everybody[:6]
    assert await kept.known("acme", "a") == everybody[2:4]
    assert await kept.known("acme", "", "x") == everybody[:1]
    assert await kept.delete("acme", "a", "x") == 1
    assert await kept.delete("acme", "b") == 2
    assert await kept.known("acme") == [everybody[0], everybody[1], everybody[3]]
    assert await kept.delete("acme", agent="y") == 2
    assert await kept.delete("acme") == 1
    assert await kept.known("acme") == []
    assert await kept.known("umbrella") == everybody[6:]


async def test_many_memories_are_deleted_in_several_steps(kept: StoredMemories, database: Database) -> None:
    def fill(tx: Transaction) -> None:
        for number in range(2 * ERASED_AT_A_TIME + 1):
            tx.execute(memories.insert(), {"tenant": "acme", "user": f"u{number}", "agent": "milo"})

    await database.do(fill)
    assert await kept.delete("acme") == 2 * ERASED_AT_A_TIME + 1
    assert await rows(database) == [0, 0, 0, 0]


async def test_who_writes_while_it_is_deleted_writes_into_a_new_memory(
    kept: StoredMemories, other: StoredMemories, database: Database
) -> None:
    for _ in range(10):
        await asyncio.gather(
            kept.keep(ALICE, "note", (), MANY),
            other.delete("acme", "alice"),
            kept.edit(ALICE, "human", put("this")),
            other.delete("acme", "alice"),
            other.keep(ALICE, "note", (), MANY),
        )
        stray = await database.read(lambda tx: tx.scalars(text(STRAY)).one())
        assert stray == 0


STRAY = """
SELECT (SELECT count(*) FROM passages WHERE memory NOT IN (SELECT id FROM memories))
     + (SELECT count(*) FROM blocks WHERE memory NOT IN (SELECT id FROM memories))
"""
