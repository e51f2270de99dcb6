"""Agents of a Letta server for which the operator asks a scope: listed and used by those who hold it, at every door."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from frontdesk.config import Settings
from tests.faults.fake import FakeLetta, fake_letta, row
from tests.policies.serving import ADMIN, KEYS, MASTER, OWNER, PLAIN, PREMIUM, ask, chat, code, listed
from tests.requirements import requirement
from tests.served import Served, served

CLOSED = row(4, "Iris")
SCOPES = {"Milo": "owner", CLOSED["id"]: "premium", "Ada": "public"}
NEEDS = {"Milo": "owner", "Iris": "premium", "Ada": "public", "Otis": "user"}
MAY = {
    "": {"Ada"},
    PLAIN: {"Ada", "Otis"},
    OWNER: {"Ada", "Otis", "Milo"},
    PREMIUM: {"Ada", "Otis", "Iris"},
    ADMIN: {"Ada", "Otis", "Milo", "Iris"},
}
HELLO = {"role": "user", "content": "Hello"}
SAY = {
    "method": "message/send",
    "params": {"message": {"role": "user", "messageId": "1", "parts": [{"kind": "text", "text": "Hi"}]}},
}


@pytest.fixture(scope="module")
def fake() -> Generator[FakeLetta]:
    with fake_letta(rows=[row(1, "Milo"), row(2, "Otis"), row(3, "Ada"), CLOSED]) as fake:
        yield fake


@pytest.fixture(scope="module")
def letta(fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    settings: dict[str, Any] = {
        "letta_base_url": fake.url,
        "letta_scopes": SCOPES,
        "scopes": ("premium",),
        "api_keys": MASTER,
        "probe_key": MASTER,
        "keys": KEYS,
        "allow_anonymous": True,
    }
    with served(tmp_path_factory.mktemp("scopes"), **settings) as running:
        yield running


def rpc(there: Served, path: str, key: str, **body: Any) -> Any:
    headers = {"accept": "application/json, text/event-stream"}
    return ask(there, "POST", path, key, json={"jsonrpc": "2.0", "id": 1, **body}, headers=headers)


@pytest.mark.parametrize("key", MAY)
@requirement("python.scopes")
def test_lettas_agents_are_for_those_who_hold_their_scope(letta: Served, key: str) -> None:
    assert listed(letta, key) == sorted(MAY[key])
    assert sorted(each["name"] for each in ask(letta, "GET", "/agents", key).json()["data"]) == sorted(MAY[key])
    for agent, scope in NEEDS.items():
        answers = [
            chat(letta, key, agent, "Hello"),
            chat(letta, key, f"letta/{agent}", "Hello", stream=True),
            ask(letta, "POST", "/v1/responses", key, json={"model": agent, "input": "Hello"}),
            ask(letta, "POST", f"/agents/{agent}/v1/chat/completions", key, json={"messages": [HELLO]}),
            ask(letta, "GET", f"/agents/{agent}", key),
            ask(letta, "GET", f"/v1/models/{agent}", key),
            ask(letta, "GET", f"/a2a/{agent}/.well-known/agent-card.json", key),
            rpc(letta, f"/a2a/{agent}", key, **SAY),
        ]
        if agent in MAY[key]:
            assert [each.status_code for each in answers] == [200] * len(answers)
            continue
        assert {each.status_code for each in answers} == {403 if key else 401}
        if key:
            assert {code(each) for each in answers[:6]} == {(403, "insufficient_scope")}
            assert f"'{scope}'" in answers[0].json()["error"]["message"]


@pytest.mark.parametrize("key", MAY)
def test_they_are_tools_for_the_same_callers(letta: Served, key: str) -> None:
    answer = rpc(letta, "/mcp", key, method="tools/list").text
    tools = json.loads(answer.partition("data: ")[2])["result"]["tools"]
    assert {each["name"] for each in tools} == MAY[key]


def test_those_that_are_not_named_may_ask_for_a_scope_too(fake: FakeLetta, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "letta_scopes": {"*": "owner", "Otis": "user"},
        "api_keys": MASTER,
        "keys": KEYS,
        "scopes": ("premium",),
    }
    with served(tmp_path, letta_base_url=fake.url, probe_key=MASTER, **settings) as running:
        assert listed(running, MASTER) == ["Otis"]
        assert listed(running, OWNER) == sorted(NEEDS)


@pytest.mark.parametrize("scope", ["premium", "all", "", "Owner", "metrics"])
def test_a_scope_that_nobody_knows_is_refused_at_the_start(scope: str) -> None:
    with pytest.raises(ValidationError, match="letta_scopes"):
        Settings(_env_file=None, letta_scopes={"Milo": scope})  # pyright: ignore[reportCallIssue]
