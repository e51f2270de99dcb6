"""Replicas of an agent through the official client: conversations on hidden twins with one memory, twenty at once, a
gateway that starts again, one that is killed, and a setting that goes back.
"""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.backends.letta.client import LettaClient
from frontdesk.backends.letta.twins import Twins, mark
from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from frontdesk.testing.model import Request
from tests.acceptance.talking import Talk, heard_last
from tests.acceptance.test_mcp import command
from tests.acceptance.test_older_agents import says
from tests.backends.letta.test_replicas import numbers
from tests.backends.letta.test_twins import block, twins_in, whole
from tests.cli.servers import row
from tests.faults.fake import fake_letta
from tests.faults.process import serving
from tests.faults.watch import until
from tests.protocols.chat_completions.asking import Chat, function
from tests.requirements import requirement
from tests.served import Served, served

WEATHER = function("get_weather")
AT_ONCE = 20


@pytest.fixture
def older(make_agent: Callable[..., Any]) -> Any:
    """An agent of an older type, of this test's own."""
    return make_agent(agent_type="memgpt_v2_agent", tools=["send_message", "memory_insert"])


def texts(request: Request, marker: str) -> list[str]:
    return [text for text in request.texts if marker in text]


def conversations(letta: Letta, agent_id: str) -> list[Any]:
    rows: Any = letta.get(f"/v1/conversations/?agent_id={agent_id}&limit=200", cast_to=object)
    return rows


async def twenty(gateway: Served, agent: str, script: Callable[[int], str]) -> list[Any]:
    """As many callers at once, of whom each waits as long as it takes and none asks again."""
    async with gateway.client(timeout=120) as client:
        return await asyncio.gather(
            *(Chat(client, agent).ask(script(number), stream=number % 2 == 0) for number in range(AT_ONCE))
        )


@requirement("replicas.conversations")
async def test_callers_of_an_older_agent_have_conversations_of_their_own_with_one_memory(
    letta: LocalLetta, model: ScriptedModel, letta_api: Letta, older: Any, marker: str, tmp_path: Path
) -> None:
    own = [each.id for each in letta_api.agents.messages.list(agent_id=older.id)]
    with served(tmp_path, letta_base_url=letta.base_url, replicas={older.name: 2}) as gateway:
        async with gateway.client() as client:
            talks = [Talk(client, older.name) for _ in range(4)]
            remembering = '@call memory_insert {"label": "human", "new_string": "Likes trees.", "insert_line": -1}'
            for number, talk in enumerate(talks):
                does = f"{remembering}\n@then\n@say Noted." if number == 0 else "@say Well."
                await talk.say(f"{marker} {number}\n{does}")
            for number, talk in enumerate(talks):
                assert (await talk.say(f"{marker} {number}, again\n@say Well {number}.")).text == f"Well {number}."
                heard = model.requests_with(f"{marker} {number}, again")[-1]
                assert len(texts(heard, marker)) == 2
                assert "Likes trees." in str(heard.messages[0]["content"])
            assert len({conversation for talk in talks for conversation in talk.conversations}) == len(talks)
            asked = await Chat(client, older.name).ask("@call get_weather {}\n@then\n@say Sun.", tools=[WEATHER])
            assert asked.finish == "tool_calls"
            with pytest.raises(openai.BadRequestError) as refused:
                await Chat(client, f"{older.name}:single").ask("@say Well.", tools=[WEATHER])
            assert refused.value.param == "tools"
            alone = await Chat(client, f"{older.name}:single").ask(f"{marker} alone\n{says('Alone.')}")
            assert alone.text == "Alone."
    assert conversations(letta_api, older.id) == []
    assert len(letta_api.agents.messages.list(agent_id=older.id).items) > len(own)
    assert "Likes trees." in block(whole(letta_api, older.id))["value"]


