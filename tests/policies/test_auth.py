"""Who asks."""

import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from frontdesk.config import KeySettings, Settings
from frontdesk.errors import Forbidden, InvalidRequest, Unauthenticated
from frontdesk.policies.auth import ConfigurationError, Keyring, check_listening
from frontdesk.turn import Principal

Headers = list[tuple[bytes, bytes]]


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def keyring(*keys: KeySettings, env: tuple[str, ...] = (), secret: str = "") -> Keyring:
    secrets = tuple(SecretStr(key) for key in env)
    return Keyring(Settings(keys=keys, api_keys=secrets, webui_jwt_secret=SecretStr(secret)))


WEBUI = KeySettings(name="webui", sha256=sha256("webui-key"), agents=("Milo",), trust_user_headers=True)
BOT = KeySettings(name="bot", sha256=sha256("bot-key").upper())


@pytest.fixture(autouse=True)
def _nothing_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.chdir(tmp_path)
    for name in (
        "FRONTDESK_API_KEYS",
        "FRONTDESK_KEYS",
        "FRONTDESK_HOST",
        "FRONTDESK_CONFIG",
        "FRONTDESK_WEBUI_JWT_SECRET",
    ):
        monkeypatch.delenv(name, raising=False)


def test_without_keys_everybody_is_anonymous_whatever_they_send() -> None:
    for headers in ([], [(b"authorization", b"Bearer anything")]):
        caller = keyring().authenticate(headers)
        assert caller.principal == Principal("anonymous")
        assert caller.key is None


@pytest.mark.parametrize(
    ("origin", "host", "mine"),
    [
        (b"http://127.0.0.1:8000", b"127.0.0.1:8000", True),
        (b"http://localhost:8000", b"localhost:8000", True),
        (b"http://[::1]:8000", b"[::1]:8000", True),
        (b"https://chat.example", b"127.0.0.1:8000", True),  # named in the settings
        (b"https://evil.example", b"127.0.0.1:8000", False),
        (b"http://localhost:9000", b"localhost:8000", False),
        (b"http://evil.example:8000", b"evil.example:8000", False),  # a name that was made to mean this machine
        (b"null", b"127.0.0.1:8000", False),
        (b"", b"", False),
        (b"http://[", b"[", False),
    ],
)
def test_without_keys_only_our_own_pages_and_those_named_are_let_in(origin: bytes, host: bytes, mine: bool) -> None:
    ring = Keyring(Settings(cors_origins=("https://chat.example",)))
    headers = [(b"host", host), (b"origin", origin)]
    if mine:
        assert ring.authenticate(headers).principal == Principal("anonymous")
    else:
        with pytest.raises(Forbidden):
            ring.authenticate(headers)
    assert Keyring(Settings(cors_origins=("*",))).authenticate(headers)
    assert keyring(BOT).authenticate([*headers, (b"x-api-key", b"bot-key")]), "a page that has a key may use it"


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer bot-key"),
        (b"authorization", b"bearer bot-key"),
        (b"authorization", b"BEARER  bot-key "),
        (b"x-api-key", b"bot-key"),
        (b"api-key", b"bot-key"),
    ],
)
def test_a_key_is_taken_from_each_of_its_headers(header: tuple[bytes, bytes]) -> None:
    assert keyring(WEBUI, BOT).authenticate([header]).key == BOT


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"bot-key")],
        [(b"authorization", b"Basic Ym90LWtleQ==")],
        [(b"authorization", b"Bearer bot-ke")],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"x-api-key", b"nope")],
        [(b"cookie", b"bot-key")],
    ],
)
def test_a_missing_or_wrong_key_is_unauthenticated(headers: Headers) -> None:
    with pytest.raises(Unauthenticated) as info:
        keyring(BOT).authenticate(headers)
    assert info.value.public_code == "invalid_api_key"


