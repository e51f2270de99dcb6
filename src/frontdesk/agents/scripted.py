"""`scripted/…`: the scripted model within this process, for demonstrations, examples and tests: no socket, no key.

It plays the same scripts as `frontdesk.testing.ScriptedModel`, and is asked in the same way, by OpenAI's own package:
only what would carry the bytes answers by itself.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import httpx2
from openai import AsyncOpenAI
from pydantic_ai.models import Model
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

from frontdesk.agents.providers import SAYS_WHY, Access, Limits, chat_model, client
from frontdesk.testing.play import Document, Failures, Performance, Piece, body_of, encoded, error_json


def scripted_model(name: str, access: Access, limits: Limits) -> Model:
    at_hand = replace(access, base_url="http://scripted.invalid/v1", ambient=False)
    asked = client(AsyncOpenAI, at_hand, limits, httpx2.AsyncClient(transport=Stage()))
    return chat_model(name, OpenAICompatibleProvider("scripted", openai_client=asked), limits, SAYS_WHY)


class Stage(httpx2.AsyncBaseTransport):
    """Where the requests for one model are played."""

    def __init__(self) -> None:
        self._failures = Failures()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = body_of(await request.aread())
        if isinstance(body, str):
            return response(Document(encoded(error_json(body)), 400))
        performance = Performance(body, 0.0, self._failures)
        pieces = performance.pieces()
        piece = await anext(pieces, None)
        if isinstance(piece, bytes):
            return httpx2.Response(
                200, headers={"content-type": "text/event-stream"}, stream=Stream(performance, pieces, piece)
            )
        await pieces.aclose()
        if piece is None:
            raise closed()
        return response(piece)


class Stream(httpx2.AsyncByteStream):
    def __init__(self, performance: Performance, pieces: AsyncGenerator[Piece, None], first: bytes) -> None:
        self._performance = performance
        self._pieces = pieces
        self._first = first

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        async for piece in self._pieces:
            assert isinstance(piece, bytes)
            yield piece
        if self._performance.outcome == "broken":
            raise closed()

    async def aclose(self) -> None:
        await self._pieces.aclose()


def response(document: Document) -> httpx2.Response:
    headers = {"content-type": "application/json", **document.headers}
    return httpx2.Response(document.status, headers=headers, content=document.body)


def closed() -> httpx2.RemoteProtocolError:
    return httpx2.RemoteProtocolError("The scripted model closed the connection.")
