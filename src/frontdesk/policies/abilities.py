"""What works for an agent and what does not, and why: for people, and for programs that ask before they send. Pure.

Nothing is known here by which a turn does not go: an imagined turn is settled as a real one is, and what came of it is
told. So `frontdesk agents show`, the doctor and `/v1/models` cannot say what is not so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from frontdesk.errors import InvalidRequest
from frontdesk.policies.options import Rules, is_alone, settled
from frontdesk.turn import Agent, File, Format, Message, Mode, Options, Text, Tool, Turn

Works = Literal["yes", "partly", "no"]

BY_DEFAULT = Rules()
SAID = (Message("user", (Text("Hello."),)),)
TOOLS = (Tool("a_tool_of_the_caller_s"),)
SCHEMA = Format({"type": "object"}, "answer", strict=True)

SETTINGS: dict[str, Any] = {
    "max_output_tokens": 100,
    "temperature": 0.5,
    "top_p": 0.5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "logit_bias": {"1": 1},
    "seed": 1,
    "stop": ("stop",),
    "reasoning_effort": "low",
    "verbosity": "low",
    "parallel_tool_calls": True,
}
"""What is asked for in an imagined turn. What is not here has a finding of its own."""


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether something works, and how, or why not."""

    name: str
    works: Works
    how: str


def abilities(
    agent: Agent, rules: Rules = BY_DEFAULT, mode: Mode = "auto", awaiting: Sequence[str] = ()
) -> tuple[Ability, ...]:
    """All findings on an agent, in the order in which one would ask. `mode` is how its conversations are found;
    `awaiting` are tools of its own that wait for a person's approval."""
    return (
        streaming(agent, mode),
        Ability("reasoning", "yes", "Shown as it comes, if the model gives any."),
        Ability("images", "yes", "Handed on; whether it can see is up to its model."),
        files(agent, rules, mode),
        client_tools(agent, rules, mode),
        own_tools(agent, mode, awaiting),
        conversations(agent, mode),
        system_prompts(agent, rules, mode),
        settings(agent, rules, mode),
        structured_output(agent, rules, mode),
        model_choice(agent, rules, mode),
        tool_choice(agent, rules, mode),
    )


def lacking(agent: Agent, rules: Rules = BY_DEFAULT, awaiting: Sequence[str] = ()) -> tuple[Ability, ...]:
    """What a client would miss that takes the agent for an ordinary model."""
    own = own_tools(agent, "auto", awaiting)
    looked_at = (client_tools(agent, rules), own, conversations(agent), system_prompts(agent, rules))
    return tuple(each for each in looked_at if each.works != "yes")


# --- one by one --------------------------------------------------------------------------------------------------


def streaming(agent: Agent, mode: Mode = "auto") -> Ability:
    if has_tools_of_callers(agent) and (agent.tools_alone or mode != "single"):
        return Ability("streaming", "yes", "Token by token.")
    by_twin = " Token by token where its twin writes, for the caller's tools." if agent.bridged else ""
    return Ability("streaming", "partly", f"Message by message, as its older loop gives them.{by_twin}")


def has_tools_of_callers(agent: Agent) -> bool:
    """Whether its conversations are held by a modern loop, which knows of the caller's tools."""
    return agent.client_tools and not agent.bridged


def files(agent: Agent, rules: Rules = BY_DEFAULT, mode: Mode = "auto") -> Ability:
    text, document = (takes(agent, rules, mode, kind) for kind in ("text/plain", "application/pdf"))
    if text and document:
        return Ability("files", "yes", "Text is told in the message, under the file's name; PDF is handed on.")
    how = "Text is told in the message, under the file's name. All else, such as PDF, is refused."
    return Ability("files", "partly", how) if text else Ability("files", "no", "They are refused.")


def takes(agent: Agent, rules: Rules, mode: Mode, media_type: str) -> bool:
    """Whether a file of this type is taken."""
    return isinstance(tried(agent, rules, mode, input=(Message("user", (File("", media_type, b""),)),)), Turn)


def client_tools(agent: Agent, rules: Rules = BY_DEFAULT, mode: Mode = "auto") -> Ability:
    name = "client tools"
    found = tried(agent, rules, mode, tools=TOOLS)
    if isinstance(found, InvalidRequest):
        return Ability(name, "no", found.message)
    if not agent.bridged:
        return Ability(name, "yes", "It may call them, and goes on with what the caller answers.")
    return Ability(name, "yes", "Through its twin: a hidden agent with the same memory, in conversations of their own.")


def own_tools(agent: Agent, mode: Mode = "auto", awaiting: Sequence[str] = ()) -> Ability:
    name = "own tools"
    waiting = [each for each in awaiting if not any(fnmatchcase(each, pattern) for pattern in agent.allowed_tools)]
    if not waiting:
        return Ability(name, "yes", "Run on its side, and are shown; the caller is never asked for them.")
    waits = f"{listed(waiting)} {'waits' if len(waiting) == 1 else 'wait'} for a person's approval"
    alone = is_alone(replace(imagined(agent), mode=mode), agent)
    if agent.approvals == "deny" or (alone and not agent.bridged):
        return Ability(name, "partly", f"{waits}, which nobody can give here: the agent is told so, and goes on.")
    but = " In its one thread nobody can, and the agent is told so." if alone else ""
    how = f"{waits}: such a turn ends with 409 `approval_required`, and the caller decides.{but}"
    return Ability(name, "partly", how)


