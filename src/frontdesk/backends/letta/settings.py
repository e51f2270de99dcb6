"""A conversation's model and its settings, as Letta takes them: whole, or it falls back to defaults of its own. Pure.

Source: what Letta 0.16.7 hands on to each provider, in its `schemas/model.py` and `llm_api/`.
"""

import re
from collections.abc import Mapping
from typing import Any

from frontdesk.errors import InvalidRequest
from frontdesk.turn import Agent, Format, Options

Row = Mapping[str, Any]

ENFORCING = frozenset({"azure", "openai", "openrouter", "sglang", "xai"})
"""Types of provider that hold a model to a JSON schema, and to which Letta hands the wish on. It takes the wish for
others too, and drops it."""

REASONS = re.compile(r"(.*/)?(o\d|gpt-5)")
"""Models to which Letta sends a reasoning effort, and no temperature."""

EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh"})
ALWAYS = frozenset({"parallel_tool_calls"})
"""Carried out in any thread: calls beyond the first are Letta's to lose."""


def honoured(model: str, own: Row | None) -> frozenset[str]:
    """Which options can be had of a model in a conversation, by the agent's own settings."""
    if not model or not own:
        return ALWAYS
    reasons = bool(REASONS.match(model))
    found = {*ALWAYS, "max_output_tokens", "model"}
    if not reasons:
        found.add("temperature")
    elif "reasoning" in own:
        found.add("reasoning_effort")
    if own.get("provider_type") in ENFORCING:
        found.add("format")
    return frozenset(found)


def body(agent: Agent, options: Options, other: Row | None = None) -> dict[str, Any]:
    """The model of a conversation for a turn with these options. Empty where the server does not say the agent's own.

    `other` is another model for this turn, as Letta describes it. Raises InvalidRequest for what Letta has no word for.
    """
    own: Row | None = agent.settings.get("model_settings")
    if not agent.model or not own:
        return {}
    model = agent.model
    if other is not None:
        own, model = settings_of(other, own), str(other["handle"])
    wished: dict[str, Any] = {"parallel_tool_calls": options.parallel_tool_calls is not False}
    if options.temperature is not None:
        wished["temperature"] = options.temperature
    if options.max_output_tokens is not None:
        wished["max_output_tokens"] = options.max_output_tokens
    if options.reasoning_effort is not None:
        wished["reasoning"] = effort(options)
    if options.format is not None and options.format.enforced:
        if own.get("provider_type") not in ENFORCING:
            param = options.names.get("format", "response_format")
            raise InvalidRequest(f"The model {model!r} cannot be held to JSON.", param=param, code="unsupported_value")
        wished["response_format"] = response_format(options.format)
    return {"model": model, "model_settings": {**own, **wished}}


def settings_of(model: Row, own: Row) -> Row:
    """Settings for another model than the agent's: as the agent's own, where it is of the same provider's kind."""
    kind = str(model.get("provider_type") or "")
    most = int(model.get("max_tokens") or 4096)
    if kind == own.get("provider_type"):
        return {**own, "max_output_tokens": min(most, own.get("max_output_tokens") or most)}
    return {"provider_type": kind, "temperature": own.get("temperature", 1.0), "max_output_tokens": most}


def effort(options: Options) -> dict[str, Any]:
    if options.reasoning_effort not in EFFORTS:
        param = options.names.get("reasoning_effort", "reasoning_effort")
        raise InvalidRequest(
            f"The agent's model knows no reasoning effort {options.reasoning_effort!r}.",
            param=param,
            code="unsupported_value",
        )
    return {"reasoning_effort": options.reasoning_effort}


def response_format(wanted: Format) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    described = {"name": wanted.name or "answer", "schema": wanted.schema, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": described}


def differs(row: Row, wanted: Row) -> bool:
    """Whether a conversation, as Letta shows it, has other settings than these."""
    has: Row = row.get("model_settings") or {}
    settings: Row = wanted["model_settings"]
    return row.get("model") != wanted["model"] or any(has.get(name) != value for name, value in settings.items())


def limit(wanted: Row) -> int | None:
    """The most tokens that one call of the model may give."""
    chosen: Row = wanted.get("model_settings") or {}
    return chosen.get("max_output_tokens")
