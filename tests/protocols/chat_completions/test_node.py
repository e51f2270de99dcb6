"""The official client for Node, in a process of its own."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from frontdesk.testing import TABLE, ScriptedModel
from tests.packages import installed
from tests.protocols.conftest import Serve
from tests.requirements import requirement
from tests.served import Served

HERE = Path(__file__).parents[2] / "node"


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """A folder with the pinned client, installed once for all runs."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("node and npm are needed for the tests with OpenAI's client for Node")

    def run(words: list[str], folder: Path) -> str:
        done = subprocess.run([npm, *words], cwd=folder, capture_output=True, text=True)
        return done.stderr or "npm failed" if done.returncode else ""

    folder, trouble = installed(HERE, run)
    if trouble:
        pytest.skip(f"npm could not install OpenAI's client for Node: {trouble}")
    return folder


async def run(folder: Path, gateway: Served, scenario: str, marker: str = "") -> Any:
    script = [str(HERE / "chat.mjs"), str(folder), gateway.base_url, "Milo", scenario, marker]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("node", *script, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


pytestmark = pytest.mark.usefixtures("milo")


@requirement("clients.node", "models.list")
async def test_node_lists_the_agents(node_folder: Path, gateway: Served) -> None:
    found = await run(node_folder, gateway, "list")
    assert "Milo" in found["ids"]
    assert found["one"] == "Milo"


@requirement("clients.node")
async def test_node_gets_a_plain_reply(node_folder: Path, gateway: Served) -> None:
    assert await run(node_folder, gateway, "plain") == {
        "message": {"role": "assistant", "content": "Hello.", "refusal": None, "reasoning_content": "hm"},
        "finish": "stop",
        "requestID": True,
    }


@requirement("clients.node", "chat.text.exact")
async def test_node_reads_a_stream(node_folder: Path, gateway: Served) -> None:
    found = await run(node_folder, gateway, "stream")
    assert (found["text"], found["thought"], found["finish"]) == (TABLE, "hm", ["stop"])
    assert found["usage"]["total_tokens"] > 0
    assert found["chunks"] > 100


CALLS = [
    {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    {"name": "get_time", "arguments": '{"city": "Rome"}'},
]


@requirement("clients.node", "chat.stream.helpers", "tools.parallel")
async def test_nodes_stream_helper_ends_well_with_two_calls(node_folder: Path, gateway: Served) -> None:
    found = await run(node_folder, gateway, "helper")
    calls = [{name: call[name] for name in ("name", "arguments")} for call in found["calls"]]
    assert (found["text"], calls, found["finish"]) == ("Look:", CALLS, "tool_calls")
    assert found["events"] == [[index, call["name"], call["arguments"]] for index, call in enumerate(CALLS)]


@requirement("clients.node", "tools.round-trip", "tools.parallel")
async def test_node_answers_two_parallel_calls(
    node_folder: Path, gateway: Served, model: ScriptedModel, marker: str
) -> None:
    assert await run(node_folder, gateway, "roundTrip", marker) == {"text": f"Both {marker}."}
    (request,) = model.requests_with(f"get_time {marker}")
    results = [json.loads(message["content"])["message"] for message in request.messages if message["role"] == "tool"]
    assert results == [f"get_weather {marker}", f"get_time {marker}"]


@requirement("clients.node", "tools.round-trip")
async def test_nodes_tool_runner_runs_to_the_end(node_folder: Path, gateway: Served, marker: str) -> None:
    found = await run(node_folder, gateway, "runTools", marker)
    assert (found["streamed"], found["plain"]) == (f"Both {marker}.", f"Both {marker}.")
    assert found["ran"] == [["get_weather", "Oslo"], ["get_time", "Rome"]] * 2


@requirement("clients.node", "errors.unknown-model", "errors.in-band")
async def test_node_throws_the_right_class_of_error(node_folder: Path, gateway: Served) -> None:
    found = await run(node_folder, gateway, "errors")
    names = {name: (error.get("class"), error.get("status"), error.get("code")) for name, error in found.items()}
    assert names == {
        "notFound": ("NotFoundError", 404, "model_not_found"),
        "badRequest": ("BadRequestError", 400, "unsupported_value"),
        "provider": ("RateLimitError", 429, "rate_limit_exceeded"),
        "midStream": ("APIError", None, "provider_error"),
    }
    assert found["badRequest"]["param"] == "n"
    assert found["badRequest"]["requestID"].startswith("req_")


@requirement("clients.node")
async def test_node_can_stop_listening_in_mid_stream(node_folder: Path, serve: Serve, marker: str) -> None:
    found = await run(node_folder, serve(queue_wait_seconds=10), "abort", marker)
    assert found == {"heard": True, "then": "Still here."}
