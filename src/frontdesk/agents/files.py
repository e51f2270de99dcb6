"""Agents in files: YAML, and Markdown with YAML before the instructions.

A folder holds `*.yaml`, `*.yml` and `*.md` files, and folders with an `AGENT.md`. A Markdown file that does not begin
with `---` is no agent, unless it is called `AGENT.md`. Names that begin with a dot are left alone.
"""

import asyncio
import codecs
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_ai.settings import ModelSettings
from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]

from frontdesk.agents.agent import MAX_STEPS, Agent
from frontdesk.agents.errors import AgentError
from frontdesk.agents.handoffs import Handoff, handoff
from frontdesk.agents.importing import load
from frontdesk.agents.skill import Skill
from frontdesk.agents.skills import SHIPPED

log = structlog.get_logger(__name__)

MAX_BYTES = 256 * 1024
FENCE = "---"
AGENT_MD = "AGENT.md"
COLON = "mapping values are not allowed here"
DEBOUNCE_MILLISECONDS = 100
LOOK_AGAIN_MILLISECONDS = 1000
"""Also where the system tells of no change, as on some network drives, and after the folder itself was replaced."""


class Target(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: str
    description: str = ""
    scope: str = "user"


class Spec(BaseModel):
    """What a file may say."""

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    model: str | list[str]
    description: str = ""
    instructions: str = ""
    tags: list[str] = []
    tools: list[str] = []
    skills: dict[str, Any] = {}
    handoffs: list[str | Target] = []
    scope: str = "user"
    base_url: str = ""
    settings: dict[str, Any] = {}
    fallbacks: list[str] = []
    max_steps: int = MAX_STEPS
    durable: bool = False


class Loader(yaml.SafeLoader):
    """Plain data only: no anchors, by which a small file can be a huge value, and no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = cast("Any", self).peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.constructor.ConstructorError(None, None, "anchors and aliases are not read", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def agent_of(path: Path, content: bytes) -> Agent:
    """The agent that a file holds. Raises AgentError."""
    if len(content) > MAX_BYTES:
        raise AgentError(f"the file is larger than {MAX_BYTES // 1024} KiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise AgentError("the file is not UTF-8") from None
    values = _front_and_body(text) if path.suffix == ".md" else _mapping(text)
    try:
        spec = Spec.model_validate(values, strict=True)
    except ValidationError as error:
        faults = [each for each in error.errors(include_url=False) if not _is_of_another_kind(each)]
        raise AgentError("; ".join(map(_problem, faults))) from None
    name = spec.name or (path.absolute().parent.name if path.name == AGENT_MD else path.stem)
    return Agent(
        name,
        model=spec.model,
        description=spec.description,
        instructions=spec.instructions,
        tags=spec.tags,
        tools=[load(each) for each in spec.tools],
        skills=[skill for each, arguments in spec.skills.items() for skill in _skills(each, arguments)],
        handoffs=[_handoff(each) for each in spec.handoffs],
        scope=spec.scope,
        base_url=spec.base_url,
        settings=cast("ModelSettings", spec.settings),
        fallbacks=spec.fallbacks,
        max_steps=spec.max_steps,
        durable=spec.durable,
    )


def _front_and_body(text: str) -> dict[str, Any]:
    """What a Markdown file says: YAML between two lines of `---`, then the instructions."""
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != FENCE:
        return {"instructions": text.strip()}
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == FENCE), 0)
    if not end:
        raise AgentError("its first line is `---`, but no other line is: end the part before the instructions with one")
    values, body = _mapping("".join(lines[1:end]), above=1), "".join(lines[end + 1 :]).strip()
    if body and values.get("instructions"):
        raise AgentError("it has `instructions`, and more of them below: leave out one of the two")
    return {**values, "instructions": body} if body else values


def _mapping(text: str, above: int = 0) -> dict[str, Any]:
    """What YAML says, with `above` lines before it in its file."""
    try:
        values: object = yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        raise AgentError(f"it is not valid YAML: {_where(error, above)}{_mend(error)}") from error
    except yaml.YAMLError as error:
        raise AgentError(f"it is not valid YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError) as error:  # ValueError: a date that is none
        raise AgentError(f"it is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise AgentError("it is not a mapping: write lines such as `model: openai/gpt-5-mini`")
    return {str(key): value for key, value in cast("dict[Any, Any]", values).items()}


def _where(error: yaml.MarkedYAMLError, above: int) -> str:
    mark = error.problem_mark or error.context_mark
    line = f"line {mark.line + 1 + above}, column {mark.column + 1}: " if mark else ""
    return line + ", ".join(filter(None, (error.context, error.problem)))


def _mend(error: yaml.MarkedYAMLError) -> str:
    """For what is most often written wrongly."""
    return ". A text with `: ` in it goes between quotes" if error.problem == COLON else ""


def _is_of_another_kind(detail: Mapping[str, Any]) -> bool:
    """Whether it is only that a mapping is no text, where both may be: what is wrong in the mapping is told too."""
    return detail["type"] == "string_type" and detail["loc"][-1] == "str" and isinstance(detail["input"], dict)


def _problem(detail: Mapping[str, Any]) -> str:
    """One fault, in words: where it is and what would be right."""
    types = ("str", "list[str]", Target.__name__)  # which of several it was taken for
    where = ".".join(str(part) for part in detail["loc"] if part not in types)
    match detail["type"]:
        case "extra_forbidden" if where == "api_key":
            return "`api_key` is not for files: keys come from [providers.…] in frontdesk.toml, or the environment"
        case "extra_forbidden" if where in detail["loc"]:
            return f"`{where}` means nothing here; there are {', '.join(Spec.model_fields)}"
        case "extra_forbidden":
            return f"`{where}` means nothing here; there are {', '.join(Target.model_fields)}"
        case "missing":
            return f"`{where}` is missing"
        case _:
            return f"`{where}`: {detail['msg']}"


def _handoff(given: str | Target) -> Handoff:
    return handoff(given) if isinstance(given, str) else handoff(given.to, given.description, given.scope)


def _skills(name: str, arguments: Any) -> Iterator[Skill]:
    """A skill by the name of one that ships, or by import path, with its arguments: a mapping by their names, one
    alone, or a list, with one skill for each entry of it."""
    kind = load(f"frontdesk.agents.skills:{SHIPPED[name]}") if name in SHIPPED else _skill_class(name)
    for each in cast("list[Any]", arguments) if isinstance(arguments, list) else [arguments]:
        try:
            match each:
                case None:
                    skill = kind()
                case dict():
                    skill = kind(**cast("dict[str, Any]", each))
                case _:
                    skill = kind(each)
        except TypeError as error:
            takes = ", ".join(inspect.signature(kind).parameters)
            raise AgentError(f"`skills.{name}` cannot be made: {error}; it takes {takes or 'nothing'}") from error
        except ValueError as error:
            raise AgentError(f"`skills.{name}` cannot be made: {error}") from error
        yield skill


def _skill_class(name: str) -> Callable[..., Skill]:
    if ":" not in name:
        raise AgentError(f"`skills.{name}` is no skill; there are {', '.join(SHIPPED)}, and yours as module:Class")
    kind = load(name)
    if not (isinstance(kind, type) and issubclass(kind, Skill)):
        raise AgentError(f"`skills.{name}` is no class derived from Skill")
    return kind


# --- a folder of them ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was last looked at, and what came of it: an agent, perhaps of an earlier state, or a fault."""

    stamp: tuple[int, ...] = ()
    content: bytes = b""
    agent: Agent | None = None
    fault: str = ""


class Folder:
    """The agents of a folder. A file that cannot be read keeps the agent it gave before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: dict[Path, Seen] = {}
        self._agents: list[Agent] = []
        self._told: list[str] = []

    def read(self) -> list[Agent]:
        """Its agents. Raises AgentError for what is wrong with any of them, or if there is no such folder."""
        faults = self._read()
        if faults:
            raise AgentError("\n".join(faults))
        return self._agents

    async def watch(self) -> AsyncGenerator[list[Agent]]:
        """Its agents, whenever they have changed since they were read. What is wrong with a file is logged, once."""
        async with aclosing(self._ticks()) as ticks:
            async for _ in ticks:
                before = self._agents
                faults = await asyncio.to_thread(self._read)
                for fault in faults:
                    if fault not in self._told:
                        log.error("an agent cannot be loaded", reason=fault)
                self._told = faults
                if self._agents != before:
                    yield self._agents

    def _read(self) -> list[str]:
        """Look at it, and say what is wrong. A folder that cannot be read keeps what it had."""
        try:
            self._seen = {path: self._look(path) for path in agent_files(self.path)}
        except OSError as error:
            return [f"{self.path}: the folder of agents cannot be read: {error.strerror}"]
        faults = [seen.fault for seen in self._seen.values() if seen.fault]
        named: dict[str, tuple[Agent, Path]] = {}
        for path, seen in self._seen.items():
            if seen.agent and seen.agent.name in named:
                faults.append(f"{path}: {named[seen.agent.name][1]} has an agent called {seen.agent.name!r} already")
            elif seen.agent:
                named[seen.agent.name] = seen.agent, path
        self._agents = [agent for agent, _ in named.values()]
        return faults

    def _look(self, path: Path) -> Seen:
        """A file that has not changed is what it was; one that was wrong is read again when it is touched."""
        before = self._seen.get(path, Seen())
        try:
            stamp, content = stamp_of(path), b""
            if before.stamp == stamp:
                return before
            content = content_of(path)
        except OSError as error:
            return Seen(agent=before.agent, fault=f"{path}: it cannot be read: {error.strerror}")
        if before.agent and not before.fault and before.content == content:
            return replace(before, stamp=stamp)
        try:
            return Seen(stamp, content, agent_of(path, content))
        except AgentError as error:
            return Seen(stamp, content, before.agent, f"{path}: {error}")

    async def _ticks(self) -> AsyncGenerator[None]:
        """Says when to look again."""
        while True:
            try:
                watched = folders(self.path)
                changes = awatch(
                    *watched,
                    watch_filter=None,
                    debounce=DEBOUNCE_MILLISECONDS,
                    rust_timeout=LOOK_AGAIN_MILLISECONDS,
                    yield_on_timeout=True,
                    recursive=False,
                )
                async with aclosing(changes):
                    async for _ in changes:
                        yield
                        if folders(self.path) != watched:
                            break
            except OSError:  # it is gone, or too much is watched on this machine
                yield
                await asyncio.sleep(LOOK_AGAIN_MILLISECONDS / 1000)


def agent_files(folder: Path) -> list[Path]:
    """The files of a folder in which there are agents. Raises OSError."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        inner = path / AGENT_MD
        if path.name.startswith("."):
            continue
        if inner.is_file():
            found.append(inner)
        elif path.is_file() and (path.suffix in (".yaml", ".yml") or path.name == AGENT_MD or is_fenced(path)):
            found.append(path)
    return found


def is_fenced(path: Path) -> bool:
    """Whether it is Markdown that begins with YAML. Any other Markdown is for people."""
    with suppress(OSError), path.open("rb") as file:
        return path.suffix == ".md" and file.read(8).removeprefix(codecs.BOM_UTF8).startswith(FENCE.encode())
    return False


def folders(path: Path) -> dict[Path, int]:
    """The folder, and those in it with an agent, each with its inode: a new one of the same name is another. Raises
    OSError."""
    inner = [each.parent for each in agent_files(path) if each.name == AGENT_MD]
    return {each: each.stat().st_ino for each in [path, *inner]}


def stamp_of(path: Path) -> tuple[int, ...]:
    """What changes when a file does. Raises OSError."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def content_of(path: Path) -> bytes:
    """All of it, or the beginning of what is too large. Raises OSError."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
