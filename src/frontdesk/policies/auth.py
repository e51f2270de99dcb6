"""Who asks: keys by their hash, tokens of issuers, users for whom a trusted key or Open WebUI's signature stands."""

import hashlib
import hmac
import importlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from frontdesk.config import KeySettings, Settings
from frontdesk.errors import Forbidden, InvalidRequest, Unauthenticated
from frontdesk.scopes import KEY_NEEDED, METRICS, all_scopes
from frontdesk.turn import Principal

if TYPE_CHECKING:
    from frontdesk.policies.tokens import Bearer, Tokens

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


class Allowance(Protocol):
    """How much may be asked under one name, by all together who ask under it."""

    @property
    def name(self) -> str: ...

    @property
    def rate(self) -> str: ...

    @property
    def max_turns(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Share:
    """The allowance of somebody who has no key."""

    name: str
    rate: str
    max_turns: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """`key` is the caller's entry in the settings, if it has one there. `user` is whom the request names.

    `allowance`: None is as much as they like. `may_look_around`: whether to show what concerns all agents, which is
    health in detail, and metrics.
    """

    principal: Principal
    key: KeySettings | None = None
    user: str = ""
    allowance: Allowance | None = None
    may_look_around: bool = True

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


class Keyring:
    """Raises ConfigurationError for keys that cannot be told apart, scopes that nobody knows, a secret that is easily
    found out, and an issuer whose tokens prove nothing."""

    def __init__(self, settings: Settings) -> None:
        _check_names(settings)
        self._callers: Mapping[bytes, Caller] = _callers(settings)
        self._tokens = _tokens(settings)
        self._secret = _token_secret(settings)
        self._open = settings.open_to_all
        self._anonymous = Caller(Principal())
        self._stranger = _stranger(settings)
        self._origins = frozenset(settings.cors_origins)

    async def admit(self, headers: Collection[tuple[bytes, bytes]]) -> Caller:
        """The caller, by a token or as `authenticate` finds them. Raises what that does, and IssuerUnavailable where
        nobody can say whether a token is good."""
        values = _first_values(headers)
        if self._tokens:
            presented = _presented(values)
            if _looks_like_token(presented) and self._known(presented) is None:
                return _of_token(await self._tokens.verified(presented))
        return self._caller(values, headers)

    def authenticate(self, headers: Collection[tuple[bytes, bytes]]) -> Caller:
        """The caller, by raw ASGI headers (names in lower case). Everybody is `anonymous` where there are no keys.

        Raises Unauthenticated, also for a user's token that is not good; InvalidRequest for a user id that cannot be
        one; Forbidden for a foreign web page.
        """
        return self._caller(_first_values(headers), headers)

    def _caller(self, values: Mapping[bytes, bytes], headers: Collection[tuple[bytes, bytes]]) -> Caller:
        token = values.get(_TOKEN_HEADER, b"").strip() if self._secret else b""
        if self._open:
            self._check_page(headers)
            caller = self._anonymous
        elif self._stranger and not token and _shows_nothing(values):
            self._check_page(headers)
            return self._stranger
        else:
            caller = self._find(_presented(values))
        if token:
            return _on_behalf(caller, _subject(token, self._secret), TOKEN_HEADER, f"The user in {TOKEN_HEADER}")
        if caller.trusted and _USER_HEADER in values:
            return _on_behalf(caller, _text(values[_USER_HEADER]), USER_HEADER, f"The header {USER_HEADER}")
        return caller

    def _check_page(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Who needs no key is not safe from web pages: their visitor's browser posts what they like from where it is,
        and says whose it is."""
        told = {name: value.decode("latin-1") for name, value in headers if name in (b"origin", b"host")}
        origin = told.get(b"origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        if not _is_own_page(origin, told.get(b"host", "")):
            raise Forbidden(
                "Without an API key, web pages may not use this server. If this one may, the operator can name its"
                " origin in FRONTDESK_CORS_ORIGINS.",
                code="origin_forbidden",
            )

    def _find(self, key: bytes) -> Caller:
        if not key:
            raise Unauthenticated(KEY_NEEDED)
        found = self._known(key)
        if found is None:
            raise Unauthenticated("This API key is not valid here. Check it, or ask the operator of this server.")
        return found

    def _known(self, key: bytes) -> Caller | None:
        """Every key is compared, so that the time says nothing about which one was nearly right."""
        digest = hashlib.sha256(key).digest()
        found: Caller | None = None
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def check_listening(settings: Settings) -> None:
    """Raises ConfigurationError when everybody on the network could use every agent without a key."""
    if settings.open_to_all and not is_loopback(settings.host):
        raise ConfigurationError(
            f"Refusing to listen on {settings.host or 'every address'} without API keys: whoever reaches it could use"
            " every agent. Set FRONTDESK_API_KEYS=<key>, or listen on this machine only with --host 127.0.0.1."
        )


def _is_own_page(origin: str, host: str) -> bool:
    """Whether a page is this server's own, by a name that nobody else can give to this machine (DNS rebinding)."""
    try:
        place = urlsplit(origin)
        return place.netloc == host and is_loopback(place.hostname or "")
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
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
        _check_scopes(settings, f"The key {key.name!r}", key.scopes)
        _check_scopes(settings, f"The key {key.name!r}", key.user_scopes, key.scopes)
        digest = bytes.fromhex(key.sha256)
        if digest in callers:
            raise ConfigurationError(f"The key {key.name!r} is listed twice in [[keys]]. Remove one of the two.")
        principal = Principal(key.name, key.agents, key.mode, key.system_prompt, frozenset(("user", *key.scopes)))
        sees_all = key.agents is None or METRICS in key.scopes
        callers[digest] = Caller(principal, key, allowance=key, may_look_around=sees_all)
    for secret in settings.api_keys:
        digest = hashlib.sha256(secret.get_secret_value().encode()).digest()
        if (other := callers.get(digest)) and other.key:
            raise ConfigurationError(
                f"The key {other.key.name!r} of [[keys]] is also in FRONTDESK_API_KEYS, where it could do everything."
                " Remove one of the two."
            )
        callers[digest] = Caller(Principal(f"key-{digest.hex()[:8]}"))
    return callers


def _stranger(settings: Settings) -> Caller | None:
    """Whoever has no key, where such are let in at all."""
    if not settings.allow_anonymous:
        return None
    principal = Principal(scopes=frozenset())
    return Caller(principal, allowance=Share(principal.id, settings.anonymous_rate), may_look_around=False)


def _tokens(settings: Settings) -> "Tokens | None":
    if not settings.jwt:
        return None
    for each in settings.jwt:
        _check_scopes(settings, f"[[jwt]] {each.name!r}", each.grants)
    tokens: Any = importlib.import_module("frontdesk.policies.tokens")  # 150 ms, for which no other server should wait
    return tokens.Tokens(settings.jwt)


def _of_token(bearer: "Bearer") -> Caller:
    """An issuer's name has no `/`, so that no subject, whatever it is called, can be one of another's."""
    issuer = bearer.issuer
    name = f"{issuer.name}/{bearer.subject}"
    scopes = frozenset(("user", *bearer.scopes.intersection(issuer.grants)))
    share = Share(name, issuer.rate, issuer.max_turns)
    return Caller(
        Principal(name, issuer.agents, scopes=scopes),
        user=bearer.subject,
        allowance=share,
        may_look_around=METRICS in scopes,
    )


def _check_names(settings: Settings) -> None:
    """A name means one holder: keys of one name are one, but no issuer's users may be taken for a key's."""
    for key in settings.keys:
        _check_name(key.name)
    taken = {key.name for key in settings.keys}
    for issuer in settings.jwt:
        _check_name(issuer.name)
        if issuer.name in taken:
            raise ConfigurationError(
                f"[[jwt]] {issuer.name!r} has the name of another one, or of a key. Give it its own."
            )
        taken.add(issuer.name)


def _check_name(name: str) -> None:
    """`/` parts a key's name from its users': without it nobody can take the name of another key's user."""
    if not name or "/" in name or not name.isprintable() or name == Principal().id:
        raise ConfigurationError(
            f"A key or an issuer cannot be called {name!r}. Use a printable name without `/`, and not"
            f" `{Principal().id}`."
        )


def _check_scopes(settings: Settings, who: str, named: Collection[str], own: Collection[str] | None = None) -> None:
    """`own`: the scopes of a key, beyond which its users cannot go."""
    there = all_scopes(settings.scopes)
    for scope in named:
        if scope not in there:
            raise ConfigurationError(
                f"{who} names the scope {scope!r}, which is none here. Those are {', '.join(sorted(there))}; name"
                " others in FRONTDESK_SCOPES."
            )
        if own is not None and scope not in own:
            raise ConfigurationError(f"{who} gives its users the scope {scope!r}, which is not among its own `scopes`.")


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


def _shows_nothing(values: Mapping[bytes, bytes]) -> bool:
    """Whether somebody shows no key at all. One in a wrong form is a mistake, of which they are told."""
    scheme = values.get(b"authorization", b"").strip().partition(b" ")[0].lower()
    return scheme in (b"", b"bearer", b"basic") and not _presented(values)


def _looks_like_token(presented: bytes) -> bool:
    return presented.count(b".") == 2


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
    scopes = frozenset(("user", *(caller.key.user_scopes if caller.key else ())))
    principal = replace(caller.principal, id=f"{caller.principal.id}/{user}", scopes=scopes)
    return replace(caller, principal=principal, user=user)
