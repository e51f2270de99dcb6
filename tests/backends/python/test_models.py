"""The language models of agents that come and go."""

import gc

from pydantic_ai.models.test import TestModel

from frontdesk import Agent
from frontdesk.backends.python.models import Models


def guest(number: int, key: str = "sk-1") -> Agent:
    return Agent(f"guest-{number}", model="openai/gpt-5-mini", api_key=key)


async def test_agents_that_name_the_same_model_share_its_connections() -> None:
    models = Models({})
    one, two, other = guest(1), guest(2), guest(3, key="sk-2")
    assert models.of(one) is models.of(one) is models.of(two)
    assert models.of(other) is not models.of(one)
    await models.aclose()


async def test_a_model_is_closed_when_the_last_agent_that_uses_it_is_gone() -> None:
    models = Models({})
    one, two = guest(1), guest(2)
    first = models.of(one)
    assert models.of(two) is first
    del one
    gc.collect()
    await models.sweep()
    assert models.of(two) is first
    assert models.of(guest(3)) is first
    del two
    gc.collect()
    await models.sweep()
    assert models.of(guest(4)) is not first
    await models.aclose()


async def test_a_model_of_an_authors_own_is_that_agents() -> None:
    models, own = Models({}), TestModel()
    agent = Agent("mine", model=own)
    assert models.of(agent) is own
