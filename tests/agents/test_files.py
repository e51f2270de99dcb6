"""Agents in YAML and Markdown files, and a folder of them that changes."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from textwrap import dedent

import pytest
import structlog

from frontdesk import Agent, Skill, tool
from frontdesk.agents.errors import AgentError
from frontdesk.agents.files import MAX_BYTES, Folder

HERE = "tests.agents.test_files"


def forecast(city: str) -> str:
    return f"sunny in {city}"


class Counter(Skill):
    def __init__(self, start: int = 0, step: int = 1) -> None:
        self.start, self.step = start, step

    @tool
    def count(self) -> int:
        return self.start + self.step


FULL = f"""
    name: Über weather
    model: [scripted/x, scripted/y]
    description: Knows the weather.
    tags: [kind, quick]
    instructions: |
      Be kind.
      Be brief.
    tools:
      - {HERE}:forecast
    skills:
      {HERE}:Counter: {{start: 3}}
    handoffs:
      - billing
      - to: sales
        description: For money.
        scope: owner
    scope: admin
    settings:
      temperature: 0.2
    fallbacks: [scripted/z]
    max_steps: 5
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def read(folder: Path) -> list[Agent]:
    return Folder(folder).read()


def refusal(folder: Path) -> str:
    with pytest.raises(AgentError) as error:
        read(folder)
    return str(error.value)


# --- files ---------------------------------------------------------------------------------------------------------


def test_everything_a_file_can_say(tmp_path: Path) -> None:
    write(tmp_path / "any.yaml", FULL)
    (agent,) = read(tmp_path)
    assert (agent.name, agent.description, agent.tags) == ("Über weather", "Knows the weather.", ["kind", "quick"])
    assert agent.models == ("scripted/x", "scripted/y", "scripted/z")
    assert agent.instructions == "Be kind.\nBe brief.\n"
    assert [each.name for each in agent.parts.tools] == ["forecast", "count"]
    assert agent.skill(Counter).count() == 4
    assert [(each.name, each.description, each.scope) for each in agent.parts.handoffs] == [
        ("billing", "", "user"),
        ("sales", "For money.", "owner"),
    ]
    assert (agent.scope, agent.settings, agent.max_steps) == ("admin", {"temperature": 0.2}, 5)


def test_markdown_holds_the_instructions_below_the_rest(tmp_path: Path) -> None:
    write(
        tmp_path / "weather.md",
        """\
        ---
        model: scripted/x
        ---

        # Weather

        Be kind.

        ---

        And brief.
        """,
    )
    (agent,) = read(tmp_path)
    assert (agent.name, agent.instructions) == ("weather", "# Weather\n\nBe kind.\n\n---\n\nAnd brief.")


def test_an_agent_md_is_called_as_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "weather" / "AGENT.md", "---\nmodel: scripted/x\n---\nBe kind.\n")
    write(tmp_path / "weather" / "notes.md", "---\nmodel: scripted/x\n---\nNot an agent.\n")
    write(tmp_path / "AGENT.md", "---\nmodel: scripted/x\n---\nBe brief.\n")
    assert sorted(agent.name for agent in read(tmp_path)) == sorted([tmp_path.name, "weather"])


def test_what_is_for_people_or_hidden_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "# About these agents")
    write(tmp_path / ".draft.yaml", "nonsense")
    write(tmp_path / "script.py", "1 / 0")
    write(tmp_path / "one.yml", "model: scripted/x")
    assert [agent.name for agent in read(tmp_path)] == ["one"]


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "one.md").write_bytes("\ufeff---\r\nmodel: scripted/x\r\n---\r\nBe kind.\r\n".encode())
    assert [(agent.name, agent.instructions) for agent in read(tmp_path)] == [("one", "Be kind.")]


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [("", [1]), ("{}", [1]), ("7", [8]), ("{start: 3, step: 2}", [5]), ("[1]", [2])],
)
def test_skills_take_no_argument_one_named_ones_or_a_list(tmp_path: Path, arguments: str, counts: list[int]) -> None:
    write(tmp_path / "one.yaml", f"model: scripted/x\nskills:\n  {HERE}:Counter: {arguments}\n")
    (agent,) = read(tmp_path)
    assert [skill.count() for skill in agent.parts.skills if isinstance(skill, Counter)] == counts


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "`model` is missing"),
        ("modle: x", "`modle` means nothing here; there are name, model"),
        ("model: scripted/x\napi_key: sk-1234", "`api_key` is not for files"),
        ("model: 7", "`model`: Input should be a valid string"),
        ("model: nobody/x", "no provider 'nobody'"),
        ("model: scripted/x\nname: a/b", "cannot be called 'a/b'"),
        ("model: scripted/x\nname: 7", "`name`: Input should be a valid string"),
        ("model: scripted/x\nmax_steps: many", "`max_steps`: Input should be a valid integer"),
        ("model: scripted/x\nmax_steps: 0", "must be 1 or more"),
        ("model: scripted/x\nscope: on", "`scope`: Input should be a valid string"),
        ("model: scripted/x\ntools: [nowhere:x]", "nowhere:x: there is no module 'nowhere'"),
        (f"model: scripted/x\ntools: ['{HERE}:HERE']", "as a tool"),
        ("model: scripted/x\nskills: {jump: {}}", "`skills.jump` is no skill; there are ask_agent, budget"),
        (f"model: scripted/x\nskills: {{'{HERE}:forecast': {{}}}}", "is no class derived from Skill"),
        (f"model: scripted/x\nskills: {{'{HERE}:Counter': {{stop: 1}}}}", "argument 'stop'; it takes start, step"),
        (
            "model: scripted/x\nhandoffs: [{to: a, when: b}]",
            "`handoffs.0.when` means nothing here; there are to, description, scope",
        ),
        ("model: scripted/x\nsettings: {temprature: 1}", "settings that no model knows: temprature"),
        ("- a\n- b", "it is not a mapping"),
        ("model: [", "it is not valid YAML: line 1, column 9: while parsing a flow node"),
        ("model: x\ninstructions: a: b", "line 2, column 16: mapping values are not allowed here. A text with `: `"),
        ("model: scripted/x\nmodel: scripted/y", "'model' is there twice"),
        ("model: &m scripted/x\nname: *m", "anchors and aliases are not read"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchors and aliases are not read"),
        ("model: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("model: 2026-99-99", "it is not valid YAML"),
        ("[" * 1200, "it is not valid YAML"),
        ("x: " + "y" * MAX_BYTES, "larger than 256 KiB"),
        ("model: \x07", "it is not valid YAML"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_what_is_wrong(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(text, encoding="utf-8")
    message = refusal(tmp_path)
    assert message.startswith(f"{path}: ")
    assert sentence in message
    assert "sk-1234" not in message


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"---\nmodel: scripted/x\n", "no other line is"),
        (b"---\nmodel: scripted/x\ninstructions: a\n---\nb\n", "leave out one of the two"),
        (b"---\nmodel: \xff\n---\n", "the file is not UTF-8"),
        (b"---\nname: x\nmodel: [\n---\nHi.\n", "not valid YAML: line 4, column 1"),
    ],
)
def test_markdown_that_is_wrong_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "one.md").write_bytes(content)
    assert sentence in refusal(tmp_path)


