"""What the clients talk to: a gateway on a real socket, a real Letta behind it, and a scripted model behind that."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from letta_client import Letta

from frontdesk.demo.local_letta import LettaOptions, LocalLetta
from frontdesk.testing import ScriptedModel
from tests.acceptance.talking import conversations_of
from tests.served import Served, served

KEY = "a key for the clients"


@dataclass(frozen=True)
class Stage:
    gateway: Served
    letta: Letta
    model: ScriptedModel

    def agent(self, name: str) -> str:
        """A new agent. Gives its id."""
        blocks: list[Any] = [{"label": "human", "value": "Nobody yet."}, {"label": "persona", "value": "I am tested."}]
        model = "openai-proxy/scripted"
        return self.letta.agents.create(
            name=name, model=model, embedding="letta/letta-free", context_window_limit=128_000, memory_blocks=blocks
        ).id

    def apis(self) -> list[str]:
        """Which of OpenAI's two protocols there are."""
        paths = {"chat": "/chat/completions", "responses": "/responses"}
        headers = {"authorization": f"Bearer {KEY}"}
        status = {
            api: httpx.post(f"{self.gateway.base_url}{path}", json={}, headers=headers).status_code
            for api, path in paths.items()
        }
        return [api for api in paths if status[api] != 404]

    def conversations_with(self, marker: str, agent_id: str) -> list[str]:
        """The agent's conversations, on Letta's side, in which somebody said this."""
        return [each for each in conversations_of(self.letta, agent_id) if marker in self._messages(each)]

    def _messages(self, conversation: str) -> str:
        return str(self.letta.get(f"/v1/conversations/{conversation}/messages", cast_to=object))


@contextmanager
def stage(folder: Path) -> Generator[Stage]:
    with (
        ScriptedModel() as model,
        LocalLetta(folder / "letta", LettaOptions(model_base_url=model.base_url)) as letta,
        served(folder / "frontdesk", letta_base_url=letta.base_url, api_keys=KEY, probe_key=KEY) as gateway,
    ):
        yield Stage(gateway, Letta(base_url=letta.base_url, api_key="none"), model)