def test_a_wrong_key_is_not_echoed() -> None:
    with pytest.raises(Unauthenticated) as info:
        keyring(BOT).authenticate([(b"authorization", b"Bearer nearly-the-key")])
    assert "nearly" not in info.value.message


def test_of_headers_that_disagree_authorization_counts_then_x_api_key() -> None:
    ring = keyring(WEBUI, BOT)
    headers: Headers = [(b"api-key", b"x"), (b"x-api-key", b"bot-key"), (b"authorization", b"Bearer webui-key")]
    assert ring.authenticate(headers).principal.id == "webui"
    assert ring.authenticate(headers[:2]).principal.id == "bot"
    with pytest.raises(Unauthenticated):
        ring.authenticate([(b"authorization", b"Bearer x"), (b"x-api-key", b"bot-key")])


def test_a_proxys_basic_authorization_does_not_hide_the_key() -> None:
    headers: Headers = [(b"authorization", b"Basic cHJveHk6cHJveHk="), (b"x-api-key", b"bot-key")]
    assert keyring(BOT).authenticate(headers).principal.id == "bot"


def test_keys_of_the_environment_are_named_by_their_hash_and_may_use_every_agent() -> None:
    caller = keyring(env=("first", "second")).authenticate([(b"x-api-key", b"second")])
    assert caller.principal == Principal(f"key-{sha256('second')[:8]}", None)
    assert caller.key is None


def test_a_keys_agents_become_its_principals() -> None:
    assert keyring(WEBUI).authenticate([(b"x-api-key", b"webui-key")]).principal == Principal("webui", ("Milo",))


def test_a_trusted_key_speaks_for_its_users() -> None:
    headers: Headers = [(b"x-api-key", b"webui-key"), (b"x-openwebui-user-id", "zoë/7".encode())]
    assert keyring(WEBUI).authenticate(headers).principal == Principal("webui/zoë/7", ("Milo",))


def test_a_key_that_is_not_trusted_cannot_name_a_user() -> None:
    headers: Headers = [(b"x-api-key", b"bot-key"), (b"x-openwebui-user-id", b"admin")]
    assert keyring(BOT).authenticate(headers).principal.id == "bot"


@pytest.mark.parametrize("user", [b"", b"  ", b"a\tb", b"\xff", b"x" * 129, "a\u202eb".encode()])
def test_a_user_id_that_cannot_be_one_is_a_400(user: bytes) -> None:
    with pytest.raises(InvalidRequest) as info:
        keyring(WEBUI).authenticate([(b"x-api-key", b"webui-key"), (b"x-openwebui-user-id", user)])
    assert info.value.param == "X-OpenWebUI-User-Id"


SECRET = "a secret of Open WebUI and of this server, long enough for HS512 too"


def token(secret: str = SECRET, algorithm: str = "HS256", without: str = "", **claims: Any) -> bytes:
    """As Open WebUI 0.12 makes it (`utils/headers.py`)."""
    now = int(time.time())
    usual = {"sub": "alice", "email": "a@example.com", "name": "Alice", "role": "user", "iss": "open-webui"}
    payload = {**usual, "iat": now, "exp": now + 300, **claims}
    payload.pop(without, None)
    made = jwt.encode(payload, secret, algorithm=algorithm)  # pyright: ignore[reportUnknownMemberType]
    return made.encode()


def signed(value: bytes, key: bytes = b"bot-key") -> Headers:
    return [(b"x-api-key", key), (b"x-openwebui-user-jwt", value)]


def test_a_signed_token_names_the_user_for_any_key() -> None:
    ring = keyring(WEBUI, BOT, env=("env-key",), secret=f" {SECRET}\n")
    assert ring.authenticate(signed(token())).principal == Principal("bot/alice")
    assert ring.authenticate(signed(token(sub="zoë/7"), b"webui-key")).principal == Principal("webui/zoë/7", ("Milo",))
    assert ring.authenticate(signed(token(), b"env-key")).principal.id.endswith("/alice")
    assert keyring(secret=SECRET).authenticate(signed(token())).principal.id == "anonymous/alice"


