"""An issuer of tokens: a small server that publishes keys, and the private halves to sign with."""

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "frontdesk.example"
PATH = "/.well-known/jwks.json"

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Answer = Callable[[BaseHTTPRequestHandler], None]


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same one for the same name, as they take long to make."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def public(key: Private, kid: str, **more: Any) -> dict[str, Any]:
    """The key as it is published."""
    match key:
        case rsa.RSAPrivateKey():
            made = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ec.EllipticCurvePrivateKey():
            made = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ed25519.Ed25519PrivateKey():
            made = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**{name: value for name, value in made.items() if name != "key_ops"}, "kid": kid, "use": "sig", **more}


def signed(key: Any, algorithm: str, claims: Mapping[str, Any], **headers: Any) -> str:
    return jwt.encode(dict(claims), key, algorithm, headers=headers)  # pyright: ignore[reportUnknownMemberType]


@dataclass
class Issuer:
    """`keys` are what it publishes. `answer` says something else instead."""

    url: str
    name: str = "idp"
    keys: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    visits: list[str] = field(default_factory=list[str])
    answer: Answer | None = None

    def settings(self, **more: Any) -> dict[str, Any]:
        """As a [[jwt]] table."""
        usual = {"name": self.name, "issuer": self.url, "audience": AUDIENCE, "jwks_url": self.url + PATH}
        return {**usual, **more}

    def claims(self, without: str = "", **more: Any) -> dict[str, Any]:
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 300}
        return {name: value for name, value in {**usual, **more}.items() if name != without}

    def publish(self, key: Private, kid: str, **more: Any) -> None:
        self.keys.append(public(key, kid, **more))

    def body(self) -> bytes:
        return json.dumps({"keys": self.keys}).encode()


@contextmanager
def issuer(name: str = "idp") -> Generator[Issuer]:
    """An issuer that listens until the block ends."""
    there: Issuer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there.visits.append(self.path)
            if there.answer:
                there.answer(self)
            else:
                reply(self, there.body())

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: whoever asks is seen in `visits`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    there = Issuer(f"http://127.0.0.1:{server.server_address[1]}", name)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield there
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def reply(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def forged(header: Mapping[str, Any], claims: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token whose every part is as somebody likes who does not keep to the rules."""
    head, body = (b64(json.dumps(part).encode()) for part in (header, claims))
    return f"{head}.{body}.{b64(sign(f'{head}.{body}'.encode()))}"


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