@requirement("replicas.sticky")
async def test_a_conversation_stays_on_its_twin_when_the_gateway_starts_again_and_when_the_setting_goes_back(
    letta: LocalLetta, model: ScriptedModel, letta_api: Letta, older: Any, marker: str, tmp_path: Path
) -> None:
    talks: list[Talk] = []
    twins: dict[int, str] = {}
    for turn, replicas in enumerate([2, 2, 3, 0]):
        with served(tmp_path, letta_base_url=letta.base_url, replicas={older.name: replicas}) as gateway:
            async with gateway.client() as client:
                talks = talks or [Talk(client, older.name) for _ in range(4)]
                for number, talk in enumerate(talks):
                    talk.client, said = client, f"{marker} {number}, {turn}"
                    assert (await talk.say(f"{said}\n@say Answer {turn}.")).text == f"Answer {turn}."
                    assert heard_last(model, said) == talk.shown
        held = {twin: len(conversations(letta_api, twin)) for twin in numbers(letta_api, older.id).values()}
        assert sum(held.values()) == len(talks)
        assert numbers(letta_api, older.id) == (twins := twins or numbers(letta_api, older.id))
    assert [len(set(talk.conversations)) for talk in talks] == [1] * len(talks)


async def test_a_talk_in_the_one_thread_is_taken_up_when_the_agent_gets_replicas(
    letta: LocalLetta, model: ScriptedModel, letta_api: Letta, older: Any, marker: str, tmp_path: Path
) -> None:
    with served(tmp_path, letta_base_url=letta.base_url) as gateway:
        async with gateway.client() as client:
            talk = Talk(client, older.name)
            await talk.say(f"{marker} I like trees.\n{says('So do I.')}")
            assert twins_in(letta_api, older.id) == []
    with served(tmp_path, letta_base_url=letta.base_url, replicas=2) as gateway:
        async with gateway.client() as talk.client:
            assert (await talk.say(f"{marker} Which?\n@say Oaks.")).text == "Oaks."
            assert heard_last(model, marker) == talk.shown
            assert (await talk.say(f"{marker} Why?\n@say They are old.")).text == "They are old."
            assert heard_last(model, marker) == talk.shown
    assert len(set(talk.conversations)) == 2


# --- many at once ----------------------------------------------------------------------------------------------------


@requirement("replicas.queue")
async def test_twenty_at_once_on_an_older_agent_with_replicas_are_all_answered_side_by_side(
    letta: LocalLetta, model: ScriptedModel, letta_api: Letta, older: Any, marker: str, tmp_path: Path
) -> None:
    with served(tmp_path, letta_base_url=letta.base_url, replicas={older.id: 2}) as gateway:
        answers = await twenty(gateway, older.name, lambda number: f"{marker} {number};\n@say Answer {number}.")
    assert [answer.text for answer in answers] == [f"Answer {number}." for number in range(AT_ONCE)]
    heard = [texts(request, marker) for request in model.requests_with(marker)]
    assert sorted(heard) == sorted([f"{marker} {number};\n@say Answer {number}."] for number in range(AT_ONCE))
    twins = numbers(letta_api, older.id)
    assert [*sorted(twins)] == [1, 2]
    held = [len(conversations(letta_api, twin)) for twin in twins.values()]
    assert sum(held) == AT_ONCE
    assert min(held) > 0


@requirement("replicas.queue")
async def test_twenty_at_once_on_an_older_agent_without_replicas_stand_in_line_and_are_all_answered(
    letta: LocalLetta, model: ScriptedModel, letta_api: Letta, older: Any, marker: str, tmp_path: Path
) -> None:
    with served(tmp_path, letta_base_url=letta.base_url, queue_wait_seconds=120) as gateway:
        answers = await twenty(gateway, older.name, lambda number: f"{marker} {number};\n{says(f'Answer {number}.')}")
    assert [answer.text for answer in answers] == [f"Answer {number}." for number in range(AT_ONCE)]
    heard = [texts(request, marker) for request in model.requests_with(marker)]
    assert [len(each) for each in heard] == [*range(1, AT_ONCE + 1)]
    assert len(set(heard[-1])) == AT_ONCE
    assert twins_in(letta_api, older.id) == []