def test_a_token_comes_beside_the_key_and_does_not_replace_it() -> None:
    with pytest.raises(Unauthenticated):
        keyring(BOT, secret=SECRET).authenticate(signed(token(), b"nope"))


def test_a_user_is_the_same_by_token_and_by_header_and_the_token_counts() -> None:
    ring = keyring(WEBUI, secret=SECRET)
    by_header: Headers = [(b"x-api-key", b"webui-key"), (b"x-openwebui-user-id", b"alice")]
    assert ring.authenticate(by_header) == ring.authenticate(signed(token(), b"webui-key"))
    both = [*signed(token(), b"webui-key"), (b"x-openwebui-user-id", b"mallory")]
    assert ring.authenticate(both).principal.id == "webui/alice"


def test_clocks_may_differ_a_little() -> None:
    ring = keyring(BOT, secret=SECRET)
    now = int(time.time())
    assert ring.authenticate(signed(token(exp=now - 10))).user == "alice"
    assert ring.authenticate(signed(token(iat=now + 10, nbf=now + 10))).user == "alice"


def unsigned(**claims: Any) -> bytes:
    parts = ({"alg": "none"}, {"sub": "alice", "iss": "open-webui", "exp": time.time() + 300, **claims})
    return b".".join([base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts] + [b""])


BAD_TOKENS = {
    "expired": token(exp=int(time.time()) - 60),
    "not yet": token(iat=int(time.time()) + 600),
    "another secret": token("another secret, which is just as long as the one that is right, or longer"),
    "another algorithm": token(algorithm="HS512"),
    "no algorithm": unsigned(),
    "another issuer": token(iss="somebody"),
    "no issuer": token(without="iss"),
    "no subject": token(without="sub"),
    "no end": token(without="exp"),
    "cut": token()[:-3],
    "not a token": b"alice",
    "a template": b"{{USER_JWT}}",
    "no text": b"\xff.\xfe.\xfd",
    "deep": base64.urlsafe_b64encode(b"[" * 30_000) + b".e30.AA",
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_a_token_that_is_not_good_is_a_401_for_every_key_and_is_not_echoed(name: str) -> None:
    ring = keyring(WEBUI, BOT, secret=SECRET)
    for key in (b"bot-key", b"webui-key"):
        with pytest.raises(Unauthenticated) as info:
            ring.authenticate(signed(BAD_TOKENS[name], key))
        assert info.value.public_code == "invalid_api_key"
        assert info.value.message.startswith("The token in X-OpenWebUI-User-Jwt")
        assert BAD_TOKENS[name].decode("latin-1") not in info.value.message


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda junk: token()[:40] + b"." + junk))
def test_no_token_made_up_is_good(value: bytes) -> None:
    if value.strip():
        with pytest.raises(Unauthenticated):
            keyring(BOT, secret=SECRET).authenticate(signed(value))


@pytest.mark.parametrize("sub", ["", " ", "a\tb", "x" * 129])
def test_a_token_for_a_user_id_that_cannot_be_one_is_a_400(sub: str) -> None:
    with pytest.raises(InvalidRequest) as info:
        keyring(BOT, secret=SECRET).authenticate(signed(token(sub=sub)))
    assert info.value.param == "X-OpenWebUI-User-Jwt"


def test_no_token_or_an_empty_one_names_nobody() -> None:
    ring = keyring(BOT, secret=SECRET)
    assert ring.authenticate([(b"x-api-key", b"bot-key")]).principal.id == "bot"
    assert ring.authenticate(signed(b" ")).principal.id == "bot"


def test_without_a_secret_tokens_are_not_read() -> None:
    assert keyring(BOT).authenticate(signed(token())).principal.id == "bot"
    assert keyring(BOT).authenticate(signed(b"junk")).principal.id == "bot"


