"""Agents and skills: how they are put together, and what is refused when they are."""

from collections.abc import Sequence
from typing import Any

import pydantic_ai
import pytest
from pydantic_ai.models.test import TestModel

from frontdesk import Agent, Skill, handoff, hook, http, prompt, tool
from frontdesk.agents.agent import check_scopes, reachable
from frontdesk.agents.errors import AgentError
from frontdesk.agents.hooks import Chunk
from frontdesk.agents.tools import Tool
from tests.requirements import requirement

MODEL = "scripted/x"


@tool
def forecast(city: str) -> str:
    return f"sunny in {city}"


def ping() -> str:
    return "pong"


@prompt(priority=60)
def brief() -> str:
    return "Be brief."


class Notes(Skill):
    @tool
    def note(self, text: str) -> str:
        return text

    @prompt(priority=10)
    def noted(self) -> str:
        return "You take notes."


class Diary(Skill):
    requires = (Notes,)

    def __init__(self) -> None:
        self.notes: list[Notes] = []

    def join(self, agent: Agent) -> None:
        self.notes.append(agent.skill(Notes))

    @tool
    def write(self, text: str) -> str:
        return self.notes[0].note(text)


class Weather(Agent):
    name = "weather"
    model = MODEL
    instructions = "Tell the weather."
    skills = (Notes(),)
    to_billing = handoff(to="billing")

    @tool
    def forecast(self, city: str) -> str:
        return f"{self.instructions} {city}"

    @hook("chunk")
    def watch(self, chunk: Chunk) -> None: ...

    @http("/stations/{id}")
    def station(self, id: int) -> int:
        return id

    @property
    def trap(self) -> None:
        raise AssertionError("looking for decorated methods runs no property")


class Storms(Weather):
    name = "storms"

    @tool
    def warn(self) -> str:
        return "storm!"


def names(tools: Sequence[Tool]) -> list[str]:
    return [each.name for each in tools]


def agent_of(given: dict[str, Any]) -> Agent:
    return Agent(**given)


# --- put together --------------------------------------------------------------------------------------------------


@requirement("python.write")
def test_an_agent_of_functions() -> None:
    agent = Agent(
        "weather", model=MODEL, tools=[forecast, ping], prompts=[brief], skills=[Notes()], handoffs=["billing"]
    )
    assert names(agent.parts.tools) == ["forecast", "ping", "note"]
    assert [each.priority for each in agent.parts.prompts] == [10, 60]
    assert [each.name for each in agent.parts.handoffs] == ["billing"]
    assert agent.models == (MODEL,)
    assert agent.max_steps == 20
    assert agent.scope == "user"


@requirement("python.write")
def test_an_agent_of_a_class_finds_its_decorated_methods_and_inherited_ones() -> None:
    agent = Storms()
    assert names(agent.parts.tools) == ["forecast", "warn", "note"]
    assert agent.forecast("Rome") == "Tell the weather. Rome"
    assert list(agent.parts.hooks) == [Chunk]
    assert [each.path for each in agent.parts.endpoints] == ["/stations/{id}"]
    assert [each.name for each in agent.parts.handoffs] == ["billing"]


def test_arguments_go_before_what_the_class_says() -> None:
    agent = Weather("other", instructions="Lie.", max_steps=3)
    assert (agent.name, agent.instructions, agent.max_steps, agent.models) == ("other", "Lie.", 3, (MODEL,))
    assert Weather().instructions == "Tell the weather."


def test_a_method_that_is_overridden_without_a_decorator_is_no_tool_any_more() -> None:
    class Mute(Weather):
        def forecast(self, city: str) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
            return ""

    assert names(Mute().parts.tools) == ["note"]


def test_two_objects_of_a_class_share_nothing() -> None:
    one, other = Weather("one"), Weather("other", instructions="Lie.")
    assert one.forecast("Rome") == "Tell the weather. Rome"
    assert other.forecast("Rome") == "Lie. Rome"
    assert one.parts.tools[0] is not other.parts.tools[0]


def test_models_may_be_several_and_have_others_to_fall_back_to() -> None:
    model = TestModel()
    assert Agent("a", model=[MODEL, model], fallbacks=["scripted/y"]).models == (MODEL, model, "scripted/y")


def test_a_plain_agent_of_pydantic_ai_is_served_as_it_is() -> None:
    engine = pydantic_ai.Agent(TestModel(), name="plain")
    assert (Agent(engine=engine).name, Agent("mine", engine=engine).name) == ("plain", "mine")
    assert Agent(engine=engine).models == ()


def test_what_an_agent_shows_of_itself_holds_no_key_and_no_instructions() -> None:
    agent = Agent("weather", model=MODEL, instructions="The word is xyzzy.", api_key="sk-secret")
    assert repr(agent) == "<Agent 'weather'>"


