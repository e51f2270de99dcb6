"""The model of each conversation and its settings, written when a turn wants others."""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from frontdesk.backends.letta import settings
from frontdesk.backends.letta.client import LettaClient
from frontdesk.backends.letta.server import conversation
from frontdesk.errors import InvalidRequest
from frontdesk.turn import Agent, Options, Thread, Turn

Row = Mapping[str, Any]

REMEMBERED = 10_000  # conversations whose settings are known
MODELS_SECONDS = 60.0


class ModelSettings:
    """`alone`: no other process gives turns to the same conversations."""

    def __init__(self, client: LettaClient, alone: bool) -> None:
        self._client = client
        self._alone = alone
        self._set_to: OrderedDict[str, dict[str, Any]] = OrderedDict()  # conversation → its model and settings
        self._models: tuple[float, Mapping[str, Row]] = (0.0, {})  # until when they are known, and by handle

    async def set(self, turn: Turn, agent: Agent, thread: Thread) -> None:
        """Give the conversation the settings of this turn, unless it has them. Turns of one conversation follow one
        another, so that they are this turn's own; the next turn sets them again."""
        if thread.own or not (wanted := await self.body(agent, turn.options)):
            return
        known = self._set_to.pop(thread.id, None)
        if known is None:
            row: Row = await self._client.get(conversation(thread))
            known = None if settings.differs(row, wanted) else wanted
        if known != wanted:
            await self._client.patch(conversation(thread), wanted)
        if self._alone:
            self.noted(thread, wanted)

    def noted(self, thread: Thread, body: dict[str, Any]) -> None:
        """What was written last. Where others write too, that is good only for the turn that made the thread."""
        self._set_to[thread.id] = body
        if len(self._set_to) > REMEMBERED:
            self._set_to.popitem(last=False)

    async def body(self, agent: Agent, options: Options) -> dict[str, Any]:
        return settings.body(agent, options, await self._model(options.model) if options.model else None)

    async def _model(self, handle: str) -> Row:
        """A model as Letta describes it. Raises InvalidRequest for one it does not have."""
        until, models = self._models
        if handle not in models or time.monotonic() > until:
            rows: Sequence[Row] = await self._client.get("/v1/models/")
            models = {row["handle"]: row for row in rows}
            self._models = (time.monotonic() + MODELS_SECONDS, models)
        if handle not in models:
            raise InvalidRequest(
                f"The Letta server has no model {handle[:200]!r}.", param="model", code="model_not_found"
            )
        return models[handle]
