"""The skill by which an agent remembers whom it talks to, beyond a conversation.

As Letta's agents do it: some blocks of text are always before its eyes, and it edits them with tools; passages of an
archive it keeps, and finds again by searching. The tools have Letta's names and parameters.
"""

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import Any, Literal

from pydantic_ai.exceptions import ToolFailed

from frontdesk import ports
from frontdesk.agents.context import Context, context
from frontdesk.agents.errors import AgentError
from frontdesk.agents.prompts import Prompt
from frontdesk.agents.services import Services
from frontdesk.agents.skill import Skill
from frontdesk.agents.tools import Tool
from frontdesk.ports import Passage, Whose
from frontdesk.turn import Principal

LIMIT = 5000
MOST_LIMIT = 100_000
PASSAGE_CHARACTERS = 4000
PASSAGES = 10_000
TAGS = 10
TAG_CHARACTERS = 50
FOUND = 10
MOST_FOUND = 25
MOST_PAGES = 10_000

LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,49}")

FRAME = re.compile(r"<\s*/?\s*(value|memory_blocks)\b", re.IGNORECASE)
"""What stands around a block where the model reads it: no block may end itself."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block as it is before the agent has edited it. `description` tells the model what belongs there.

    limit: how many characters there is room for; the skill's, if left out.
    read_only: the agent sees it and cannot edit it. Then `text` is what it sees, always.
    """

    text: str = ""
    description: str = ""
    limit: int | None = None
    read_only: bool = False


DESCRIPTIONS = {
    "human": "What you know of the person you are talking to: who they are, what they like, what they asked you to "
    "keep in mind.",
    "persona": "How you are and how you behave towards this person, as it has come to be between you.",
}


