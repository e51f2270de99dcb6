"""Tokens at the door: who is let in by one, and all those who are not. Real sockets, and signatures by real keys."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from hypothesis import given
from hypothesis import strategies as st

from frontdesk.config import Settings
from frontdesk.errors import Unauthenticated
from frontdesk.policies.auth import ConfigurationError, Keyring
from frontdesk.policies.tokens import MAX_BYTES, said
from tests.faults.fake import FakeLetta, fake_letta
from tests.faults.watch import Watched, until, watched
from tests.policies.issuer import AUDIENCE, PATH, Issuer, Private, b64, forged, issuer, public, reply, rsa_key, signed
from tests.requirements import requirement
from tests.served import TLS

MASTER, NARROW = "master-key-1", "narrow-key-2"
RSA = rsa_key("published")
EC = ec.generate_private_key(ec.SECP256R1())
EC384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
STRANGE = rsa_key("another")
SHORT = rsa_key("short", 1024)


def publish(idp: Issuer) -> Issuer:
    """The keys of an honest issuer, and some that no token may be signed with."""
    idp.publish(RSA, "rsa-1")
    idp.publish(EC, "ec-1")
    idp.publish(EC384, "ec-384")
    idp.publish(ED, "ed-1", alg="EdDSA")
    idp.publish(STRANGE, "enc-1", use="enc")
    idp.publish(STRANGE, "wrap-1", key_ops=["wrapKey"])
    idp.publish(STRANGE, "ps-only", alg="PS256")
    idp.publish(SHORT, "short-1")
    idp.keys.append({"kty": "oct", "kid": "oct-1", "k": b64(b"x" * 32), "alg": "HS256"})
    idp.keys.append(public(STRANGE, "leaked-1") | {"d": "AQAB"})
    idp.keys.append({**public(STRANGE, ""), "kid": ""})
    idp.keys += [{}, {"kid": 7}, {"kty": "RSA", "kid": "broken", "n": 5, "e": "AQAB"}, {"kty": "EC", "kid": "no-curve"}]
    return idp


@pytest.fixture(scope="module")
def fake() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        yield fake


@pytest.fixture(scope="module")
def idp() -> Generator[Issuer]:
    with issuer() as idp:
        yield publish(idp)


@pytest.fixture(scope="module")
def partner() -> Generator[Issuer]:
    """Another issuer, whose tokens are good for less."""
    with issuer("partner") as partner:
        partner.publish(STRANGE, "partner-1")
        partner.publish(STRANGE, "rsa-1")  # a key of the other's name
        yield partner


@pytest.fixture(scope="module")
def gateway(
    fake: FakeLetta, idp: Issuer, partner: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Watched]:
    narrow = {"name": "narrow", "sha256": hashlib.sha256(NARROW.encode()).hexdigest(), "trust_user_headers": True}
    with watched(
        tmp_path_factory.mktemp("tokens"),
        letta_base_url=fake.url,
        api_keys=f"{MASTER},a.key.with-dots",
        keys=[narrow],
        scopes="premium,beta",
        webui_jwt_secret="of Open WebUI, and long enough for it",
        jwt=[
            idp.settings(grants=["metrics", "premium"]),
            partner.settings(agents=["Otis"], rate="3/hour", subject_claim="email", scopes_claim="roles"),
        ],
    ) as running:
        yield running


def models(gateway: Watched, token: str, **headers: str) -> httpx.Response:
    return get(gateway, "/v1/models", token, **headers)


def get(gateway: Watched, path: str, token: str, **headers: str) -> httpx.Response:
    return httpx.get(gateway.url + path, headers={"authorization": f"Bearer {token}", **headers}, verify=TLS)


def good(idp: Issuer, key: Private = RSA, kid: str = "rsa-1", algorithm: str = "RS256", **claims: Any) -> str:
    return signed(key, algorithm, idp.claims(**claims), kid=kid)


# --- let in --------------------------------------------------------------------------------------------------------

GOOD: dict[str, Callable[[Issuer], str]] = {
    "RS256": good,
    "ES256": lambda idp: good(idp, EC, "ec-1", "ES256"),
    "EdDSA": lambda idp: good(idp, ED, "ed-1", "EdDSA"),
    "several audiences": lambda idp: good(idp, aud=["another", AUDIENCE]),
    "a clock that is late": lambda idp: good(idp, exp=int(time.time()) - 10),
    "a clock that is early": lambda idp: good(idp, nbf=int(time.time()) + 10, iat=int(time.time()) + 10),
    "a subject of many kinds": lambda idp: good(idp, sub="auth0|zoë/7 ../../etc"),
    "unknown claims": lambda idp: good(idp, scope=["no", 7, None, "premium"], more={"a": 1}),
}


@pytest.mark.parametrize("name", list(GOOD))
def test_a_token_of_a_known_issuer_is_let_in(gateway: Watched, idp: Issuer, name: str) -> None:
    answer = models(gateway, GOOD[name](idp))
    assert answer.status_code == 200
    assert [model["id"] for model in answer.json()["data"]] == ["Milo", "Otis"]


async def test_the_official_client_takes_a_token_for_a_key(gateway: Watched, idp: Issuer) -> None:
    async with gateway.client(api_key=good(idp)) as client:
        reply = await client.chat.completions.create(model="Milo", messages=[{"role": "user", "content": "hi"}])
        assert reply.choices[0].message.content
    async with gateway.client(api_key=good(idp, exp=int(time.time()) - 60)) as client:
        with pytest.raises(openai.AuthenticationError) as info:
            await client.models.list()
        assert info.value.code == "token_expired"


def test_keys_are_still_keys_also_those_with_dots(gateway: Watched) -> None:
    for key in (MASTER, NARROW, "a.key.with-dots"):
        assert models(gateway, key).status_code == 200
    assert models(gateway, "b.key.with-dots").status_code == 401


# --- not let in ----------------------------------------------------------------------------------------------------


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda data: hmac.digest(secret, data, "sha256")


def rs256(key: Any) -> Callable[[bytes], bytes]:
    return lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def headed(idp: Issuer, **header: Any) -> str:
    """Signed with the right key, whatever the header says."""
    return forged({"alg": "RS256", "kid": "rsa-1", **header}, idp.claims(), rs256(RSA))


def claiming(idp: Issuer, without: str = "", **claims: Any) -> str:
    """The same for the claims."""
    return forged({"alg": "RS256", "kid": "rsa-1"}, idp.claims(without, **claims), rs256(RSA))


def parts(idp: Issuer) -> list[str]:
    return good(idp).split(".")


def swapped(idp: Issuer) -> str:
    head, _, signature = parts(idp)
    return f"{head}.{parts_of(idp.claims(sub='mallory'))}.{signature}"


def parts_of(claims: Any) -> str:
    return b64(json.dumps(claims).encode())


def unsigned(idp: Issuer, alg: Any, **header: Any) -> str:
    return forged({"alg": alg, "kid": "rsa-1", **header}, idp.claims(), lambda _: b"")


PUBLISHED = json.dumps(public(RSA, "rsa-1")).encode()
DEEP = b'{"a":'
NOW = int(time.time())

BAD: dict[str, Callable[[Issuer], str]] = {
    "another audience": lambda idp: claiming(idp, aud="another"),
    "several others": lambda idp: claiming(idp, aud=["another", "frontdesk.example.evil"]),
    "an odd audience": lambda idp: claiming(idp, aud={"frontdesk.example": 1}),
    "no audience": lambda idp: claiming(idp, "aud"),
    "another issuer": lambda idp: claiming(idp, iss="https://evil.example"),
    "nearly the issuer": lambda idp: claiming(idp, iss=idp.url + "/"),
    "an odd issuer": lambda idp: claiming(idp, iss=[idp.url]),
    "no issuer": lambda idp: claiming(idp, "iss"),
    "no end": lambda idp: claiming(idp, "exp"),
    "an odd end": lambda idp: claiming(idp, exp="never"),
    "an end that is no number": lambda idp: claiming(idp, exp=float("nan")),
    "an endless one": lambda idp: claiming(idp, exp=float("inf")),
    "not yet": lambda idp: claiming(idp, nbf=NOW + 600),
    "made tomorrow": lambda idp: claiming(idp, iat=NOW + 86_400),
    "no subject": lambda idp: claiming(idp, "sub"),
    "an empty subject": lambda idp: claiming(idp, sub=""),
    "a blank subject": lambda idp: claiming(idp, sub="  "),
    "a subject with a line break": lambda idp: claiming(idp, sub="alice\nevent=forged"),
    "a subject that turns round": lambda idp: claiming(idp, sub="a\u202eb"),
    "a subject that is too long": lambda idp: claiming(idp, sub="x" * 256),
    "a subject that is a number": lambda idp: claiming(idp, sub=7),
    "a subject that is a list": lambda idp: claiming(idp, sub=["alice"]),
    "no algorithm": lambda idp: unsigned(idp, "none"),
    "no algorithm, in capitals": lambda idp: unsigned(idp, "NONE"),
    "no algorithm, mixed": lambda idp: unsigned(idp, "nOnE"),
    "an empty algorithm": lambda idp: unsigned(idp, ""),
    "an algorithm left out": lambda idp: forged({"kid": "rsa-1"}, idp.claims(), lambda _: b""),
    "an algorithm that is a list": lambda idp: unsigned(idp, ["RS256"]),
    "no algorithm, but signed": lambda idp: headed(idp, alg="none"),
    "a signature taken away": lambda idp: ".".join(parts(idp)[:2]) + ".",
    "HS256 with the public key": lambda idp: forged({"alg": "HS256", "kid": "rsa-1"}, idp.claims(), hs256(pem(RSA))),
    "HS256 with the published key": lambda idp: forged(
        {"alg": "HS256", "kid": "rsa-1"}, idp.claims(), hs256(PUBLISHED)
    ),
    "HS256 called RS256": lambda idp: forged({"alg": "RS256", "kid": "rsa-1"}, idp.claims(), hs256(pem(RSA))),
    "HS256 with a published secret": lambda idp: forged(
        {"alg": "HS256", "kid": "oct-1"}, idp.claims(), hs256(b"x" * 32)
    ),
    "HS256 with an empty secret": lambda idp: forged({"alg": "HS256", "kid": "rsa-1"}, idp.claims(), hs256(b"")),
    "an algorithm that is not accepted": lambda idp: good(idp, algorithm="RS512"),
    "another one of the same kind of key": lambda idp: good(idp, algorithm="PS256"),
    "a curve that is not accepted": lambda idp: good(idp, EC384, "ec-384", "ES384"),
    "a key's name for another kind": lambda idp: good(idp, EC, "rsa-1", "ES256"),
    "a kind of key for another's name": lambda idp: good(idp, RSA, "ec-1", "RS256"),
    "a key for encryption": lambda idp: good(idp, STRANGE, "enc-1"),
    "a key for wrapping": lambda idp: good(idp, STRANGE, "wrap-1"),
    "a key for another algorithm": lambda idp: good(idp, STRANGE, "ps-only"),
    "a key whose private half is known": lambda idp: good(idp, STRANGE, "leaked-1"),
    "a key without a name": lambda idp: good(idp, STRANGE, ""),
    "a short key": lambda idp: forged({"alg": "RS256", "kid": "short-1"}, idp.claims(), rs256(SHORT)),
    "a broken key": lambda idp: good(idp, STRANGE, "broken"),
    "another's key": lambda idp: good(idp, STRANGE),
    "no name of a key": lambda idp: forged({"alg": "RS256"}, idp.claims(), rs256(RSA)),
    "an odd name of a key": lambda idp: headed(idp, kid=7),
    "a path": lambda idp: headed(idp, kid="../../../../dev/null"),
    "a file": lambda idp: headed(idp, kid="file:///etc/passwd"),
    "a question for a database": lambda idp: headed(idp, kid="' UNION SELECT 'x' --"),
    "a name with a NUL": lambda idp: headed(idp, kid="rsa-1\0"),
    "a key within the token": lambda idp: forged(
        {"alg": "RS256", "kid": "mine", "jwk": public(STRANGE, "mine")}, idp.claims(), rs256(STRANGE)
    ),
    "a key within the token, of a known name": lambda idp: forged(
        {"alg": "RS256", "kid": "rsa-1", "jwk": public(STRANGE, "rsa-1")}, idp.claims(), rs256(STRANGE)
    ),
    "a certificate within the token": lambda idp: forged(
        {"alg": "RS256", "kid": "rsa-1", "x5c": [b64(pem(STRANGE))]}, idp.claims(), rs256(STRANGE)
    ),
    "an extension nobody knows": lambda idp: headed(idp, crit=["exp"], exp=NOW + 300),
    "no extension": lambda idp: headed(idp, crit=[]),
    "a body elsewhere": lambda idp: headed(idp, b64=False, crit=["b64"]),
    "another body": swapped,
    "another head": lambda idp: ".".join([b64(b'{"alg":"RS256","kid":"rsa-1" }'), *parts(idp)[1:]]),
    "a bit more": lambda idp: good(idp) + "A",
    "a bit less": lambda idp: good(idp)[:-3],
    "a head that is no JSON": lambda idp: ".".join([b64(b"alg: RS256"), *parts(idp)[1:]]),
    "a head that is a list": lambda idp: ".".join([b64(b"[]"), *parts(idp)[1:]]),
    "a body that is a list": lambda idp: forged({"alg": "RS256", "kid": "rsa-1"}, [idp.claims()], rs256(RSA)),  # type: ignore[arg-type]
    "a deep head": lambda idp: ".".join([b64(b"[" * 9000), *parts(idp)[1:]]),
    "a deep body": lambda idp: f"{parts(idp)[0]}.{b64(DEEP * 2000)}.AA",
    "too long": lambda idp: good(idp, more="x" * MAX_BYTES),
    "empty parts": lambda _: "..",
    "dots": lambda _: "a.b.c",
    "no base64": lambda _: "!.$.%",
    "five parts": lambda idp: ".".join([*parts(idp), "AA", "AA"]),
}


@pytest.mark.parametrize("name", list(BAD))
@requirement("python.tokens")
def test_a_token_that_is_not_good_is_a_401(gateway: Watched, idp: Issuer, name: str) -> None:
    token = BAD[name](idp)
    answer = models(gateway, token)
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
    assert not token.strip(".") or token not in answer.text
    chat = {"model": "Milo", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {token}", "x-openwebui-user-id": "alice"}
    assert httpx.post(f"{gateway.base_url}/chat/completions", json=chat, headers=headers).status_code == 401


def test_an_expired_token_is_told_so(gateway: Watched, idp: Issuer) -> None:
    answer = models(gateway, good(idp, exp=int(time.time()) - 60))
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_expired")
    assert answer.headers["www-authenticate"] == "Bearer"
    forged_too = models(gateway, signed(STRANGE, "RS256", idp.claims(exp=1), kid="rsa-1"))
    assert forged_too.json()["error"]["code"] == "invalid_api_key", "nothing is told of a token that is forged"


def test_one_issuer_cannot_speak_for_another(gateway: Watched, idp: Issuer, partner: Issuer) -> None:
    claims = partner.claims(email="bob@example.com")
    assert models(gateway, signed(STRANGE, "RS256", claims, kid="partner-1")).status_code == 200
    assert models(gateway, signed(STRANGE, "RS256", idp.claims(), kid="partner-1")).status_code == 401
    assert models(gateway, signed(STRANGE, "RS256", idp.claims(), kid="rsa-1")).status_code == 401
    assert models(gateway, signed(RSA, "RS256", claims, kid="rsa-1")).status_code == 401


def test_where_a_key_is_to_be_had_a_token_does_not_say(gateway: Watched, idp: Issuer) -> None:
    with issuer("evil") as evil:
        evil.publish(STRANGE, "rsa-1")
        for header in ("jku", "x5u", "iss", "jwks_uri"):
            token = forged({"alg": "RS256", "kid": "rsa-1", header: evil.url + PATH}, idp.claims(), rs256(STRANGE))
            assert models(gateway, token).status_code == 401
        assert evil.visits == []


def test_a_token_in_the_address_or_twice_is_none(gateway: Watched, idp: Issuer) -> None:
    assert httpx.get(f"{gateway.base_url}/models?access_token={good(idp)}").status_code == 401
    headers = [("authorization", "Bearer wrong"), ("authorization", f"Bearer {good(idp)}")]
    assert httpx.get(f"{gateway.base_url}/models", headers=headers).status_code == 401


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_what_is_no_token_is_refused_or_says_nothing_harmful(head: bytes, body: bytes) -> None:
    for token in (b".".join((head, body, b"")), f"{b64(head)}.{b64(body)}.AA".encode()):
        with suppress(Unauthenticated):
            found, claimed = said(token)
            assert (type(found.alg), type(found.kid), type(claimed.iss)) == (str, str, str)


# --- who they are, and what they may do ----------------------------------------------------------------------------


def chat(gateway: Watched, token: str, model: str = "Milo", **headers: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {token}", **headers}
    return httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers, verify=TLS)


def conversations(gateway: Watched, token: str, **headers: str) -> int:
    return len(get(gateway, "/v1/conversations", token, **headers).json()["data"])


def test_conversations_belong_to_the_subject_of_one_issuer(gateway: Watched, idp: Issuer, partner: Issuer) -> None:
    ann = good(idp, sub="ann@example.com")
    assert chat(gateway, ann).status_code == 200
    assert conversations(gateway, ann) == 1
    assert conversations(gateway, good(idp, sub="ann@example.com", scope="premium", jti="2")) == 1
    for sub in ("Ann@example.com", "ann@example.com/", "ann@example.com/ann", " ann@example.com"):
        assert conversations(gateway, good(idp, sub=sub)) == 0
    theirs = signed(STRANGE, "RS256", partner.claims(email="ann@example.com"), kid="partner-1")
    assert conversations(gateway, theirs) == 0
    for user in ("ann@example.com", "idp/ann@example.com", "../idp/ann@example.com"):
        assert conversations(gateway, NARROW, **{"x-openwebui-user-id": user}) == 0


def test_a_token_says_who_it_is_and_no_header_says_otherwise(gateway: Watched, idp: Issuer) -> None:
    """Else `idp/a/b` would be the subject `a/b`, and the user `b` of the subject `a`."""
    ben = good(idp, sub="ben/b")
    assert chat(gateway, ben).status_code == 200
    secret = "of Open WebUI, and long enough for it"
    now = int(time.time())
    webui = signed(secret, "HS256", {"sub": "b", "iss": "open-webui", "iat": now, "exp": now + 60})
    for headers in ({"x-openwebui-user-jwt": webui}, {"x-openwebui-user-id": "b"}):
        assert conversations(gateway, good(idp, sub="ben"), **headers) == 0
        assert conversations(gateway, ben, **headers) == 1


def test_a_token_carries_only_the_scopes_that_its_issuer_was_granted(
    gateway: Watched, idp: Issuer, partner: Issuer
) -> None:
    assert get(gateway, "/metrics", good(idp, scope="openid metrics")).status_code == 200
    assert get(gateway, "/metrics", good(idp, scope=["metrics", "other"])).status_code == 200
    for scope in ("", "openid", "admin owner", "Metrics", "metrics,premium", {"metrics": True}, 7, None, ["m", 1]):
        answer = get(gateway, "/metrics", good(idp, scope=scope))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope"), scope
        assert "'metrics'" in answer.json()["error"]["message"]
    claims = partner.claims(email="sue@example.com", roles=["metrics", "admin"], scope="metrics")
    assert get(gateway, "/health", signed(STRANGE, "RS256", claims, kid="partner-1")).status_code == 403


def test_an_issuers_tokens_are_good_for_its_agents_and_at_its_rate(gateway: Watched, partner: Issuer) -> None:
    def token(who: str) -> str:
        return signed(STRANGE, "RS256", partner.claims(email=who), kid="partner-1")

    assert [each["id"] for each in models(gateway, token("kim@example.com")).json()["data"]] == ["Otis"]
    refused = chat(gateway, token("kim@example.com"), "Milo")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "agent_forbidden")
    third = chat(gateway, token("kim@example.com"), "Otis")
    assert (third.status_code, third.headers["x-ratelimit-remaining-requests"]) == (200, "0")
    assert models(gateway, token("kim@example.com")).status_code == 429
    assert models(gateway, token("lou@example.com")).status_code == 200, "each subject has its own rate"


# --- the issuer's keys ---------------------------------------------------------------------------------------------


@pytest.fixture
def serve(fake: FakeLetta, tmp_path: Path) -> Generator[Callable[..., Watched]]:
    with ExitStack() as running:

        def start(*jwt: dict[str, Any], **settings: Any) -> Watched:
            values = {"letta_base_url": fake.url, "api_keys": MASTER, "jwt": list(jwt)} | settings
            return running.enter_context(watched(tmp_path, **values))

        yield start


Serve = Callable[..., Watched]


@requirement("python.tokens")
def test_a_thousand_forged_names_of_keys_are_asked_for_once(serve: Serve) -> None:
    with issuer() as idp:
        idp.publish(EC, "ec-1")
        gateway = serve(idp.settings(refetch_seconds=1.5))
        assert models(gateway, good(idp, EC, "ec-1", "ES256")).status_code == 200
        assert len(idp.visits) == 1
        claims = idp.claims()
        began = time.monotonic()
        with httpx.Client() as client, ThreadPoolExecutor(8) as pool:

            def ask(number: int) -> int:
                token = signed(EC, "ES256", claims, kid=f"forged-{number}")
                return client.get(
                    f"{gateway.base_url}/models", headers={"authorization": f"Bearer {token}"}
                ).status_code

            assert set(pool.map(ask, range(1000))) == {401}
        assert len(idp.visits) <= 2 + (time.monotonic() - began) / 1.5
        assert idp.visits == [PATH] * len(idp.visits)


def test_a_new_key_is_found_and_one_that_was_withdrawn_is_gone(serve: Serve) -> None:
    with issuer() as idp:
        idp.publish(EC, "old")
        gateway = serve(idp.settings(refetch_seconds=0.2))
        old, new = (good(idp, EC, kid, "ES256") for kid in ("old", "new"))
        assert models(gateway, old).status_code == 200
        assert models(gateway, new).status_code == 401
        idp.keys.clear()
        idp.publish(EC, "new")
        assert models(gateway, old).status_code == 200, "it is still known"
        until(lambda: models(gateway, new).status_code == 200, seconds=5)
        assert models(gateway, old).status_code == 401


def test_whoever_comes_while_keys_are_fetched_waits_for_the_same_fetch_and_nobody_else_does(serve: Serve) -> None:
    gate = threading.Event()
    with issuer() as idp:
        idp.publish(EC, "ec-1")

        def slowly(handler: BaseHTTPRequestHandler) -> None:
            gate.wait(10)
            reply(handler, idp.body())

        idp.answer = slowly
        gateway = serve(idp.settings())
        token = good(idp, EC, "ec-1", "ES256")
        with ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(models, gateway, token) for _ in range(20)]
            until(lambda: idp.visits)
            assert models(gateway, MASTER).status_code == 200
            gate.set()
            assert {each.result().status_code for each in asked} == {200}
        assert len(idp.visits) == 1


def redirected(handler: BaseHTTPRequestHandler, place: str) -> None:
    reply(handler, b"", 302, location=place)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" " * 65_536)


USELESS: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {
    "an error": lambda handler: reply(handler, b"{}", 500),
    "a page": lambda handler: reply(handler, b"<html>"),
    "a list": lambda handler: reply(handler, b"[]"),
    "odd keys": lambda handler: reply(handler, b'{"keys": {"a": 1}}'),
    "depth": lambda handler: reply(handler, b'{"keys": [{"a": ' + b"[" * 50_000),
    "no end": endless,
    "a broken connection": lambda handler: handler.connection.close(),
}


@pytest.fixture(scope="module")
def useless() -> Generator[dict[str, Issuer]]:
    """Issuers that say nothing of use, each in its way."""
    with ExitStack() as running:
        there = {name: running.enter_context(issuer(f"issuer-{number}")) for number, name in enumerate(USELESS)}
        for name, idp in there.items():
            idp.answer = USELESS[name]
        yield there


@pytest.fixture(scope="module")
def unlucky(
    useless: dict[str, Issuer], fake: FakeLetta, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Watched]:
    jwt = [idp.settings() for idp in useless.values()]
    with watched(tmp_path_factory.mktemp("unlucky"), letta_base_url=fake.url, api_keys=MASTER, jwt=jwt) as running:
        yield running


@pytest.mark.parametrize("name", list(USELESS))
def test_an_issuer_of_which_no_key_is_known_lets_nobody_in(
    unlucky: Watched, useless: dict[str, Issuer], name: str
) -> None:
    idp = useless[name]
    answer = models(unlucky, good(idp, EC, "ec-1", "ES256"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "issuer_unavailable")
    assert answer.headers["x-should-retry"] == "true"
    assert int(answer.headers["retry-after"]) >= 1
    tried = len(idp.visits)
    assert models(unlucky, good(idp, EC, "ec-1", "ES256")).status_code == 503
    assert len(idp.visits) == tried >= 1, "it is not asked again at once"
    assert models(unlucky, MASTER).status_code == 200


def test_an_issuer_that_is_back_is_asked_again_and_one_that_goes_away_is_not_missed(serve: Serve) -> None:
    with ExitStack() as there:
        idp = there.enter_context(issuer())
        idp.publish(EC, "ec-1")
        idp.answer = USELESS["an error"]
        gateway = serve(idp.settings())
        token = good(idp, EC, "ec-1", "ES256")
        assert models(gateway, token).status_code == 503
        idp.answer = None
        until(lambda: models(gateway, token).status_code == 200, seconds=10)
        there.close()
        assert models(gateway, token).status_code == 200
        assert models(gateway, good(idp, EC, "other", "ES256")).status_code == 401


def test_redirects_to_other_keys_are_not_followed(serve: Serve) -> None:
    with issuer() as idp, issuer("evil") as evil:
        evil.publish(EC, "ec-1")
        idp.answer = lambda handler: redirected(handler, evil.url + PATH)
        gateway = serve(idp.settings())
        assert models(gateway, good(idp, EC, "ec-1", "ES256")).status_code == 503
        assert evil.visits == []


def test_with_issuers_alone_everybody_else_needs_a_token(serve: Serve) -> None:
    with issuer() as idp:
        idp.publish(EC, "ec-1")
        gateway = serve(idp.settings(), api_keys="")
        assert httpx.get(f"{gateway.base_url}/models").status_code == 401
        assert models(gateway, "anything").status_code == 401
        assert models(gateway, good(idp, EC, "ec-1", "ES256")).status_code == 200


# --- settings ------------------------------------------------------------------------------------------------------

USUAL: dict[str, Any] = {
    "name": "idp",
    "issuer": "https://idp.example",
    "audience": "us",
    "jwks_url": "https://idp.example/keys",
}


def keyring(*tables: dict[str, Any], **settings: Any) -> Keyring:
    return Keyring(Settings(_env_file=None, jwt=tables, **settings))  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"algorithms": ("HS256",)}, "'HS256'"),
        ({"algorithms": ("RS256", "none")}, "'none'"),
        ({"algorithms": ()}, "algorithms is empty"),
        ({"jwks_url": "http://idp.example/keys"}, "allow_http"),
        ({"jwks_url": "http://localhost.evil.example/keys"}, "allow_http"),
        ({"jwks_url": "file:///etc/keys"}, "https://"),
        ({"jwks_url": "https://user:word@idp.example/keys"}, "password"),
        ({"jwks_url": "https://"}, "https://"),
        ({"jwks_url": "http://[::1/keys"}, "https://"),
        ({"name": "a/b"}, "cannot be called"),
        ({"name": "anonymous"}, "cannot be called"),
        ({"grants": ("superuser",)}, "'superuser'"),
    ],
)
def test_an_issuer_that_proves_nothing_is_refused_at_the_start(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=r"jwt|called") as info:
        keyring({**USUAL, **wrong})
    assert said in str(info.value)


@pytest.mark.parametrize(
    "right",
    [
        {"jwks_url": "http://127.0.0.1:9/keys"},
        {"jwks_url": "http://[::1]:9/keys"},
        {"jwks_url": "http://keycloak:8080/certs", "allow_http": True},
        {"algorithms": ("PS512", "ES384", "EdDSA")},
        {"grants": ("metrics", "owner", "premium")},
    ],
)
def test_other_issuers_are_taken(right: dict[str, Any]) -> None:
    assert keyring({**USUAL, **right}, scopes=("premium",))


def test_issuers_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="listed twice"):
        keyring(USUAL, {**USUAL, "name": "again"})
    with pytest.raises(ConfigurationError, match="name of another"):
        keyring(USUAL, {**USUAL, "issuer": "https://other.example"})
    with pytest.raises(ConfigurationError, match="name of another"):
        keyring(USUAL, keys=({"name": "idp", "sha256": "0" * 64},))
