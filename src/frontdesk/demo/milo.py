"""Milo, the demo's agent: made once in the local Letta server, found again ever after."""

from dataclasses import dataclass
from typing import Any, Self

import httpx

from frontdesk.demo.models import choose

NAME = "Milo"
TAG = "frontdesk-demo"
PERSONA = """\
I am Milo. I sit at the front desk: friendly, quick, and brief.
When people tell me something about themselves, I write it into my memory block `human` at once, and then answer.
When I am given a tool that can answer a question, I use it and do not guess."""
NOTHING_YET = "What I know about the person I talk to:"


@dataclass(frozen=True)
class Milo:
    """The agent as it is now. `memory` is its block on the person it talks to."""

    letta: httpx.Client
    id: str
    model: str
    memory: str
    is_new: bool

    @property
    def remembers(self) -> bool:
        return self.memory.strip() not in ("", NOTHING_YET)

    def refreshed(self) -> "Milo":
        return Milo(self.letta, self.id, self.model, memory(self.letta, self.id), self.is_new)

    @classmethod
    def at(cls, letta: httpx.Client, wanted: str = "") -> Self:
        """Find Milo, or make it, with a model that there is. Raises UnknownModel, and httpx.HTTPError."""
        handles = [str(model["handle"]) for model in get(letta, "/v1/models/")]
        found = get(letta, "/v1/agents/", name=NAME, tags=TAG)
        if found:
            agent = found[0]
            model = choose(handles, wanted, now=str(agent.get("model") or ""))
            if model != agent.get("model"):
                change_model(letta, agent["id"], model)
        else:
            model = choose(handles, wanted)
            agent = make(letta, model)
        return cls(letta, agent["id"], model, memory(letta, agent["id"]), is_new=not found)


def make(letta: httpx.Client, model: str) -> dict[str, Any]:
    blocks = [{"label": "persona", "value": PERSONA}, {"label": "human", "value": NOTHING_YET}]
    agent = {
        "name": NAME,
        "description": "The agent of `frontdesk demo`.",
        "tags": [TAG],
        "model": model,
        "memory_blocks": blocks,
    }
    return letta.post("/v1/agents/", json=agent).raise_for_status().json()


def change_model(letta: httpx.Client, agent_id: str, model: str) -> None:
    """Give Milo another model, also in the conversations it has had: those keep a note of theirs."""
    agent = letta.patch(f"/v1/agents/{agent_id}", json={"model": model}).raise_for_status().json()
    change = {"model": model, "model_settings": agent["model_settings"]}
    for conversation in get(letta, "/v1/conversations/", agent_id=agent_id, limit=1000):
        if conversation.get("model") not in (None, model):
            letta.patch(f"/v1/conversations/{conversation['id']}", json=change).raise_for_status()


def memory(letta: httpx.Client, agent_id: str) -> str:
    return str(get(letta, f"/v1/agents/{agent_id}/core-memory/blocks/human")["value"])


def get(letta: httpx.Client, path: str, **query: str | int) -> Any:
    return letta.get(path, params=query).raise_for_status().json()
