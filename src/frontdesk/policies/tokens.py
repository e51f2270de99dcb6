"""Tokens of issuers which the settings name: JWTs, checked with the keys that their issuer publishes (JWKS).

Nothing of a token is believed before its signature is. Until then it only says whose it claims to be, and which of
that issuer's keys is to prove it: by id and algorithm, both of which must be known. Where a key is to be had, it does
not say: `jku`, `jwk`, `x5u` and `x5c` are not read.

Source: https://www.rfc-editor.org/rfc/rfc8725 (JSON Web Token Best Current Practices)
"""

import asyncio
import binascii
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import jwt
import msgspec
import structlog

from frontdesk.config import JwtSettings
from frontdesk.errors import IssuerUnavailable, Unauthenticated
from frontdesk.policies.auth import ConfigurationError, is_loopback

log = structlog.get_logger(__name__)

MAX_BYTES = 16 * 1024  # of a token; those of a directory with many groups have 10 KiB
SUBJECT_CHARS = 255  # OpenID Connect allows no more

FETCH_SECONDS = 5.0
FETCH_BYTES = 256 * 1024
RETRY_SECONDS = 2.0
"""How soon to ask an issuer again whose keys could not be had, and of which none is known."""

FRESH_SECONDS = 600.0
"""How old keys may be before they are fetched again, while those known are still used."""

KEPT_SECONDS = 86_400.0
"""How old they may be when their issuer cannot be reached: a key that it has withdrawn is not good for ever."""

FITTING: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
"""The algorithms of each kind of key, by its type and curve."""

ALGORITHMS = frozenset(algorithm for each in FITTING.values() for algorithm in each)


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who a token is of, and the scopes it carries, known here or not."""

    issuer: JwtSettings
    subject: str
    scopes: frozenset[str]


class Tokens:
    """Raises ConfigurationError for issuers that cannot be told apart, or that prove nothing."""

    def __init__(self, issuers: Sequence[JwtSettings]) -> None:
        self._issuers: dict[str, Issuer] = {}
        for each in issuers:
            check(each)
            if each.issuer in self._issuers:
                raise ConfigurationError(f"The issuer {each.issuer} is listed twice in [[jwt]]. Remove one of the two.")
            self._issuers[each.issuer] = Issuer(each)

    async def verified(self, token: bytes) -> Bearer:
        """Who a token is of. Raises Unauthenticated; IssuerUnavailable if its issuer's keys cannot be had."""
        head, claimed = said(token)
        issuer = self._issuers.get(claimed.iss)
        if issuer is None:
            raise refused("of an issuer nobody knows")
        return await issuer.verified(token, head)


def check(settings: JwtSettings) -> None:
    """Raises ConfigurationError for an issuer whose tokens would prove nothing."""
    name = settings.name
    odd = [each for each in settings.algorithms if each not in ALGORITHMS]
    if odd or not settings.algorithms:
        raise ConfigurationError(
            f"[[jwt]] {name!r}: algorithms {f'has {odd[0]!r}' if odd else 'is empty'}. Only a signature made with a"
            f" private key proves who made it: use {', '.join(sorted(ALGORITHMS))}."
        )
    try:
        place = urlsplit(settings.jwks_url)
        host = place.hostname or ""
    except ValueError:
        place, host = urlsplit(""), ""
    if place.scheme not in ("http", "https") or not host or "@" in place.netloc:
        raise ConfigurationError(
            f"[[jwt]] {name!r}: jwks_url is no address of keys. It begins with https:// and holds no password."
        )
    if place.scheme == "http" and not (settings.allow_http or is_loopback(host)):
        raise ConfigurationError(
            f"[[jwt]] {name!r}: jwks_url begins with http://, and who can change the keys on their way can sign tokens."
            " Use https://, or set allow_http = true within a network you trust."
        )


# --- one issuer ------------------------------------------------------------------------------------------------------


class Head(msgspec.Struct):
    alg: str = ""
    kid: str = ""


class Claimed(msgspec.Struct):
    iss: str = ""


