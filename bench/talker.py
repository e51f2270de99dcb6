"""An agent whose model speaks the load client's tokens: the same Pydantic AI run for whoever serves it.

The model is a function in the process that is measured. BENCH_TOKENS and BENCH_PACE_MS say how it speaks.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Sequence

from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from frontdesk import Agent

TOKENS = int(os.environ.get("BENCH_TOKENS", "50"))
PACE_SECONDS = float(os.environ.get("BENCH_PACE_MS", "0")) / 1000
MARKER = re.compile(r"#(\w+)#")


async def speak(messages: list[ModelMessage], info: AgentInfo) -> AsyncGenerator[str, None]:
    marker = marker_of(messages)
    for index in range(TOKENS):
        if PACE_SECONDS:
            await asyncio.sleep(PACE_SECONDS)
        yield f"~{marker} t{index:03d} {time.monotonic_ns():016d};"


def marker_of(messages: Sequence[ModelMessage]) -> str:
    said = [part for each in messages if isinstance(each, ModelRequest) for part in each.parts]
    last = next(part for part in reversed(said) if isinstance(part, UserPromptPart))
    found = MARKER.search(str(last.content))
    return found[1] if found else "none"


model = FunctionModel(stream_function=speak)
agent = Agent("talker", model=model, instructions="You talk.")
