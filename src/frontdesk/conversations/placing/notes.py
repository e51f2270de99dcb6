"""What was put into a conversation without a turn, and what was taken back of it."""

from dataclasses import replace
from typing import Literal

from frontdesk.conversations.lineage import agrees, sayings, side
from frontdesk.conversations.placing.spots import Ask, Spot
from frontdesk.store import codec, records
from frontdesk.store.records import Node
from frontdesk.store.transaction import Transaction
from frontdesk.turn import Item


def with_notes(tx: Transaction, ask: Ask, found: Spot, struck: str) -> Spot:
    """With what was put there since the last turn. Whoever tells the whole transcript may tell that, too."""
    notes = [item for note in records.notes_to(tx, found.parent) for item in kept_input(note, struck)]
    if not notes:
        return found
    repeats = 0
    if history := ask.turn.history:
        shown = [item for item in notes if side(item) != "system"]
        told = (history[found.known :] + ask.turn.input)[: len(shown)]
        repeats = len(shown) if agrees(sayings(told), sayings(shown)) else 0
    return replace(found, owed=tuple(notes), notes=tuple(notes), repeats=repeats)


def kept_input(node: Node, struck: str) -> list[Item]:
    """What a turn was told, but for what was taken back."""
    places = struck_places(struck)
    return [item for index, item in enumerate(codec.items_of(node.input)) if place(node, "i", index) not in places]


def place(node: Node, side: Literal["i", "o"], index: int) -> str:
    """Of an item in a turn: what it was told (i), what it answered (o)."""
    return f"{node.id}{side}{index}"


def struck_places(struck: str) -> frozenset[str]:
    return frozenset(codec.loaded(struck)) if struck else frozenset()
