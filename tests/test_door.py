"""Who gets in, how much they may ask, and what the door makes of requests no client sends."""

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web

from tests.faults.asking import create, failure
from tests.faults.fake import FakeLetta, fake_letta, held
from tests.faults.process import serving
from tests.faults.watch import Watched, eventually, until, watched
from tests.requirements import requirement
from tests.served import TLS

MASTER, NARROW, LIMITED, SINGLE = "master-key-1", "narrow-key-2", "limited-key-3", "single-key-4"
CHAT = {"model": "Milo", "messages": [{"role": "user", "content": "hi"}]}


def entry(name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}


@pytest.fixture(scope="module")
def fake() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Watched]:
    with watched(
        tmp_path_factory.mktemp("door"),
        letta_base_url=fake.url,
        api_keys=MASTER,
        keys=[
            entry("narrow", NARROW, agents=["Otis"]),
            entry("limited", LIMITED, rate="3/hour"),
            entry("single", SINGLE, max_turns=1),
        ],
        cors_origins="https://chat.example",
        max_body_bytes=2048,
    ) as running:
        yield running


def call(gateway: Watched, method: str, path: str, key: str = MASTER, **more: Any) -> httpx.Response:
    headers = ({"authorization": f"Bearer {key}"} if key else {}) | more.pop("headers", {})
    return httpx.request(method, gateway.url + path, headers=headers, verify=TLS, **more)


def chat(gateway: Watched, key: str = MASTER, body: Any = CHAT, **headers: str) -> httpx.Response:
    return call(gateway, "POST", "/v1/chat/completions", key, json=body, headers=headers)


# --- keys --------------------------------------------------------------------------------------------------------


@requirement("security.keys")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {MASTER}"}, 200),
        ({"authorization": f"bearer   {MASTER}"}, 200),
        ({"x-api-key": MASTER}, 200),
        ({"api-key": MASTER}, 200),
        ({"authorization": "Basic dTpw", "x-api-key": MASTER}, 200),
        ({}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": f"Bearer {MASTER}x"}, 401),
        ({"authorization": MASTER}, 401),
        ({"authorization": "Bearer wrong", "x-api-key": MASTER}, 401),
        ({"x-api-key": ""}, 401),
        ({"cookie": f"api_key={MASTER}"}, 401),
        ({"authorization": b"Bearer \xff\xfe"}, 401),
    ],
)
def test_keys(gateway: Watched, headers: Any, status: int) -> None:
    response = httpx.get(f"{gateway.url}/v1/models", headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
        error = response.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
        assert MASTER not in response.text
        assert "wrong" not in response.text
        assert response.headers["x-request-id"].startswith("req_")


@requirement("security.keys")
def test_a_key_in_the_address_is_none(gateway: Watched) -> None:
    for name in ("api_key", "api-key", "key", "access_token"):
        assert call(gateway, "GET", f"/v1/models?{name}={MASTER}", "").status_code == 401


@requirement("security.keys")
async def test_the_official_client_gets_an_authentication_error(gateway: Watched) -> None:
    async with gateway.client(api_key="wrong-key") as client:
        with pytest.raises(openai.AuthenticationError) as info:
            await client.models.list()
    assert info.value.code == "invalid_api_key"
    assert "wrong-key" not in str(info.value)


@requirement("security.open-paths")
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/health/live", 200),
        ("/health/ready", 200),
        ("/health/live/", 200),
        ("/health", 401),
        ("/metrics", 401),
        ("/docs", 401),
        ("/openapi.json", 401),
        ("/", 401),
        ("/v1/models", 401),
        ("/v1/models/Milo", 401),
        ("/models", 401),
        ("/nothing", 401),
        ("/health/live/../../metrics", 401),
        ("/health/live%2f..%2f..%2fmetrics", 401),
        ("//metrics", 401),
        ("/health/live;/metrics", 401),
        ("/HEALTH/LIVE", 401),
    ],
)
def test_only_probes_are_open(gateway: Watched, path: str, status: int) -> None:
    assert status_line(gateway, f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()) == status


