import json
import keyword
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from frontdesk.agents.errors import AgentError
from frontdesk.cli.page import Trouble, out

new = typer.Typer(no_args_is_help=True)

NAME = re.compile(r"[a-z](?:[a-z0-9]|[_-](?=[a-z0-9])){0,39}")
SCRIPTED = "scripted/demo"

AGENT = '''\
"""{name}: knows the calendar, until you teach it something else.

frontdesk serve --agents {module}:agent
"""

from datetime import UTC, date, datetime, timedelta

from frontdesk import Agent, prompt, tool


@tool
def later(day: date, days: int) -> date:
    """Tell which day it is some days after another.

    Args:
        day: The day to count from.
        days: How many days later; negative for earlier.
    """
    return day + timedelta(days=days)


@prompt
def today() -> str:
    """Tell the model, in each turn, what it cannot know."""
    return f"Today is {{datetime.now(UTC):%A, %Y-%m-%d}}."


agent = Agent(
    "{name}",
    model="{model}",
    description="Knows the calendar.",
    instructions="You answer questions about dates, in one sentence. You count with your tool, never by yourself.",
    tools=[later],
    prompts=[today],
)
'''

TEST = '''\
"""{name}, asked as its clients ask it. A scripted model answers: what it does stands in each message."""

from frontdesk.testing import serving

from {module} import agent


def test_it_counts_days_with_its_tool() -> None:
    script = 'Which day is a week after New Year?\\n@call later {{"day": "2026-01-01", "days": 7}}'
    with serving(agent) as desk, desk.client() as client:
        answer = client.chat.completions.create(model="{name}", messages=[{{"role": "user", "content": script}}])
    assert answer.choices[0].message.content == "Tool results: 2026-01-08"


def test_its_model_is_told_the_date() -> None:
    with serving(agent) as desk, desk.client() as client:
        client.chat.completions.create(model="{name}", messages=[{{"role": "user", "content": "Hello!"}}])
        assert "Today is " in desk.model.requests[-1].texts[0]
'''


@new.callback()
def begin() -> None:
    """Begin something of your own."""


@new.command()
def agent(
    name: Annotated[str, typer.Argument(metavar="NAME", help="By which callers will know it.")],
    folder: Annotated[Path, typer.Option(help="Where to write it.", file_okay=False)] = Path(),
    model: Annotated[str, typer.Option(help="The language model, as `provider/model`.")] = SCRIPTED,
) -> None:
    """Write a new agent in Python: a module with the agent, and a test.

    It works as it stands, without a key: a scripted model answers, until you name another.
    """
    module = module_of(name)
    check_model(model)
    files = {folder / f"{module}.py": AGENT, folder / f"test_{module}.py": TEST}
    if there := [str(path) for path in files if path.exists() or path.is_symlink()]:
        are = "is" if len(there) == 1 else "are"
        raise Trouble(f"There {are} {' and '.join(there)} already.", "Choose another name, or another `--folder`.")
    if find_spec(module):
        raise Trouble(
            f"A module called {module} is installed here already: Python would find the wrong one.",
            "Choose another name, such as `my-agent`.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text.format(name=name, module=module, model=model))
    except OSError as error:
        raise Trouble(f"Cannot write to {folder}: {error.strerror}.", "`--folder` names another place.") from error
    tell_next_steps(name, module, model, folder, list(files))


def module_of(name: str) -> str:
    """The name of the module for an agent of this name. Raises Trouble."""
    module = name.replace("-", "_")
    if not NAME.fullmatch(name):
        mend = "Use up to 40 lower-case letters, digits, and - or _ between them, such as `weather-desk`."
        raise Trouble(f"An agent cannot be called {name!r:.100} here: it is also the name of its file.", mend)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in ("frontdesk", "test", "tests"):
        raise Trouble(f"{module} means something else in Python.", "Choose another name, such as `my-agent`.")
    return module


def check_model(model: str) -> None:
    """Raises Trouble for a model that no agent can have."""
    if model == SCRIPTED:
        return
    from frontdesk.agents.models import check

    try:
        check(model)
    except AgentError as error:
        raise Trouble(str(error), "Without `--model` a scripted model answers, which needs nothing.") from error
    if '"' in model or "\\" in model:
        raise Trouble(f"{model!r:.100} is no name of a model.", "`--model` takes provider/model.")


def tell_next_steps(name: str, module: str, model: str, folder: Path, files: list[Path]) -> None:
    question = 'In a week?\n@call later {"day": "2026-01-01", "days": 7}' if model == SCRIPTED else "In a week?"
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": question}]})
    enter = () if folder == Path() else (f"cd {shlex.quote(str(folder))}",)
    for line in (
        f"Written: {' and '.join(map(str, files))}",
        "",
        "Test it, where pytest is installed beside Frontdesk:",
        f"python -m pytest {shlex.quote(str(files[1]))}",
        "",
        "Serve it:",
        *enter,
        f"frontdesk serve --agents {module}:agent",
        "",
        "Talk to it, in another terminal:",
        f"frontdesk chat {name}",
        "curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \\",
        f"  -d {shlex.quote(body)}",
        "",
        *(scripted(module) if model == SCRIPTED else real(model)),
    ):
        out.print(line, markup=False, soft_wrap=True)


def scripted(module: str) -> tuple[str, ...]:
    return (
        "A scripted model answers: it does what the lines with an @ say. For a real one, write",
        f'model="openai/gpt-5-mini" in {module}.py, and set OPENAI_API_KEY.',
    )


def real(model: str) -> tuple[str, ...]:
    """What the server wants before it starts, and the test does not."""
    from frontdesk.agents.models import PROVIDERS

    provider = PROVIDERS[model.partition("/")[0]]
    if not (provider.wants_key and provider.keys) or provider.credentials:
        return ()
    return (f"To serve it, set {provider.keys[0]}. The test needs no key: a scripted model answers there.",)
