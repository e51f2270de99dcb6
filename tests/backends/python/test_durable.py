"""Durable agents: their turns survive the process, and are otherwise like those of any other agent."""

import asyncio
import json
import signal
import sqlite3
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import openai
import pydantic_ai
import pytest
from openai import AsyncOpenAI

from frontdesk import Agent
from frontdesk.agents.errors import AgentError
from frontdesk.agents.files import agent_of
from frontdesk.testing import ScriptedModel
from tests.backends.python.durable_cast import MODEL, do, done
from tests.backends.python.serving import WEATHER, Asking, calls_of, serving
from tests.backends.python.test_tools import results_in
from tests.faults.asking import create
from tests.faults.process import Process
from tests.faults.process import serving as in_a_process
from tests.faults.watch import eventually
from tests.served import Served

AGENTS = "tests.backends.python.durable_cast:agents"
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DURABLE_FOLDER", str(folder))
        yield folder


@pytest.fixture(scope="module")
def gateway(folder: Path, model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    with serving(tmp_path_factory.mktemp("gateway"), model, agents=(AGENTS,), silence_seconds=3.0) as running:
        yield running


# --- like any other agent ------------------------------------------------------------------------------------------


async def test_a_durable_turn_runs_tools_and_goes_on_in_its_conversation(asking: Asking) -> None:
    one, two = asking.said(f'@call note {{"text": "{asking.marker}"}}\n@then\n@say One.'), asking.said("@say Two.")
    answer = await asking("clerk", [one])
    assert answer.choices[0].message.content == "One."
    assert answer.usage
    assert answer.usage.prompt_tokens > 0
    assert len(done(asking.marker)) == 1
    said = {"role": "assistant", "content": "One."}
    assert (await asking.message("clerk", [one, said, two])).content == "Two."
    assert results_in(asking.calls[-1].messages) == [f"noted {asking.marker}"]


async def test_words_are_heard_as_the_model_speaks_them(asking: Asking) -> None:
    said = asking.said("@pace 0.03\n@long 30")
    async with asking.gateway.client() as client:
        stream = await create(client, model="clerk", messages=[said], stream=True)
        texts: list[str] = [
            text async for chunk in stream if chunk.choices and (text := chunk.choices[0].delta.content)
        ]
    assert len(texts) > 10


async def test_the_callers_tools_and_its_own_mix(asking: Asking) -> None:
    script = f'@call note {{"text": "{asking.marker}"}}\n@call get_weather {{"city": "Oslo"}}\n@then\n@say It rains.'
    first = await asking("clerk", [asking.said(script)], tools=[WEATHER])
    (call,) = calls_of(first)
    told: list[Any] = [asking.said(script), first.choices[0].message.model_dump(exclude_none=True)]
    told.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
    assert (await asking.message("clerk", told, tools=[WEATHER])).content == "It rains."
    assert results_in(asking.calls[-1].messages) == [f"noted {asking.marker}", "rain"]
    assert len(done(asking.marker)) == 1


async def test_whoever_is_handed_the_turn_is_durable_too(asking: Asking) -> None:
    script = f'@call transfer_to_archivist\n@then\n@call note {{"text": "{asking.marker}"}}\n@then\n@say Kept.'
    assert (await asking.message("clerk", script)).content == "Kept."
    assert len(done(asking.marker)) == 1


async def test_who_brings_an_engine_cannot_be_handed_a_durable_turn(asking: Asking) -> None:
    with pytest.raises(openai.APIError, match="engine of its own"):
        await asking("clerk", "@call transfer_to_plain\n@then\n@say no")


@pytest.mark.parametrize("agent", ["clerk", "archivist"])
async def test_a_durable_agent_asks_others_durable_or_not(asking: Asking, agent: str) -> None:
    question = f'@call note {{"text": "{asking.marker}"}}\n@then\n@say 42.\n{asking.marker}'
    call = {"agent": agent, "message": question}
    assert (await asking.message("boss", f"@call ask_agent {json.dumps(call)}\n@then\n@say I see.")).content == "I see."
    assert "42." in results_in(asking.calls[-1].messages)[0]
    assert len(done(asking.marker)) == 1


async def test_a_model_that_hangs_is_given_up(asking: Asking) -> None:
    with pytest.raises(openai.APIError, match="no sign of work") as info:
        await asking("clerk", f'@call note {{"text": "{asking.marker}"}}\n@then\n@hang')
    assert info.value.code == "agent_timeout"


async def test_a_form_of_answer_is_kept_to(asking: Asking) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    answer = await asking.message("clerk", '@say {"n": 1}', response_format=asked)
    assert answer.content == '{"n": 1}'
    assert asking.calls[0].body["response_format"]["type"] == "json_schema"


async def test_a_provider_that_fails_is_told_with_its_status(asking: Asking) -> None:
    with pytest.raises(openai.RateLimitError):
        await asking("clerk", "@fail 429")


async def test_a_tool_that_fails_is_told_to_the_model(asking: Asking) -> None:
    assert (await asking.message("clerk", "@call broken\n@then\n@say I see.")).content == "I see."
    assert "it cannot be had" in results_in(asking.calls[-1].messages)[0]


async def test_a_turn_whose_client_has_left_is_stopped_and_what_was_done_is_known(
    gateway: Served, model: ScriptedModel, marker: str
) -> None:
    async with gateway.client() as client:
        pin = {"x-frontdesk-conversation": marker}
        script = f'@call note {{"text": "{marker}"}}\n@then\n@call wait_for {{"text": "{marker}"}}\n@then\n@say no'
        task = asyncio.create_task(said(client, script, pin))
        await eventually(lambda: bool(done(f"waiting-{marker}")))
        task.cancel()
        assert await said(client, f"@say Next.\n{marker}", pin) == "Next."
    told = results_in(model.requests_with(marker)[-1].messages)
    assert told[0] == f"noted {marker}"
    assert "cut short" in told[1]


# --- and unlike any other ------------------------------------------------------------------------------------------


@contextmanager
def process(folder: Path, model: ScriptedModel) -> Generator[Process]:
    with in_a_process(
        folder,
        "",
        FRONTDESK_AGENTS=AGENTS,
        FRONTDESK_PROVIDERS=f'{{"openai": {{"base_url": "{model.base_url}", "api_key": "sk-scripted"}}}}',
        PYTHONPATH=str(ROOT),
    ) as running:
        yield running


@asynccontextmanager
async def client_of(running: Process) -> AsyncGenerator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=90) as client:
        yield client


