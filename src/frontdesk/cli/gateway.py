"""A running gateway, seen from outside."""

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from frontdesk.cli.page import Trouble

if TYPE_CHECKING:
    import openai

PIN_HEADER = "x-frontdesk-conversation"
NO_KEY = "none"  # the SDK will not do without one
REFUSED = "Give a key that it knows with `--key` or FRONTDESK_API_KEY."


class Capabilities(BaseModel):
    client_tools: bool | None = None


class Served(BaseModel):
    """An agent as `GET /v1/models` tells it."""

    id: str
    name: str = ""
    owned_by: str = ""
    created: int = 0
    context_length: int | None = None
    capabilities: Capabilities = Capabilities()


class Listing(BaseModel):
    data: list[Served]


@dataclass(frozen=True)
class Gateway:
    url: str
    key: str = ""

    @classmethod
    def at(cls, url: str, key: str = "") -> "Gateway":
        """`url` as people write it: with or without `http://`, a last slash, `/v1`."""
        url = url if "://" in url else f"http://{url}"
        return cls(url.rstrip("/").removesuffix("/v1").rstrip("/"), key)

    def agents(self) -> list[Served]:
        return self.read("/v1/models")[1]

    def read(self, path: str) -> tuple[Any, list[Served]]:
        """The listing, as it came and as we understand it. Raises Trouble."""
        body = self.ask("GET", path)
        try:
            return body, Listing.model_validate(body).data
        except ValidationError as error:
            raise Trouble(f"{self.url} answers, but not as a gateway does.", "Is the address right?") from error

    def agent(self, name: str) -> Served:
        """One agent, as its name is written. Raises Trouble, also when there is none of this name."""
        try:
            return Served.model_validate(self.ask("GET", f"/v1/models/{quote(name)}"))
        except ValidationError as error:
            raise Trouble(f"{self.url} answers, but not as a gateway does.", "Is the address right?") from error

    def ask(self, method: str, path: str, *, timeout: float = 15.0, **query: str | int) -> Any:
        """The body of an answer; None for one that is no JSON. Raises Trouble."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            response = httpx.request(
                method, self.url + path, params=query, headers=headers, timeout=timeout, trust_env=not self.local
            )
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self.unreachable(str(error)) from error
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.is_success:
            return body
        raise refusal(self, response.status_code, body)

    @property
    def local(self) -> bool:
        """Whether it is on this machine, where no proxy may stand between."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def unreachable(self, why: str = "") -> Trouble:
        return Unreachable(
            f"Cannot reach a gateway at {self.url}{f': {why}' if why else ''}.",
            "Start one with `frontdesk serve`, or say where it is with `--url` or FRONTDESK_URL.",
        )

    def openai(self, timeout: float = 600.0) -> "openai.OpenAI":
        """A client which never sends a message twice."""
        import openai

        return openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=self.key or NO_KEY,
            max_retries=0,
            timeout=openai.Timeout(timeout, connect=10),
            http_client=openai.DefaultHttpxClient(trust_env=not self.local),
        )

    def trouble(self, error: "openai.OpenAIError") -> Trouble:
        """What an error of the client means, in one line."""
        import openai

        match error:
            case openai.APITimeoutError():
                return Trouble("The gateway has been silent for too long.", "Try again, or see `frontdesk doctor`.")
            case openai.APIConnectionError() if isinstance(error.__cause__, httpx_connect_errors()):
                return self.unreachable()
            case openai.APIConnectionError():
                return Trouble("The connection to the gateway broke.", "Is it still running?")
            case openai.APIStatusError():
                return refusal(self, error.status_code, {"error": error.body})
            case openai.APIError():
                return Trouble(f"{error.message}{coded(error.code)}")
            case _:
                return Trouble(str(error))


def httpx_connect_errors() -> tuple[type[Exception], ...]:
    """The SDK brings an HTTP client of its own."""
    import httpx2

    return (httpx2.ConnectError, httpx2.ConnectTimeout)


class Unreachable(Trouble):
    """Nothing answers there."""


class KeyRefused(Trouble):
    """A gateway is there, and wants another key."""


def refusal(gateway: Gateway, status: int, body: Any) -> Trouble:
    """The trouble for an HTTP answer other than 2xx."""
    fields = envelope(body)
    message = str(fields.get("message") or "")
    if status == 401 and message:
        return KeyRefused(f"{gateway.url} {'does not know this key' if gateway.key else 'wants a key'}.", REFUSED)
    if not message:
        return Trouble(f"{gateway.url} answers, but not as a gateway does (HTTP {status}).", "Is the address right?")
    return Trouble(f"{message}{coded(fields.get('code'))}")


def envelope(body: Any) -> dict[str, Any]:
    """The fields of an error body in OpenAI's manner; empty for any other."""
    error: Any = body.get("error") if isinstance(body, dict) else None  # type: ignore[reportUnknownMemberType]
    return error if isinstance(error, dict) else {}  # type: ignore[reportUnknownVariableType]


def coded(code: object) -> str:
    return f" ({code})" if code else ""