def conversations(agent: Agent, mode: Mode = "auto") -> Ability:
    name = "conversations"
    turn = replace(imagined(agent), mode=mode)
    if not is_alone(turn, agent):
        if mode == "stateless":
            return Ability(name, "partly", "None is kept, as this server is set (`stateless`): each request is alone.")
        named = ", found only by their names (`pinned_only`)" if mode == "pinned_only" else ""
        memory = "" if agent.backend == "python" else "; memory is shared by all"  # theirs is each caller's own
        return Ability(name, "yes", f"Each has a history of its own{named}{memory}.")
    if mode == "single":
        return Ability(name, "partly", "One thread for all callers, as this server is set (`single`).")
    if not is_alone(replace(turn, tools=TOOLS), agent):
        how = "One thread for all callers; of its own is one in which the caller's tools are used."
        return Ability(name, "partly", how)
    return Ability(name, "no", "One thread for all callers: each hears what the others have said.")


def system_prompts(agent: Agent, rules: Rules = BY_DEFAULT, mode: Mode = "auto") -> Ability:
    name = "system prompts"
    found = tried(agent, rules, mode, instructions="Be brief.")
    if isinstance(found, InvalidRequest):
        return Ability(name, "no", found.message)
    if not found.instructions:
        return Ability(name, "no", "Left out, as this server is set (`ignore`).")
    match found.system_prompt:
        case "override" | "ignore":
            how = "Behind its own prompt, for one turn (`override`)."
        case "message":
            how = "Told in the conversation when they are new (`message`)."
        case "block":
            how = "In its memory, until the next caller's (`block`)."
    return Ability(name, "yes", how)


def settings(agent: Agent, rules: Rules = BY_DEFAULT, mode: Mode = "auto") -> Ability:
    done = carried_out(agent, rules, mode)
    with_tools = [name for name in carried_out(agent, rules, mode, tools=TOOLS) if name not in done]
    missed = [name for name in SETTINGS if name not in done and name not in with_tools]
    told = [f"{', '.join(done)}." if done else ""]
    told += [f"With the caller's tools also {', '.join(with_tools)}." if with_tools else ""]
    told += [
        f"{'Refused' if rules.strict_params else 'Reported, but not done'}: {', '.join(missed)}." if missed else ""
    ]
    works: Works = "yes" if not missed else "partly" if done or with_tools else "no"
    return Ability("settings", works, " ".join(filter(None, told)))


def carried_out(
    agent: Agent, rules: Rules = BY_DEFAULT, mode: Mode = "auto", tools: tuple[Tool, ...] = ()
) -> tuple[str, ...]:
    """Which settings of a request are carried out, in our words."""
    options = Options(**SETTINGS)
    found = tried(agent, replace(rules, strict_params=False), mode, tools=tools, options=options)
    return () if isinstance(found, InvalidRequest) else tuple(name for name in found.options.asked if name in SETTINGS)


def structured_output(agent: Agent, rules: Rules = BY_DEFAULT, mode: Mode = "auto") -> Ability:
    name = "structured output"
    if is_held(agent, rules, mode):
        return Ability(name, "yes", "Its model is held to the JSON schema.")
    how = "Asked for in words, looked at, and mended once. A strict JSON schema is refused"
    but = ", but with the caller's tools its model is held to it" if is_held(agent, rules, mode, TOOLS) else ""
    return Ability(name, "partly", f"{how}{but}.")


def is_held(agent: Agent, rules: Rules, mode: Mode, tools: tuple[Tool, ...] = ()) -> bool:
    """Whether a strict schema is taken."""
    found = tried(agent, rules, mode, tools=tools, options=Options(format=SCHEMA, names={"format": "response_format"}))
    return isinstance(found, Turn) and found.options.format is not None and found.options.format.enforced


def model_choice(agent: Agent, rules: Rules = BY_DEFAULT, mode: Mode = "auto") -> Ability:
    name = "other models"
    found = tried(agent, replace(rules, models=("*",)), mode, options=Options(model="another"))
    if isinstance(found, InvalidRequest):
        return Ability(name, "no", found.message)
    if not rules.models:
        return Ability(name, "no", "None is allowed here: `model_choices` names those that a request may choose.")
    return Ability(name, "yes", f"A request may choose those that match {', '.join(rules.models)}.")


def tool_choice(agent: Agent, rules: Rules = BY_DEFAULT, mode: Mode = "auto") -> Ability:
    name = "tool choice"
    options = Options(must_call=True, names={"must_call": "tool_choice"})
    found = tried(agent, rules, mode, tools=TOOLS, options=options)
    if isinstance(found, InvalidRequest):
        return Ability(name, "no", found.message)
    return Ability(name, "yes", "It can be made to call one of the caller's tools.")


# --- imagined turns ----------------------------------------------------------------------------------------------


def imagined(agent: Agent) -> Turn:
    return Turn("imagined", agent.name, SAID)


def tried(agent: Agent, rules: Rules, mode: Mode, **asked: Any) -> Turn | InvalidRequest:
    """What becomes of a turn in which this is asked."""
    try:
        return settled(replace(imagined(agent), mode=mode, **asked), agent, rules)
    except InvalidRequest as error:
        return error


def listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
