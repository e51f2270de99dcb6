"""Providers whose answers are none, merely end, or give several calls the same id."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from frontdesk.testing import ScriptedModel
from tests.backends.python.serving import WEATHER, Asking, calls_of, serving
from tests.hostile.cast import ran
from tests.hostile.provider import CUT, JUNK, SECRET, TWICE, careless_provider
from tests.requirements import requirement
from tests.served import Served


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("providers")
    agents = ("tests.hostile.cast:agents",)
    with careless_provider() as url, ScriptedModel() as unused:
        providers = {"openai": {"base_url": url, "api_key": "sk-scripted"}}
        with serving(folder, unused, agents=agents, providers=providers) as running:
            yield running


@pytest.fixture(params=[False, True], ids=["plain", "streamed"])
def asking(request: pytest.FixtureRequest, gateway: Served, model: ScriptedModel, marker: str) -> Asking:
    return Asking(gateway, model, marker, streamed=request.param)


def result(call: Any, content: str) -> dict[str, str]:
    return {"role": "tool", "tool_call_id": call.id, "content": content}


def told(said: Any, message: Any, *results: dict[str, str]) -> list[Any]:
    return [said, message.model_dump(exclude_none=True), *results]


@requirement("python.models.garbage")
@pytest.mark.parametrize("what", JUNK)
async def test_what_is_no_answer_is_the_providers_fault(asking: Asking, what: str) -> None:
    with pytest.raises(openai.APIStatusError) as info:
        await asking("odd", what, tools=[WEATHER])
    assert (info.value.status_code, info.value.code) == (502, "provider_error")
    assert info.value.response.headers["x-should-retry"] == "true"
    assert SECRET not in info.value.response.text


@requirement("python.models.fallback")
@pytest.mark.parametrize("what", ["html", "nothing", "half-json", "half-event"])
async def test_another_model_answers_where_one_gives_no_answer(asking: Asking, what: str) -> None:
    assert (await asking.message("backed", what)).content


@requirement("python.models.garbage")
@pytest.mark.parametrize("what", CUT)
async def test_an_answer_that_merely_ends_is_none(asking: Asking, what: str) -> None:
    with pytest.raises(openai.APIError) as info:
        await asking("odd", what, tools=[WEATHER])
    assert info.value.code == "provider_error"
    assert ran["cut"] == 0


@requirement("python.tools.once")
@pytest.mark.parametrize("what", TWICE)
async def test_calls_that_cannot_be_told_apart_are_told_apart_here(asking: Asking, what: str) -> None:
    said = asking.said(what)
    first = await asking("odd", [said], tools=[WEATHER])
    oslo, rome = calls_of(first)
    assert [json.loads(each.function.arguments)["city"] for each in (oslo, rome)] == ["Oslo", "Rome"]
    assert [each.function.name for each in (oslo, rome)] == ["get_weather"] * 2
    assert oslo.id != rome.id
    asked = told(said, first.choices[0].message, result(rome, "sun"), result(oslo, "rain"))
    results = json.loads((await asking.message("odd", asked, tools=[WEATHER])).content or "")
    assert sorted(content for _, content in results) == ["rain", "sun"]
    assert len({call_id for call_id, _ in results}) == 2


@pytest.mark.parametrize(
    "schema", [{"properties": [1, 2]}, {"properties": {"a": 5}}, {"required": "x"}, {"anyOf": "x"}]
)
async def test_what_is_no_schema_is_the_callers_fault_and_not_the_providers(asking: Asking, schema: Any) -> None:
    tool = {"type": "function", "function": {"name": "get", "parameters": {"type": "object", **schema}}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", **schema}}}
    for wrong in ({"tools": [tool]}, {"response_format": form}):
        with pytest.raises(openai.BadRequestError, match="JSON Schema"):
            await asking("odd", "same-id", **wrong)


async def test_own_calls_of_one_id_both_run(asking: Asking) -> None:
    answer = await asking.message("odd", "own-twice")
    both = [f"{asking.marker} 0", f"{asking.marker} 1"]
    assert [ran[text] for text in both] == [1, 1]
    assert [content for _, content in json.loads(answer.content or "")] == [f"noted {text}" for text in both]


async def test_an_own_call_and_a_callers_of_one_id_keep_their_results(asking: Asking) -> None:
    said = asking.said("mixed")
    first = await asking("odd", [said], tools=[WEATHER])
    (call,) = calls_of(first)
    asked = told(said, first.choices[0].message, result(call, "sun"))
    results = dict(json.loads((await asking.message("odd", asked, tools=[WEATHER])).content or ""))
    assert sorted(results.values()) == [f"noted {asking.marker} 0", "sun"]
    assert ran[f"{asking.marker} 0"] == 1


async def test_the_ids_of_one_answer_may_be_those_of_another(asking: Asking) -> None:
    """As some servers number the calls of each answer anew."""
    pin = {"x-frontdesk-conversation": f"{asking.marker} {asking.streamed}"}
    known = set[str]()
    for weather in ("rain", "snow"):
        first = await asking("odd", "same-id", tools=[WEATHER], extra_headers=pin)
        answers = [result(each, weather) for each in calls_of(first)]
        known |= {each["tool_call_id"] for each in answers}
        said = await asking.message("odd", answers, tools=[WEATHER], extra_headers=pin)
        assert {content for _, content in json.loads(said.content or "")} == {weather}
    assert len(known) == 4
