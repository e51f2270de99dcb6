"""Where instructions go, and which wishes an agent can be given."""

from dataclasses import replace
from typing import Any

import pytest

from frontdesk.errors import InvalidRequest
from frontdesk.policies.options import MODEL_KEY, Rules, settled
from frontdesk.turn import Agent, Format, Message, Mode, Options, Principal, SystemPrompt, Text, Tool, Turn

HONOURED = frozenset({"temperature", "format", "model", "parallel_tool_calls"})
ALONE = frozenset({"parallel_tool_calls"})
MODERN = Agent("agent-1", "Milo", "letta", honours=HONOURED, honours_alone=ALONE)
OLDER = replace(MODERN, conversations=False, bridged=True)
SHARED = replace(MODERN, tools_alone=False)  # an older agent whose conversations are held by replicas
SCHEMA: dict[str, Any] = {"type": "object"}


def turn(mode: Mode = "auto", **fields: Any) -> Turn:
    said = (Message("user", (Text("Hello"),)),)
    return Turn("turn_1", "Milo", said, mode=mode, instructions="You are a pirate.", **fields)


def refusal(asked: Turn, agent: Agent = MODERN, rules: Rules | None = None) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as info:
        settled(asked, agent, rules or Rules())
    return info.value.param, info.value.public_code


# --- where instructions go ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "key", "place"),
    [
        (Rules(), None, "override"),
        (Rules(system_prompt="message"), None, "message"),
        (Rules(system_prompt="message"), "override", "override"),
        (Rules(agent_system_prompts={"Milo": "message"}), None, "message"),
        (Rules(agent_system_prompts={"agent-1": "message"}), None, "message"),
        (Rules(agent_system_prompts={"Otis": "message"}), None, "override"),
        (Rules(agent_system_prompts={"Milo": "message"}), "override", "override"),
    ],
)
def test_a_keys_place_goes_before_an_agents_and_that_before_the_servers(
    rules: Rules, key: SystemPrompt | None, place: SystemPrompt
) -> None:
    found = settled(turn(principal=Principal(system_prompt=key)), MODERN, rules)
    assert (found.system_prompt, found.instructions) == (place, "You are a pirate.")


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        (Rules(system_prompt="ignore"), None),
        (Rules(), "ignore"),
        (Rules(agent_system_prompts={"Milo": "ignore"}), None),
        (Rules(remove_system_prompt=True, agent_system_prompts={"Milo": "override"}), "override"),
    ],
)
def test_ignored_instructions_are_gone_but_not_the_wish_for_json(rules: Rules, key: SystemPrompt | None) -> None:
    asked = turn("single", principal=Principal(system_prompt=key))
    assert settled(asked, MODERN, rules).instructions == ""
    found = settled(replace(asked, options=Options(format=Format())), MODERN, rules)
    assert (found.system_prompt, "JSON" in found.instructions) == ("override", True)


@pytest.mark.parametrize("rules", [Rules(system_prompt="block"), Rules(agent_system_prompts={"Milo": "block"})])
@pytest.mark.parametrize("key", [None, "override", "message"])
def test_a_block_is_for_one_thread_only_whatever_a_key_says(rules: Rules, key: SystemPrompt | None) -> None:
    asked = turn(principal=Principal(system_prompt=key))
    assert settled(replace(asked, mode="single"), MODERN, rules).system_prompt == "block"
    assert settled(asked, OLDER, rules).system_prompt == "block"
    assert refusal(asked, MODERN, rules) == (None, "unsupported_value")
    assert refusal(replace(asked, mode="stateless"), MODERN, rules) == (None, "unsupported_value")
    assert refusal(replace(asked, tools=(Tool("get_weather"),)), OLDER, rules) == ("tools", "unsupported_value")


def test_an_older_agents_own_thread_takes_no_tools() -> None:
    alone = turn("single", tools=(Tool("get_weather"),))
    assert refusal(alone, OLDER) == ("tools", "unsupported_parameter")
    assert refusal(alone, SHARED) == ("tools", "unsupported_parameter")
    assert settled(replace(alone, mode="auto"), OLDER, Rules()).tools
    assert settled(replace(alone, mode="auto"), SHARED, Rules()).tools


# --- wishes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "agent", "tools", "carried_out"),
    [
        ("auto", MODERN, (), True),
        ("stateless", MODERN, (), True),
        ("single", MODERN, (), False),
        ("auto", OLDER, (), False),
        ("auto", OLDER, (Tool("get_weather"),), True),
    ],
)
def test_an_agents_own_thread_has_no_settings_of_its_own(
    mode: Mode, agent: Agent, tools: tuple[Tool, ...], carried_out: bool
) -> None:
    options = Options(temperature=0.5, parallel_tool_calls=False, top_p=0.1, names={"top_p": "the_top"})
    found = settled(turn(mode, tools=tools, options=options), agent, Rules()).options
    assert found.parallel_tool_calls is False
    assert found.temperature == (0.5 if carried_out else None)
    assert found.ignored == (("the_top",) if carried_out else ("temperature", "the_top"))
    assert found.top_p is None


def test_a_format_is_enforced_or_told() -> None:
    options = Options(format=Format(SCHEMA, "x"), names={"format": "response_format"})
    enforced = settled(turn(options=options), MODERN, Rules())
    assert enforced.options.format == Format(SCHEMA, "x", enforced=True)
    assert (enforced.instructions, enforced.options.ignored) == ("You are a pirate.", ())
    told = settled(turn("single", options=options), MODERN, Rules())
    assert told.options.format == Format(SCHEMA, "x")
    assert told.instructions.startswith("You are a pirate.\n\nAnswer with one JSON object")
    assert told.options.ignored == ("response_format",)
    strict = replace(options, format=Format(SCHEMA, "x", strict=True))
    assert settled(turn(options=strict), MODERN, Rules()).options.format
    assert refusal(turn("single", options=strict)) == ("response_format", "unsupported_value")


def test_a_model_is_chosen_only_where_that_is_allowed_and_possible() -> None:
    named = turn(metadata={MODEL_KEY: "openai/gpt-5"})
    param = f"metadata.{MODEL_KEY}"
    assert refusal(named) == (param, "model_not_allowed")
    assert refusal(named, rules=Rules(models=("anthropic/*",))) == (param, "model_not_allowed")
    rules = Rules(models=("openai/*",))
    assert settled(named, MODERN, rules).options.model == "openai/gpt-5"
    assert refusal(replace(named, mode="single"), rules=rules) == (param, "unsupported_value")
    suffixed = replace(named, options=Options(model="openai/gpt-4o"))
    assert settled(suffixed, MODERN, rules).options.model == "openai/gpt-4o"
    assert refusal(turn(options=Options(model="x/y"))) == ("model", "model_not_allowed")
