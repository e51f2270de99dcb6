"""`frontdesk new agent`: what it writes works as it stands."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from frontdesk.agents.importing import load_agents

from .conftest import Run
from .test_serve import wait_until_live


def test_a_new_agent_is_served_and_answers_with_its_tool(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    told = run("new", "agent", "week-desk").stdout
    serve, curl, body = (line for line in told.splitlines() if line.startswith(("frontdesk serve", "curl", "  -d")))
    assert curl.startswith("curl http://127.0.0.1:8000/v1/chat/completions ")
    asked: Any = json.loads(shlex.split(body)[1])
    command = [sys.executable, "-m", *serve.split(), "--port", "0"]
    with subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        base = [process.stderr.readline() for _ in range(3)][2].split()[-1]
        assert wait_until_live(base.removesuffix("/v1"))
        with OpenAI(base_url=base, api_key="none", max_retries=0) as client:
            create: Any = client.chat.completions.create
            answer = create(**asked)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(20) == 0
    assert asked["model"] == "week-desk"
    assert answer.choices[0].message.content == "Tool results: 2026-01-08"


@pytest.mark.parametrize("model", ["scripted/demo", "anthropic/claude-haiku-4-5"])
def test_its_own_test_passes_with_any_model_and_without_a_key(
    run: Run, env: dict[str, str], tmp_path: Path, model: str
) -> None:
    told = run("new", "agent", "counter", "--folder", "my agents", "--model", model).stdout
    assert "cd 'my agents'" in told
    assert ("A scripted model answers" in told) is (model == "scripted/demo")
    folder = tmp_path / "my agents"
    assert f'model="{model}"' in (folder / "counter.py").read_text()
    keyless = {name: value for name, value in env.items() if not name.endswith("_API_KEY")}
    command = [sys.executable, "-W", "default", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_counter.py"]
    done = subprocess.run(command, env=keyless, cwd=folder, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_what_it_writes_is_tidy(run: Run, tmp_path: Path) -> None:
    run("new", "agent", "counter")
    tool = str(Path(sys.executable).with_name("ruff"))
    for command in (
        ["check", "--isolated", "--select", "E,F,I,B,UP,RUF", "--line-length", "120"],
        ["format", "--diff"],
    ):
        options = ["--isolated", "--line-length", "120"] if command[0] == "format" else []
        done = subprocess.run(
            [tool, *command, *options, "."], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_nothing_is_written_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("precious")
    result = run("new", "agent", "mine")
    assert result.exit_code == 1
    assert "There is test_mine.py already." in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert (tmp_path / "test_mine.py").read_text() == "precious"


def test_not_even_over_a_link_that_leads_nowhere(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").symlink_to(tmp_path / "elsewhere.py")
    assert run("new", "agent", "mine").exit_code == 1
    assert not (tmp_path / "elsewhere.py").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Weather", "cannot be called 'Weather' here"),
        ("two words", "cannot be called 'two words' here"),
        ("../escape", "cannot be called '../escape' here"),
        ('x"\nimport os', "cannot be called"),
        ("a" * 41, "cannot be called"),
        ("trailing-", "cannot be called"),
        ("", "cannot be called"),
        ("class", "class means something else in Python"),
        ("json", "json means something else in Python"),
        ("frontdesk", "frontdesk means something else in Python"),
        ("pydantic-ai", "A module called pydantic_ai is installed here already"),
    ],
)
def test_a_name_that_cannot_be_is_refused(run: Run, tmp_path: Path, name: str, sentence: str) -> None:
    result = run("new", "agent", name)
    assert (result.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert sentence in result.stderr


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("opnai/gpt", "There is no provider 'opnai'"),
        ("gpt-5", "names no provider"),
        ('openai/x",tools=[],a="', "is no name of a model"),
    ],
)
def test_a_model_that_cannot_be_is_refused(run: Run, tmp_path: Path, model: str, sentence: str) -> None:
    result = run("new", "agent", "mine", "--model", model)
    assert (result.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert sentence in result.stderr


def test_a_folder_that_cannot_be_written_to_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("new", "agent", "mine", "--folder", "file/within")
    assert result.exit_code == 1
    assert "Cannot write to file/within" in result.stderr


def test_the_name_is_the_agents_own_and_that_of_its_file(run: Run, tmp_path: Path) -> None:
    run("new", "agent", "lost-property-2")
    sys.path.insert(0, str(tmp_path))
    try:
        (found,) = load_agents("lost_property_2:agent")
    finally:
        sys.path.remove(str(tmp_path))
    assert found.name == "lost-property-2"
    assert [tool.name for tool in found.parts.tools] == ["later"]
