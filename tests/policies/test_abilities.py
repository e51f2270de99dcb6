"""What is told of an agent is what becomes of a turn with it."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from frontdesk.errors import InvalidRequest
from frontdesk.policies.abilities import SCHEMA, SETTINGS, TOOLS, Works, abilities, carried_out, imagined, lacking
from frontdesk.policies.options import Rules, settled
from frontdesk.turn import OPTIONS, Agent, Mode, Options, Turn

ALWAYS = frozenset({"parallel_tool_calls"})
HONOURS = ALWAYS | {"max_output_tokens", "temperature", "format", "model"}
MODERN = Agent("agent-1", "Milo", "letta", honours=HONOURS, honours_alone=ALWAYS)
BRIDGED = replace(MODERN, name="Old", conversations=False, bridged=True)
OLD = replace(BRIDGED, client_tools=False, bridged=False)
ANOTHER = replace(MODERN, honours=HONOURS - {"format", "temperature"} | {"reasoning_effort"})
AGENTS = {"modern": MODERN, "bridged": BRIDGED, "old": OLD, "another": ANOTHER}
RULES = {
    "default": Rules(),
    "strict": Rules(strict_params=True),
    "ignore": Rules(remove_system_prompt=True),
    "block": Rules(system_prompt="block"),
    "models": Rules(models=("openai/*",)),
}


def works(agent: Agent, rules: Rules = RULES["default"], mode: Mode = "auto", **more: Any) -> dict[str, Works]:
    return {each.name: each.works for each in abilities(agent, rules, mode, **more)}


def how(agent: Agent, name: str, rules: Rules = RULES["default"], mode: Mode = "auto", **more: Any) -> str:
    return next(each.how for each in abilities(agent, rules, mode, **more) if each.name == name)


def test_a_modern_agent_can_all_but_what_its_server_lacks() -> None:
    found = works(MODERN)
    assert [name for name, each in found.items() if each != "yes"] == [
        "files",
        "settings",
        "other models",
        "tool choice",
    ]
    assert lacking(MODERN) == ()


def test_which_files_are_taken_is_told() -> None:
    assert works(replace(MODERN, files=frozenset({"text/*", "application/pdf"})))["files"] == "yes"
    assert works(replace(MODERN, files=frozenset()))["files"] == "no"


def test_an_older_agent_with_a_twin_lacks_conversations_only() -> None:
    found = works(BRIDGED)
    assert (found["client tools"], found["conversations"], found["streaming"]) == ("yes", "partly", "partly")
    assert "twin" in how(BRIDGED, "client tools")
    assert "With the caller's tools also max_output_tokens, temperature." in how(BRIDGED, "settings")
    assert [each.name for each in lacking(BRIDGED)] == ["conversations"]


def test_an_older_agent_with_replicas_lacks_nothing_but_in_its_own_thread() -> None:
    shared = replace(BRIDGED, conversations=True, bridged=False, tools_alone=False)
    assert works(shared) == works(MODERN)
    alone = works(shared, mode="single")
    assert (alone["client tools"], alone["conversations"], alone["streaming"]) == ("no", "partly", "partly")


def test_an_older_agent_without_a_twin_says_why() -> None:
    found = works(OLD)
    assert (found["client tools"], found["conversations"]) == ("no", "no")
    assert "of a type that cannot use the caller's tools" in how(OLD, "client tools")


def test_one_thread_by_the_operator_s_wish_is_told_as_such() -> None:
    assert "`single`" in how(MODERN, "conversations", mode="single")
    assert works(MODERN, mode="single")["structured output"] == "partly"
    assert works(BRIDGED, mode="single")["client tools"] == "no"


def test_tools_that_wait_for_a_person_are_named() -> None:
    assert works(MODERN, awaiting=["pay"])["own tools"] == "partly"
    assert how(MODERN, "own tools", awaiting=["pay", "post"]).startswith("pay and post wait for")
    assert [each.name for each in lacking(MODERN, awaiting=["pay"])] == ["own tools"]


def test_what_becomes_of_tools_that_wait_for_a_person_is_told_as_this_server_is_set() -> None:
    assert "nobody can give here" in how(MODERN, "own tools", awaiting=["pay"])
    asks = replace(MODERN, approvals="surface")
    assert "409 `approval_required`" in how(asks, "own tools", awaiting=["pay"])
    assert "nobody can give here" in how(asks, "own tools", mode="single", awaiting=["pay"])
    older = replace(asks, conversations=False, bridged=True)
    assert how(older, "own tools", awaiting=["pay"]).endswith("In its one thread nobody can, and the agent is told so.")
    allows = replace(MODERN, allowed_tools=("p*",))
    assert works(allows, awaiting=["pay"])["own tools"] == "yes"
    assert how(allows, "own tools", awaiting=["pay", "send"]).startswith("send waits for")


def test_models_may_be_chosen_where_the_operator_allows_it() -> None:
    assert works(MODERN, RULES["models"])["other models"] == "yes"
    assert "openai/*" in how(MODERN, "other models", RULES["models"])
    assert works(BRIDGED, RULES["models"])["other models"] == "no"


def test_every_option_has_a_finding() -> None:
    assert set(OPTIONS) - SETTINGS.keys() == {"format", "model", "must_call"}


@pytest.mark.parametrize("mode", ["auto", "single", "stateless", "pinned_only"])
@pytest.mark.parametrize(("agent", "rules"), list(itertools.product(AGENTS, RULES)))
def test_findings_are_what_a_turn_comes_to(agent: str, rules: str, mode: Mode) -> None:
    one, rule = AGENTS[agent], RULES[rules]
    found = works(one, rule, mode)
    assert (found["client tools"] == "yes") is taken(one, rule, mode, tools=TOOLS)
    strict = {"options": Options(format=SCHEMA, names={"format": "response_format"})}
    assert (found["structured output"] == "yes") is taken(one, rule, mode, **strict)
    assert (found["system prompts"] == "yes") is (rules != "ignore" and taken(one, rule, mode, instructions="x"))
    for name, value in SETTINGS.items():
        asked = {"options": Options(**{name: value})}
        loosely = replace(rule, strict_params=False)
        done = taken(one, loosely, mode, **asked) and not turn(one, loosely, mode, **asked).options.ignored
        assert (name in carried_out(one, rule, mode)) is done


def turn(agent: Agent, rules: Rules, mode: Mode, **asked: Any) -> Turn:
    return settled(replace(imagined(agent), mode=mode, **asked), agent, rules)


def taken(agent: Agent, rules: Rules, mode: Mode, **asked: Any) -> bool:
    try:
        return bool(turn(agent, rules, mode, **asked))
    except InvalidRequest:
        return False
