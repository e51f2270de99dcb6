"""What every protocol does with a request beside decoding it: who asks, its body, its place, its images."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from starlette.types import Message as ASGIMessage
from starlette.types import Receive, Scope

from frontdesk.errors import InvalidRequest, RequestTooLarge
from frontdesk.protocols.requests import checked
from frontdesk.turn import Agent, Content, Image, Item, Message, Principal, Signals, ToolResult

TEMPORARY = ("temporary:", "local:")
"""So Open WebUI calls chats which it will forget. They are no names: lineage finds such a chat, as long as it lasts."""

DELIVERY = frozenset({"stream", "stream_options"})
MAX_IMAGES = 500  # in one request, as with OpenAI

TRACE = b"x-frontdesk-trace"
TRACE_CHARACTERS = 2048
MARK_CHARACTERS = 64
MAX_MARKS = 64


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, as the door has established it. `turn` counts a turn of theirs while it runs."""

    principal: Principal
    turn: Callable[[], AbstractContextManager[None]]
    principal_of: Callable[[Any], Principal]
    """Who asks, by the `user` of a request's body."""
    come_to: Callable[[str], None]
    """See that they may come to a path, without `/v1`. Raises Unauthenticated, Forbidden."""


@dataclass(frozen=True, slots=True)
class Address:
    """The agent by whose own URL a request has come: it need not name one, and there is no other for it."""

    agent: Agent
    model: str  # what means the agent, as the URL has it


@dataclass(frozen=True, slots=True)
class Front:
    max_body_bytes: int
    pin_headers: tuple[bytes, ...]
    chat_headers: tuple[bytes, ...]
    pin_metadata: tuple[str, ...]
    fetch_image: Callable[[str, str], Awaitable[Image]]
    images_seconds: float = 60.0
    """How long all images of a request may take together, while its conversation waits."""

    async def body(self, scope: Scope, receive: Receive) -> bytes:
        """The request's body. Raises RequestTooLarge, before all of it has been read."""
        declared = header(scope, b"content-length")
        if declared.isdigit() and int(declared) > self.max_body_bytes:
            raise self._too_large()
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequest("The request was cut off.")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self.max_body_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(pieces)

    def bounded(self, scope: Scope, receive: Receive) -> Receive:
        """The same, for whoever reads the body itself. Raises RequestTooLarge when it is read."""
        declared = header(scope, b"content-length")
        too_large = declared.isdigit() and int(declared) > self.max_body_bytes
        size = 0

        async def read() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if message["type"] == "http.request" and (too_large or size > self.max_body_bytes):
                raise self._too_large()
            return message

        return read

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"The request body is larger than {self.max_body_bytes} bytes.")

    def pin(self, scope: Scope, metadata: Mapping[str, str]) -> tuple[str, bool]:
        """The conversation that a request names, and whether whoever names it thus sends the whole transcript.

        A template the client left unexpanded counts as absent. Raises InvalidRequest for a name that is too long.
        """
        for name in self.pin_headers:
            if value := label(scope, name):
                return value, False
        named = [(name.decode(), label(scope, name)) for name in self.chat_headers]
        named += [(f"metadata.{name}", unless_template(metadata.get(name, ""))) for name in self.pin_metadata]
        for name, value in named:
            if value and not value.startswith(TEMPORARY):
                return checked(value, name), True
        return "", False

    def signals(self, scope: Scope, body: bytes, *, resends: bool) -> Signals:
        """What the headers tell of a request's place among others."""
        retries = header(scope, b"x-stainless-retry-count")
        return Signals(
            digest=digest(body),
            key=label(scope, b"idempotency-key") or label(scope, b"x-idempotency-key"),
            retried=retries.isdigit() and int(retries) > 0,
            message=label(scope, b"x-openwebui-message-id"),
            parent=label(scope, b"x-openwebui-user-message-parent-id"),
            resends=resends,
            temporary=any(header(scope, name).startswith(TEMPORARY) for name in self.chat_headers),
            task=label(scope, b"x-openwebui-task"),
            payment=header(scope, b"payment-signature"),
            trace=trace(scope),
        )

    async def with_images(self, items: tuple[Item, ...]) -> tuple[Item, ...]:
        """The items with their pictures fetched. Together they may be as large as a body, for all are held in memory.

        Raises InvalidRequest with the place of the one that cannot be had, or is one too many.
        """
        wanted = [part for item in items for part in content(item) if isinstance(part, Image) and not part.data]
        if not wanted:
            return items
        if len(wanted) > MAX_IMAGES:
            raise too_much(wanted[MAX_IMAGES], f"A request may hold {MAX_IMAGES} images.")
        fetched: dict[str, Image] = {}  # by address
        room = self.max_body_bytes
        until = asyncio.get_running_loop().time() + self.images_seconds
        for image in wanted:
            if image.url not in fetched:
                fetched[image.url] = await self._fetched(image, until)
            room -= len(fetched[image.url].data)
            if room < 0:
                raise too_much(
                    image, f"The images of this request are larger than {self.max_body_bytes} bytes together."
                )
        return filled(items, fetched)

    async def _fetched(self, image: Image, until: float) -> Image:
        try:
            async with asyncio.timeout_at(until):
                return await self.fetch_image(image.url, image.param)
        except TimeoutError as error:
            sentence = f"The images of this request could not be fetched within {self.images_seconds:g} seconds."
            raise too_much(image, sentence) from error


