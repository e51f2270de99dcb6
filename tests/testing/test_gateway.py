"""`serving`: a gateway for the tests of agents written in Python."""

from typing import Any

import httpx
import pytest
import structlog
from openai import InternalServerError
from pydantic_ai.models.test import TestModel

from frontdesk import Agent, context, handoff, hook, tool
from frontdesk.agents.errors import AgentError
from frontdesk.agents.hooks import Connection
from frontdesk.testing import Served, serving

own_server = "http://127.0.0.1:9/v1"


@tool
def who() -> str:
    """Who is at work."""
    return context().agent


behind = Agent("behind", model="openai-compatible/x", base_url=own_server, api_key="sk-own", tools=[who])
AGENTS = [
    Agent("alike", model="openai/gpt-5-mini", tools=[who]),
    Agent("elsewhere", model="anthropic/claude-haiku-4-5", fallbacks=["google/gemini-2.5-flash"], tools=[who]),
    Agent("object", model=TestModel(), tools=[who]),
    Agent("in-process", model="scripted/x", tools=[who]),
    Agent("front", model="anthropic/claude-haiku-4-5", handoffs=[handoff(behind)]),
    behind,
]


def ask(desk: Served, model: str, text: str, **options: Any) -> str:
    with desk.client(**options) as client:
        create: Any = client.chat.completions.create
        return create(model=model, messages=[{"role": "user", "content": text}]).choices[0].message.content


def test_a_scripted_model_answers_for_every_kind_of_model_and_no_key_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRONTDESK_API_KEYS", "of-somebody-else")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    before = [dict(vars(agent)) for agent in AGENTS]
    with serving(*AGENTS) as desk:
        for agent in ("alike", "elsewhere", "object", "in-process", "behind"):
            assert ask(desk, agent, "@call who") == f"Tool results: {agent}"
        assert ask(desk, "front", "@call transfer_to_behind\n@then\n@call who") == "Tool results: behind"
        asked = desk.model.requests
        assert {each.headers["authorization"] for each in asked} == {"Bearer scripted"}
        assert asked[0].body["model"] == "gpt-5-mini"
        assert len(asked) == 2 * 5 + 3
    assert [dict(vars(agent)) for agent in AGENTS] == before


def test_a_traceback_is_printed_without_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    @hook("connection")
    def fall(moment: Connection) -> None:
        raise ValueError("no")

    structlog.reset_defaults()
    with serving(Agent("faller", model="openai/gpt-5-mini", hooks=[fall])) as desk, pytest.raises(InternalServerError):
        ask(desk, "faller", "my secret")
    printed = capsys.readouterr().out
    assert "ValueError: no" in printed
    assert "my secret" not in printed


def test_agents_may_be_named_by_import_paths_and_settings_given() -> None:
    with serving("tests.cases.cast:weather", api_keys=("sk-1",)) as desk:
        assert httpx.get(f"{desk.base_url}/models").status_code == 401
        assert ask(desk, "weather", "@say Hello!", api_key="sk-1") == "Hello!"


def test_agents_that_cannot_be_served_are_told_at_once() -> None:
    with (
        pytest.raises(AgentError, match="asks for the scope 'premium'"),
        serving(Agent("a", model="scripted/x", scope="premium")),
    ):
        pass


def test_nothing_answers_when_the_block_has_ended() -> None:
    with serving(AGENTS[0]) as desk:
        pass
    with pytest.raises(httpx.ConnectError):
        httpx.get(desk.url)