@requirement("security.agents-per-key")
@pytest.mark.parametrize(
    "path", ["/metrics", "/health", "/v1/metrics", "/metrics/", "/metrics%0a", "/health%0A", "/v1/health%0a/"]
)
def test_pages_of_all_agents_are_closed_to_a_key_of_some(gateway: Watched, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {NARROW}\r\nconnection: close\r\n\r\n"
    assert status_line(gateway, head.encode()) == 403


@requirement("security.agents-per-key")
def test_a_key_sees_and_uses_its_agents_only(gateway: Watched) -> None:
    assert [model["id"] for model in call(gateway, "GET", "/v1/models", NARROW).json()["data"]] == ["Otis"]
    assert call(gateway, "GET", "/v1/models/Otis", NARROW).status_code == 200
    assert chat(gateway, NARROW, CHAT | {"model": "Otis"}).status_code == 200
    milo = "agent-00000000-0000-4000-8000-000000000001"
    for model in ("Milo", milo, "letta/Milo", "Milo:stateless", "Milo:single"):
        for response in (
            chat(gateway, NARROW, CHAT | {"model": model}),
            call(gateway, "GET", f"/v1/models/{model}", NARROW),
        ):
            assert response.status_code == 403
            error = response.json()["error"]
            assert (error["type"], error["code"], error["param"]) == ("permission_error", "agent_forbidden", "model")


@requirement("security.private-conversations")
def test_a_pin_and_an_id_of_one_key_are_nothing_to_another(gateway: Watched, fake: FakeLetta) -> None:
    body = CHAT | {"model": "Otis", "messages": [{"role": "user", "content": "private #secret-marker#"}]}
    mine = chat(gateway, MASTER, body, **{"x-frontdesk-conversation": "a pin"})
    theirs = chat(gateway, NARROW, body, **{"x-frontdesk-conversation": "a pin"})
    ids = [response.headers["x-frontdesk-conversation"] for response in (mine, theirs)]
    assert ids[0] != ids[1]
    assert len({visit.conversation for visit in fake.visits if "private" in visit.texts[-1]}) == 2
    stolen = chat(gateway, NARROW, body, **{"x-frontdesk-conversation": ids[0]})
    assert (stolen.status_code, stolen.json()["error"]["code"]) == (404, "conversation_not_found")
    other_agent = chat(gateway, MASTER, CHAT, **{"x-frontdesk-conversation": ids[0]})
    assert other_agent.status_code == 404
    assert chat(gateway, MASTER, body, **{"x-frontdesk-conversation": ids[0]}).status_code == 200


@requirement("security.rate")
def test_a_rate_is_counted_and_told(gateway: Watched) -> None:
    for left in (2, 1, 0):
        response = call(gateway, "GET", "/v1/models", LIMITED)
        assert response.status_code == 200
        assert response.headers["x-ratelimit-limit-requests"] == "3"
        assert response.headers["x-ratelimit-remaining-requests"] == str(left)
        assert response.headers["x-ratelimit-reset-requests"]
    refused = chat(gateway, LIMITED)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert refused.headers["x-should-retry"] == "true"
    assert 3500 < int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-ratelimit-limit-requests" not in call(gateway, "GET", "/v1/models").headers


@requirement("security.turns-per-key")
async def test_turns_of_one_key_at_the_same_time_are_counted(gateway: Watched, fake: FakeLetta) -> None:
    fake.scripts["waiting"] = held(fake, "Wait", "ed.")
    body: Any = {"model": "Milo", "messages": [{"role": "user", "content": "#waiting#"}]}
    async with gateway.client(api_key=SINGLE) as client:
        first = asyncio.create_task(create(client, **body))
        await eventually(lambda: fake.open_streams == 1)
        error = await failure(client, **body)
        assert isinstance(error, openai.RateLimitError)
        assert error.code == "rate_limit_exceeded"
        assert int(error.response.headers["retry-after"]) >= 1
        fake.gate.set()
        assert (await first).choices[0].message.content == "Waited."
        assert (await create(client, **body)).choices[0].message.content == "Waited."


@requirement("security.loopback")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])
def test_beyond_loopback_keys_are_needed(host: str, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FRONTDESK_", "LETTA_"))}
    command = [sys.executable, "-m", "frontdesk", "serve", "--port", "0", "--host", host]
    environment = kept | {"FRONTDESK_DATA_DIR": str(tmp_path)}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode != 0
    assert "FRONTDESK_API_KEYS" in " ".join(ended.stderr.split())


# --- bodies ------------------------------------------------------------------------------------------------------


@requirement("security.body-limit")
@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
def test_a_body_that_is_too_large(gateway: Watched, chunked: bool) -> None:
    big = json.dumps(CHAT | {"user": "x" * 4000}).encode()
    content: Any = iter([big[:1000], big[1000:]]) if chunked else big
    response = call(gateway, "POST", "/v1/chat/completions", content=content)
    assert response.status_code == 413
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "request_too_large")
    assert call(gateway, "GET", "/v1/models").status_code == 200


