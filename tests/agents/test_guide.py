"""The author's guide: its examples run, one after the other, and make what they say."""

import re
from pathlib import Path
from typing import Any

import pytest

from frontdesk import Agent
from frontdesk.agents.endpoints import Endpoint
from frontdesk.agents.files import Folder, Spec
from frontdesk.agents.hooks import EVENTS

from .modules import Modules, modules_in

PAGE = (Path(__file__).parents[2] / "docs" / "python-agents.md").read_text(encoding="utf-8")


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": __name__}
    exec("\n".join(fenced("python")), names)  # noqa: S102
    return names


def test_the_examples_make_agents(told: dict[str, Any]) -> None:
    agents: dict[str, Agent] = {name: value for name, value in told.items() if isinstance(value, Agent)}
    assert list(agents) == ["weather", "desk", "plain", "specialist", "front", "outdoors"]
    desk = agents["desk"].parts
    assert [each.name for each in desk.tools] == ["cancel"]
    assert [each.tool_name for each in desk.handoffs] == ["transfer_to_weather"]
    assert [type(each) for each in desk.endpoints] == [Endpoint]
    assert [each.name for each in agents["outdoors"].parts.tools] == ["temperature", "frost"]
    assert (told["resolve"]("tenant-7").name, told["resolve"]("nobody")) == ("tenant-7", None)


def test_the_files_are_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (yaml,), (markdown,) = fenced("yaml"), fenced("markdown")
    with modules_in(tmp_path):
        module = Modules(tmp_path).write("def forecast(city: str) -> str:\n    return city\n")
        (tmp_path / "one.yaml").write_text(yaml.replace("my_agents", module))
        (tmp_path / "two.md").write_text(markdown.replace("my_agents", module))
        one, two = Folder(tmp_path).read()
    assert (one.name, two.name, two.instructions) == (
        "weather",
        "two",
        "You tell the weather.\n\nBe brief, and never guess.",
    )


def test_everything_that_can_be_said_is_on_the_page() -> None:
    assert [name for name in EVENTS if f"| `{name}` |" not in PAGE] == []
    assert [name for name in Agent.__annotations__ if f"`{name}`" not in PAGE] == []
    assert [name for name in Spec.model_fields if f"{name}:" not in PAGE and f"`{name}`" not in PAGE] == []
