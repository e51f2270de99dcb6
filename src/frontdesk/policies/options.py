"""What a caller wishes of a turn, and what of that its agent can be given: settled once, for every protocol. Pure.

What is not carried out is reported, or refused where ignoring it would break the caller's logic.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from frontdesk.errors import InvalidRequest
from frontdesk.turn import Agent, Turn

JSON_ONLY = "Answer with one JSON object and nothing else: no code fence, no words around it."


@dataclass(frozen=True, slots=True)
class Rules:
    strict_params: bool = False
    remove_system_prompt: bool = False


def settled(turn: Turn, agent: Agent, rules: Rules) -> Turn:
    """The turn as this agent can be given it. Raises InvalidRequest for what it cannot be given at all."""
    check_tools(turn, agent)
    options = turn.options
    missed = [name for name in options.asked if name not in agent.honours]
    if "must_call" in missed:
        raise unsupported(options.names["must_call"], "An agent decides for itself whether to call a tool: use 'auto'.")
    if "format" in missed and options.format and options.format.strict:
        raise unsupported(options.names["format"], "This agent cannot guarantee a strict JSON schema.")
    ignored = (*(options.names.get(name, name) for name in missed), *options.ignored)
    if rules.strict_params and ignored:
        raise unsupported(ignored[0], f"{ignored[0]!r} cannot be honoured by this agent.", "unsupported_parameter")
    instructions = "" if rules.remove_system_prompt else turn.instructions
    if "format" in missed and options.format:
        instructions = "\n\n".join(filter(None, [instructions, json_instruction(options.format.schema)]))
    return replace(turn, options=replace(options, ignored=ignored), instructions=instructions)


def check_tools(turn: Turn, agent: Agent) -> None:
    if turn.tools and not agent.client_tools:
        raise InvalidRequest(
            f"The agent {agent.name!r} is of a type that cannot use the caller's tools.",
            param="tools",
            code="unsupported_parameter",
        )
    for tool in turn.tools:
        if tool.name in agent.reserved_tools:
            raise InvalidRequest(
                f"The name {tool.name!r} belongs to a tool by which the agent keeps its memory. Rename yours.",
                param=tool.param or "tools",
                code="invalid_value",
            )


def json_instruction(schema: Mapping[str, Any] | None) -> str:
    if not schema:
        return JSON_ONLY
    return f"{JSON_ONLY} It must follow this JSON Schema:\n{json.dumps(schema, ensure_ascii=False)}"


def unsupported(param: str, message: str, code: str = "unsupported_value") -> InvalidRequest:
    return InvalidRequest(message, param=param, code=code)
