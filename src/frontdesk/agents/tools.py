"""Tools which the agent itself runs: typed functions, with a schema taken from their hints and docstring."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic_ai.tools import ToolDefinition
from pydantic_core import SchemaValidator

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Tool:
    """A tool of an agent's own, however it came about: a function, a method of a skill, a tool of an MCP server.

    `run` is given what `validator` made of the model's JSON. What it raises is told to the model as the tool's error;
    a GatewayError ends the turn. `scope` is what the caller must hold, both to have it listed and to have it run.
    """

    definition: ToolDefinition  # name, description and JSON Schema, as the model is shown them
    validator: SchemaValidator
    run: Callable[[dict[str, Any]], Awaitable[Any]]
    scope: str = "user"
    timeout_seconds: float = TIMEOUT_SECONDS
    retries: int = 1  # how often the model may call again after arguments that do not fit, or ModelRetry
    price: Decimal | None = None  # US dollars a call
    function: Callable[..., Any] | None = None  # what was decorated, still callable by itself
    metadata: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.definition.name