def test_the_same_tool_listed_and_decorated_counts_once() -> None:
    assert names(Agent("a", model=MODEL, tools=[forecast, forecast]).parts.tools) == ["forecast"]


def test_what_an_object_is_given_before_it_is_made_an_agent_counts_too() -> None:
    class Caller(Agent):
        name, model = "caller", MODEL

        def __init__(self, number: str) -> None:
            self.dial = tool(name="dial")(lambda: number)
            super().__init__()

    assert names(Caller("110").parts.tools) == ["dial"]


# --- skills --------------------------------------------------------------------------------------------------------


def test_required_skills_come_first_and_can_be_had() -> None:
    diary, notes = Diary(), Notes()
    agent = Agent("a", model=MODEL, skills=[diary, notes])
    assert agent.parts.skills == (notes, diary)
    assert diary.notes == [notes]
    assert agent.skill(Notes) is notes
    assert diary.write("x") == "x"


def test_one_skill_serves_several_agents() -> None:
    notes = Notes()
    one, other = (Agent(name, model=MODEL, skills=[notes]) for name in ("one", "other"))
    assert one.parts.tools[0] is other.parts.tools[0]


def test_a_missing_skill_is_named() -> None:
    with pytest.raises(AgentError, match="Diary of a requires Notes: add it"):
        Agent("a", model=MODEL, skills=[Diary()])
    with pytest.raises(AgentError, match="a has no skill Diary"):
        Agent("a", model=MODEL).skill(Diary)


def test_skills_that_require_each_other_are_refused() -> None:
    class One(Skill): ...

    class Two(Skill):
        requires = (One,)

    One.requires = (Two,)
    with pytest.raises(AgentError, match="in a circle: One → Two → One"):
        Agent("a", model=MODEL, skills=[One(), Two()])


class Finding(Skill):
    """Its tools change."""

    def __init__(self) -> None:
        self.found: list[Tool] = []

    def tools(self) -> Sequence[Tool]:
        return [*super().tools(), *self.found]

    @tool
    def look(self) -> str:
        return "looked"


def test_tools_that_a_skill_finds_are_there_from_the_next_look_on() -> None:
    finding = Finding()
    agent = Agent("a", model=MODEL, tools=[forecast], skills=[finding])
    assert names(agent.parts.now()) == ["forecast", "look"]
    finding.found = [Tool.of(ping)]
    assert names(agent.parts.now()) == ["forecast", "look", "ping"]
    finding.found = []
    assert names(agent.parts.now()) == ["forecast", "look"]


class Choosy(Notes):
    """Has none of its tools for now."""

    def tools(self) -> Sequence[Tool]:
        return []


def test_a_skill_that_says_itself_which_tools_it_has_may_leave_out_decorated_ones() -> None:
    parts = Agent("a", model=MODEL, skills=[Choosy()]).parts
    assert (parts.tools, parts.now()) == ((), ())


def test_a_tool_that_a_skill_finds_never_takes_the_place_of_another() -> None:
    finding = Finding()
    agent = Agent("a", model=MODEL, tools=[forecast], handoffs=["billing"], skills=[finding])
    hostile = [Tool.of(ping, name=name) for name in ("forecast", "look", "transfer_to_billing")]
    finding.found = [*hostile, Tool.of(ping)]
    for _ in range(2):
        now = {each.name: each for each in agent.parts.now()}
        assert list(now) == ["forecast", "look", "ping"]
        assert not {id(each) for each in hostile} & {id(each) for each in now.values()}


# --- refused -------------------------------------------------------------------------------------------------------


def clash_of_names() -> Agent:
    return Agent("a", model=MODEL, tools=[forecast, Tool.of(ping, name="forecast")])


def clash_with_a_handoff() -> Agent:
    return Agent("a", model=MODEL, tools=[Tool.of(ping, name="transfer_to_b")], handoffs=["b"])


def clash_of_endpoints() -> Agent:
    return Agent("a", model=MODEL, endpoints=[http("/x", method=["get", "put"])(ping), http("/x", method="put")(ping)])


def clash_with_a_field() -> type[Agent]:
    class Wrong(Agent):
        @tool
        def settings(self) -> None: ...  # pyright: ignore[reportIncompatibleVariableOverride, reportAssignmentType]

    return Wrong


def clash_in_a_skill() -> type[Skill]:
    class Wrong(Skill):
        @tool
        def join(self) -> None: ...  # pyright: ignore[reportIncompatibleMethodOverride]

    return Wrong