class Memory(Skill):
    """What one agent remembers of each user: `Memory()`, or with blocks of your own.

    blocks: by their labels, each its first text, or a `Block`. If left out, `human` and `persona`.
    limit: characters of a block.
    archive: how many passages of up to 4,000 characters it can keep beside the blocks; 0 for none.
    shared: one memory for all callers, who can then learn from it what others have said.
    scope: what the caller must hold for the agent to remember anything.

    Raises AgentError.
    """

    name = "memory"

    def __init__(
        self,
        blocks: "Mapping[str, str | Block | Mapping[str, Any]] | None" = None,
        *,
        limit: int = LIMIT,
        archive: int = PASSAGES,
        shared: bool = False,
        scope: str = "user",
    ) -> None:
        given = dict.fromkeys(DESCRIPTIONS, "") if blocks is None else blocks
        self.blocks = {label: _block(label, block, limit) for label, block in given.items()}
        self.archive = archive
        self.shared = shared
        self.scope = scope
        self._memories: ports.Memories | None = None
        self.seeing = Prompt.of(self.see, scope=scope)
        if any(not block.read_only for block in self.blocks.values()):
            self.inserting = Tool.of(self.memory_insert, scope=scope)
            self.replacing = Tool.of(self.memory_replace, scope=scope)
            self.rethinking = Tool.of(self.memory_rethink, scope=scope)
        if archive:
            self.archiving = Tool.of(self.archival_memory_insert, scope=scope)
            self.searching = Tool.of(self.archival_memory_search, scope=scope)

    @asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncGenerator[None]:
        self._memories = services.memories
        yield

    # --- what the model sees ---------------------------------------------------------------------------------------

    async def see(self, context: Context) -> str:
        """The blocks, as they are at the beginning of a turn. Empty for a caller whom nobody knows."""
        whose = self._whose(context)
        if whose is None:
            return ""
        kept = await self._kept.blocks(whose)
        there = {label: self._standing(label, kept.get(label)) for label in self.blocks}
        _seen(context, whose).update({label: block.version for label, block in there.items()})
        passages = await self._kept.count(whose) if self.archive else None
        return rendered(self.blocks, there, passages, shared=self.shared)

    # --- what it can do --------------------------------------------------------------------------------------------

    async def memory_insert(self, label: str, new_string: str, insert_line: int = -1) -> str:
        """Insert text into a memory block, as lines of its own.

        Args:
            label: The block, by its label.
            new_string: The text to insert.
            insert_line: The number of the line after which it goes: 0 for the beginning, -1 for the end.
        """
        return await self._edit(label, lambda block: inserted(block.text, new_string, insert_line))

    async def memory_replace(self, label: str, old_string: str, new_string: str) -> str:
        """Replace a piece of text in a memory block by another one. For small, exact edits.

        Args:
            label: The block, by its label.
            old_string: The text to replace, exactly as it stands there, and so much of it that it stands there once.
            new_string: The text to put in its place. Leave it empty to remove the old one.
        """
        return await self._edit(label, lambda block: replaced(block.text, old_string, new_string))

    async def memory_rethink(self, label: str, new_memory: str) -> str:
        """Write a memory block anew. For large changes, such as condensing what has become too long.

        Args:
            label: The block, by its label.
            new_memory: All that the block is to hold from now on.
        """
        whose = self._whose_or_refuse()
        seen = _seen(context(), whose).get(label)

        def rethought(block: ports.Block) -> str:
            if seen is not None and block.version != seen:
                raise Stale(block)
            return new_memory

        try:
            return await self._edit(label, rethought)
        except Stale as stale:
            _seen(context(), whose)[label] = stale.block.version
            raise ToolFailed(
                f"Another conversation has changed the block {label!r} meanwhile. It reads now:\n{stale.block.text}\n\n"
                "Call memory_rethink again with what is to become of that."
            ) from None

    async def archival_memory_insert(self, content: str, tags: list[str] | None = None) -> str:
        """Keep something in the archive, to be found again by archival_memory_search in any later conversation.

        Args:
            content: What to keep: a fact or a summary that can be understood by itself.
            tags: Words to file it under, such as "meetings".
        """
        whose = self._whose_or_refuse()
        if not content.strip():
            raise ToolFailed("There is nothing to keep: `content` is empty.")
        if len(content) > PASSAGE_CHARACTERS:
            raise ToolFailed(
                f"This has {len(content)} characters, and a passage has room for {PASSAGE_CHARACTERS}. "
                "Keep it in several parts, or a summary."
            )
        if await self._kept.keep(whose, content, _tags(tags), self.archive) is None:
            raise ToolFailed(f"The archive is full: it holds {self.archive} passages.")
        return "It is kept."

    async def archival_memory_search(
        self,
        query: str,
        tags: list[str] | None = None,
        tag_match_mode: Literal["any", "all"] = "any",
        top_k: int = FOUND,
        page: int = 0,
        start_datetime: str = "",
        end_datetime: str = "",
    ) -> dict[str, Any]:
        """Search the archive by words. The best matches come first.

        Args:
            query: Words that the passages have. Empty for the latest ones.
            tags: Only passages with these tags.
            tag_match_mode: Whether one of the tags is enough, or a passage must have all of them.
            top_k: How many at most, up to 25.
            page: 0 for the first of them, 1 for those after these, and so on.
            start_datetime: Only what was kept since then, such as 2024-01-15 or 2024-01-15T14:30, in UTC.
            end_datetime: Only what was kept before then.
        """
        whose = self._whose_or_refuse()
        limit, page = min(max(top_k, 1), MOST_FOUND), min(max(page, 0), MOST_PAGES)
        found = await self._kept.search(
            whose,
            query,
            _tags(tags),
            every_tag=tag_match_mode == "all",
            since=_moment("start_datetime", start_datetime, 0.0),
            until=_moment("end_datetime", end_datetime, inf),
            limit=limit + 1,
            skip=page * limit,
        )
        return {"passages": [_shown(each) for each in found[:limit]], "more": len(found) > limit}

    # --- whose memory it is ----------------------------------------------------------------------------------------

    @property
    def _kept(self) -> ports.Memories:
        if self._memories is None:
            raise AgentError("The skill Memory has no store: it works while its agent is served by Frontdesk.")
        return self._memories

    def _whose(self, context: Context) -> Whose | None:
        return everybodys(context.agent) if self.shared else whose(context.principal, context.agent)

    def _whose_or_refuse(self) -> Whose:
        found = self._whose(context())
        if found is None:
            raise ToolFailed("Nobody knows who this caller is, so nothing can be remembered beyond this conversation.")
        return found

    def _standing(self, label: str, kept: ports.Block | None) -> ports.Block:
        """A block as it is for the agent: what it has made of it, or its first text."""
        given = self.blocks[label]
        return ports.Block(label, given.text) if kept is None or given.read_only else kept

    async def _edit(self, label: str, change: Callable[[ports.Block], str]) -> str:
        """Gives what the block reads then. Raises ToolFailed where it cannot be edited so."""
        whose = self._whose_or_refuse()
        given = self.blocks.get(label)
        if given is None or given.read_only:
            editable = [label for label, block in self.blocks.items() if not block.read_only]
            raise ToolFailed(f"The block {label[:80]!r} cannot be edited. There are: {', '.join(editable)}.")

        def checked(block: ports.Block) -> str:
            before = self._standing(label, block if block.version else None)
            after = change(before)
            _check_room(label, before.text, after, given.limit or LIMIT)
            return after

        block = await self._kept.edit(whose, label, checked)
        _seen(context(), whose)[label] = block.version
        return f"The block {label!r} reads now:\n{block.text}"


class Stale(Exception):
    """The block is not as the model has seen it."""

    def __init__(self, block: ports.Block) -> None:
        super().__init__()
        self.block = block


def whose(principal: Principal, agent: str) -> Whose | None:
    """The memory of one caller with an agent; None of a caller whom nobody knows.

    A key's name has no `/`: what comes after it is the user for whom the key vouches.
    """
    if principal.stranger:
        return None
    tenant, _, user = principal.id.partition("/")
    return Whose(tenant, user, agent)