# --- what the operator sees ------------------------------------------------------------------------------------------


@requirement("replicas.seen")
async def test_a_modern_agent_is_shared_too_and_the_operator_sees_its_twins(
    letta: LocalLetta,
    model: ScriptedModel,
    letta_api: Letta,
    make_agent: Callable[..., Any],
    marker: str,
    tmp_path: Path,
) -> None:
    agent = make_agent(system="You are Ann.")
    settings: dict[str, Any] = {"letta_base_url": letta.base_url, "models_refresh_seconds": 0.1}
    with served(tmp_path, **settings, replicas={agent.name: 2}) as gateway:
        before = twins_told(gateway)
        async with gateway.client() as client:
            while len(numbers(letta_api, agent.id)) < 2:
                await Chat(client, agent.name).ask(f"{marker}\n@say Well.")
            assert [each.id for each in (await client.models.list()).data if agent.name in each.id] == [agent.name]
        await asyncio.to_thread(until, lambda: twins_told(gateway) == before + 2)
    assert conversations(letta_api, agent.id) == []
    for request in model.requests_with(marker):
        assert str(request.messages[0]["content"]).startswith("You are Ann.\n\n<memory_blocks>")
    everyone = json.loads(await asyncio.to_thread(command, letta, tmp_path, "agents", "--all", "--json"))
    seen = {each["number"]: each for each in everyone if each["twin_of"] == agent.id}
    assert {number: each["id"] for number, each in seen.items()} == numbers(letta_api, agent.id)
    assert [seen[number]["absent"] for number in (1, 2)] == [f"twin of {agent.name}", f"twin 2 of {agent.name}"]
    portrait = json.loads(await asyncio.to_thread(command, letta, tmp_path, "agents", "show", agent.name, "--json"))
    assert portrait["twins"] == [seen[1]["id"], seen[2]["id"]]
    assert portrait["conversations"] == len(model.requests_with(marker))


def twins_told(gateway: Served) -> int:
    return httpx.get(f"{gateway.url}/health").json()["backends"]["letta"]["twins"]


async def ask_often(client: AsyncOpenAI, enough: Callable[[], bool]) -> None:
    """Begin conversations: each other one falls on the second twin, by and large."""
    for _ in range(200):
        answer = await Chat(client, "Old").ask("#call get_weather {}#", tools=[WEATHER])
        assert answer.finish == "tool_calls"
        if enough():
            return


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_killed_while_it_makes_a_second_twin_the_gateway_uses_it_after_its_next_start(tmp_path: Path) -> None:
    with fake_letta(rows=[row(1, "Old", "memgpt_agent")]) as fake:
        original = fake.rows[0]["id"]
        letta = LettaClient(fake.url)
        await Twins(letta).of(original)
        await letta.aclose()
        with serving(tmp_path, fake.url, FRONTDESK_REPLICAS="2") as first:

            def kill(_: web.Request) -> web.Response:
                os.kill(first.popen.pid, signal.SIGKILL)
                return web.json_response({}, status=500)

            fake.answers["PATCH /v1/agents/"] = kill
            async with AsyncOpenAI(base_url=f"{first.url}/v1", api_key="none", max_retries=0) as client:
                with pytest.raises(openai.APIConnectionError):
                    await ask_often(client, lambda: False)
        half = fake.rows[-1]
        assert half["metadata"] == mark(original, number=2)
        del fake.answers["PATCH /v1/agents/"]
        with serving(tmp_path, fake.url, FRONTDESK_REPLICAS="2") as second:
            async with AsyncOpenAI(base_url=f"{second.url}/v1", api_key="none", max_retries=0) as client:
                await ask_often(client, lambda: half["metadata"] != mark(original, number=2))
        assert half["metadata"]["frontdesk"]["made_from"]
        assert len(fake.rows) == 3
