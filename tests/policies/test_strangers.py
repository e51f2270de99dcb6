"""Callers without a key: what is public is theirs, nothing else is, and nothing of one is ever another's."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from frontdesk.conversations.desk import alone
from frontdesk.conversations.placing import Ask, spot
from frontdesk.errors import Unauthenticated
from frontdesk.store.statements import DriverTransaction
from frontdesk.testing import ScriptedModel
from frontdesk.turn import Agent, Message, Principal, Text, Turn
from tests.policies.issuer import signed
from tests.policies.serving import ADMIN, MASTER, OWNER, PLAIN, ask, chat, code, listed, serving
from tests.requirements import requirement
from tests.served import Served

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}


def test_nobody_is_let_in_without_a_key_unless_the_operator_says_so(model: ScriptedModel, tmp_path: Path) -> None:
    with serving(tmp_path, model) as there:
        assert ask(there, "GET", "/v1/models").status_code == 401
        assert chat(there, "", "lobby").status_code == 401
        assert ask(there, "GET", "/agents/lobby").status_code == 401


@requirement("python.strangers")
def test_a_stranger_sees_and_uses_what_is_public(desk: Served) -> None:
    assert listed(desk) == ["lobby"]
    answer = chat(desk, "", "lobby", "@say Welcome.")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Welcome."
    assert ask(desk, "GET", "/v1/models/lobby").status_code == 200
    response = ask(desk, "POST", "/v1/responses", json={"model": "lobby", "input": "@say Welcome."})
    assert response.json()["output"][-1]["content"][0]["text"] == "Welcome."


async def test_the_official_client_needs_no_key_for_it(desk: Served) -> None:
    """It wants one to be made, and may be told not to send it."""
    async with desk.client(default_headers={"Authorization": ""}) as client:
        asked: Any = [{"role": "user", "content": "@say Welcome."}]
        async with client.chat.completions.stream(model="lobby", messages=asked) as stream:
            assert (await stream.get_final_completion()).choices[0].message.content == "Welcome."
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="clerk", messages=asked)


@pytest.mark.parametrize("agent", ["clerk", "lounge", "vault", "engine", "nobody", "python/vault", "lobby/x"])
def test_what_is_not_public_is_a_401_whether_it_is_there_or_not(desk: Served, agent: str) -> None:
    for answer in (
        chat(desk, "", agent),
        ask(desk, "POST", "/v1/responses", json={"model": agent, "input": "hi"}),
        ask(desk, "GET", f"/v1/models/{agent}"),
    ):
        assert code(answer) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json() == chat(desk, "", "nobody at all").json(), "it is not told which of them are there"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer a.b.c"},
        {"authorization": PLAIN},
        {"authorization": f"Token {PLAIN}"},
        {"x-api-key": "wrong"},
        {"api-key": "wrong"},
        {"authorization": "Basic dTpw", "x-api-key": "wrong"},
        {"x-openwebui-user-jwt": "a.b.c"},
    ],
)
def test_a_wrong_key_makes_nobody_a_stranger(desk: Served, headers: dict[str, str]) -> None:
    assert code(ask(desk, "GET", "/v1/models", headers=headers)) == (401, "invalid_api_key")
    assert chat(desk, "", "lobby", headers=headers).status_code == 401


def test_a_users_token_takes_no_keys_place(desk: Served) -> None:
    now = int(time.time())
    claims = {"sub": "alice", "iss": "open-webui", "iat": now, "exp": now + 60}
    token = signed("of Open WebUI, and long enough for it", "HS256", claims)
    assert code(chat(desk, "", "lobby", headers={"x-openwebui-user-jwt": token})) == (401, "invalid_api_key")
    assert chat(desk, PLAIN, "lobby", headers={"x-openwebui-user-jwt": token}).status_code == 200


def test_a_proxys_authorization_is_no_key(desk: Served) -> None:
    for headers in ({"authorization": "Basic dTpw"}, {"authorization": ""}, {"x-api-key": ""}):
        assert chat(desk, "", "lobby", headers=headers).status_code == 200


CLOSED = [
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/v1/metrics"),
    ("GET", "/metrics/"),
    ("GET", "/metrics%0a"),
    ("GET", "/nothing"),
    ("GET", "/v1/conversations"),
    ("POST", "/v1/conversations"),
    ("GET", "/v1/conversations/conv_AAAA"),
    ("DELETE", "/v1/conversations/conv_AAAA"),
    ("GET", "/v1/responses/resp_AAAA"),
    ("DELETE", "/v1/responses/resp_AAAA"),
    ("POST", "/v1/responses/resp_AAAA/cancel"),
    ("GET", "/v1/responses/resp_AAAA/input_items"),
    ("GET", "/agents/lobby/v1/conversations"),
    ("GET", "/agents/lobby/conversations/conv_AAAA"),
    ("GET", "/agents/lobby/v1/responses/resp_AAAA"),
    ("POST", "/agents/clerk/v1/chat/completions"),
    ("GET", "/agents/clerk"),
    ("GET", "/agents/nobody"),
    ("GET", "/models/../metrics"),
    ("GET", "/agents/../metrics"),
    ("GET", "/agents/lobby/../../metrics"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_all_else_is_closed(desk: Served, method: str, path: str) -> None:
    answer = raw(desk, method, path)
    assert answer.status_code in (401, 404), answer.text
    if answer.status_code == 404:  # of what is below a public agent
        assert "/../" in path
    assert "frontdesk_" not in answer.text


def raw(there: Served, method: str, path: str) -> httpx.Response:
    """A request whose path is sent as it stands."""
    url = httpx.URL(there.url).copy_with(raw_path=path.encode())
    with httpx.Client() as client:
        return client.send(httpx.Request(method, url))


# --- nothing is kept -----------------------------------------------------------------------------------------------


@requirement("python.strangers")
def test_what_one_stranger_says_no_other_finds(desk: Served, model: ScriptedModel, marker: str) -> None:
    """By its name, by what was said before, by an equal request, or by the key of one that is sent again."""
    first = {"role": "user", "content": f"@say Noted.\nMy number is 4711. {marker}"}
    headers = {"x-frontdesk-conversation": "the same", "idempotency-key": f"key of {marker}"}
    answers = [chat(desk, "", "lobby", first["content"], headers=headers) for _ in range(2)]
    assert [each.headers["x-frontdesk-identity"] for each in answers] == ["stateless", "stateless"]
    assert len({each.headers["x-frontdesk-turn"] for each in answers}) == 2
    assert len({each.headers["x-frontdesk-conversation"] for each in answers}) == 2
    other = chat(desk, "", "lobby", f"@say What number?\n{marker}", headers=headers)
    assert other.status_code == 200
    calls = [each for each in model.requests if marker in str(each.messages)]
    assert len(calls) == 3
    assert "4711" not in str(calls[-1].messages)


def test_a_stranger_goes_on_by_telling_the_whole_of_it(desk: Served, model: ScriptedModel, marker: str) -> None:
    told: list[Any] = [
        {"role": "user", "content": f"My number is 4711. {marker}"},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": f"@say It is 4711.\n{marker}"},
    ]
    answer = ask(desk, "POST", "/v1/chat/completions", json={"model": "lobby", "messages": told})
    assert answer.headers["x-frontdesk-identity"] == "stateless"
    (call,) = [each for each in model.requests if marker in str(each.messages)]
    assert [each["role"] for each in call.messages if each["role"] != "system"] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    "asked",
    [
        {"background": True},
        {"previous_response_id": "resp_00000000000000000000000000000000"},
        {"conversation": "conv_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
        {"model": "lobby:single"},
        {"input": [{"type": "item_reference", "id": "msg_00000000000000000000000000000000i0"}]},
    ],
)
def test_what_would_have_to_be_kept_needs_a_key(desk: Served, asked: dict[str, Any]) -> None:
    body = {"model": "lobby", "input": "@say Hello.", **asked}
    for stream in (False, True):
        answer = ask(desk, "POST", "/v1/responses", json={**body, "stream": stream})
        assert code(answer) == (401, "invalid_api_key"), answer.text


def test_a_response_to_a_stranger_is_not_stored(desk: Served) -> None:
    answer = ask(desk, "POST", "/v1/responses", json={"model": "lobby", "input": "@say Hello.", "store": True})
    assert answer.status_code == 200
    response = answer.json()
    assert response["store"] is False
    assert ask(desk, "GET", f"/v1/responses/{response['id']}").status_code == 401
    conversation = answer.headers["x-frontdesk-conversation"]
    assert ask(desk, "GET", f"/v1/conversations/{conversation}").status_code == 401
    assert chat(desk, "", "lobby", headers={"x-frontdesk-conversation": conversation}).status_code == 401
    for key in (MASTER, PLAIN, ADMIN):
        assert ask(desk, "GET", f"/v1/responses/{response['id']}", key).status_code == 404
        assert ask(desk, "GET", f"/v1/conversations/{conversation}", key).status_code == 404
        assert conversation not in ask(desk, "GET", "/v1/conversations?limit=100", key).text


def test_what_was_said_before_there_were_keys_is_no_strangers(model: ScriptedModel, tmp_path: Path) -> None:
    """They are called as those are who need none."""
    told = "@say Noted.\nMy number is 4711."
    with serving(tmp_path, model, api_keys="", keys=()) as there:
        first = chat(there, "", "lobby", told, headers={"x-frontdesk-conversation": "mine"})
        response = ask(there, "POST", "/v1/responses", json={"model": "lobby", "input": told}).json()
        assert len(ask(there, "GET", "/v1/conversations").json()["data"]) == 2
    with serving(tmp_path, model, allow_anonymous=True) as there:
        conversation = first.headers["x-frontdesk-conversation"]
        again = chat(there, "", "lobby", headers={"x-frontdesk-conversation": "mine"})
        assert again.headers["x-frontdesk-identity"] == "stateless"
        assert "4711" not in str(model.requests[-1].messages)
        assert chat(there, "", "lobby", headers={"x-frontdesk-conversation": conversation}).status_code == 401
        asked = {"model": "lobby", "input": "hi", "previous_response_id": response["id"]}
        assert ask(there, "POST", "/v1/responses", json=asked).status_code == 401
        assert ask(there, "GET", f"/v1/responses/{response['id']}").status_code == 401
        assert ask(there, "GET", "/v1/conversations").status_code == 401


def test_a_strangers_own_tools_are_answered_by_the_call_that_was_made_to_them(desk: Served, marker: str) -> None:
    script = f'@call get_weather {{"city": "Oslo"}}\n@then\n@say Take a coat.\n{marker}'
    told: list[Any] = [{"role": "user", "content": script}]

    def asked() -> httpx.Response:
        return ask(desk, "POST", "/v1/chat/completions", json={"model": "lobby", "messages": told, "tools": [WEATHER]})

    called = asked().json()["choices"][0]
    assert called["finish_reason"] == "tool_calls"
    call_id = called["message"]["tool_calls"][0]["id"]
    told += [called["message"], {"role": "tool", "tool_call_id": call_id, "content": "snow"}]
    assert asked().json()["choices"][0]["message"]["content"] == "Take a coat."
    told[-1]["tool_call_id"] = call_id[:-4] + "AAAA"
    assert asked().status_code == 400


def test_strangers_have_a_rate_together_and_take_none_from_keys(model: ScriptedModel, tmp_path: Path) -> None:
    with serving(tmp_path, model, allow_anonymous=True, anonymous_rate="3/hour") as there:
        answers = [ask(there, "GET", "/v1/models", headers={"x-forwarded-for": f"10.0.0.{n}"}) for n in range(3)]
        assert [each.headers["x-ratelimit-remaining-requests"] for each in answers] == ["2", "1", "0"]
        refused = chat(there, "", "lobby")
        assert code(refused) == (429, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) > 3500
        assert chat(there, PLAIN, "lobby").status_code == 200
        assert ask(there, "GET", "/health/live").status_code == 200


def test_a_web_page_of_somewhere_else_is_no_stranger(model: ScriptedModel, tmp_path: Path) -> None:
    with serving(tmp_path, model, allow_anonymous=True, cors_origins="https://chat.example") as there:
        assert chat(there, "", "lobby", headers={"origin": "https://chat.example"}).status_code == 200
        evil = {"origin": "https://evil.example", "content-type": "text/plain"}
        assert code(chat(there, "", "lobby", headers=evil)) == (403, "origin_forbidden")
        assert chat(there, PLAIN, "lobby", headers=evil).status_code == 200


# --- agents' own URLs ----------------------------------------------------------------------------------------------


def test_a_public_agents_own_url_is_public(desk: Served) -> None:
    assert [each["name"] for each in ask(desk, "GET", "/agents").json()["data"]] == ["lobby"]
    assert ask(desk, "GET", "/agents/lobby").status_code == 200
    said = {"messages": [{"role": "user", "content": "@say Hello."}]}
    assert ask(desk, "POST", "/agents/lobby/v1/chat/completions", json=said).status_code == 200
    assert ask(desk, "POST", "/agents/vault/v1/chat/completions", json=said).status_code == 401
    assert code(ask(desk, "POST", "/agents/vault/v1/chat/completions", PLAIN, json=said)) == (
        403,
        "insufficient_scope",
    )


@pytest.mark.parametrize(
    ("path", "nobody", "user", "owner"),
    [("/hours", 200, 200, 200), ("/visitors", 401, 200, 200), ("/takings", 401, 403, 200), ("/nothing", 404, 404, 404)],
)
def test_an_endpoint_of_a_public_agent_asks_for_its_own_scope(
    desk: Served, path: str, nobody: int, user: int, owner: int
) -> None:
    for key, status in (("", nobody), (PLAIN, user), (OWNER, owner)):
        answer = ask(desk, "GET", f"/agents/lobby{path}", key)
        assert answer.status_code == status, answer.text
    if user == 403:
        assert code(ask(desk, "GET", f"/agents/lobby{path}", PLAIN)) == (403, "insufficient_scope")


# --- what is shared by many ----------------------------------------------------------------------------------------


def test_an_agents_one_thread_is_not_for_strangers() -> None:
    """Whatever led there: an agent that turns out to have no conversations, or one that is bridged."""
    turn = Turn("turn_1", "old", (Message("user", (Text("hi"),)),), principal=Principal(scopes=frozenset()))
    for bridged in (False, True):
        agent = Agent("a", "old", "letta", conversations=False, bridged=bridged)
        ask = Ask(alone(turn, "auto"), agent, "stateless", "scope", (), ())
        with closing(sqlite3.connect(":memory:")) as driver, pytest.raises(Unauthenticated, match="nothing is kept"):
            spot(DriverTransaction(driver), ask)
