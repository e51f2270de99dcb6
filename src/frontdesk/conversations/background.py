"""Answering background tasks: by another model, by the agent's own model without the agent, or by a fixed text.

An agent hears of none of them in its conversations, and its memory is never touched.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from frontdesk.conversations.tasks import Policy, Task, canned, policy_for, recognised, shaped
from frontdesk.errors import BackendError, EndpointNotFound, InsufficientBudget, InvalidRequest
from frontdesk.turn import Turn

log = structlog.get_logger(__name__)

UTILITY_SECONDS = 60.0

Wish = Policy | Literal["auto"]

Generate = Callable[[str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Utility:
    """A model behind an OpenAI-compatible API."""

    base_url: str
    model: str
    api_key: str = ""

    async def answer(self, prompt: str) -> str:
        """Raises BackendError if it has none."""
        import httpx  # 30 ms, for which no server should wait that has no utility model

        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        try:
            async with httpx.AsyncClient(timeout=UTILITY_SECONDS) as client:
                url = f"{self.base_url.rstrip('/')}/chat/completions"
                response = await client.post(url, json=body, headers=headers)
                return str(response.raise_for_status().json()["choices"][0]["message"]["content"] or "")
        except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
            raise BackendError(f"The utility model gave no answer: {type(error).__name__}.") from error


class Background:
    def __init__(
        self,
        wish: Wish = "auto",
        patterns: Sequence[str] = (),
        utility: Utility | None = None,
        count: Callable[[str, str], object] = lambda kind, policy: None,
    ) -> None:
        self._wish: Wish = wish
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._utility = utility
        self._count = count

    def task(self, turn: Turn, *, streaming: bool) -> Task | None:
        return recognised(turn, streaming, self._patterns, turn.signals.task)

    async def answer(self, task: Task, generate: Generate) -> str | None:
        """The answer, or None if the agent is to give it, in a conversation which is thrown away. `generate` asks the
        agent's own model.

        Raises InvalidRequest where tasks are refused.
        """
        wish: Policy = self._wish if self._wish != "auto" else "utility_model" if self._utility else "agent_model"
        policy = policy_for(task, wish)
        try:
            answer = await self._by(policy, task, generate)
        except EndpointNotFound:
            policy = policy_for(task, "canned")
            answer = await self._by(policy, task, generate)
        except (BackendError, InsufficientBudget) as error:
            log.warning("a background task is answered without a model", kind=task.kind, error=error.message)
            policy, answer = "canned", canned(task)
        self._count(task.kind, policy)
        log.info("background task", kind=task.kind, policy=policy)
        return answer

    async def _by(self, policy: Policy, task: Task, generate: Generate) -> str | None:
        match policy:
            case "utility_model":
                if self._utility is None:
                    raise EndpointNotFound("No utility model is set.")
                return shaped(task, await self._utility.answer(task.text))
            case "agent_model":
                return shaped(task, await generate(task.text))
            case "canned":
                return canned(task)
            case "ephemeral":
                return None
            case "reject":
                raise InvalidRequest(
                    f"This server answers no background tasks ({task.kind}). Choose another model for them.",
                    code="background_task_rejected",
                )