def everybodys(agent: str) -> Whose:
    return Whose("", "", agent)


def _seen(context: Context, whose: Whose) -> dict[str, int]:
    """The versions of the blocks as the model knows them in this turn."""
    return context.scratch.setdefault(f"frontdesk.memory/{whose.agent}", {})


# --- blocks --------------------------------------------------------------------------------------------------------


def _block(label: str, given: str | Block | Mapping[str, Any], limit: int) -> Block:
    """Raises AgentError for one that cannot be."""
    if not LABEL.fullmatch(label):
        raise AgentError(
            f"A memory block cannot be called {label!r:.80}: use 1 to 50 letters, digits, _ and -, a letter first."
        )
    try:
        block = Block(given) if isinstance(given, str) else given if isinstance(given, Block) else Block(**given)
    except TypeError:
        raise AgentError(
            f"The memory block {label!r} must be a text, or a Block with text, description, limit and read_only."
        ) from None
    block = replace(block, limit=limit if block.limit is None else block.limit)
    block = replace(block, description=block.description or DESCRIPTIONS.get(label, ""))
    if not 0 < (block.limit or 0) <= MOST_LIMIT:
        raise AgentError(f"The limit of the memory block {label!r} must be between 1 and {MOST_LIMIT} characters.")
    if FRAME.search(f"<{label}>{block.text}"):
        raise AgentError(f"The memory block {label!r} cannot hold, or be called, <value> or <memory_blocks>.")
    if len(block.text) > (block.limit or 0):
        raise AgentError(f"The text of the memory block {label!r} is longer than its limit of {block.limit}.")
    return block


def inserted(text: str, new: str, line: int) -> str:
    """Raises ToolFailed if there is no such line."""
    lines = text.split("\n") if text else []
    if not -1 <= line <= len(lines):
        raise ToolFailed(f"There is no line {line}: the block has {len(lines)}. Use -1 for its end.")
    at = len(lines) if line == -1 else line
    return "\n".join([*lines[:at], *new.split("\n"), *lines[at:]])


def replaced(text: str, old: str, new: str) -> str:
    """Raises ToolFailed unless the old text stands there, and once."""
    if not old:
        raise ToolFailed("`old_string` is empty. Use memory_insert to add something.")
    match text.count(old):
        case 1:
            return text.replace(old, new)
        case 0:
            raise ToolFailed(f"Nothing was replaced: `old_string` does not stand in the block, which reads:\n{text}")
        case times:
            raise ToolFailed(f"Nothing was replaced: `old_string` stands there {times} times. Give more of the text.")


def _check_room(label: str, before: str, after: str, limit: int) -> None:
    """What has been too long already, since the limit was lowered, may be shortened step by step."""
    if len(after) > max(limit, len(before) - 1):
        raise ToolFailed(
            f"This would make {len(after)} characters, and the block {label!r} has room for {limit}. Shorten it first."
        )
    if FRAME.search(after):
        raise ToolFailed("A memory block cannot hold the tags <value> and <memory_blocks>. Write it without them.")


def rendered(
    blocks: Mapping[str, Block], there: Mapping[str, ports.Block], passages: int | None, *, shared: bool
) -> str:
    """A memory as the model reads it."""
    about = "whom you talk to, from this and from earlier conversations"
    parts = [
        "<memory_blocks>",
        f"These blocks are your memory of {'all your conversations, with everybody' if shared else about}. "
        "They were noted by you. Keep them up to date with your memory tools; nothing else is remembered.",
    ]
    for label, block in blocks.items():
        text = there[label].text
        facts = [f"chars_current={len(text)}", f"chars_limit={block.limit}", *(["read_only=true"] * block.read_only)]
        parts.append(
            f"<{label}>\n<description>{block.description}</description>\n<metadata>{', '.join(facts)}</metadata>\n"
            f"<value>\n{text}\n</value>\n</{label}>"
        )
    if passages is not None:
        parts.append(f"Your archive holds {passages} more passages, which archival_memory_search finds.")
    return "\n\n".join([*parts, "</memory_blocks>"])


# --- passages ------------------------------------------------------------------------------------------------------


def _tags(given: Sequence[str] | None) -> list[str]:
    tags = [tag.strip() for tag in given or () if tag.strip()]
    if len(tags) > TAGS or any(len(tag) > TAG_CHARACTERS for tag in tags):
        raise ToolFailed(f"There may be {TAGS} tags at most, of up to {TAG_CHARACTERS} characters.")
    return tags


def _moment(name: str, text: str, otherwise: float) -> float:
    """In seconds since 1970."""
    if not text.strip():
        return otherwise
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ToolFailed(f"`{name}` must be a moment such as 2024-01-15 or 2024-01-15T14:30.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _shown(passage: Passage) -> dict[str, Any]:
    created = datetime.fromtimestamp(passage.created, UTC).isoformat(timespec="seconds")
    return {"created": created, "tags": list(passage.tags), "content": passage.text}
