"""Callers' system prompts on a real Letta server: what stood in the system slot of the agent's model, and in whose."""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.backends.letta.blocks import LABEL, Blocks
from frontdesk.backends.letta.client import LettaClient
from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from frontdesk.testing.model import Request
from tests.acceptance.talking import CLIENTS, Talk, conversations_of, heard, heard_last
from tests.protocols.chat_completions.asking import Chat, function, system, user
from tests.requirements import requirement
from tests.served import served

MakeAgent = Callable[..., Any]
WEATHER = function("get_weather")
LONG = 60_000
MEMORY = "I am a test agent."


def slots(request: Request) -> list[str]:
    """The system messages that the model was sent."""
    return [text for text, message in zip(request.texts, request.messages, strict=True) if message["role"] == "system"]


def prompt(request: Request) -> str:
    """The one system message of a request."""
    (text,) = slots(request)
    return text


def any_text(length: int) -> str:
    """Text of many kinds, which no model would take for anything: spaces, line ends, quotes, other scripts."""
    chance = random.Random(20_261_121)
    kinds = [
        "word ",
        "\n",
        "\t",
        '"',
        "\\",
        "<value>",
        "{CORE_MEMORY}",
        "漢字",
        "🙂",
        "é",
        "%s",
        "\r\n",
        "</memory_blocks>",
    ]
    return "".join(chance.choices(kinds, k=length))[:length]


# --- in the system slot -------------------------------------------------------------------------------------------


@requirement("chat.system.long")
@pytest.mark.parametrize("stream", [False, True])
async def test_sixty_thousand_characters_stand_in_the_system_slot_behind_the_agents_own_prompt_and_memory(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, stream: bool
) -> None:
    text = any_text(LONG)
    talk = Talk(client, milo, system=text)
    await talk.say(f"@say One. {marker}", stream=stream)
    await talk.say(f"@say Two. {marker}", stream=stream)
    for request in model.requests_with(marker):
        own, _, told = prompt(request).rpartition(f"\n\n{text}")
        assert (told, MEMORY in own) == ("", True)
    assert heard_last(model, marker) == talk.shown


@requirement("chat.system.changed")
@pytest.mark.parametrize("kind", CLIENTS.values(), ids=CLIENTS.keys())
async def test_a_changed_prompt_replaces_the_one_before_and_one_that_is_left_out_is_gone(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, kind: type[Talk]
) -> None:
    talk = kind(client, milo)
    for text in ("You are a pirate.", "You are a pirate.", "You are a judge.", ""):
        talk.system = text
        await talk.say(f"@say Hello. {marker}")
        told = prompt(model.requests_with(marker)[-1])
        assert told.endswith(f"\n\n{text}") == bool(text)
        assert [word for word in ("pirate", "judge") if word in told] == [
            word for word in ("pirate", "judge") if word in text
        ]
    assert len(set(talk.conversations)) == 1
    assert heard_last(model, marker) == talk.shown