@requirement("security.body-limit")
def test_it_is_refused_before_it_has_been_sent(gateway: Watched) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {MASTER}\r\n"
    assert status_line(gateway, f"{head}content-length: 999999999\r\n\r\n{{".encode()) == 413


ODD_BODIES = {
    "nothing": b"",
    "not json": b"{",
    "text": b'"hello"',
    "list": b"[]",
    "null": b"null",
    "bytes": b"\xff\xfe{}",
    "bad utf-8": b'{"model": "Milo", "messages": [{"role": "user", "content": "\xff"}]}',
    "half a character": b'{"model": "Milo", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "half a character in the model": b'{"model": "\\udfff", "messages": [{"role": "user", "content": "x"}]}',
    "deep": b'{"model": "Milo", "messages": ' + b"[" * 900 + b"]" * 900 + b"}",
    "nan": b'{"model": "Milo", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
    "huge number": b'{"model": "Milo", "seed": 1e999, "messages": [{"role": "user", "content": "x"}]}',
    "wrong types": b'{"model": 7, "messages": "hello"}',
}


@requirement("security.odd-bodies", "errors.json")
@pytest.mark.parametrize("name", list(ODD_BODIES))
def test_odd_bodies_are_a_400(gateway: Watched, name: str) -> None:
    response = call(gateway, "POST", "/v1/chat/completions", content=ODD_BODIES[name])
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"]["type"] == "invalid_request_error"


@requirement("security.odd-bodies")
def test_of_a_key_given_twice_the_last_counts(gateway: Watched, fake: FakeLetta) -> None:
    body = b'{"model": "nobody", "model": "Milo", "messages": [{"role": "user", "content": "two", "content": "once"}]}'
    response = call(gateway, "POST", "/v1/chat/completions", content=body)
    assert response.status_code == 200
    assert fake.visits[-1].texts == ["once"]


@requirement("security.odd-bodies")
def test_a_nul_reaches_the_agent_or_is_refused(gateway: Watched) -> None:
    response = chat(gateway, body=CHAT | {"messages": [{"role": "user", "content": "a\0b"}]})
    assert response.status_code in (200, 400)
    assert chat(gateway, body=CHAT | {"model": "a\0b"}).status_code == 404
    response = call(gateway, "GET", "/v1/models/a%00b")
    assert response.status_code == 404


def test_a_tool_result_with_an_odd_id_is_a_400(gateway: Watched) -> None:
    for first in ("call_é", "call_" + "A" * 35, "\udfff".encode("utf-8", "replace").decode()):
        messages: list[Any] = [{"role": "user", "content": "x"}]
        messages += [{"role": "tool", "tool_call_id": each, "content": "y"} for each in (first, "call_é")]
        assert chat(gateway, body=CHAT | {"messages": messages}).status_code == 400


# --- headers and HTTP itself -------------------------------------------------------------------------------------


