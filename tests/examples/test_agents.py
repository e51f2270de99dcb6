"""The agents of examples/, served and asked as their docstrings say."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from frontdesk.testing import Served, serving

EXAMPLES = Path(__file__).parents[2] / "examples"
AGENTS = ("weather", "calculator", "router", "companion", "priced")


@contextmanager
def example(path: str) -> Generator[tuple[Served, OpenAI]]:
    with serving(f"examples.{path}") as desk, desk.client() as client:
        yield desk, client


def ask(client: OpenAI, model: str, text: str, **options: Any) -> str:
    message: Any = {"role": "user", "content": text}
    create: Any = client.chat.completions.create
    return create(model=model, messages=[message], **options).choices[0].message.content or ""


def test_the_weather_needs_the_clients_tool_and_its_own_in_one_step() -> None:
    question = 'Do I need a coat?\n@call where_am_i\n@call forecast {"city": "Oslo"}\n@then\n@say Take a coat.'
    with example("weather:agent") as (desk, _):
        environment = os.environ | {"FRONTDESK_URL": desk.url, "CITY": "Bergen", "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, str(EXAMPLES / "weather.py"), question]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "Take a coat.\n"
        first, last = desk.model.requests
    assert first.tool_names == ["forecast", "where_am_i"]
    results = {each["content"] for each in last.messages if each["role"] == "tool"}
    assert "Bergen" in results
    assert any("28 °C" in result for result in results)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("(2 + 3) * 4", "20"),
        ("-2 ** 0.5 + 1 / 3", "-1.08088022904"),
        ("10 % 4", "2"),
        ("9 ** 9 ** 9", "OverflowError"),
        ("(-8) ** 0.5", "no real result"),
        ("1 / 0", "ZeroDivisionError"),
        ("__import__('os').getcwd()", "cannot be calculated"),
        ("1 if 1 else 2", "cannot be calculated"),
        ("(" * 99 + "1" + ")" * 99, "1"),
        ("1" * 201, "at most 200"),
    ],
)
def test_the_calculator_calculates_and_tells_what_it_cannot(counter: OpenAI, expression: str, result: str) -> None:
    assert result in ask(counter, "calculator", f"@call calculate {json.dumps({'expression': expression})}")


@pytest.fixture(scope="module")
def counter() -> Iterator[OpenAI]:
    with example("calculator:agent") as (_, client):
        yield client


def test_the_router_hands_over_and_hides_who_is_its_own() -> None:
    with example("router:agents") as (desk, client):
        assert sorted(model.id for model in client.models.list()) == ["orders", "reception"]
        tracked = '@call transfer_to_orders\n@then\n@call track {"order": 7}\n@then\n@say It is at sea.'
        assert ask(client, "reception", tracked) == "It is at sea."
        assert "Order 7 left the harbour this morning." in str(desk.model.requests[-1].messages)
        booked = '@call transfer_to_repairs\n@then\n@call book_repair {"device": "kettle", "day": "Monday"}'
        assert ask(client, "reception", booked) == "Tool results: The mechanic comes on Monday for the kettle."
        assert "There is no order 9" in ask(client, "orders", '@call track {"order": 9}')
        with pytest.raises(openai.NotFoundError):
            ask(client, "repairs", "Hello!")


def test_the_companion_knows_a_name_in_the_next_conversation() -> None:
    with example("companion:agent") as (desk, client):
        ask(client, "companion", "My name is Ada. Please remember it.")
        assert ask(client, "companion", "What is my name?") == "Your name is Ada."
        assert "Please remember it" not in str(desk.model.requests[-1].messages)


def test_the_third_search_is_more_than_the_budget_has() -> None:
    search = '@call search {"query": "tides"}'
    with example("priced:agent") as (_, client):
        for number in (1, 2):
            assert "Everything about tides" in ask(client, "scout", f"{search}\n{number}")
        with pytest.raises(openai.APIStatusError) as refused:
            ask(client, "scout", f"{search}\n3")
    assert (refused.value.status_code, refused.value.code) == (402, "insufficient_budget")


def told(page: str) -> str:
    """The last example of a page that has to do with agents in Python."""
    found = re.findall(r"^```python\n(.*?)^```$", (EXAMPLES.parent / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [text for text in found if "from frontdesk import" in text][-1]


def test_the_readmes_agent_works_as_it_stands() -> None:
    names: dict[str, Any] = {"__name__": __name__}
    exec(told("README.md"), names)  # noqa: S102
    with serving(names["weather"]) as desk, desk.client() as client:
        answer = ask(client, "weather", '@call forecast {"city": "Oslo", "days": 2}')
    assert answer == "Tool results: Sunny in Oslo for 2 days."


def test_the_test_on_the_page_about_testing_passes() -> None:
    names: dict[str, Any] = {"__name__": __name__}
    exec(told("docs/testing.md"), names)  # noqa: S102
    names["test_it_speaks"]()


@pytest.mark.parametrize("name", AGENTS)
def test_each_says_how_to_serve_it(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    about = ast.get_docstring(ast.parse(text)) or ""
    (path,) = re.findall(r"frontdesk serve --agents (\S+)", about)
    module, _, attribute = path.partition(":")
    assert module == name
    assert f"\n{attribute} = " in text


def test_the_list_has_every_example() -> None:
    listed = set(re.findall(r"\]\((\w+\.\w+)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
