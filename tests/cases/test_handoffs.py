"""Case 52: a router and those it sends people to."""

from typing import Any

import pytest

from frontdesk.testing import ScriptedModel
from tests.cases.wire import Desk, instructions, results_in
from tests.requirements import requirement
from tests.served import Served


@pytest.fixture
def router(both: Served, model: ScriptedModel, tag: str) -> Desk:
    return Desk(both.url, "router", model, tag)


def text_of(answer: Any) -> str:
    return answer.json()["choices"][0]["message"]["content"]


async def test_case_52_who_is_sent_for_answers(router: Desk) -> None:
    assert text_of(await router.ask("@call transfer_to_weather {}\n@then\n@say Sunny.")) == "Sunny."
    assert [instructions(each) for each in router.calls] == ["You send people on.", "You know the weather."]


async def test_case_52_the_router_may_answer_itself(router: Desk) -> None:
    assert text_of(await router.ask("@say Right here.")) == "Right here."
    assert len(router.calls) == 1


async def test_case_52_what_was_said_before_is_known_to_whoever_takes_over(router: Desk) -> None:
    told = [
        router.said("I am Alice."),
        {"role": "assistant", "content": "Hello Alice."},
        router.said('@call transfer_to_calculator {}\n@then\n@call add {"a": 2, "b": 3}\n@then\n@say Five, Alice.'),
    ]
    assert text_of(await router.ask(told)) == "Five, Alice."
    assert "I am Alice." in str(router.calls[-1].messages)
    assert results_in(router.calls[-1])[-1] == "5"


@requirement("python.handoffs")
async def test_case_52_a_chain_of_two(router: Desk) -> None:
    script = "@call transfer_to_calculator {}\n@then\n@call transfer_to_weather {}\n@then\n@say Rain."
    assert text_of(await router.ask(script)) == "Rain."
    assert instructions(router.calls[-1]) == "You know the weather."


async def test_case_52_a_target_whose_model_is_down_is_an_error_with_a_status(router: Desk) -> None:
    answer = await router.ask("@call transfer_to_weather {}\n@then\n@fail 500 should-retry=false")
    assert answer.status_code in (200, 502)
    assert "provider" in answer.text