async def said(client: AsyncOpenAI, script: str, headers: dict[str, str], model: str = "clerk") -> str | None:
    messages: list[Any] = [{"role": "user", "content": script}]
    done = await client.chat.completions.create(model=model, messages=messages, extra_headers=headers)
    return done.choices[0].message.content


async def test_a_killed_turn_goes_on_in_the_next_process_without_doing_anything_again(
    model: ScriptedModel, tmp_path: Path
) -> None:
    """Two turns: one in a conversation, one that stands alone. Both have run a tool, and wait in the next."""
    turns = {name: f"{name}-{uuid.uuid4().hex[:8]}" for name in ("clerk", "clerk:stateless")}
    scripts = {
        name: f'@call note {{"text": "{mark}"}}\n@then\n@call wait_for {{"text": "{mark}"}}\n@then\n@say {mark} done.'
        for name, mark in turns.items()
    }
    async with AsyncExitStack() as stack:
        with process(tmp_path, model) as first:
            client = await stack.enter_async_context(client_of(first))
            begun = [
                asyncio.create_task(said(client, scripts[name], {"idempotency-key": mark}, name))
                for name, mark in turns.items()
            ]
            for mark in turns.values():
                await eventually(lambda mark=mark: bool(done(f"waiting-{mark}")), lambda: first.text)
            first.popen.send_signal(signal.SIGKILL)
            for failed in await asyncio.gather(*begun, return_exceptions=True):
                assert isinstance(failed, openai.APIConnectionError)

        with process(tmp_path, model) as second:
            client = await stack.enter_async_context(client_of(second))
            again = [
                asyncio.create_task(said(client, scripts[name], {"idempotency-key": mark}, name))
                for name, mark in turns.items()
            ]
            for mark in turns.values():
                do(f"there-{mark}")
            assert await asyncio.gather(*again) == [f"{mark} done." for mark in turns.values()]
            for name, mark in turns.items():
                assert len(done(mark)) == 1, "a tool that has run is not run again"
                assert len(done(f"waiting-{mark}")) == 2, "one that was cut off is"
                calls = model.requests_with(mark)
                assert len(calls) == 3, "nor is the model asked again what it has answered"
                assert results_in(calls[-1].messages) == [f"noted {mark}", f"{mark} is there"]
                assert await said(client, scripts[name], {"idempotency-key": mark}, name) == f"{mark} done."
                assert len(model.requests_with(mark)) == 3
            mark = turns["clerk"]
            messages: list[Any] = [
                {"role": "user", "content": scripts["clerk"]},
                {"role": "assistant", "content": f"{mark} done."},
                {"role": "user", "content": "@say And on."},
            ]
            on = await client.chat.completions.create(model="clerk", messages=messages)
            assert on.choices[0].message.content == "And on."
            assert results_in(model.requests[-1].messages) == [f"noted {mark}", f"{mark} is there"]


