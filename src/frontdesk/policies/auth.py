"""Who asks: API keys by their hash, and users whom a trusted key or Open WebUI's signature vouches for."""

import hashlib
import hmac
import importlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from frontdesk.config import KeySettings, Settings
from frontdesk.errors import Forbidden, InvalidRequest, Unauthenticated
from frontdesk.turn import Principal

USER_HEADER = "X-OpenWebUI-User-Id"
USER_ID_CHARS = 128
TOKEN_HEADER = "X-OpenWebUI-User-Jwt"
TOKEN_ISSUER = "open-webui"
TOKEN_LEEWAY_SECONDS = 30  # clocks differ; a token is good for 300 s
SECRET_BYTES = 32  # RFC 7518, section 3.2: an HS256 key is at least as long as the hash

_KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key")  # of those present, the first counts
_USER_HEADER = USER_HEADER.lower().encode()
_TOKEN_HEADER = TOKEN_HEADER.lower().encode()
_READ = frozenset({*_KEY_HEADERS, _USER_HEADER, _TOKEN_HEADER})


class ConfigurationError(Exception):
    """The settings cannot be served. The message is a sentence for the operator, and says what mends it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`key` is the caller's entry in the settings. None restricts nothing: a key of FRONTDESK_API_KEYS, or no keys.

    `user` is whom the request's headers name.
    """

    principal: Principal
    key: KeySettings | None
    user: str = ""

    @property
    def trusted(self) -> bool:
        return self.key is not None and self.key.trust_user_headers

    def principal_of(self, user: Any) -> Principal:
        """Who asks, by the `user` of a request's body: that counts for trusted keys, unless a header has named a user.

        Raises InvalidRequest for a user id that cannot be one.
        """
        if user is None or self.user or not self.trusted:
            return self.principal
        return _on_behalf(self, user, "user", "`user`").principal

    @property
    def may_look_around(self) -> bool:
        """Whether to show what concerns all agents: health in detail, and metrics."""
        return self.key is None or self.key.agents is None or "metrics" in self.key.scopes


