"""Agents by import path."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from frontdesk.agents.errors import AgentError
from frontdesk.agents.importing import load, load_agents

from .modules import Modules, modules_in

KINDS = """
    import pydantic_ai
    from pydantic_ai.models.test import TestModel
    from frontdesk import Agent, tool

    MODEL = "scripted/x"

    class Base(Agent):
        model = MODEL

    class Weather(Base):
        name = "weather"

        @tool
        def forecast(self) -> str:
            return "sunny"

    class Wants(Base):
        name = "wants"

        def __init__(self, number):
            super().__init__()

    one = Agent("one", model=MODEL)
    same = one
    two = Base("two")
    plain = pydantic_ai.Agent(TestModel())
    named = pydantic_ai.Agent(TestModel(), name="known")
    wrapped = Agent("wrapped", engine=named)
    some = [one, Weather, named, (two, one)]
    nameless = [plain]
    by_name = {"one": one, "other": pydantic_ai.Agent(TestModel())}
    misnamed = {"uno": one}
    nothing = []
    number = 7
    _hidden = Agent("hidden", model=MODEL)

    def made():
        return some

    def wants(x):
        return one

    async def later():
        return one

    def fails():
        raise LookupError("no database")

    def refused():
        return Agent("x y z!", model=MODEL)

    class Shelf:
        agents = [one]
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    monkeypatch.chdir(tmp_path)
    with modules_in(tmp_path) as modules:
        yield modules


@pytest.fixture
def kinds(modules: Modules) -> str:
    return modules.write(KINDS)


def names(path: str) -> list[str]:
    return [agent.name for agent in load_agents(path)]


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("one", ["one"]),
        ("Weather", ["weather"]),
        ("plain", ["plain"]),
        ("named", ["known"]),
        ("some", ["one", "weather", "known", "two"]),
        ("by_name", ["one", "other"]),
        ("made", ["one", "weather", "known", "two"]),
        ("Shelf.agents", ["one"]),
        ("_hidden", ["hidden"]),
    ],
)
def test_what_an_attribute_may_be(kinds: str, attribute: str, expected: list[str]) -> None:
    assert names(f"{kinds}:{attribute}") == expected


def test_a_module_alone_means_every_agent_in_it(kinds: str) -> None:
    """`Base` has no name, `named` is served as `wrapped` already, and `Wants` cannot be made."""
    without_wants = KINDS.replace('name = "wants"', "")
    assert "Wants takes arguments" in refusal(kinds)
    assert names(Modules(Path.cwd()).write(without_wants)) == ["one", "two", "wrapped", "weather", "plain"]


def test_agents_come_with_what_they_import_from_the_working_directory(modules: Modules) -> None:
    tools = modules.write("def ping() -> str:\n    return 'pong'\n")
    agents = modules.write(
        f"from {tools} import ping\nfrom frontdesk import Agent\na = Agent('a', model='scripted/x', tools=[ping])"
    )
    (agent,) = load_agents(agents)
    assert [tool.name for tool in agent.parts.tools] == ["ping"]


@pytest.mark.parametrize(
    ("attribute", "sentence"),
    [
        ("missing", "there is no 'missing' in it. There is: "),
        ("one.missing", "there is no 'missing' in it"),
        ("number", "it is 7, which is no agent"),
        ("nothing", "there is no agent"),
        ("nameless", "an agent of Pydantic AI has no name"),
        ("misnamed", "an agent called 'one' under the name 'uno'"),
        ("wants", "wants takes arguments"),
        ("later", "later is a coroutine function"),
        ("fails", "fails() failed: LookupError: no database"),
        ("refused", "An agent cannot be called 'x y z!'"),
        ("Base", "Base has no name"),
    ],
)
def test_faults_name_the_path_and_say_what_is_wrong(kinds: str, attribute: str, sentence: str) -> None:
    message = refusal(f"{kinds}:{attribute}")
    assert message.startswith(f"{kinds}:{attribute}: ")
    assert message.count(kinds) == 1
    assert sentence in message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nowhere_to_be_found", "needs 'nowhere_to_be_found', which is not installed (mine.py, line 1)."),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero (mine.py, line 1)"),
        ("a = (", "SyntaxError: '(' was never closed (mine.py, line 1)"),
        ("import os\nos.environ['NONE_HERE']", "KeyError: 'NONE_HERE' (mine.py, line 2)"),
        ("import sys; sys.exit(2)", "cannot be imported: SystemExit: 2 (mine.py, line 1)"),
        (
            "from frontdesk import Agent; Agent('a')",
            'a has no model: give it one, such as model="openai/gpt-5-mini". (mine.py, line 1)',
        ),
        ("", "there is no agent"),
    ],
)
def test_a_module_that_is_wrong_is_told_with_its_reason(modules: Modules, text: str, sentence: str) -> None:
    name = modules.write(text)
    message = refusal(name).replace(name, "mine")
    assert message.startswith("mine: ")
    assert sentence in message


@pytest.mark.parametrize("path", ["nowhere_to_be_found", "nowhere_to_be_found.inner:agents", "os.nowhere_to_be_found"])
def test_a_module_that_is_not_there_is_told_with_where_it_was_looked_for(modules: Modules, path: str) -> None:
    message = refusal(path)
    assert "there is no module" in message
    assert str(Path.cwd()) in message


@pytest.mark.parametrize(
    "path", ["", "agents.py", "agents.py:one", "my-agents", "a:b:c", "a/b", ".a", "a.", ":a", "a:", "a b"]
)
def test_what_is_no_import_path_is_told(path: str) -> None:
    assert "is no import path. Write module:attribute" in refusal(path)


def test_anything_can_be_loaded_by_its_path() -> None:
    assert load("os.path:join") is os.path.join
    assert load("os:path.join") is os.path.join


def refusal(path: str) -> str:
    with pytest.raises(AgentError) as error:
        load_agents(path)
    return str(error.value)
