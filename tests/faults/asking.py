"""Asking through the official client, whose many overloads say nothing about a body that is made up as we go."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI


async def create(client: AsyncOpenAI, **body: Any) -> Any:
    """A completion, or with `stream` its stream."""
    create: Any = client.chat.completions.create
    return await create(**body)


async def finish(client: AsyncOpenAI, **body: Any) -> Any:
    """The completion, or all chunks."""
    reply = await create(client, **body)
    return [chunk async for chunk in reply] if body.get("stream") else reply


async def failure(client: AsyncOpenAI, **body: Any) -> openai.APIError:
    """How a request fails, at once or within its stream."""
    with pytest.raises(openai.APIError) as info:
        await finish(client, **body)
    return info.value


async def broken_off(client: AsyncOpenAI, **body: Any) -> tuple[list[Any], openai.APIError]:
    """The choices of a stream up to the error it ends with, and the error."""
    choices: list[Any] = []

    async def read() -> None:
        async for chunk in await create(client, **body, stream=True):
            assert chunk.usage is None
            choices.append(chunk.choices[0])

    with pytest.raises(openai.APIError) as info:
        await read()
    return choices, info.value


def said(choices: list[Any]) -> str:
    return "".join(choice.delta.content or "" for choice in choices)
