"""Which agents are served, through the gateway: of import paths, of a folder, and made when asked for."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from frontdesk.agents.errors import AgentError
from frontdesk.agents.loading import Agents
from frontdesk.agents.services import Services
from tests.requirements import requirement
from tests.served import Served, served

from . import cast

CAST = "tests.agents.cast"


def say(desk: Served, model: str, text: str) -> str:
    with desk.blocking_client() as client:
        done = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
    return done.choices[0].message.content or ""


def models(desk: Served) -> list[str]:
    with desk.blocking_client() as client:
        return sorted(model.id for model in client.models.list())


def until(what: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for it. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


# --- import paths --------------------------------------------------------------------------------------------------


@requirement("python.alone")
def test_agents_of_import_paths_answer_without_any_letta_server(tmp_path: Path) -> None:
    cast.living.clear()
    with served(tmp_path, agents=(f"{CAST}:agents",)) as desk:
        assert models(desk) == ["greeter", "shop", "weather"]
        assert say(desk, "weather", '@call forecast {"city": "Rome"}') == "Tool results: Sunny in Rome."
        assert say(desk, "weather", "@call is_on") == "Tool results: true"
        assert "from greeter." in say(desk, "greeter", "@call greet")
        with pytest.raises(openai.NotFoundError):
            say(desk, "nobody", "Hi")
    assert cast.living == ["static on", "static off"]


def test_a_tool_that_the_caller_may_not_use_is_neither_shown_nor_run(tmp_path: Path) -> None:
    with served(tmp_path, agents=(f"{CAST}:agents",)) as desk:
        assert say(desk, "shop", "@tools") == "[]"
        assert "Closed." not in say(desk, "shop", "@call close_shop")


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        ([f"{CAST}:agents", f"{CAST}:same_name"], "an agent called 'weather' already, in tests.agents.cast:agents"),
        ([f"{CAST}:agents", f"{CAST}:impostor"], "hands over to another agent called 'weather' than is served"),
        ([f"{CAST}:odd_scope"], "The agent odd asks for the scope 'premium'"),
        ([f"{CAST}:lost"], "lost hands over to 'nobody', but no agent written in Python has this name"),
    ],
)
def test_what_cannot_be_served_together_is_refused(paths: list[str], sentence: str) -> None:
    with pytest.raises(AgentError, match=sentence):
        Agents(paths)


def test_scopes_that_the_operator_names_are_known() -> None:
    assert list(Agents([f"{CAST}:odd_scope"], scopes=["premium"]).listed()) == ["odd"]


def test_whoever_serves_may_refuse_an_agent() -> None:
    def check(agent: Any) -> None:
        raise AgentError(f"{agent.name} has no key")

    with pytest.raises(AgentError, match="weather has no key"):
        Agents([f"{CAST}:agents"], check=check)


def test_the_same_path_twice_is_no_clash() -> None:
    assert len(Agents([f"{CAST}:agents"] * 2).listed()) == 3


async def test_a_skill_that_cannot_begin_is_named_and_the_others_end() -> None:
    cast.living.clear()
    agents = Agents([f"{CAST}:agents", f"{CAST}:dark"])
    with pytest.raises(AgentError, match=r"A skill of the agent dark \(Dark\) cannot begin: OSError: no power"):
        await agents.start(Services())
    assert cast.living == ["static on", "static off"]


# --- a folder ------------------------------------------------------------------------------------------------------


@requirement("python.sources")
def test_a_folder_is_served_and_its_changes_too(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    lamp = f"skills: {{'{CAST}:Lamp': from file}}"
    (folder / "one.yaml").write_text(f"model: scripted/x\n{lamp}\ntools: ['{CAST}:forecast']")
    (folder / "weather.yaml").write_text("model: scripted/x")
    cast.living.clear()
    with served(tmp_path, agents=(f"{CAST}:agents",), agents_dir=folder, models_refresh_seconds=0.1) as desk:
        assert models(desk) == ["greeter", "one", "shop", "weather"]
        assert say(desk, "one", '@call forecast {"city": "Oslo"}') == "Tool results: Sunny in Oslo."
        assert (
            say(desk, "weather", '@call forecast {"city": "Oslo"}') == "Tool results: Sunny in Oslo."
        )  # not the file's

        (folder / "two.yaml").write_text("model: scripted/x\nscope: premium")  # cannot be served
        (folder / "three.yaml").write_text("model: scripted/x")
        until(lambda: "three" in models(desk))
        assert "two" not in models(desk)
        assert say(desk, "three", "@say Hello") == "Hello"
        assert say(desk, "weather", '@call forecast {"city": "Oslo"}') == "Tool results: Sunny in Oslo."

        (folder / "one.yaml").write_text("model: scripted/x\nscope: premium")
        (folder / "three.yaml").unlink()
        until(lambda: "three" not in models(desk))
        assert say(desk, "one", "@call is_on") == "Tool results: true"  # as it was before

        (folder / "one.yaml").unlink()
        until(lambda: "from file off" in cast.living)
        with pytest.raises(openai.NotFoundError):
            say(desk, "one", "Hi")
    assert sorted(cast.living) == ["from file off", "from file on", "static off", "static on"]


# --- made when asked for -------------------------------------------------------------------------------------------


@requirement("python.sources")
def test_agents_are_made_when_asked_for_after_static_ones_and_are_not_listed(tmp_path: Path) -> None:
    cast.living.clear()
    with served(tmp_path, agents=(f"{CAST}:agents",), agents_resolver=f"{CAST}:resolve") as desk:
        assert say(desk, "user-1", "@say Hello") == "Hello"
        assert say(desk, "user-1", "@call is_on") == "Tool results: true"
        assert say(desk, "weather", "@say Hello") == "Hello"
        with pytest.raises(openai.NotFoundError):
            say(desk, "nobody", "Hi")
        with pytest.raises(openai.InternalServerError) as error:
            say(desk, "broken", "Hi")
        assert error.value.status_code == 503
        assert "hunter2" not in error.value.message
        assert models(desk) == ["greeter", "shop", "weather"]
    assert cast.living == ["static on", "user-1 on", "user-1 off", "static off"]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("nowhere_to_be_found:x", "there is no module"),
        (f"{CAST}:MODEL", "is no function"),
        (f"{CAST}:dark", "is no function"),
    ],
)
def test_a_resolver_that_is_none_is_refused(path: str, sentence: str) -> None:
    with pytest.raises(AgentError, match=sentence):
        Agents(resolver=path)
