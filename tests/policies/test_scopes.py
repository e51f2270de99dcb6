"""What a caller must hold to see an agent, and to use it."""

from pathlib import Path
from typing import Any

import openai
import pytest

from frontdesk.config import Settings
from frontdesk.errors import Forbidden, Unauthenticated
from frontdesk.policies.auth import ConfigurationError, Keyring
from frontdesk.scopes import check
from frontdesk.testing import ScriptedModel
from frontdesk.turn import Principal
from tests.policies.issuer import issuer, rsa_key, signed
from tests.policies.serving import (
    ADMIN,
    MASTER,
    NARROW,
    OWNER,
    PLAIN,
    PREMIUM,
    TRUSTED,
    ask,
    chat,
    code,
    entry,
    listed,
    serving,
)
from tests.requirements import requirement
from tests.served import Served

NEEDS = {"lobby": "public", "clerk": "user", "lounge": "premium", "vault": "owner", "engine": "admin"}
MAY = {
    MASTER: {"lobby", "clerk"},
    PLAIN: {"lobby", "clerk"},
    PREMIUM: {"lobby", "clerk", "lounge"},
    OWNER: {"lobby", "clerk", "vault"},
    ADMIN: {"lobby", "clerk", "lounge", "vault", "engine"},
    TRUSTED: {"lobby", "clerk", "lounge", "vault"},
}


@pytest.mark.parametrize("key", list(MAY))
@requirement("python.scopes")
def test_a_key_sees_and_uses_the_agents_whose_scope_it_holds(desk: Served, key: str) -> None:
    assert listed(desk, key) == sorted(MAY[key])
    for agent, scope in NEEDS.items():
        said = {"model": agent, "input": "@say Hello."}
        answers = [
            chat(desk, key, agent),
            chat(desk, key, f"python/{agent}"),
            ask(desk, "POST", "/v1/responses", key, json=said),
            ask(desk, "POST", "/v1/responses", key, json={**said, "background": True}),
            ask(desk, "POST", "/v1/conversations", key, json={"agent": agent}),
            ask(desk, "GET", f"/v1/models/{agent}", key),
        ]
        if agent in MAY[key]:
            assert [each.status_code for each in answers] == [200] * len(answers)
            continue
        for answer in answers:
            assert code(answer) == (403, "insufficient_scope")
            error = answer.json()["error"]
            assert (error["type"], error["param"]) == ("permission_error", "model")
            assert f"'{scope}'" in error["message"]


async def test_the_official_client_is_denied(desk: Served) -> None:
    async with desk.client(api_key=PLAIN) as client:
        with pytest.raises(openai.PermissionDeniedError) as info:
            await client.chat.completions.create(model="vault", messages=[{"role": "user", "content": "open"}])
    assert info.value.code == "insufficient_scope"


@pytest.mark.parametrize("headers", [{"x-openwebui-user-id": "alice"}, {}], ids=["header", "body"])
def test_a_user_of_a_trusted_key_does_not_hold_all_that_the_key_does(desk: Served, headers: dict[str, str]) -> None:
    named: dict[str, Any] = {} if headers else {"user": "alice"}
    assert chat(desk, TRUSTED, "lounge", headers=headers, **named).status_code == 200
    assert code(chat(desk, TRUSTED, "vault", headers=headers, **named)) == (403, "insufficient_scope")
    if headers:
        assert listed(desk, TRUSTED, **headers) == ["clerk", "lobby", "lounge"]


def test_a_key_for_some_agents_needs_their_scopes_too(desk: Served) -> None:
    assert listed(desk, NARROW) == ["lobby"]
    assert code(chat(desk, NARROW, "vault")) == (403, "insufficient_scope")
    for agent in ("engine", "clerk"):
        assert code(chat(desk, NARROW, agent)) == (403, "agent_forbidden")


def test_a_token_holds_what_its_issuer_was_granted(model: ScriptedModel, tmp_path: Path) -> None:
    with issuer() as idp:
        key = rsa_key("published")
        idp.publish(key, "rsa-1")

        def token(scope: str) -> str:
            return signed(key, "RS256", idp.claims(scope=scope), kid="rsa-1")

        with serving(tmp_path, model, jwt=[idp.settings(grants=["owner"])]) as there:
            assert listed(there, token("")) == ["clerk", "lobby"]
            assert listed(there, token("admin premium openid")) == ["clerk", "lobby"]
            assert listed(there, token("openid owner")) == ["clerk", "lobby", "vault"]
            assert chat(there, token("owner"), "vault").status_code == 200
            assert code(chat(there, token("admin"), "vault")) == (403, "insufficient_scope")


