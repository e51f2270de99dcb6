"""The tools of an MCP server, as tools of the agent's own.

    skills=[MCP("https://docs.example.com/mcp", api_key="…", allow=["search*"])]
    skills=[MCP(command=["python", "server.py"], env={"TOKEN": "…"})]

The server may be down, come back, or change its tools while turns run. Nothing that it says is trusted: see
`mcp_translate`.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import structlog
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.tools import ToolDefinition
from pydantic_core import SchemaValidator, core_schema

from frontdesk.agents.errors import AgentError
from frontdesk.agents.services import Services
from frontdesk.agents.skill import Skill
from frontdesk.agents.skills.outward import address, cut, headers_of, label
from frontdesk.agents.tools import Tool

if TYPE_CHECKING:
    from mcp_types import Tool as Offered

    from frontdesk.agents.skills.mcp_connection import Connection

log = structlog.get_logger(__name__)

MAX_PREFIX_CHARACTERS = 32
GRACE_SECONDS = 10.0
"""So much longer a call may take than the server is given, which may have to be dialled first."""

ANY_OBJECT = SchemaValidator(core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema()))
"""The server judges the arguments, whose schema is its own."""


class Unreachable(Exception):
    """The server is not there, or went away before it answered."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: at a URL, or at the other end of a command's standard input and output."""

    url: str = ""
    sse: bool = False
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    cwd: str | None = None

    @property
    def label(self) -> str:
        """For logs: without what may be secret."""
        if self.command:
            return PurePath(self.command[0]).name
        return label(self.url)


class MCP(Skill):
    """The tools of one MCP server, by its URL (streamable HTTP, or SSE where `transport` or the path says so) or by
    the command that starts it.

    Tools are named `{name}_{tool}`; `allow` are shell patterns of those to be had, by the server's own names. `api_key`
    is sent as a bearer token, to this server alone. A command is given `env`, and of the gateway's own environment only
    such things as PATH and HOME. `scope` is what a caller must hold to use the tools.
    """

    def __init__(
        self,
        target: str = "",
        *,
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        name: str = "",
        allow: Sequence[str] = ("*",),
        headers: Mapping[str, str] | None = None,
        api_key: str = "",
        transport: Literal["http", "sse"] | None = None,
        scope: str = "user",
        timeout_seconds: float = 60.0,
    ) -> None:
        if bool(target) == bool(command):
            raise AgentError('An MCP skill needs a server: MCP("https://…") or MCP(command=["python", "server.py"]).')
        if isinstance(command, str) or isinstance(allow, str):
            raise AgentError("`command` and `allow` of an MCP skill are lists of texts, not one text.")
        if timeout_seconds <= 0:
            raise AgentError("`timeout_seconds` of an MCP skill must be more than 0.")
        if target:
            self._address = at(target, headers or {}, api_key, transport)
        elif headers or api_key or transport:
            raise AgentError("`headers`, `api_key` and `transport` are for an MCP server with a URL; use `env` here.")
        else:
            self._address = Address(command=tuple(command), env=dict(env or {}), cwd=cwd)
        self.name = prefix(name or guessed(self._address))
        self._allow = tuple(allow)
        self.scope = scope
        self._timeout_seconds = timeout_seconds
        self._tools: tuple[Tool, ...] = ()
        self._faults: tuple[str, ...] = ()
        self._connection: Connection | None = None

    def tools(self) -> Sequence[Tool]:
        """What the server listed last, also while it is away."""
        return self._tools

    @asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncGenerator[None]:
        """Be connected, as far as that can be had: a server that is down keeps nobody from starting."""
        opening = await asyncio.to_thread(import_module, "frontdesk.agents.skills.mcp_connection")
        self._connection = connection = opening.Connection(
            self._address, self._address.label, self._take, self._timeout_seconds
        )
        try:
            await connection.ready()
            yield
        finally:
            self._connection = None
            await connection.stop()

    def _take(self, offered: "Sequence[Offered]") -> None:
        """The server's tools are these from now on."""
        from frontdesk.agents.skills.mcp_translate import listed

        found, faults = listed(offered, self.name, self._allow)
        if faults and tuple(faults) != self._faults:
            log.warning("tools of an MCP server are left out", server=self._address.label, tools=faults[:20])
        self._faults = tuple(faults)
        self._tools = tuple(
            Tool(
                definition=ToolDefinition(
                    name=each.name, description=each.description, parameters_json_schema=each.schema
                ),
                validator=ANY_OBJECT,
                run=partial(self._run, each.original),
                scope=self.scope,
                timeout_seconds=self._timeout_seconds + GRACE_SECONDS,
            )
            for each in found
        )

    async def _run(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Raises ToolFailed, which is what the model is told."""
        from mcp import MCPError

        from frontdesk.agents.skills.mcp_translate import MAX_TEXT_CHARACTERS, complaint, told

        if self._connection is None:
            raise ToolFailed(f"The MCP server {self.name!r} is not connected.")
        try:
            result = await self._connection.call(tool, arguments)
        except Unreachable as error:
            raise ToolFailed(f"The MCP server {self.name!r} cannot be reached at the moment.") from error
        except TimeoutError as error:
            raise ToolFailed(
                f"The MCP server {self.name!r} did not answer within {self._timeout_seconds:g} seconds."
            ) from error
        except MCPError as error:
            said = cut(error.message, MAX_TEXT_CHARACTERS)
            raise ToolFailed(f"The MCP server {self.name!r} refused the call: {said}") from error
        except ValueError as error:
            raise ToolFailed(f"What the MCP server {self.name!r} answered cannot be read.") from error
        if result.is_error:
            raise ToolFailed(complaint(result))
        return told(result)


def at(url: str, headers: Mapping[str, str], api_key: str, transport: str | None) -> Address:
    """A server's address. Raises AgentError."""
    if transport not in (None, "http", "sse"):
        raise AgentError(f"There is no transport {transport!r} for MCP. Use 'http' (streamable HTTP) or 'sse'.")
    whole = address(url, "an MCP server")
    sse = transport == "sse" if transport else urlsplit(whole).path.endswith("/sse")
    return Address(url=url, sse=sse, headers=headers_of(api_key, headers, "the MCP skill"))


def guessed(address: Address) -> str:
    """A name for a server that was given none: its host, or the program."""
    if not address.command:
        host = urlsplit(address.url).hostname or ""
        return re.sub(r"^(www|mcp|api)\.", "", host)
    programs = [part for part in address.command if not part.startswith("-")]
    return PurePath(programs[1] if len(programs) > 1 else programs[0]).stem


def prefix(name: str) -> str:
    """A name as the beginning of the names of tools."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")
    if not plain:
        raise AgentError(f"The name {name!r} of an MCP skill holds no letter or digit. Give it a `name`.")
    return plain[:MAX_PREFIX_CHARACTERS].rstrip("_")
