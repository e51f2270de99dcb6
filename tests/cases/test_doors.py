"""Cases 37 to 44: who gets in. Tokens have a suite of their own, `tests/policies`."""

import pytest

from frontdesk.testing import ScriptedModel
from tests.cases.cast import ran
from tests.cases.conftest import OTHER, OWNER, USER
from tests.cases.wire import Desk, error_of
from tests.requirements import requirement
from tests.served import Served


@pytest.fixture
def at(locked: Served, model: ScriptedModel, tag: str) -> Desk:
    return Desk(locked.url, "clerk", model, tag)


def as_(desk: Desk, key: str, agent: str = "clerk") -> Desk:
    return Desk(desk.url, agent, desk.model, desk.tag, key)


@pytest.mark.parametrize("key", ["", "sk-nonsense", "a.b.c"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/agents/clerk/v1/chat/completions", "/agents/clerk/orders"])
async def test_cases_37_and_39_without_a_key_nobody_gets_in(at: Desk, key: str, path: str) -> None:
    answer = await as_(at, key).post({"model": "clerk", "messages": [at.said("@say Hello.")]}, path)
    assert answer.status_code == 401
    assert error_of(answer)["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert at.calls == []


async def test_case_41_who_lacks_the_scope_is_told_which(at: Desk) -> None:
    answer = await as_(at, USER, "boss").ask("@say Hello.")
    assert answer.status_code == 403
    assert "owner" in error_of(answer)["message"]
    assert (await as_(at, OWNER, "boss").ask("@say Hello.")).status_code == 200


@requirement("python.scopes")
async def test_case_44_an_owners_tool_is_neither_listed_nor_run_for_others(at: Desk) -> None:
    script = f'@call vault {{"text": "{at.tag}"}}\n@then\n@say Tried.'
    assert (await as_(at, USER).ask(script)).status_code == 200
    assert "vault" not in at.calls[0].tool_names
    assert ran[at.tag] == 0
    assert "1234" not in str(at.calls[-1].messages)
    assert (await as_(at, OWNER).ask(script)).status_code == 200
    assert ran[at.tag] == 1


@pytest.mark.parametrize("agent", ["clerk", "guest-9"])
@requirement("python.scopes", "python.endpoints")
async def test_case_44_an_owners_endpoint_is_closed_to_others_on_every_kind_of_agent(at: Desk, agent: str) -> None:
    path = f"/agents/{agent}/secrets"
    assert (await at.get(path)).status_code == 401
    refused = await as_(at, USER).get(path)
    assert (refused.status_code, error_of(refused)["code"]) == (403, "insufficient_scope")
    assert (await as_(at, OWNER).get(path)).json() == {"combination": "1234"}


async def test_case_44_a_key_for_other_agents_reaches_nothing_of_this_one(at: Desk) -> None:
    stranger = as_(at, OTHER)
    assert (await stranger.ask("@say Hello.")).status_code in (403, 404)
    assert (await stranger.get("/agents/clerk/time/oslo")).status_code in (403, 404)
    assert (await stranger.get("/agents/clerk")).status_code in (403, 404)
    assert {each["id"] for each in (await stranger.get("/v1/models")).json()["data"]} == {"weather"}


async def test_case_44_a_handoff_goes_nowhere_its_caller_may_not(at: Desk) -> None:
    answer = await as_(at, OTHER, "weather").ask("@call transfer_to_boss {}\n@then\n@say I stay.")
    assert answer.json()["choices"][0]["message"]["content"] == "I stay."