class Issuer:
    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings
        self._keys = Keys(settings)

    async def verified(self, token: bytes, head: Head) -> Bearer:
        if head.alg not in self._settings.algorithms:
            raise self._refused("its algorithm is not accepted")
        key = await self._keys.find(head.kid, head.alg) if head.kid else None
        if key is None:
            raise self._refused("its key is not among the issuer's")
        return self._bearer(self._claims(token, key))

    def _claims(self, token: bytes, key: jwt.PyJWK) -> Mapping[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            message = "This token has expired. Get a new one; if this one is new, compare the clocks."
            raise Unauthenticated(message, code="token_expired") from None
        except jwt.PyJWTError as error:
            raise self._refused(type(error).__name__) from None

    def _bearer(self, claims: Mapping[str, Any]) -> Bearer:
        subject = claims.get(self._settings.subject_claim)
        if not isinstance(subject, str) or not subject.strip() or not subject.isprintable():
            raise self._refused("its subject is no name")
        if len(subject) > SUBJECT_CHARS:
            raise self._refused("its subject is too long")
        return Bearer(self._settings, subject, scopes_of(claims.get(self._settings.scopes_claim)))

    def _refused(self, why: str) -> Unauthenticated:
        return refused(why, self._settings.name)


def said(token: bytes) -> tuple[Head, Claimed]:
    """What a token says of itself, which may be a lie. Raises Unauthenticated if it cannot be read."""
    if len(token) > MAX_BYTES:
        raise refused("too long")
    try:
        head, claims, _ = token.split(b".")
        return msgspec.json.decode(decoded(head), type=Head), msgspec.json.decode(decoded(claims), type=Claimed)
    except (ValueError, RecursionError, binascii.Error):  # msgspec's own errors are ValueErrors
        raise refused("it cannot be read") from None


def decoded(part: bytes) -> bytes:
    return urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def scopes_of(claim: Any) -> frozenset[str]:
    """The scopes of a claim: a list of them, or a text with spaces between them. Nothing else is any."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    listed = cast("list[Any]", claim) if isinstance(claim, list) else ()
    return frozenset(each for each in listed if isinstance(each, str))


def refused(why: str, issuer: str = "") -> Unauthenticated:
    """One sentence for all that is wrong with a token: whoever forges one is not told how far they have come. The
    operator is told, in words of ours alone."""
    log.info("token refused", issuer=issuer, reason=why)
    return Unauthenticated(
        "This token is not valid here. It must be signed by an issuer this server knows, and be made for this server."
    )


# --- its keys --------------------------------------------------------------------------------------------------------


class KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class Keys:
    """An issuer's public keys, by id and algorithm: fetched when they are first needed, and kept.

    However many tokens name a key that is not there, they are fetched again once in `refetch_seconds` at most.
    """

    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings
        self._keys: Mapping[tuple[str, str], jwt.PyJWK] | None = None
        self._fetched = 0.0  # when that last succeeded
        self._tried = float("-inf")  # … and when it was last tried
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """A key, if the issuer has it. Raises IssuerUnavailable if no key of its is known, and none can be had."""
        known = self._known()
        if known is None:
            await self._refresh(RETRY_SECONDS)
            known = self._known()
        elif (kid, algorithm) not in known:
            await self._refresh(self._settings.refetch_seconds)
            known = self._known()
        elif time.monotonic() - self._fetched > FRESH_SECONDS:
            self._begin(self._settings.refetch_seconds)
        if known is None:
            raise IssuerUnavailable(
                f"The keys of {self._settings.name!r}, which has issued this token, cannot be had just now.",
                retry_after_seconds=RETRY_SECONDS,
            )
        return known.get((kid, algorithm))

    def _known(self) -> Mapping[tuple[str, str], jwt.PyJWK] | None:
        return self._keys if time.monotonic() - self._fetched < KEPT_SECONDS else None

    async def _refresh(self, pause_seconds: float) -> None:
        """Fetch them, unless that was tried so recently. Whoever comes meanwhile waits for the same fetch."""
        self._begin(pause_seconds)
        if self._fetching:
            await asyncio.shield(self._fetching)

    def _begin(self, pause_seconds: float) -> None:
        if self._fetching is None and time.monotonic() - self._tried >= pause_seconds:
            self._tried = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                data = await fetched(self._settings.jwks_url)
            self._keys = keys_of(data, self._settings.algorithms)
            self._fetched = time.monotonic()
            if not self._keys:
                log.warning("an issuer has no key that can be used", issuer=self._settings.name)
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            log.warning(
                "keys of an issuer cannot be had",
                issuer=self._settings.name,
                error=f"{type(error).__name__}: {error}"[:300],
            )
        finally:
            self._fetching = None


async def fetched(url: str) -> bytes:
    """The document at an address, and at no other: redirects are not followed.

    Raises aiohttp.ClientError, OSError (a time-out is one), ValueError for anything but a plain answer of fair size.
    """
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "frontdesk"}
    async with (
        aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session,
        session.get(url, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise ValueError(f"the answer has status {response.status}")
        data = bytearray()
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > FETCH_BYTES:
                raise ValueError(f"the answer has more than {FETCH_BYTES} bytes")
        return bytes(data)


def keys_of(data: bytes, algorithms: Sequence[str]) -> dict[tuple[str, str], jwt.PyJWK]:
    """The usable keys of a JWKS document, by id and algorithm. Raises ValueError if it is none.

    A key is good for the algorithm it names, or for all that fit it, of those that are accepted.
    """
    found: dict[tuple[str, str], jwt.PyJWK] = {}
    for each in msgspec.json.decode(data, type=KeySet).keys:
        for algorithm in fitting(each):
            if algorithm in algorithms and (key := usable(each, algorithm)):
                found.setdefault((each["kid"], algorithm), key)
    return found


def fitting(key: Mapping[str, Any]) -> tuple[str, ...]:
    """What a published key may sign: nothing without an id, for another use, or with its private half beside it."""
    match key:
        case {"d": _} | {"k": _}:
            return ()
        case {"kid": str(kid), "kty": str(kty)} if kid and key.get("use", "sig") == "sig":
            uses = key.get("key_ops")
            if isinstance(uses, list) and "verify" not in uses:
                return ()
            fits = FITTING.get((kty, "" if kty == "RSA" else str(key.get("crv"))), ())
            return tuple(each for each in fits if key.get("alg", each) == each)
        case _:
            return ()


def usable(data: Mapping[str, Any], algorithm: str) -> jwt.PyJWK | None:
    """None for a key that is broken, or so short that others could find it out."""
    try:
        key = jwt.PyJWK(dict(data), algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return None if key.Algorithm.check_key_length(key.key) else key
