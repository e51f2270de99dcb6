"""The agents of a Letta server: which of them are served, and what each can do."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from frontdesk.backends.letta import settings
from frontdesk.backends.letta.client import LettaClient
from frontdesk.backends.letta.server import LettaSettings, as_letta_speaks
from frontdesk.backends.letta.twins import MODERN, Wanted, twin_in
from frontdesk.errors import InvalidRequest, NotFound
from frontdesk.turn import Agent, Thread

Row = Mapping[str, Any]

PAGE = 200

RESERVED_TOOLS = frozenset(
    {
        "archival_memory_insert",
        "archival_memory_search",
        "conversation_search",
        "core_memory_append",
        "core_memory_replace",
        "memory",
        "memory_apply_patch",
        "memory_finish_edits",
        "memory_insert",
        "memory_replace",
        "memory_rethink",
        "send_message",
    }
)


class Roster:
    def __init__(self, settings: LettaSettings, client: LettaClient) -> None:
        self._settings = settings
        self._client = client
        self.has_conversations = True
        """Not on a server from before conversations: there each agent has one thread."""

    async def all(self) -> Sequence[Agent]:
        found: dict[str, Agent] = {}
        after: str | None = None
        while True:
            page = await self._client.get("/v1/agents/", self._query(limit=PAGE, after=after))
            fresh = [row for row in page if row["id"] not in found]
            found.update({agent.id: agent for agent in self._chosen(fresh)})
            if not fresh or len(page) < PAGE:
                return list(found.values())
            after = page[-1]["id"]

    async def find(self, name: str) -> Sequence[Agent]:
        with as_letta_speaks():
            if re.fullmatch(r"agent-[0-9a-f-]{36}", name):
                with suppress(NotFound, InvalidRequest):
                    return self._chosen([await self._client.get(f"/v1/agents/{name}", self._query())])
            return self._chosen(await self._client.get("/v1/agents/", self._query(name=name)))

    def _query(self, **more: Any) -> list[tuple[str, str]]:
        query = [(key, str(value)) for key, value in more.items() if value is not None]
        if self._settings.tags:  # Letta leaves the tags out of its answers unless asked, and that is slow
            query += [("tags", tag) for tag in self._settings.tags] + [("include", "agent.tags")]
        return query + ([("show_hidden_agents", "true")] if self._settings.include_hidden else [])

    def _chosen(self, rows: Sequence[Mapping[str, Any]]) -> list[Agent]:
        return [self.described(row) for row in rows if self._served(row)]

    def _served(self, row: Mapping[str, Any]) -> bool:
        settings = self._settings
        if row.get("agent_type") == "sleeptime_agent" and not settings.include_sleeptime:
            return False
        if twin_in(row) or (row.get("hidden") and not settings.include_hidden):
            return False
        if settings.tags and not set(settings.tags) & set(row.get("tags") or ()):
            return False
        return not settings.names or any(fnmatchcase(row["name"], pattern) for pattern in settings.names)

    def described(self, row: Mapping[str, Any]) -> Agent:
        modern = row.get("agent_type") in MODERN
        replicas = self._replicas(row) if self.has_conversations else 0
        bridged = not (modern or replicas) and self.has_conversations and self._settings.bridge == "twin"
        config: Mapping[str, Any] = row.get("llm_config") or {}
        model = row.get("model") or config.get("handle") or config.get("model") or ""
        return Agent(
            id=row["id"],
            name=row["name"],
            backend=self._settings.name,
            created=seconds(row.get("created_at")),
            description=row.get("description") or "",
            tags=tuple(row.get("tags") or ()),
            model=model,
            context_window=config.get("context_window"),
            client_tools=modern or bridged or replicas > 0,
            conversations=(modern or replicas > 0) and self.has_conversations,
            bridged=bridged,
            tools_alone=modern,
            honours=settings.honoured(model, row.get("model_settings")),
            honours_alone=settings.ALWAYS,
            scope=self._scope(row),
            reserved_tools=RESERVED_TOOLS,
            approvals=self._settings.approvals,
            allowed_tools=self._settings.allowed_tools,
            settings={
                "model_settings": row.get("model_settings"),
                "agent_type": row.get("agent_type"),
                "replicas": replicas,
            },
        )

    def _scope(self, row: Mapping[str, Any]) -> str:
        """What a caller needs to use it."""
        of = self._settings.scopes
        return of.get(row["id"]) or of.get(row["name"]) or of.get("*", "user")

    def _replicas(self, row: Row) -> int:
        """How many twins share an agent's conversations; 0 if they are the agent's own."""
        of = self._settings.replicas
        others = 0 if row.get("agent_type") in MODERN else of.get("*", 0)
        return of.get(row["name"], of.get(row["id"], others))

    def wanted(self, row: Row) -> Wanted:
        """How many twins an agent is to have."""
        replicas, modern = self._replicas(row), row.get("agent_type") in MODERN
        bridges = not modern and self._settings.bridge == "twin"
        return Wanted(max(replicas, int(bridges)), lost=not (modern or bridges or replicas))

    def separates(self, agent: Agent) -> bool:
        """Whether the agent itself has conversations, and not only its twins."""
        return agent.conversations and self.has_conversations and is_modern(agent)


def seconds(moment: str | None) -> int:
    """Letta's time of day → seconds since 1970."""
    return int(datetime.fromisoformat(moment).timestamp()) if moment else 0


def on_twin(agent: Agent, thread: Thread) -> bool:
    """Whether a conversation is one of the agent's modern twins, by how the agent is set up now."""
    return (agent.bridged or replicas_of(agent) > 0) and not thread.own


def replicas_of(agent: Agent) -> int:
    """How many twins share the agent's conversations."""
    return agent.settings.get("replicas", 0)


def is_modern(agent: Agent) -> bool:
    return agent.settings.get("agent_type") in MODERN