def label(scope: Scope, name: bytes) -> str:
    """A header that names something, or nothing."""
    return checked(unless_template(header(scope, name)), name.decode())


def trace(scope: Scope) -> tuple[str, ...]:
    """The agents through which a question has come, as the desks on its way have noted them: the last of them.

    Whoever sends it may write what they like: it is a reason to refuse a question, never to answer one.
    """
    marks = (mark.strip()[:MARK_CHARACTERS] for mark in header(scope, TRACE)[-TRACE_CHARACTERS:].split(","))
    return tuple(mark for mark in marks if mark)[-MAX_MARKS:]


def unless_template(value: str) -> str:
    value = value.strip()
    return "" if "{{" in value or "${" in value else value


def digest(body: bytes) -> str:
    """Of a JSON body, whatever the order of its fields, but for those that only say how to send the answer."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:  # odd, but perhaps good enough for whoever reads it next
        return hashlib.blake2b(body, digest_size=16).hexdigest()
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(fields.keys() - DELIVERY):
        state.update(name.encode() + b"\0" + bytes(fields[name]) + b"\0")
    return state.hexdigest()


def too_much(image: Image, sentence: str) -> InvalidRequest:
    return InvalidRequest(sentence, param=image.param, code="invalid_image_url")


def filled(items: Sequence[Item], images: Mapping[str, Image]) -> tuple[Item, ...]:
    """The items with these images, by their address, in their places."""
    return tuple(
        replace(
            item,
            content=tuple(
                images[part.url] if isinstance(part, Image) and not part.data else part for part in item.content
            ),
        )
        if isinstance(item, Message | ToolResult)
        else item
        for item in items
    )


def content(item: Item) -> tuple[Content, ...]:
    return item.content if isinstance(item, Message | ToolResult) else ()


def visitor(scope: Scope) -> Visitor:
    state: dict[str, Any] = scope["state"]
    return state["visitor"]


def address(scope: Scope) -> Address | None:
    state: dict[str, Any] = scope["state"]
    return state.get("address")


def model(scope: Scope) -> str:
    """What a request means that leaves out the model: nothing, unless it came by an agent's own URL."""
    there = address(scope)
    return there.model if there else ""


def header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return decoded(value)
    return ""


def decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def again(body: bytes, receive: Receive) -> Receive:
    """The request whose body has been read, from its beginning, for an application that reads it itself."""
    told = False

    async def tell() -> ASGIMessage:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return tell
