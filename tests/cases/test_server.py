"""Cases 32 to 36: the server, its agents, and endpoints of theirs."""

import pytest

from frontdesk import http
from frontdesk.agents.errors import AgentError
from frontdesk.protocols.endpoints import mounted
from tests.cases.wire import Desk, error_of
from tests.requirements import requirement


async def test_case_32_health_is_told(clerk: Desk) -> None:
    assert (await clerk.get("/health")).json()["status"] == "ok"
    for probe in ("/health/ready", "/health/live"):
        assert (await clerk.get(probe)).status_code == 200


async def test_case_33_every_agent_is_listed(clerk: Desk, milo: str) -> None:
    for path in ("/agents", "/v1/models"):
        named = {each.get("name") or each["id"] for each in (await clerk.get(path)).json()["data"]}
        assert {"clerk", "weather", "calculator", "router", milo} <= named
        assert "boss" not in named


@requirement("python.secrets")
async def test_case_34_an_agent_is_described_without_its_instructions(desk: Desk) -> None:
    answer = await desk.get(f"/agents/{desk.agent}")
    assert answer.status_code == 200
    assert answer.json()["name"] == desk.agent
    assert "endpoints" in answer.text
    for path in (f"/agents/{desk.agent}", "/agents", f"/v1/models/{desk.agent}", "/v1/models", "/health", "/"):
        text = (await desk.get(path)).text
        assert "marmalade" not in text
        assert "I am a test agent." not in text


@requirement("python.sources")
async def test_case_35_an_agent_that_is_made_when_asked_for_answers_as_others_do(clerk: Desk) -> None:
    answer = await clerk.post({"model": "guest-7", "messages": [clerk.said("@say Welcome.")]})
    assert answer.json()["choices"][0]["message"]["content"] == "Welcome."
    assert "You are guest-7" in str(clerk.calls[0].messages)
    assert (await clerk.post({"model": "ghost-7", "messages": [clerk.said("Hello")]})).status_code == 404
    await clerk.ask("@say Static.")
    assert "made when asked for" not in str(clerk.calls[-1].messages)
    broken = await clerk.post({"model": "broken-guest", "messages": [clerk.said("Hello")]})
    assert broken.status_code >= 500
    assert "sk-guest-1" not in broken.text
    assert error_of(broken)["code"] != "model_not_found"


@requirement("python.endpoints")
async def test_case_36_endpoints_have_types(clerk: Desk) -> None:
    assert (await clerk.get("/agents/clerk/time/oslo?short=true")).json() == {"zone": "oslo", "short": True}
    assert error_of(await clerk.get("/agents/clerk/time/oslo?short=perhaps"))["param"] == "short"
    assert (await clerk.get("/agents/clerk/nothing")).status_code == 404
    wrong = await clerk.post({}, "/agents/clerk/time/oslo")
    assert wrong.status_code == 405
    assert error_of(wrong)["code"] == "method_not_allowed"


async def test_case_36_a_path_of_the_servers_own_cannot_be_taken() -> None:
    def mine() -> str:
        return "mine"

    for path in ("/v1/models", "/chat/completions", "/.well-known/agent-card.json"):
        with pytest.raises(AgentError):
            mounted([http(path)(mine)])