async def test_a_process_that_is_told_to_stop_hands_its_background_turns_on(
    model: ScriptedModel, tmp_path: Path
) -> None:
    """Three turns: one goes on, one goes on and fails, one cannot, for Frontdesk is another version by now."""
    good, bad, old = (uuid.uuid4().hex for _ in range(3))
    ends = {good: f"@say {good} done.", bad: "@fail 400", old: "@say no"}
    with process(tmp_path, model) as first:
        async with client_of(first) as client:
            begun = {mark: await in_the_background(client, mark, end) for mark, end in ends.items()}
            for mark in ends:
                await eventually(lambda mark=mark: bool(done(f"waiting-{mark}")), lambda: first.text)
        first.popen.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.popen.wait, 30) == -signal.SIGTERM, first.text
    with closing(sqlite3.connect(tmp_path / "durable.db")) as store, store:
        changed = "UPDATE workflow_status SET application_version = 'frontdesk-0' WHERE workflow_uuid = ?"
        assert store.execute(changed, [begun[old][1]]).rowcount == 1
    for mark in ends:
        do(f"there-{mark}")
    with process(tmp_path, model) as second:
        async with client_of(second) as client:
            for mark, status in {good: "completed", bad: "failed", old: "failed"}.items():
                async with client.responses.stream(response_id=begun[mark][0], starting_after=0) as stream:
                    kinds = [event.type async for event in stream]
                assert kinds[-1] == f"response.{status}", second.text
                assert len(done(mark)) == 1, "a tool that has run is not run again"
            assert (await client.responses.retrieve(begun[good][0])).output_text == f"{good} done."
            assert len(done(f"waiting-{old}")) == 1
            assert await said(client, f"@say Next.\n{bad}", {"x-frontdesk-conversation": bad}) == "Next."
            assert results_in(model.requests_with(bad)[-1].messages) == [f"noted {bad}", f"{bad} is there"]


async def in_the_background(client: AsyncOpenAI, mark: str, end: str) -> tuple[str, str]:
    """The ids of the response and of its turn, whose agent has a tool run and then waits."""
    script = f'@call note {{"text": "{mark}"}}\n@then\n@call wait_for {{"text": "{mark}"}}\n@then\n{end}'
    begun = await client.responses.with_raw_response.create(
        model="clerk", input=script, background=True, extra_headers={"x-frontdesk-conversation": mark}
    )
    return begun.parse().id, begun.headers["x-frontdesk-turn"]


def test_a_file_can_say_that_its_agent_is_durable() -> None:
    assert agent_of(Path("clerk.yaml"), b"model: openai/scripted\ndurable: true").durable


def test_an_engine_cannot_be_made_durable_from_outside() -> None:
    with pytest.raises(AgentError, match="cannot be durable with an engine of its own"):
        Agent("x", model=MODEL, engine=pydantic_ai.Agent(), durable=True)
