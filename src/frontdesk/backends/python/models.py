"""The language models of the agents: made when an agent is first used, one for all turns of all agents that name the
same, with the same key and address. So agents that are made for each user share their connections."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary, finalize

from pydantic_ai.models import Model

from frontdesk.agents.agent import Agent
from frontdesk.agents.errors import AgentError
from frontdesk.agents.models import Account, build, close


class Models:
    def __init__(self, providers: Mapping[Any, Account]) -> None:
        self._providers: Mapping[str, Account] = providers
        self._models: WeakKeyDictionary[Agent, Model] = WeakKeyDictionary()
        self._shared: WeakValueDictionary[Any, Model] = WeakValueDictionary()
        self._left: list[Model] = []

    def of(self, agent: Agent) -> Model:
        """Raises AgentError where it cannot be had: without a key, say."""
        if agent not in self._models:
            self._models[agent] = made = self._made(agent)
            finalize(agent, self._left.append, made).atexit = False
        return self._models[agent]

    def check(self, agent: Agent) -> None:
        """Raises AgentError, before anybody asks for the agent."""
        self.of(agent)

    def _made(self, agent: Agent) -> Model:
        named = agent.models if all(isinstance(each, str) for each in agent.models) else ()
        key = (named, agent.api_key, agent.base_url)
        shared = self._shared.get(key) if named else None
        if shared is None:
            shared = self._built(agent)
            if named:
                self._shared[key] = shared
        return shared

    def _built(self, agent: Agent) -> Model:
        if agent.engine and not agent.models:
            if isinstance(agent.engine.model, Model):
                return agent.engine.model
            raise AgentError(f"The agent {agent.name!r} has no model of its own: give its pydantic_ai.Agent one.")
        return build(agent.models, api_key=agent.api_key, base_url=agent.base_url, providers=self._providers)

    def name(self, agent: Agent) -> str:
        """As it is written, where it is."""
        first = next(iter(agent.models), None) or self.of(agent)
        return first if isinstance(first, str) else f"{first.system}/{first.model_name}"

    async def sweep(self) -> None:
        """Close those of agents that are gone: of files that were changed, or made by a resolver and forgotten."""
        used = {id(model) for model in self._models.values()}
        left = {id(model): model for model in self._left if id(model) not in used}
        self._left.clear()
        for key, model in list(self._shared.items()):
            if id(model) in left:  # nobody is to begin with what is being closed
                del self._shared[key]
        for model in left.values():
            await close(model)

    async def aclose(self) -> None:
        await self.sweep()
        for model in {id(each): each for each in self._models.values()}.values():
            await close(model)
