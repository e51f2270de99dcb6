"""Agents whose hooks and prompts do what those should not."""

import asyncio
from dataclasses import replace
from typing import Any

from frontdesk import Agent, hook, prompt
from frontdesk.agents.hooks import BeforeToolCall, Connection, Hook
from tests.hostile.cast import MODEL, note


def changing(event: str, **fields: Any) -> Hook:
    """A hook that puts such things where others belong."""

    def change(moment: Any) -> Any:
        return replace(moment, **fields)

    return hook(event)(change)


@hook("connection", timeout_seconds=0.1)
async def hang(moment: Connection) -> None:
    await asyncio.Event().wait()


@hook("before_tool_call", timeout_seconds=0.1)
async def hang_before_tool(moment: BeforeToolCall) -> None:
    await asyncio.Event().wait()


@hook("connection", timeout_seconds=0.1, on_error="ignore")
async def hang_ignored(moment: Connection) -> None:
    await asyncio.Event().wait()


@prompt
def half() -> str:
    return "half \ud800 a character"


def endless() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


WRONG: dict[str, Hook] = {
    "chunk-number": changing("chunk", text=7),
    "chunk-half": changing("chunk", text="a\ud800b"),
    "message-none": changing("message", items=None),
    "message-junk": changing("message", items=("junk",)),
    "model-none": changing("before_model_call", messages=None),
    "model-junk": changing("before_model_call", messages=("junk",)),
    "arguments-list": changing("before_tool_call", arguments=["text"]),
    "hangs": hang,
    "hangs-before-tool": hang_before_tool,
}

agents = [
    *[Agent(name, model=MODEL, tools=[note], hooks=[each]) for name, each in WRONG.items()],
    Agent("output-endless", model=MODEL, tools=[note], hooks=[changing("after_tool_call", output=endless())]),
    Agent("hangs-ignored", model=MODEL, hooks=[hang_ignored]),
    Agent("half-prompt", model=MODEL, prompts=[half]),
]