def raw(gateway: Watched, data: bytes) -> bytes:
    """What comes back for these bytes, until the server closes or is silent for a while."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.settimeout(1.0)
        answer = b""
        try:
            connection.sendall(data)
            while data := connection.recv(65536):
                answer += data
        except (TimeoutError, ConnectionError):
            pass
        return answer


def status_line(gateway: Watched, data: bytes) -> int:
    answer = raw(gateway, data)
    return int(answer.split(b" ", 2)[1]) if answer else 0


LINE = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + MASTER.encode() + b"\r\n"
POST = LINE.replace(b"GET /v1/models", b"POST /v1/chat/completions")
ODD_HTTP: dict[str, bytes] = {
    "two lengths": POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "length and chunks": POST
    + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
    "unknown encoding": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "bad chunk": POST + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "bad length": POST + b"content-length: -1\r\n\r\n",
    "folded header": LINE + b"x-folded: a\r\n b\r\n\r\n",
    "space before the colon": LINE + b"x-odd : a\r\n\r\n",
    "nul in a header": LINE + b"x-odd: a\0b\r\n\r\n",
    "no http": b"\x16\x03\x01\x02\x00\x01\x00",
    "wrong version": b"GET / HTTP/9.9\r\n\r\n",
}


@requirement("security.odd-http", "errors.json")
@pytest.mark.parametrize("name", list(ODD_HTTP))
def test_odd_http_is_refused_and_the_connection_closed(gateway: Watched, name: str) -> None:
    answer = raw(gateway, ODD_HTTP[name])
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert b"x-request-id: req_" in head
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] in ("invalid_http", "invalid_json")
    assert answer.count(b"HTTP/1.1") == 1


@requirement("security.head-limit")
@pytest.mark.parametrize("shape", ["one", "many", "endless", "address"])
def test_a_head_has_a_bound(gateway: Watched, shape: str) -> None:
    heads = {
        "one": LINE + b"x-big: " + b"a" * 2_000_000 + b"\r\n\r\n",
        "many": LINE + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 100) for n in range(20_000)) + b"\r\n",
        "endless": b"GET / HTTP/1.1\r\nx: " + b"a" * 2_000_000,
        "address": b"GET /" + b"a" * 2_000_000 + b" HTTP/1.1\r\n\r\n",
    }
    answer = raw(gateway, heads[shape])
    assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), answer[:200]
    assert call(gateway, "GET", "/v1/models").status_code == 200


def test_an_ordinary_large_head_passes(gateway: Watched) -> None:
    assert call(gateway, "GET", "/v1/models", headers={"cookie": "a" * 30_000}).status_code == 200


@requirement("security.odd-headers")
def test_a_pin_may_be_any_text_but_not_too_long(gateway: Watched, fake: FakeLetta) -> None:
    for pin in ("ümläut 漢字".encode(), b"\xff\xfe", b"conv", b"' OR 1=1 --", b"%00", b"a" * 256):
        headers: Any = {"authorization": f"Bearer {MASTER}", "x-frontdesk-conversation": pin}
        response = httpx.post(f"{gateway.base_url}/chat/completions", json=CHAT, headers=headers)
        assert response.status_code == 200, pin
    for pin in (b"a" * 257, b"conv_" + b"A" * 35, "conv_ü".encode()):
        headers = {"authorization": f"Bearer {MASTER}", "x-frontdesk-conversation": pin}
        response = httpx.post(f"{gateway.base_url}/chat/completions", json=CHAT, headers=headers)
        assert response.status_code in (400, 404), pin


@requirement("security.odd-headers")
def test_a_clients_request_id_is_given_back_only_if_it_is_harmless(gateway: Watched) -> None:
    good = call(gateway, "GET", "/v1/models", headers={"x-client-request-id": "mine-1"})
    assert good.headers["x-client-request-id"] == "mine-1"
    assert good.headers["x-request-id"] != "mine-1"
    odd: Any = {"x-client-request-id": b"caf\xc3\xa9", "x-request-id": "spoofed"}
    answered = call(gateway, "GET", "/v1/models", headers=odd)
    assert "x-client-request-id" not in answered.headers
    assert answered.headers["x-request-id"] != "spoofed"


# --- browsers ----------------------------------------------------------------------------------------------------

PREFLIGHT = {
    "origin": "https://chat.example",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os,x-frontdesk-conversation",
}


@requirement("security.cors")
def test_cors_when_it_is_configured(gateway: Watched) -> None:
    preflight = call(gateway, "OPTIONS", "/v1/chat/completions", "", headers=PREFLIGHT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://chat.example"
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    answered = chat(gateway, origin="https://chat.example")
    assert answered.headers["access-control-allow-origin"] == "https://chat.example"
    exposed = answered.headers["access-control-expose-headers"]
    for name in ("x-request-id", "x-frontdesk-conversation", "x-should-retry", "retry-after", "retry-after-ms"):
        assert name in exposed
    refused = chat(gateway, "wrong", origin="https://chat.example")
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://chat.example", "else a page cannot read why"
    strange = chat(gateway, origin="https://evil.example")
    assert "access-control-allow-origin" not in strange.headers
    assert (
        call(gateway, "OPTIONS", "/v1/models", "", headers=PREFLIGHT | {"origin": "https://evil.example"}).status_code
        == 400
    )


@requirement("security.cors")
def test_cors_is_off_by_default(fake: FakeLetta, tmp_path: Path) -> None:
    with watched(tmp_path, letta_base_url=fake.url) as gateway:
        preflight = call(gateway, "OPTIONS", "/v1/chat/completions", "", headers=PREFLIGHT)
        assert preflight.status_code == 405
        assert preflight.json()["error"]["code"] == "method_not_allowed"
        simple = {"origin": "https://chat.example", "content-type": "text/plain"}  # a browser sends this unasked
        answered = chat(gateway, "", **simple)
        assert (answered.status_code, answered.json()["error"]["code"]) == (403, "origin_forbidden")
        assert not [name for name in (*preflight.headers, *answered.headers) if name.startswith("access-control")]
        assert chat(gateway, "", origin=gateway.url).status_code == 200, "its own page, such as /docs"


# --- what is written down ----------------------------------------------------------------------------------------


def refused(_: web.Request) -> web.StreamResponse:
    return web.json_response({"detail": "Unauthorized"}, status=401)


SECRETS = ("sk-master-secret-1", "sk-hashed-secret-2", "sk-wrong-secret-3", "letta-secret-4", "signing-secret-5")


@requirement("security.no-secrets", "security.log-injection")
@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_and_no_forged_line_gets_into_the_log(tmp_path: Path, form: str) -> None:
    master, hashed, wrong, letta_key, signing = SECRETS
    toml = tmp_path / "frontdesk.toml"
    toml.write_text(f'[[keys]]\nname = "hashed"\nsha256 = "{hashlib.sha256(hashed.encode()).hexdigest()}"\n')
    said = "what-the-user-said"
    with (
        fake_letta(password=letta_key) as fake,
        serving(
            tmp_path,
            fake.url,
            FRONTDESK_API_KEYS=master,
            FRONTDESK_SECRET=signing,
            FRONTDESK_LOG_LEVEL="debug",
            FRONTDESK_LOG_FORMAT=form,
            FRONTDESK_CONFIG=str(toml),
            LETTA_API_KEY=letta_key,
        ) as process,
        httpx.Client(verify=TLS) as http,
    ):
        answers: list[str] = []
        forged = "x\nevent=forged level=error"
        body = CHAT | {"messages": [{"role": "user", "content": said}]}
        for key in (master, hashed, wrong, ""):
            for headers in ({"authorization": f"Bearer {key}".strip()}, {"x-api-key": key}, {"api-key": key}):
                odd: Any = headers | {"x-client-request-id": "a=b\tc", "user-agent": b"\xc2\x9b2J", "x-odd": b"\xff"}
                for response in (
                    http.post(f"{process.url}/v1/chat/completions", json=body, headers=odd),
                    http.get(f"{process.url}/v1/models/{key or 'none'}?api_key={key}", headers=odd),
                    http.get(f"{process.url}/{httpx.QueryParams({'p': forged})}%0aforged%20line%1b[31m", headers=odd),
                ):
                    answers += [response.text if key not in str(response.url) else "", str(response.headers)]
        metrics = http.get(f"{process.url}/metrics", headers={"x-api-key": master}).text
        fake.answers["POST /v1/conversations/conv-"] = refused
        http.post(f"{process.url}/v1/chat/completions", json=body, headers={"x-api-key": master})
        until(lambda: process.text.count("status") >= 20, lambda: process.text)
        for place in (process.text, metrics, *answers):
            assert not [secret for secret in (master, hashed, letta_key, signing) if secret in place]
        assert wrong not in metrics
        assert said not in process.text
        assert said not in metrics
        lines = process.text.splitlines()
        assert not [line for line in lines if line.startswith(("forged", "event=forged"))]
        assert "\x1b" not in "".join(line for line in lines if "forged" in line)
