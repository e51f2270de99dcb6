"""Keys, and a fake that begins each test anew, for the protocols by which programs of others come to all agents."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.faults.fake import FakeLetta
from tests.protocols.responses.clients import rehearsed


def key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": sha256(name.encode()).hexdigest()} | more


KEYS = (key("ann"), key("bob"), key("otis-only", agents=("Otis",)), key("one-turn", max_turns=1))


@pytest.fixture(scope="module")
def settings(fake: FakeLetta) -> dict[str, Any]:
    return {"letta_base_url": fake.url, "keys": KEYS, "probe_key": "ann", "max_body_bytes": 200_000}


@pytest.fixture(autouse=True)
def anew(fake: FakeLetta) -> None:
    fake.visits.clear()
    fake.cancels.clear()
    fake.gate.clear()
    rehearsed(fake)


def open_to_all(folder: Path) -> dict[str, Any]:
    """The settings of a server with a public agent and one that is not, for callers without a key."""
    agents = folder / "agents"
    agents.mkdir()
    for name, scope in (("oracle", "public"), ("butler", "user")):
        (agents / f"{name}.md").write_text(f"---\nmodel: scripted/x\nscope: {scope}\n---\nThe password is swordfish.\n")
    return {"agents_dir": agents, "api_keys": "master", "allow_anonymous": True}
