"""What every protocol does with a request before it decodes it: who asks, its body, its pin, its pictures."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Receive, Scope

from frontdesk.errors import InvalidRequest, RequestTooLarge
from frontdesk.turn import Content, Image, Item, Message, Principal, ToolResult, Turn

PIN_CHARACTERS = 256
MAX_IMAGES = 500  # in one request, as with OpenAI


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, as the door has established it. `turn` counts a turn of theirs while it runs."""

    principal: Principal
    turn: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Front:
    max_body_bytes: int
    pin_headers: tuple[bytes, ...]
    fetch_image: Callable[[str, str], Awaitable[Image]]

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

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"The request body is larger than {self.max_body_bytes} bytes.")

    def pin(self, scope: Scope) -> str:
        """The conversation a header names. A template the client left unexpanded counts as absent."""
        for name in self.pin_headers:
            value = header(scope, name).strip()
            if value and "{{" not in value and "${" not in value:
                if len(value) > PIN_CHARACTERS:
                    text = f"The header {name.decode()} is longer than {PIN_CHARACTERS} characters."
                    raise InvalidRequest(text, param=name.decode())
                return value
        return ""

    async def with_images(self, turn: Turn) -> Turn:
        """The turn with its pictures fetched. Together they may be as large as a body, for all are held in memory.

        Raises InvalidRequest with the place of the one that cannot be had, or is one too many.
        """
        wanted = [part for item in (*turn.history, *turn.input) for part in content(item) if isinstance(part, Image)]
        if not wanted:
            return turn
        if len(wanted) > MAX_IMAGES:
            raise too_much(wanted[MAX_IMAGES], f"A request may hold {MAX_IMAGES} images.")
        fetched: dict[str, Image] = {}  # by place
        room = self.max_body_bytes
        for image in wanted:
            fetched[image.param] = got = await self.fetch_image(image.url, image.param)
            room -= len(got.data)
            if room < 0:
                raise too_much(
                    image, f"The images of this request are larger than {self.max_body_bytes} bytes together."
                )
        return replace(turn, history=filled(turn.history, fetched), input=filled(turn.input, fetched))


def too_much(image: Image, sentence: str) -> InvalidRequest:
    return InvalidRequest(sentence, param=image.param, code="invalid_image_url")


def filled(items: Sequence[Item], images: Mapping[str, Image]) -> tuple[Item, ...]:
    """The items with these images in their places."""
    return tuple(
        replace(item, content=tuple(images[part.param] if isinstance(part, Image) else part for part in item.content))
        if isinstance(item, Message | ToolResult)
        else item
        for item in items
    )


def content(item: Item) -> tuple[Content, ...]:
    return item.content if isinstance(item, Message | ToolResult) else ()


def visitor(scope: Scope) -> Visitor:
    state: dict[str, Any] = scope["state"]
    return state["visitor"]


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