def test_a_conversation_is_out_of_sight_while_its_agent_is(model: ScriptedModel, tmp_path: Path) -> None:
    with serving(tmp_path, model) as there:
        answers = [chat(there, PLAIN, agent, "@say Mine.") for agent in ("clerk", "lobby")]
        mine, other = (answer.headers["x-frontdesk-conversation"] for answer in answers)
        response = ask(there, "POST", "/v1/responses", PLAIN, json={"model": "clerk", "input": "@say Kept."})
        assert len(ask(there, "GET", "/v1/conversations", PLAIN).json()["data"]) == 3
    with serving(tmp_path, model, agents=("tests.policies.lobby:moved",)) as there:
        assert [each["id"] for each in ask(there, "GET", "/v1/conversations", PLAIN).json()["data"]] == [other]
        assert code(ask(there, "GET", f"/v1/conversations/{mine}", PLAIN)) == (404, "conversation_not_found")
        assert ask(there, "GET", f"/v1/conversations/{mine}/items", PLAIN).status_code == 404
        assert ask(there, "DELETE", f"/v1/conversations/{mine}", PLAIN).status_code == 404
        assert ask(there, "GET", f"/v1/responses/{response.json()['id']}", PLAIN).status_code == 404
        assert code(ask(there, "GET", "/v1/conversations?agent=clerk", PLAIN)) == (403, "insufficient_scope")
    with serving(tmp_path, model) as there:
        assert ask(there, "GET", f"/v1/conversations/{mine}", PLAIN).status_code == 200


def test_without_keys_everybody_is_a_user(model: ScriptedModel, tmp_path: Path) -> None:
    with serving(tmp_path, model, api_keys="", keys=(), allow_anonymous=True) as there:
        assert listed(there) == ["clerk", "lobby"]
        first = chat(there, "", "clerk")
        assert (first.status_code, first.headers["x-frontdesk-identity"]) == (200, "new")
        assert code(chat(there, "", "vault")) == (403, "insufficient_scope")


# --- settings ------------------------------------------------------------------------------------------------------


def keyring(**settings: Any) -> Keyring:
    return Keyring(Settings(_env_file=None, **settings))  # pyright: ignore[reportCallIssue]


@requirement("python.scopes.unknown")
def test_a_scope_nobody_knows_is_refused_at_the_start_and_the_refusal_says_how_to_mend_it() -> None:
    for scope in ("superuser", "Admin", "", "user ", "*"):
        with pytest.raises(ConfigurationError, match="FRONTDESK_SCOPES") as info:
            keyring(keys=[entry("bot", "k", scopes=["owner", scope])])
        assert repr(scope) in str(info.value)
        assert "'bot'" in str(info.value)
    assert keyring(scopes="superuser", keys=[entry("bot", "k", scopes=["superuser", "metrics", "admin"])])


def test_a_key_cannot_give_its_users_what_it_does_not_hold() -> None:
    with pytest.raises(ConfigurationError, match="its users the scope 'admin'"):
        keyring(keys=[entry("bot", "k", scopes=["owner"], user_scopes=["admin"])])


# --- the rule ------------------------------------------------------------------------------------------------------


def test_a_rank_holds_those_before_it_and_other_scopes_stand_beside() -> None:
    ranks = ("public", "user", "owner", "admin")
    for held, rank in enumerate(ranks):
        who = Principal(scopes=frozenset((rank,)))
        assert [who.holds(each) for each in ranks] == [number <= held for number in range(4)]
        assert not who.holds("premium")
        assert who.stranger is (rank == "public")
    assert Principal(scopes=frozenset()).holds("public")
    assert Principal(scopes=frozenset()).stranger
    premium = Principal(scopes=frozenset(("user", "premium")))
    assert premium.holds("premium")
    assert not premium.holds("Premium")
    assert not premium.holds("owner")


def test_who_lacks_a_scope_is_told_which_and_a_stranger_that_a_key_is_needed() -> None:
    with pytest.raises(Forbidden, match="This tool needs the scope 'owner'"):
        check("owner", Principal("bot"), "This tool")
    with pytest.raises(Unauthenticated, match="An API key is needed"):
        check("owner", Principal(scopes=frozenset()), "This tool")
    check("owner", Principal("bot", scopes=frozenset(("admin",))))
    check("public", Principal(scopes=frozenset()))
