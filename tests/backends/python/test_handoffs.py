"""One agent hands the turn to another."""

import pytest

from frontdesk.testing import ScriptedModel
from frontdesk.testing.model import Request
from tests.backends.python.cast import ran
from tests.backends.python.serving import WEATHER, Asking, calls_of
from tests.backends.python.test_tools import result, results_in
from tests.requirements import requirement


def instructions(request: Request) -> str:
    return "\n".join(str(each["content"]) for each in request.messages if each["role"] == "system")


@requirement("python.handoffs")
async def test_the_other_agent_answers_with_its_own_instructions_and_tools(asking: Asking) -> None:
    done = await asking(
        "router", f'@call transfer_to_spanish {{}}\n@then\n@call note {{"text": "{asking.marker}"}}\n@then\n@say Hola.'
    )
    assert done.choices[0].message.content == "Hola."
    assert not done.choices[0].message.tool_calls
    first, second, third = asking.calls
    assert [instructions(each) for each in (first, second, third)] == [
        "You send people on.",
        "You speak Spanish.",
        "You speak Spanish.",
    ]
    assert first.tool_names == [
        "note",
        "transfer_to_spanish",
        "transfer_to_french",
        "transfer_to_boss",
    ]
    assert second.tool_names == ["note"]
    assert results_in(second.messages) == ["The conversation is yours now, spanish."]
    assert ran[asking.marker] == 1


async def test_it_may_go_on_to_a_third(asking: Asking) -> None:
    done = await asking("router", "@call transfer_to_french {}\n@then\n@call transfer_to_spanish {}\n@then\n@say Hola.")
    assert done.choices[0].message.content == "Hola."
    assert instructions(asking.calls[-1]) == "You speak Spanish."


async def test_the_next_turn_is_the_first_agents_again(asking: Asking) -> None:
    said = asking.said("@call transfer_to_spanish {}\n@then\n@say Hola.")
    first = await asking.message("router", [said])
    told = [said, {"role": "assistant", "content": first.content}, asking.said("@say Back.")]
    assert (await asking.message("router", told)).content == "Back."
    assert instructions(asking.calls[-1]) == "You send people on."


@requirement("python.handoffs")
async def test_who_is_not_for_this_caller_gets_nothing(asking: Asking) -> None:
    done = await asking("router", "@call transfer_to_boss {}\n@then\n@say I stay.")
    assert done.choices[0].message.content == "I stay."
    assert instructions(asking.calls[-1]) == "You send people on."


async def test_a_callers_tool_is_answered_to_the_agent_that_has_called_it(model: ScriptedModel, asking: Asking) -> None:
    script = '@call transfer_to_spanish {}\n@call get_weather {"city": "Oslo"}\n@then\n@say Llueve.'
    said = asking.said(script)
    first = await asking("router", [said], tools=[WEATHER])
    (call,) = calls_of(first)
    told = [said, first.choices[0].message.model_dump(exclude_none=True), result(call, "rain")]
    assert (await asking.message("router", told, tools=[WEATHER])).content == "Llueve."
    assert instructions(asking.calls[-1]) == "You speak Spanish."
    assert results_in(asking.calls[-1].messages) == ["The conversation is yours now, spanish.", "rain"]


async def test_a_hook_may_refuse_it(asking: Asking) -> None:
    with pytest.raises(Exception, match="No handing over"):
        await asking("jealous", "@call transfer_to_spanish {}")
