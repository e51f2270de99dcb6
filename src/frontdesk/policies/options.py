"""What a caller wishes of a turn, and what of that its agent can be given: settled once, for every protocol. Pure.

What is not carried out is reported, or refused where ignoring it would break the caller's logic.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from frontdesk.errors import InvalidRequest
from frontdesk.turn import Agent, File, Item, Message, Options, SystemPrompt, ToolResult, Turn

JSON_ONLY = "Answer with one JSON object and nothing else: no code fence, no words around it."
MODEL_KEY = "frontdesk_model"
"""The key of a request's metadata that names another model for the turn."""


@dataclass(frozen=True, slots=True)
class Rules:
    strict_params: bool = False
    remove_system_prompt: bool = False
    system_prompt: SystemPrompt = "override"
    agent_system_prompts: Mapping[str, SystemPrompt] = field(default_factory=dict[str, SystemPrompt])  # by name or id
    models: tuple[str, ...] = ()  # shell patterns of the models that a request may choose


def settled(turn: Turn, agent: Agent, rules: Rules) -> Turn:
    """The turn as this agent can be given it: its options are those to be carried out. Raises InvalidRequest for what
    it cannot be given at all."""
    check_tools(turn, agent)
    check_files((*turn.history, *turn.input), agent.files)
    where = system_prompt(turn, agent, rules)
    if where == "block":
        check_block(turn, agent)
    options = with_model(turn, rules)
    honoured = agent.honours_alone if is_alone(turn, agent) else agent.honours
    missed = [name for name in options.asked if name not in honoured]
    if "model" in missed:
        raise unsupported(options.names.get("model", "model"), "This agent cannot be given another model.")
    if "must_call" in missed:
        raise unsupported(options.names["must_call"], "An agent decides for itself whether to call a tool: use 'auto'.")
    if "format" in missed and options.format and options.format.strict:
        raise unsupported(options.names["format"], "This agent cannot guarantee a strict JSON schema.")
    ignored = (*(options.names.get(name, name) for name in missed), *options.ignored)
    if rules.strict_params and ignored:
        raise unsupported(ignored[0], f"{ignored[0]!r} cannot be honoured by this agent.", "unsupported_parameter")
    instructions, place = ("", "override") if where == "ignore" else (turn.instructions, where)
    wanted = options.format
    if wanted and "format" in missed:
        instructions = "\n\n".join(filter(None, [instructions, json_instruction(wanted.schema)]))
    kept: dict[str, Any] = dict.fromkeys(missed, None)
    if wanted:
        kept["format"] = replace(wanted, enforced="format" not in missed)
    options = replace(options, ignored=ignored, **kept)
    return replace(turn, options=options, instructions=instructions, system_prompt=place)


def is_alone(turn: Turn, agent: Agent) -> bool:
    """Whether the turn runs in the agent's own thread."""
    return turn.mode == "single" or not (agent.conversations or (agent.bridged and turn.tools))


def system_prompt(turn: Turn, agent: Agent, rules: Rules) -> SystemPrompt:
    """Where the caller's instructions go: as the key has it, else the agent, else this server."""
    if rules.remove_system_prompt:
        return "ignore"
    by_agent = rules.agent_system_prompts
    of_agent = by_agent.get(agent.name) or by_agent.get(agent.id) or rules.system_prompt
    if of_agent == "block" and turn.principal.system_prompt != "ignore":
        return "block"  # whoever else speaks there must leave none of it behind
    return turn.principal.system_prompt or of_agent


def check_block(turn: Turn, agent: Agent) -> None:
    """Every conversation of an agent sees its blocks, and would read there what another caller has written."""
    if agent.bridged and turn.tools:
        raise unsupported("tools", f"The agent {agent.name!r} keeps instructions in its memory, and has one thread.")
    if not is_alone(turn, agent):
        raise InvalidRequest(
            f"The agent {agent.name!r} is set up with system_prompt = block, which is only for agents with one thread:"
            " others would read this caller's instructions. The operator can set its mode to single.",
            code="unsupported_value",
        )


def with_model(turn: Turn, rules: Rules) -> Options:
    """The options, with the model that the request's metadata names. Raises InvalidRequest for one that is not allowed
    here."""
    options = turn.options
    if options.model is None and (named := turn.metadata.get(MODEL_KEY)):
        options = replace(options, model=named, names={**options.names, "model": f"metadata.{MODEL_KEY}"})
    model = options.model
    if model is not None and not any(fnmatchcase(model, pattern) for pattern in rules.models):
        raise unsupported(
            options.names.get("model", "model"),
            f"The model {model[:200]!r} is not among those that a request may choose here.",
            "model_not_allowed",
        )
    return options


def check_tools(turn: Turn, agent: Agent) -> None:
    if turn.tools and not agent.client_tools:
        raise InvalidRequest(
            f"The agent {agent.name!r} is of a type that cannot use the caller's tools.",
            param="tools",
            code="unsupported_parameter",
        )
    if turn.tools and (agent.bridged or not agent.tools_alone) and is_alone(turn, agent):
        raise unsupported(
            "tools", "In its own thread this agent cannot use the caller's tools.", "unsupported_parameter"
        )
    for tool in turn.tools:
        if tool.name in agent.reserved_tools:
            raise InvalidRequest(
                f"The name {tool.name!r} belongs to a tool by which the agent keeps its memory. Rename yours.",
                param=tool.param or "tools",
                code="invalid_value",
            )


def check_files(items: Iterable[Item], carried: Collection[str]) -> None:
    """Raises InvalidRequest for a file of a type which cannot be carried."""
    for item in items:
        for part in item.content if isinstance(item, Message | ToolResult) else ():
            if isinstance(part, File) and not any(fnmatchcase(part.media_type, pattern) for pattern in carried):
                raise unsupported(
                    part.param,
                    f"Files of type {part.media_type!r} cannot be given to this agent, only {files_named(carried)}.",
                    "unsupported_content_type",
                )


def files_named(patterns: Collection[str]) -> str:
    return " and ".join("text in UTF-8" if each == "text/*" else each for each in sorted(patterns)) or "messages"


def json_instruction(schema: Mapping[str, Any] | None) -> str:
    if not schema:
        return JSON_ONLY
    return f"{JSON_ONLY} It must follow this JSON Schema:\n{json.dumps(schema, ensure_ascii=False)}"


def unsupported(param: str, message: str, code: str = "unsupported_value") -> InvalidRequest:
    return InvalidRequest(message, param=param, code=code)