def method_of_no_object() -> Agent:
    return Agent("a", model=MODEL, tools=[Notes.note])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (clash_of_names, "a has 2 tools that are called forecast"),
        (clash_with_a_handoff, "2 tools that are called transfer_to_b"),
        (clash_of_endpoints, "2 endpoints for PUT /x"),
        (clash_with_a_field, "Wrong.settings is decorated, but 'settings' has a meaning"),
        (clash_in_a_skill, "Wrong.join is decorated"),
        (method_of_no_object, "is a method: give the one of an object"),
    ],
)
def test_clashes_are_refused_when_the_agent_is_made(make: Any, sentence: str) -> None:
    with pytest.raises(AgentError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"name": ""}, "Agent has no name"),
        ({"name": "a/b"}, "cannot be called 'a/b'"),
        ({"name": "a:b"}, "letters, digits"),
        ({"name": " a"}, "letters, digits"),
        ({"name": "a\n"}, "letters, digits"),
        ({"name": "x" * 65}, "1 to 64"),
        ({"name": 7}, "cannot be called 7"),
        ({"model": ""}, "a has no model"),
        ({"model": []}, "a has no model"),
        ({"model": "nobody/x"}, "no provider 'nobody'"),
        ({"model": [MODEL, "nobody/x"]}, "no provider 'nobody'"),
        ({"fallbacks": ["nobody/x"]}, "no provider 'nobody'"),
        ({"model": [object()]}, "as a model: write"),
        ({"instructions": ["Be kind."]}, "must be a text"),
        ({"max_steps": 0}, "must be 1 or more"),
        ({"max_steps": "3"}, "must be 1 or more"),
        ({"settings": {"temprature": 1}}, "settings that no model knows: temprature"),
        ({"tags": "kind"}, "tags of a must be a list"),
        ({"tags": [1]}, "each must be a text"),
        ({"tools": forecast}, "tools of a must be a list"),
        ({"tools": ["forecast"]}, "lists 'forecast' as a tool"),
        ({"tools": [Notes]}, "as a tool"),
        ({"tools": [pydantic_ai.Tool(ping)]}, "a tool of Pydantic AI, ping: give its function"),
        ({"skills": [Notes]}, r"write Notes\(\)"),
        ({"skills": [forecast]}, "derived from Skill"),
        ({"skills": {"notes": Notes()}}, "skills of a must be a list"),
        ({"hooks": [ping]}, "makes one of a function"),
        ({"prompts": ["Be brief."]}, "is no prompt"),
        ({"endpoints": [ping]}, "makes one of a function"),
        ({"handoffs": [7]}, "is no handoff"),
        ({"engine": object()}, "must be a pydantic_ai.Agent"),
    ],
)
def test_what_is_no_agent_is_refused_with_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AgentError, match=sentence):
        agent_of({"name": "a", "model": MODEL} | given)


@pytest.mark.parametrize("name", ["a", "Über 3.1", "my_agent-2", "天気", "x" * 64])
def test_names_that_people_give(name: str) -> None:
    assert Agent(name, model=MODEL).name == name


def test_settings_of_one_provider_alone_are_taken() -> None:
    assert Agent("a", model=MODEL, settings={"temperature": 0.2, "openai_user": "x"}).settings  # pyright: ignore[reportArgumentType]


# --- scopes --------------------------------------------------------------------------------------------------------

ODD = "premium"


class Costly(Skill):
    scope = ODD


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"scope": ODD}, "The agent a"),
        ({"tools": [Tool.of(ping, scope=ODD)]}, "The tool ping of a"),
        ({"prompts": [prompt(scope=ODD)(ping)]}, "The prompt ping of a"),
        ({"endpoints": [http("/x", scope=ODD)(ping)]}, "The endpoint /x of a"),
        ({"handoffs": [handoff("b", scope=ODD)]}, "The handoff of a to b"),
        ({"skills": [Costly()]}, "The skill Costly of a"),
        ({"handoffs": [Agent("b", model=MODEL, scope=ODD)]}, "The agent b"),
    ],
)
@requirement("python.scopes.unknown")
def test_a_scope_that_is_not_known_is_refused_and_one_that_is_known_is_not(given: dict[str, Any], what: str) -> None:
    agent = Agent("a", model=MODEL, **given)
    with pytest.raises(AgentError, match=f"{what} asks for the scope 'premium', which is not known"):
        check_scopes(agent, ["basic"])
    check_scopes(agent, ["basic", ODD])


def test_agents_that_are_reached_by_handoffs_are_found_once_also_in_circles() -> None:
    one = Agent("one", model=MODEL)
    two = Agent("two", model=MODEL, handoffs=[one, "three"])
    top = Agent("top", model=MODEL, handoffs=[two, one])
    assert [each.name for each in reachable(top)] == ["top", "one", "two"]
