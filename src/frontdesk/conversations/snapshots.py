"""Branching a conversation where it once stood, at a backend that can only branch where it stands now.

What a seed cannot hold, the use of tools, is kept exactly by a fork. So a conversation that has come to hold such
things is forked after each of its turns, in the background, and the last few of these snapshots are kept:
see docs/why/0007.
"""

import structlog

from frontdesk.conversations.ledger import Entry, Ledger
from frontdesk.errors import GatewayError
from frontdesk.ports import Backend
from frontdesk.store.codec import Saved
from frontdesk.turn import Agent, StopReason, Thread

log = structlog.get_logger(__name__)

KEPT = 3


class Snapshots:
    def __init__(self, ledger: Ledger, kept: int = KEPT) -> None:
        self._ledger = ledger
        self._kept = kept

    async def branch(self, backend: Backend, agent: Agent, entry: Entry) -> tuple[Thread, str] | None:
        """The thread of a new conversation as a fork, and the fingerprint of the instructions it holds; None where it
        cannot be had."""
        fork = entry.spot.fork
        if fork is None or entry.spot.parent is None:
            return None
        try:
            thread = await backend.fork(agent, Thread(fork.thread), at=fork.at)
        except GatewayError as error:
            log.warning("a conversation could not be forked", turn=entry.turn_id, error=error.message)
            return None
        if thread is None:
            return None
        source = await self._ledger.resting(fork.conversation, fork.head) if fork.head else None
        if fork.head and source is None:  # another turn began there meanwhile: who knows what the fork holds
            await backend.delete(agent, thread)
            return None
        system = source.system if source else ""
        await self._ledger.opened(entry, thread.id, entry.spot.parent.id, system)
        return thread, system

    def wanted(self, agent: Agent, entry: Entry, thread: Thread, reply: Saved) -> bool:
        """Whether a branch made here later could not be seeded. Nobody comes back to a call that waits for its answer:
        such a conversation is copied when the turn has come to its end."""
        ended = reply.end is not None and reply.end.stop_reason is StopReason.STOP
        copied = entry.conversation.kind == "chat" and not (thread.own or agent.recalls)
        return ended and copied and not entry.plain_with(reply.parts)

    async def take(self, backend: Backend, agent: Agent, entry: Entry, thread: Thread) -> None:
        """Keep the conversation as it stands after this turn, for whoever comes back to this point."""
        copy = await backend.fork(agent, thread)
        if copy is None:
            return
        old = await self._ledger.add_snapshot(entry, copy.id, self._kept)
        if old is None:  # the conversation has gone on
            await backend.delete(agent, copy)
            return
        for conversation in old:
            await backend.delete(agent, Thread(conversation.thread))
            await self._ledger.bury(conversation.id)
