"""Agents written in Python, on the command line."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI

from frontdesk.testing import serving

from .conftest import Run
from .test_serve import wait_until_live

CAST = "tests.agents.cast"

MINE = """
from frontdesk import Agent, tool


@tool
def forecast(city: str) -> str:
    "Tell the weather."
    return f"Sunny in {city}."


weather = Agent("weather", model="scripted/x", tools=[forecast])
"""


def test_agents_are_served_from_the_working_directory_and_from_a_folder(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "brief.md").write_text("---\nmodel: scripted/x\ntools: ['mine:forecast']\n---\nBe brief.\n")
    command = [sys.executable, "-m", "frontdesk", "serve", "--port", "0"]
    command += ["--agents", "mine:weather", "--agents-dir", "more"]
    with subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = [process.stderr.readline() for _ in range(6)]
        base = lines[2].split()[-1]
        assert wait_until_live(base.removesuffix("/v1"))
        with OpenAI(base_url=base, api_key="none", max_retries=0) as client:
            answers = [
                client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": '@call forecast {"city": "Rome"}'}]
                )
                for model in ("weather", "brief")
            ]
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(20) == 0
    assert [answer.choices[0].message.content for answer in answers] == ["Tool results: Sunny in Rome."] * 2
    assert [line.split() for line in lines[3:5]] == [["agents", "mine:weather"], ["agents", "files", "in", "more"]]
    assert "Letta" not in "".join(lines)
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--agents", "nowhere_to_be_found"], "there is no module 'nowhere_to_be_found'"),
        (["--agents", f"{CAST}:odd_scope"], "The agent odd asks for the scope 'premium', which is not known"),
        (["--agents", f"{CAST}:lost", "--workers", "2"], "lost hands over to 'nobody', but no agent written in Python"),
        (["--agents", f"{CAST}:agents", "--agents", f"{CAST}:same_name"], "an agent called 'weather' already"),
        (["--agents-dir", "nowhere"], "nowhere: the folder of agents cannot be read"),
    ],
)
def test_agents_that_cannot_be_served_are_told_in_one_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    result = run("serve", "--port", "0", *arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_the_doctor_looks_at_them_and_sends_one_a_message(run: Run) -> None:
    result = run("doctor", FRONTDESK_AGENTS=f"{CAST}:agents", FRONTDESK_PORT="0")
    assert "3 agents from tests.agents.cast:agents" in result.stdout
    assert "weather answered" in result.stdout
    assert result.exit_code == 0


def test_the_doctor_misses_no_letta_server_behind_a_gateway_that_was_started_without_one(run: Run) -> None:
    with serving(f"{CAST}:agents") as desk:
        result = run("doctor", "--url", desk.url)
    assert "letta" not in result.stdout.lower()
    assert "weather answered" in result.stdout
    assert result.exit_code == 0


def test_one_agent_is_shown_by_the_gateway_where_there_is_no_letta_server(run: Run) -> None:
    result = run("agents", "show", "weather", FRONTDESK_AGENTS=f"{CAST}:agents")
    assert result.exit_code == 1
    assert "GET /agents/{name}" in result.stderr


def test_a_key_that_is_missing_is_told_with_the_agent_that_needs_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "keyless.yaml").write_text("model: openai/gpt-5-mini")
    result = run("serve", "--port", "0", "--agents-dir", ".", OPENAI_API_KEY="")
    assert result.exit_code == 1
    assert "keyless: The model 'openai/gpt-5-mini' needs a key: set OPENAI_API_KEY" in result.stderr


def test_the_doctor_says_what_is_wrong_with_them(run: Run) -> None:
    result = run("doctor", FRONTDESK_AGENTS=f"{CAST}:odd_scope", FRONTDESK_PORT="0")
    assert "The agent odd asks for the scope 'premium'" in " ".join(result.stdout.split())
    assert result.exit_code == 1
