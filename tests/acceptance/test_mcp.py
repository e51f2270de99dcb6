"""Tools of MCP servers that are attached to an agent in Letta: the agent's own, and never asked of the caller."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from letta_client import Letta
from openai import AsyncOpenAI
from typer.testing import CliRunner

from frontdesk.cli import app
from frontdesk.demo.local_letta import LocalLetta, install, python_of
from frontdesk.testing import ScriptedModel
from tests.acceptance.talking import Talk
from tests.protocols.chat_completions.asking import function, told
from tests.requirements import requirement

SERVER = "harbour"
WEATHER = function("get_weather")
TIDE = "High tide at Oslo is at 14:20."
ASKING = '@call tide {"port": "Oslo"}\n@then\n@say The sea is high.'


@pytest.fixture(scope="module")
def tide(letta_api: Letta) -> str:
    """The id of the MCP server's tool."""
    config: dict[str, Any] = {
        "mcp_server_type": "stdio",
        "command": str(python_of(install())),
        "args": ["-m", SERVER],  # Letta takes them apart at spaces, so a path had better not be among them
        "env": {"PYTHONPATH": str(Path(__file__).parent)},
    }
    described = {"server_name": SERVER, "config": config}
    server: Any = letta_api.post("/v1/mcp-servers/", body=described, cast_to=object)
    tools: Any = letta_api.get(f"/v1/mcp-servers/{server['id']}/tools", cast_to=object)
    (tool,) = tools
    return tool["id"]


@pytest.fixture(scope="module")
def sailor(make_agent: Callable[..., Any], tide: str) -> Any:
    return make_agent(tool_ids=[tide])


@requirement("agents.mcp")
@pytest.mark.parametrize("stream", [True, False])
async def test_the_agent_runs_it_itself_and_the_answer_comes(
    client: AsyncOpenAI, model: ScriptedModel, sailor: Any, marker: str, stream: bool
) -> None:
    answer = await Talk(client, sailor.name).say(f"{marker}\n{ASKING}", stream=stream)
    assert (answer.text, answer.calls, answer.finish) == ("The sea is high.", (), "stop")
    assert "tide" in answer.reasoning
    asked, answered = model.requests_with(marker)
    assert "tide" in asked.tool_names
    assert told(answered, -1) == ("OK", TIDE)


async def test_beside_the_caller_s_tools_only_those_are_asked_of_the_caller(
    client: AsyncOpenAI, model: ScriptedModel, sailor: Any, marker: str
) -> None:
    talk = Talk(client, sailor.name, fields={"tools": [WEATHER]})
    both = '@call tide {"port": "Oslo"}\n@call get_weather {"city": "Oslo"}\n@then\n@say Sail.'
    asking = await talk.say(f"{marker}\n{both}")
    assert [call.name for call in asking.calls] == ["get_weather"]
    answer = await talk.answer({"get_weather": "sunny"})
    assert (answer.text, answer.finish) == ("Sail.", "stop")
    last = model.requests_with(marker)[-1]
    assert {told(last, number) for number in (-2, -1)} == {("OK", TIDE), ("OK", "sunny")}


async def test_what_goes_wrong_there_is_told_to_the_agent(
    client: AsyncOpenAI, model: ScriptedModel, sailor: Any, marker: str
) -> None:
    answer = await Talk(client, sailor.name).say(f'{marker}\n@call tide {{"port": "Nowhere"}}\n@then\n@say Stay.')
    assert (answer.text, answer.finish) == ("Stay.", "stop")
    assert "No sea there." in str(model.requests_with(marker)[-1].messages[-1]["content"])


@requirement("responses.own-tools")
async def test_a_response_shows_it_as_a_tool_that_ran_on_a_server(client: AsyncOpenAI, sailor: Any) -> None:
    response = await client.responses.create(model=sailor.name, input=ASKING)
    ran = next(item for item in response.output if item.type == "mcp_call")
    assert (ran.name, json.loads(ran.arguments), ran.output) == ("tide", {"port": "Oslo"}, TIDE)
    assert response.output_text == "The sea is high."


async def test_an_older_agent_has_it_through_its_twin_too(
    client: AsyncOpenAI,
    letta: LocalLetta,
    model: ScriptedModel,
    make_agent: Callable[..., Any],
    tide: str,
    marker: str,
    tmp_path: Path,
) -> None:
    agent = make_agent(agent_type="memgpt_v2_agent", tools=["send_message"], tool_ids=[tide])
    answer = await Talk(client, agent.name, fields={"tools": [WEATHER]}).say(f"{marker}\n{ASKING}")
    assert (answer.text, answer.calls) == ("The sea is high.", ())
    assert told(model.requests_with(marker)[-1], -1) == ("OK", TIDE)
    seen = json.loads(await asyncio.to_thread(command, letta, tmp_path, "agents", "show", agent.name, "--json"))
    everyone = json.loads(await asyncio.to_thread(command, letta, tmp_path, "agents", "--all", "--json"))
    absent = {each["id"]: each["absent"] for each in everyone}
    assert (absent[agent.id], absent[seen["twins"][0]]) == ("", f"twin of {agent.name}")
    assert seen["conversations"] == 1
    assert {each["label"]: each["shared_with"] for each in seen["blocks"]} == {"human": [], "persona": []}
    assert {each["name"]: each["works"] for each in seen["abilities"]}["client tools"] == "yes"


def test_it_is_shown_among_what_the_agent_has(letta: LocalLetta, sailor: Any, tmp_path: Path) -> None:
    shown = command(letta, tmp_path, "agents", "show", sailor.name, "--json")
    seen = json.loads(shown)
    assert {"name": "tide", "kind": "MCP server harbour", "needs_approval": False} in seen["tools"]
    assert [each["label"] for each in seen["blocks"]] == ["human", "persona"]
    assert (seen["type"], seen["model_known"], seen["absent"]) == ("letta_v1_agent", True, "")
    assert {each["name"]: each["works"] for each in seen["abilities"]}["own tools"] == "yes"
    assert "MCP server harbour" in command(letta, tmp_path, "agents", "show", sailor.id)


def test_the_doctor_knows_a_real_server(letta: LocalLetta, sailor: Any, tmp_path: Path) -> None:
    said = command(letta, tmp_path, "doctor", "--no-turn", "--url", "")
    assert f"{letta.base_url}, version 0.16.7" in said
    assert "It has no Redis" in said
    assert f"{sailor.name!r}" not in said
    assert "is older than" not in said
    assert "offers no" not in said


def command(letta: LocalLetta, folder: Path, *arguments: str) -> str:
    """What a command says about this server."""
    kept = {name: None for name in os.environ if name.startswith(("FRONTDESK_", "LETTA_"))}
    env = kept | {"LETTA_BASE_URL": letta.base_url, "FRONTDESK_DATA_DIR": str(folder), "FRONTDESK_PORT": "0"}
    result = CliRunner().invoke(app, arguments, env=env)
    assert result.exit_code == 0, result.output
    return result.stdout
