"""What the agents of this desk can ask of one another: the desk as they see it, for the caller they serve.

A question is a turn like any other, of the same caller: its scopes, limits to agents and budgets hold, and it is in the
ledger. Only the caller's own turn counts among those which a key may have at the same time, and only its request among
those of a period: callers can see, and keep to, no other. How many questions it may cause is for the agent's author.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from frontdesk.conversations.ids import Ids
from frontdesk.directory import Directory
from frontdesk.errors import AgentFailed
from frontdesk.gateway import Gateway
from frontdesk.policies.search import Search
from frontdesk.protocols.replies import new_id
from frontdesk.stream import collect
from frontdesk.turn import Agent, Message, Principal, Signals, StopReason, Text, Turn

CUT_SHORT = "[The answer was cut short here.]"


class Asking:
    """`backend` is the name of the one whose agents ask."""

    def __init__(self, gateway: Gateway, directory: Directory, ids: Ids, backend: str) -> None:
        self._gateway = gateway
        self._directory = directory
        self._ids = ids
        self._backend = backend
        self._index = Search()

    async def ask(
        self, asker: str, agent: str, message: str, principal: Principal, conversation: str, trace: Sequence[str]
    ) -> str:
        mode = principal.mode if conversation else "stateless"
        name = hashlib.sha256(f"{asker}\0{agent}\0{conversation}".encode()).hexdigest()[:32]
        turn = Turn(
            id=f"turn_{new_id()}",
            agent=agent,
            input=(Message("user", (Text(message),)),),
            conversation=f"asked-{name}" if conversation else "",
            signals=Signals(trace=(*trace, self.mark(asker))),
            principal=replace(principal, mode=mode, at=None),
        )
        return await asyncio.create_task(self._answer(turn))  # in a context of its own, for it has one

    async def _answer(self, turn: Turn) -> str:
        async with aclosing(self._gateway.run(turn).batches()) as batches:
            reply = await collect(batches)
        said = [part.text for part in reply.parts if isinstance(part, Message) and part.text]
        if reply.end.stop_reason is StopReason.LENGTH:
            said.append(CUT_SHORT)
        if not said:
            raise AgentFailed("The agent has answered nothing.")
        return "\n\n".join(said)

    def mark(self, agent: str) -> str:
        return self._ids.mark(self._backend, agent)

    async def search(self, intent: str, principal: Principal, others: Sequence[Agent] = ()) -> Sequence[Agent]:
        own = {(agent.backend, agent.id): agent for _, agent in self._directory.advertised(principal)}
        return await asyncio.to_thread(self._index.ranked, intent, [*own.values(), *others])