class Keyring:
    """Raises ConfigurationError for keys that cannot be told apart, and for a secret that is easily found out."""

    def __init__(self, settings: Settings) -> None:
        self._callers: Mapping[bytes, Caller] = _callers(settings)
        self._secret = _token_secret(settings)
        self._anonymous = Caller(Principal(), None)
        self._origins = frozenset(settings.cors_origins)

    def authenticate(self, headers: Collection[tuple[bytes, bytes]]) -> Caller:
        """The caller, by raw ASGI headers (names in lower case). Everybody is `anonymous` where there are no keys.

        Raises Unauthenticated, also for a user's token that is not good; InvalidRequest for a user id that cannot be
        one; Forbidden for a foreign web page.
        """
        known = _first_values(headers)
        if self._callers:
            caller = self._find(_presented(known))
        else:
            self._check_page(headers)
            caller = self._anonymous
        if self._secret and (token := known.get(_TOKEN_HEADER, b"").strip()):
            return _on_behalf(caller, _subject(token, self._secret), TOKEN_HEADER, f"The user in {TOKEN_HEADER}")
        if caller.trusted and _USER_HEADER in known:
            return _on_behalf(caller, _text(known[_USER_HEADER]), USER_HEADER, f"The header {USER_HEADER}")
        return caller

    def _check_page(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Loopback does not keep out web pages: their visitor's browser posts what they like, and says whose it is."""
        told = {name: value.decode("latin-1") for name, value in headers if name in (b"origin", b"host")}
        origin = told.get(b"origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        if not _is_own_page(origin, told.get(b"host", "")):
            raise Forbidden(
                "Without API keys, web pages may not use this server. If this one may, the operator can name its origin"
                " in FRONTDESK_CORS_ORIGINS.",
                code="origin_forbidden",
            )

    def _find(self, key: bytes) -> Caller:
        """Every key is compared, so that the time says nothing about which one was nearly right."""
        if not key:
            raise Unauthenticated(
                "An API key is needed. Send it as the header `Authorization: Bearer <key>`, or as `x-api-key`."
            )
        digest = hashlib.sha256(key).digest()
        found: Caller | None = None
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise Unauthenticated("This API key is not valid here. Check it, or ask the operator of this server.")
        return found


def check_listening(settings: Settings) -> None:
    """Raises ConfigurationError when everybody on the network could use every agent without a key."""
    if settings.open_to_all and not _is_loopback(settings.host):
        raise ConfigurationError(
            f"Refusing to listen on {settings.host or 'every address'} without API keys: whoever reaches it could use"
            " every agent. Set FRONTDESK_API_KEYS=<key>, or listen on this machine only with --host 127.0.0.1."
        )


def _is_own_page(origin: str, host: str) -> bool:
    """Whether a page is this server's own, by a name that nobody else can give to this machine (DNS rebinding)."""
    try:
        place = urlsplit(origin)
        return place.netloc == host and _is_loopback(place.hostname or "")
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _callers(settings: Settings) -> dict[bytes, Caller]:
    """By the digest of the key. Two keys of one name are one principal, so that a key can be renewed."""
    callers: dict[bytes, Caller] = {}
    for key in settings.keys:
        _check_name(key.name)
        digest = bytes.fromhex(key.sha256)
        if digest in callers:
            raise ConfigurationError(f"The key {key.name!r} is listed twice in [[keys]]. Remove one of the two.")
        callers[digest] = Caller(Principal(key.name, key.agents, key.mode, key.system_prompt), key)
    for secret in settings.api_keys:
        digest = hashlib.sha256(secret.get_secret_value().encode()).digest()
        if (other := callers.get(digest)) and other.key:
            raise ConfigurationError(
                f"The key {other.key.name!r} of [[keys]] is also in FRONTDESK_API_KEYS, where it could do everything."
                " Remove one of the two."
            )
        callers[digest] = Caller(Principal(f"key-{digest.hex()[:8]}"), None)
    return callers


def _check_name(name: str) -> None:
    """`/` parts a key's name from its users': without it nobody can take the name of another key's user."""
    if not name or "/" in name or not name.isprintable() or name == Principal().id:
        raise ConfigurationError(
            f"A key cannot be called {name!r}. Use a printable name without `/`, and not `{Principal().id}`."
        )


def _first_values(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ and name not in values:
            values[name] = value
    return values


def _presented(values: Mapping[bytes, bytes]) -> bytes:
    """The key, or nothing. An `authorization` of another scheme may be a proxy's, and is not meant for us."""
    scheme, _, token = values.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer" and (token := token.strip()):
        return token
    return values.get(b"x-api-key", b"").strip() or values.get(b"api-key", b"").strip()


def _token_secret(settings: Settings) -> str:
    """Without the space around it, as Open WebUI reads its own."""
    secret = settings.webui_jwt_secret.get_secret_value().strip()
    if secret and len(secret.encode()) < SECRET_BYTES:
        raise ConfigurationError(
            "FRONTDESK_WEBUI_JWT_SECRET is too short: who sees one token could find it out. Use at least"
            f" {SECRET_BYTES} characters (`openssl rand -hex 32` makes some), here and as Open WebUI's"
            " FORWARD_USER_INFO_HEADER_JWT_SECRET."
        )
    if secret:
        importlib.import_module("jwt")  # 60 ms, for which no request should wait
    return secret


def _subject(token: bytes, secret: str) -> str:
    """The user whom Open WebUI names in a token. Raises Unauthenticated.

    Source: https://github.com/open-webui/open-webui/blob/main/backend/open_webui/utils/headers.py
    """
    import jwt  # only where there is a secret

    try:
        claims = jwt.decode(  # pyright: ignore[reportUnknownMemberType]  # of an extra that is not installed
            token,
            secret,
            algorithms=["HS256"],
            issuer=TOKEN_ISSUER,
            leeway=TOKEN_LEEWAY_SECONDS,
            options={"require": ["sub", "iss", "exp"]},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated(f"The token in {TOKEN_HEADER} has expired. If it is new, compare the clocks.") from None
    except jwt.PyJWTError:
        raise Unauthenticated(
            f"The token in {TOKEN_HEADER} is not valid here. Open WebUI's FORWARD_USER_INFO_HEADER_JWT_SECRET and this"
            " server's FRONTDESK_WEBUI_JWT_SECRET must be the same."
        ) from None
    return claims["sub"]


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return ""  # which is no user id


def _on_behalf(caller: Caller, user: Any, param: str, what: str) -> Caller:
    if not isinstance(user, str) or not user.strip() or not user.isprintable() or len(user) > USER_ID_CHARS:
        raise InvalidRequest(f"{what} must be 1 to {USER_ID_CHARS} printable characters.", param=param)
    return replace(caller, principal=replace(caller.principal, id=f"{caller.principal.id}/{user}"), user=user)