def test_two_files_with_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "model: scripted/x\nname: same")
    write(tmp_path / "b.yaml", "model: scripted/x\nname: same")
    assert f"b.yaml: {tmp_path / 'a.yaml'} has an agent called 'same' already" in refusal(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'}: the folder of agents cannot be read" in refusal(tmp_path / "none")


# --- a folder that changes -----------------------------------------------------------------------------------------


async def following(folder: Folder) -> AsyncGenerator[dict[str, Agent]]:
    async with aclosing(folder.watch()) as changes:
        async for agents in changes:
            yield {agent.name: agent for agent in agents}


async def soon(changes: AsyncGenerator[dict[str, Agent]]) -> dict[str, Agent]:
    return await asyncio.wait_for(anext(changes), 20)


async def test_changes_count_at_once_and_what_has_not_changed_stays_the_same_object(tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", "model: scripted/x\ninstructions: A")
    write(tmp_path / "two.yaml", "model: scripted/x")
    folder = Folder(tmp_path)
    before = {agent.name: agent for agent in folder.read()}
    async with aclosing(following(folder)) as changes:
        write(tmp_path / "one.yaml", "model: scripted/x\ninstructions: B")
        now = await soon(changes)
        assert (before["one"].instructions, now["one"].instructions) == ("A", "B")
        assert now["two"] is before["two"]

        (tmp_path / "one.yaml").unlink()
        assert list(await soon(changes)) == ["two"]

        write(tmp_path / "three" / "AGENT.md", "---\nmodel: scripted/x\n---\n")
        assert list(await soon(changes)) == ["three", "two"]

        write(tmp_path / "three" / "AGENT.md", "---\nmodel: scripted/x\n---\nHi.")
        assert (await soon(changes))["three"].instructions == "Hi."


async def test_a_file_that_becomes_wrong_keeps_its_agent_and_the_log_says_why_once(tmp_path: Path) -> None:
    path = write(tmp_path / "one.yaml", "model: scripted/x\ninstructions: A")
    folder = Folder(tmp_path)
    (before,) = folder.read()
    with structlog.testing.capture_logs() as logs:
        async with aclosing(following(folder)) as changes:
            write(path, "model: [")
            write(tmp_path / "two.yaml", "model: scripted/x")
            assert (await soon(changes))["one"] is before
            write(tmp_path / "three.yaml", "model: scripted/x")
            assert list(await soon(changes)) == ["one", "three", "two"]
            write(path, "model: scripted/x\ninstructions: B")
            assert (await soon(changes))["one"].instructions == "B"
    told = [str(each["reason"]) for each in logs if each["event"] == "an agent cannot be loaded"]
    assert [reason.startswith(f"{path}: it is not valid YAML") for reason in told] == [True]


async def test_a_folder_that_goes_away_keeps_its_agents_and_is_followed_again_when_it_is_back(tmp_path: Path) -> None:
    path = write(tmp_path / "agents" / "one.yaml", "model: scripted/x\ninstructions: A")
    folder = Folder(path.parent)
    folder.read()
    with structlog.testing.capture_logs():
        async with aclosing(following(folder)) as changes:
            change = asyncio.create_task(soon(changes))
            await asyncio.sleep(0)
            shutil.rmtree(path.parent)
            write(path, "model: scripted/x\ninstructions: B")
            assert (await change)["one"].instructions == "B"


async def test_a_file_that_is_only_touched_makes_no_new_agent(tmp_path: Path) -> None:
    path = write(tmp_path / "one.yaml", "model: scripted/x")
    folder = Folder(tmp_path)
    (before,) = folder.read()
    async with aclosing(following(folder)) as changes:
        os.utime(path, (1, 1))
        write(tmp_path / "two.yaml", "model: scripted/x")
        assert (await soon(changes))["one"] is before