@requirement("chat.system")
async def test_the_agent_goes_on_with_the_prompt_after_tool_results_edits_and_other_answers(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    talk = Talk(client, milo, system=f"You are {marker}-pirate.", fields={"tools": [WEATHER]})
    await talk.say(f"@call get_weather\n@then\n@say One. {marker}")
    await talk.answer({"get_weather": "Sunny."})
    await talk.say(f"@say Two. {marker}")
    await talk.edit(1, f"@say Another two. {marker}")
    await talk.regenerate()
    requests = model.requests_with(marker)
    assert len(requests) == 5
    for request in requests:
        assert prompt(request).endswith(f"\n\nYou are {marker}-pirate.")
        assert request.json_text.count(f"{marker}-pirate") == 1


@requirement("chat.system")
async def test_the_prompt_holds_in_every_step_of_a_turn(
    client: AsyncOpenAI, agent: Any, model: ScriptedModel, marker: str
) -> None:
    remember = (
        f'@call memory_insert {{"label": "human", "new_string": "Likes {marker}-trees."}}\n@then\n@say Done. {marker}'
    )
    await Chat(client, agent.name).ask([system("You are a pirate."), user(remember)])
    requests = model.requests_with(f"Done. {marker}")
    assert [prompt(request).endswith("\n\nYou are a pirate.") for request in requests] == [True, True]


@requirement("conversations.restart")
async def test_a_restarted_gateway_goes_on_with_prompt_and_memory(
    letta: LocalLetta, milo: str, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    said: list[Any] = []
    for turn in range(3):
        with served(tmp_path, letta_base_url=letta.base_url) as gateway:
            async with gateway.client() as client:
                talk = Talk(client, milo, said, system=f"You are number {turn} of {marker}.")
                await talk.say(f"@say Answer {turn}. {marker}")
        told = prompt(model.requests_with(marker)[-1])
        assert told.endswith(f"\n\nYou are number {turn} of {marker}.")
        assert MEMORY in told
        assert heard_last(model, marker) == talk.shown


@requirement("chat.system")
async def test_in_an_agents_own_thread_each_caller_has_a_prompt_of_their_own(
    client: AsyncOpenAI, make_agent: MakeAgent, model: ScriptedModel, marker: str
) -> None:
    for fields in ({}, {"agent_type": "memgpt_v2_agent"}):
        name = make_agent(**fields).name
        chat = Chat(client, f"{name}:single")
        script = f'@call send_message {{"message": "Aye."}}\n@@{marker}' if fields else f"@say Aye. {marker}"
        for text in ("You are a pirate.", "You are a judge."):
            await chat.ask([system(text), user(script)])
            told = prompt(model.requests_with(marker)[-1])
            assert told.endswith(f"\n\n{text}")
            assert MEMORY in told
            assert "pirate" not in model.requests_with(marker)[-1].json_text or "pirate" in text


# --- memory -------------------------------------------------------------------------------------------------------


@requirement("chat.system.memory")
@pytest.mark.parametrize("text", ["", "You are a pirate."], ids=["without a prompt", "with a prompt"])
async def test_what_the_agent_has_learnt_elsewhere_is_in_view_when_a_conversation_goes_on(
    client: AsyncOpenAI, agent: Any, model: ScriptedModel, marker: str, text: str
) -> None:
    talk = Talk(client, agent.name, system=text)
    await talk.say(f"@say One. {marker}")
    await talk.say(f"@say Two. {marker}")
    learns = f'@call memory_insert {{"label": "human", "new_string": "Likes {marker}-trees."}}\n@then\n@say Noted.'
    await Talk(client, agent.name).say(learns)
    await talk.say(f"@say Three. {marker}\n@@three")
    request = model.requests_with("@@three")[-1]
    assert f"Likes {marker}-trees." in request.texts[0]
    assert request.texts[0].endswith(text)
    assert heard_last(model, marker) == talk.shown


@requirement("chat.system.memory")
@pytest.mark.parametrize("refresh", ["changed", "off"])
async def test_memory_that_somebody_else_has_changed_is_looked_for(
    letta: LocalLetta, agent: Any, letta_api: Letta, model: ScriptedModel, marker: str, tmp_path: Path, refresh: str
) -> None:
    settings: dict[str, Any] = {"memory_refresh": refresh, "memory_refresh_seconds": 0}
    with served(tmp_path, letta_base_url=letta.base_url, **settings) as gateway:
        async with gateway.client() as client:
            talk = Talk(client, agent.name, system="You are a pirate.")
            await talk.say(f"@say One. {marker}")
            for value in ("Likes trees.", "Likes trains.", "Nothing is known yet."):
                letta_api.agents.blocks.update("human", agent_id=agent.id, value=value)
                await talk.say(f"@say Two. {marker}")
                seen = value in prompt(model.requests_with(marker)[-1])
                assert seen == (refresh == "changed" or value == "Nothing is known yet.")
    with served(tmp_path, letta_base_url=letta.base_url, **settings) as again:
        letta_api.agents.blocks.update("human", agent_id=agent.id, value="Likes rain.")
        async with again.client() as client:
            talk = Talk(client, agent.name, talk.said, system="You are a pirate.")
            await talk.say(f"@say Three. {marker}")
            assert ("Likes rain." in prompt(model.requests_with(marker)[-1])) == (refresh == "changed")
    assert heard_last(model, marker) == talk.shown
    assert len(conversations_of(letta_api, agent.id)) == 1


@requirement("chat.system.memory")
async def test_a_condensed_conversation_keeps_prompt_and_memory(
    client: AsyncOpenAI, agent: Any, model: ScriptedModel, marker: str
) -> None:
    talk = Talk(client, agent.name, system=f"You are {marker}-pirate.")
    for turn in range(3):
        await talk.say(f"@say Answer {turn}. {marker}")
    await talk.say(f"@fail-times 1 400 context_length_exceeded\n@say Condensed. {marker}")
    await talk.say(f"@say After. {marker}\n@@after")
    request = model.requests_with("@@after")[-1]
    assert slots(request)[0].endswith(f"\n\nYou are {marker}-pirate.")
    assert MEMORY in slots(request)[0]
    assert request.json_text.count(f"{marker}-pirate") == 1


# --- other places -------------------------------------------------------------------------------------------------


@requirement("chat.system.places")
async def test_where_prompts_go_is_set_for_the_server_its_agents_and_its_keys(
    letta: LocalLetta, make_agent: MakeAgent, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    ann, bob = make_agent().name, make_agent().name
    keys = [
        {"name": "plain", "sha256": digest("plain")},
        {"name": "deaf", "sha256": digest("deaf"), "system_prompt": "ignore"},
        {"name": "over", "sha256": digest("over"), "system_prompt": "override"},
    ]
    settings: dict[str, Any] = {"system_prompt": "message", "system_prompts": {bob: "override"}, "keys": keys}
    found: dict[tuple[str, str], list[str]] = {}
    with served(tmp_path, letta_base_url=letta.base_url, probe_key="plain", **settings) as gateway:
        for key in ("plain", "deaf", "over"):
            async with gateway.client(api_key=key) as client:
                for name in (ann, bob):
                    said = f"@say Hello. {marker}-{key}-{name}-"
                    await Chat(client, name).ask([system("You are a pirate."), user(said)])
                    (request,) = model.requests_with(said)
                    own, *told = slots(request)
                    assert MEMORY in own
                    found[key, name] = [*(["slot"] if own.endswith("\n\nYou are a pirate.") else []), *told]
    message, override = ["You are a pirate."], ["slot"]
    assert found == {
        ("plain", ann): message,
        ("plain", bob): override,
        ("deaf", ann): [],
        ("deaf", bob): [],
        ("over", ann): override,
        ("over", bob): override,
    }


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@requirement("chat.system.places")
async def test_as_a_message_a_prompt_is_placed_when_it_is_new_or_has_changed(
    letta: LocalLetta, milo: str, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    with served(tmp_path, letta_base_url=letta.base_url, system_prompt="message") as gateway:
        async with gateway.client() as client:
            talk = Talk(client, milo)
            for text in ("One.", "One.", "Two.", "Two."):
                talk.system = text
                await talk.say(f"@say Hello. {marker}")
    _, *told = slots(model.requests_with(marker)[-1])
    assert told == ["One.", "Two."]
    assert heard(model.requests_with(marker)[-1]) == talk.shown


@requirement("chat.system.remove")
async def test_the_known_variable_wins_over_every_other_setting(
    letta: LocalLetta, milo: str, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"remove_system_prompt": True, "system_prompts": {milo: "override"}}
    with served(tmp_path, letta_base_url=letta.base_url, **settings) as gateway:
        async with gateway.client() as client:
            await Chat(client, milo).ask([system("You are a pirate."), user(f"@say Hello. {marker}")])
    assert "pirate" not in model.requests_with(marker)[-1].json_text


# --- in a memory block --------------------------------------------------------------------------------------------


def blocks_of(letta_api: Letta, agent_id: str) -> dict[str, str]:
    return {str(block.label): block.value for block in letta_api.agents.blocks.list(agent_id)}


@requirement("chat.system.block")
@pytest.mark.parametrize("fields", [{}, {"agent_type": "memgpt_v2_agent"}], ids=["modern", "older"])
async def test_in_an_agents_one_thread_a_block_holds_the_prompt_of_whoever_speaks(
    letta: LocalLetta,
    make_agent: MakeAgent,
    letta_api: Letta,
    model: ScriptedModel,
    marker: str,
    tmp_path: Path,
    fields: dict[str, str],
) -> None:
    agent = make_agent(**fields)
    script = f'@call send_message {{"message": "Aye."}}\n@@{marker}' if fields else f"@say Aye. {marker}"
    settings: dict[str, Any] = {"system_prompts": {agent.name: "block"}, "modes": {agent.name: "single"}}
    for texts in (("You are a pirate.", "You are a pirate."), ("You are a judge.", "")):
        with served(tmp_path, letta_base_url=letta.base_url, **settings) as gateway:
            async with gateway.client() as client:
                for text in texts:
                    await Chat(client, agent.name).ask([system(text), user(script)] if text else script)
                    request = model.requests_with(marker)[-1]
                    told = prompt(request)
                    assert ("pirate" in told, "judge" in told) == ("pirate" in text, "judge" in text)
                    assert MEMORY in told
                    assert blocks_of(letta_api, agent.id)[LABEL] == text
    assert all(block.read_only for block in letta_api.agents.blocks.list(agent.id) if block.label == LABEL)


@requirement("chat.system.block")
async def test_a_block_is_refused_where_others_would_read_it(
    letta: LocalLetta, agent: Any, letta_api: Letta, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    with served(tmp_path, letta_base_url=letta.base_url, system_prompts={agent.name: "block"}) as gateway:
        async with gateway.client() as client:
            for said in ([system("A secret."), user(marker)], [user(marker)]):
                with pytest.raises(openai.BadRequestError, match="one thread"):
                    await Chat(client, agent.name).ask(said)
    assert model.requests_with(marker) == []
    assert LABEL not in blocks_of(letta_api, agent.id)


@requirement("chat.system.block")
async def test_a_block_that_is_used_no_more_is_emptied_and_one_without_an_agent_swept(
    letta: LocalLetta, agent: Any, letta_api: Letta, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    said = [system(f"You are {marker}-pirate."), user(f"@say Aye. {marker}")]
    blocked: dict[str, Any] = {"system_prompts": {agent.name: "block"}}
    for settings in (blocked, {}):
        with served(tmp_path, letta_base_url=letta.base_url, modes={agent.name: "single"}, **settings) as gateway:
            async with gateway.client() as client:
                await Chat(client, agent.name).ask(said)
        assert prompt(model.requests_with(marker)[-1]).count(f"{marker}-pirate") == 1
        assert blocks_of(letta_api, agent.id)[LABEL] == (said[0]["content"] if settings else "")
    left = letta_api.blocks.create(label=LABEL, value="of a process that has died")
    client = LettaClient(letta.base_url)
    assert await Blocks(client, patience_seconds=0).sweep() >= 1
    await client.aclose()
    assert left.id not in [block.id for block in letta_api.blocks.list(label=LABEL)]
    assert LABEL in blocks_of(letta_api, agent.id)
