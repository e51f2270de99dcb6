"""What works for which type of agent: asked of the backend itself, with a Letta server that lists one of each."""

import asyncio
from dataclasses import replace

from frontdesk.backends.letta import LettaBackend, LettaSettings
from frontdesk.backends.letta.client import LettaClient
from frontdesk.policies.abilities import abilities
from frontdesk.turn import Agent
from tests.cli.servers import row
from tests.faults.fake import fake_letta

MODERN, OLDER = "letta_v1_agent", "memgpt_v2_agent"
MODEL = {"model": "openai/gpt-4o", "model_settings": {"provider_type": "openai", "temperature": 1.0}}

COLUMNS = {
    "`letta_v1_agent`": (MODERN, LettaSettings()),
    "older types": (OLDER, LettaSettings()),
    "… with `replicas`": (OLDER, LettaSettings(replicas={"*": 2})),
    '… with `bridge = "reject"`': (OLDER, LettaSettings(bridge="reject")),
}
"""Older are `memgpt_agent`, `memgpt_v2_agent`, `react_agent`, `workflow_agent`: for all of them the same holds."""


def page() -> str:
    found = {name: abilities(asyncio.run(agent(kind, settings))) for name, (kind, settings) in COLUMNS.items()}
    lines = [f"| | {' | '.join(found)} |", f"|---{'|---' * len(found)}|"]
    for place, first in enumerate(next(iter(found.values()))):
        cells = [each[place] for each in found.values()]
        told = [f"{first.works}: {first.how}"]
        told += ["the same" if cell == first else f"{cell.works}: {cell.how}" for cell in cells[1:]]
        lines.append(f"| {first.name} | {' | '.join(told)} |")
    return "\n".join(lines)


async def agent(kind: str, settings: LettaSettings) -> Agent:
    """An agent of this type, as the gateway knows it."""
    with fake_letta() as letta:
        letta.rows = [row(1, "Milo", kind) | MODEL]
        backend = LettaBackend(replace(settings, base_url=letta.url), LettaClient(letta.url))
        try:
            (found,) = await backend.find("Milo")
            return found
        finally:
            await backend.aclose()