def test_a_short_secret_is_refused_and_the_refusal_does_not_tell_it() -> None:
    with pytest.raises(ConfigurationError, match="FRONTDESK_WEBUI_JWT_SECRET is too short") as info:
        keyring(secret="hunter2")
    assert "hunter2" not in str(info.value)


def test_the_users_of_a_trusted_key_may_be_named_in_the_body() -> None:
    caller = keyring(WEBUI).authenticate([(b"x-api-key", b"webui-key")])
    assert caller.principal_of("alice") == Principal("webui/alice", ("Milo",))
    assert caller.principal_of(None) == Principal("webui", ("Milo",))


def test_a_body_names_nobody_for_other_keys() -> None:
    ring = keyring(WEBUI, BOT, env=("env-key",))
    for key in (b"bot-key", b"env-key"):
        caller = ring.authenticate([(b"x-api-key", key)])
        for user in ("alice", "", 7, "x" * 500):
            assert caller.principal_of(user) == caller.principal
    assert keyring().authenticate([]).principal_of("alice") == Principal("anonymous")


def test_a_header_that_names_the_user_counts_before_the_body() -> None:
    ring = keyring(WEBUI, secret=SECRET)
    header = (b"x-openwebui-user-id", b"alice")
    assert ring.authenticate([(b"x-api-key", b"webui-key"), header]).principal_of("mallory").id == "webui/alice"
    assert ring.authenticate(signed(token(), b"webui-key")).principal_of("mallory").id == "webui/alice"


@pytest.mark.parametrize("user", ["", "  ", "a\tb", "x" * 129, "a\u202eb", 7, ["alice"], {}])
def test_a_user_in_the_body_that_cannot_be_one_is_a_400_for_a_trusted_key(user: Any) -> None:
    with pytest.raises(InvalidRequest) as info:
        keyring(WEBUI).authenticate([(b"x-api-key", b"webui-key")]).principal_of(user)
    assert info.value.param == "user"


def test_two_keys_of_one_name_are_one_principal_so_that_a_key_can_be_renewed() -> None:
    ring = keyring(BOT, KeySettings(name="bot", sha256=sha256("new-key")))
    assert {ring.authenticate([(b"api-key", key)]).principal.id for key in (b"bot-key", b"new-key")} == {"bot"}


@pytest.mark.parametrize("name", ["", "webui/alice", "anonymous", "a\nb"])
def test_a_name_that_could_be_taken_for_somebody_else_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be called"):
        keyring(KeySettings(name=name, sha256=sha256("k")))


def test_one_key_in_two_places_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigurationError, match="'again'"):
        keyring(BOT, KeySettings(name="again", sha256=BOT.sha256.lower()))
    with pytest.raises(ConfigurationError, match="'bot'"):
        keyring(BOT, env=("bot-key",))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LocalHost"])
def test_loopback_may_be_served_without_keys(host: str) -> None:
    check_listening(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.7", "example.org", "localhost.example.org"])
def test_any_other_address_needs_keys_and_the_refusal_says_how_to_mend_it(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"FRONTDESK_API_KEYS=.*--host 127\.0\.0\.1"):
        check_listening(Settings(host=host))
    check_listening(Settings(host=host, keys=(BOT,)))
    check_listening(Settings(host=host, api_keys=(SecretStr("k"),)))


def test_authenticating_costs_little() -> None:
    """Measured 1.6 µs; the bound leaves room for a busy machine."""
    ring = keyring(WEBUI, BOT)
    headers: Headers = [(b"host", b"h"), (b"accept", b"*/*"), (b"authorization", b"Bearer bot-key")] * 3
    best = min(_seconds(ring, headers) for _ in range(20))
    assert best / 200 < 30e-6


def _seconds(ring: Keyring, headers: Headers) -> float:
    began = time.perf_counter()
    for _ in range(200):
        ring.authenticate(headers)
    return time.perf_counter() - began
