"""The caller's system messages, on top of what the agent is; and the other roles' oddities."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.testing import ScriptedModel
from tests.protocols.chat_completions.asking import Chat, assistant, heard, system, user
from tests.protocols.conftest import Serve
from tests.requirements import requirement


@requirement("chat.system")
@pytest.mark.parametrize("stream", [False, True])
async def test_instructions_come_once_on_top_of_the_agents_own_prompt(
    client: AsyncOpenAI,
    make_agent: Callable[..., Any],
    letta_api: Letta,
    model: ScriptedModel,
    marker: str,
    stream: bool,
) -> None:
    agent = make_agent(system=f"You are the one of {marker}-own.")
    said = [
        system("Speak like a pirate."),
        user("hello"),
        assistant("Ahoy."),
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        user(f"@say {marker}"),
    ]
    await Chat(client, agent.name).ask(said, stream=stream)
    (request,) = model.requests_with(f"@say {marker}")
    assert request.messages[0]["role"] == "system"
    assert f"You are the one of {marker}-own." in request.texts[0]
    assert "I am a test agent." in request.texts[0]  # its memory
    assert request.texts[0].endswith("\n\nSpeak like a pirate.\n\nBe brief.")
    assert heard(request) == [
        ("user", "hello"),
        ("assistant", "Ahoy."),
        ("user", f"@say {marker}"),
    ]
    assert letta_api.agents.retrieve(agent.id).system == f"You are the one of {marker}-own."


@requirement("chat.system.changed")
async def test_as_messages_in_a_pinned_conversation_only_changed_instructions_come_again(
    serve: Serve, milo: str, model: ScriptedModel, marker: str
) -> None:
    async with serve(system_prompt="message").client() as client:
        for number, *instructions in (
            (1, "First."),
            (2, "First."),
            (3, "Second.", "Third."),
            (4, "Second.", "Third."),
            (5,),
            (6, "Second.", "Third."),
        ):
            said = [*map(system, instructions), user(f"@say {number} {marker}")]
            await Chat(client, milo).ask(said, pin=marker)
    *_, request = model.requests_with(f"@say 6 {marker}")
    told = [text if role == "system" else text[:6] for role, text in heard(request) if role != "assistant"]
    assert told == ["First.", "@say 1", "@say 2", "Second.\n\nThird.", "@say 3", "@say 4", "@say 5", "@say 6"]


@requirement("chat.system.changed")
async def test_messages_with_instructions_of_a_failed_turn_are_given_again(
    serve: Serve, milo: str, model: ScriptedModel, marker: str
) -> None:
    async with serve(system_prompt="message").client() as client:
        chat = Chat(client, milo)
        with pytest.raises(openai.APIStatusError):
            await chat.ask([system("Rules."), user(f"@fail 400 should-retry=false\n@@{marker}")], pin=marker)
        await chat.ask([system("Rules."), user(f"@say {marker}")], pin=marker)
    *_, request = model.requests_with(f"@say {marker}")
    assert heard(request) == [("system", "Rules."), ("user", f"@say {marker}")]


@requirement("chat.system.remove")
async def test_instructions_can_be_kept_from_the_agents(
    serve: Serve, milo: str, model: ScriptedModel, marker: str
) -> None:
    async with serve(remove_system_prompt=True).client() as client:
        await Chat(client, milo).ask([system("You are a pirate."), user(f"@say {marker}")])
    (request,) = model.requests_with(marker)
    assert heard(request) == [("user", f"@say {marker}")]


@requirement("chat.system.remove")
async def test_the_known_variable_keeps_instructions_away(
    serve: Serve, milo: str, model: ScriptedModel, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOVE_SYSTEM_PROMPT", "true")
    async with serve().client() as client:
        await Chat(client, milo).ask([system("You are a pirate."), user(f"@say {marker}")])
    (request,) = model.requests_with(marker)
    assert heard(request) == [("user", f"@say {marker}")]


async def test_instructions_alone_are_enough(chat: Chat, model: ScriptedModel, marker: str) -> None:
    await chat.ask([system(f"Greet the user {marker}.")])
    (request,) = model.requests_with(marker)
    assert heard(request) == [("system", f"Greet the user {marker}.")]


@requirement("chat.user.name")
async def test_the_name_of_a_speaker_reaches_the_model(chat: Chat, model: ScriptedModel, marker: str) -> None:
    await chat.ask([user("hello", name="Ada"), user(f"@say {marker}", name="Bob")])
    (request,) = model.requests_with(marker)
    assert [message.get("name") for message in request.messages[1:]] == ["Ada", "Bob"]


@requirement("chat.user.trailing")
@pytest.mark.parametrize("pinned", [False, True], ids=["unpinned", "pinned"])
async def test_all_messages_since_the_last_answer_are_new(
    chat: Chat, model: ScriptedModel, marker: str, pinned: bool
) -> None:
    pin = marker if pinned else ""
    first = await chat.ask("@say One.", pin=pin)
    said = [user("@say One."), first.message, user("and"), user(""), user("also"), user(f"@say {marker}")]
    await chat.ask(said, pin=pin)
    *_, request = model.requests_with(f"@say {marker}")
    assert [text for _, text in heard(request)] == ["@say One.", "One.", "and", "also", f"@say {marker}"]


@requirement("chat.user.nothing-new")
@pytest.mark.parametrize("messages", [[user("")], [user([])], [user([{"type": "text", "text": ""}])], [assistant("")]])
async def test_a_request_without_any_content_is_refused(chat: Chat, messages: list[Any]) -> None:
    with pytest.raises(openai.BadRequestError) as info:
        await chat.ask(messages)
    assert (info.value.param, info.value.code) == ("messages", "invalid_value")


@requirement("chat.user.nothing-new")
async def test_nothing_new_in_a_pinned_conversation_is_refused(chat: Chat, marker: str) -> None:
    await chat.ask("@say One.", pin=marker)
    with pytest.raises(openai.BadRequestError) as info:
        await chat.ask([user("")], pin=marker)
    assert info.value.param == "messages"
    assert (await chat.ask("@say Two.", pin=marker)).text == "Two."


@requirement("conversations.continue")
@pytest.mark.parametrize("pinned", [False, True])
async def test_an_answer_that_comes_back_last_is_gone_on_with(
    chat: Chat, model: ScriptedModel, marker: str, pinned: bool
) -> None:
    pin = marker if pinned else ""
    first = await chat.ask(f"@say One {marker}\n@then\n@say and two.", pin=pin)
    more = await chat.ask([user(f"@say One {marker}\n@then\n@say and two."), first.message], pin=pin)
    assert more.conversation == first.conversation
    assert [role for role, _ in heard(model.requests_with(marker)[-1])] == ["user", "assistant", "system"]
    whole = assistant(first.text + more.text)
    last = await chat.ask([user(f"@say One {marker}\n@then\n@say and two."), whole, user("@say Three.")], pin=pin)
    assert (last.text, last.conversation) == ("Three.", first.conversation)


@requirement("chat.assistant-last")
async def test_the_agent_may_be_asked_to_go_on_from_its_own_words(
    chat: Chat, model: ScriptedModel, marker: str
) -> None:
    await chat.ask([user(f"@say {marker}"), assistant("I was about to say")])
    (request,) = model.requests_with(marker)
    assert heard(request)[:-1] == [("user", f"@say {marker}"), ("assistant", "I was about to say")]
    assert heard(request)[-1][0] == "system"


async def test_the_agent_may_have_spoken_first(chat: Chat, model: ScriptedModel, marker: str) -> None:
    await chat.ask([assistant("Welcome!"), user(f"@say {marker}")])
    (request,) = model.requests_with(marker)
    assert heard(request) == [("assistant", "Welcome!"), ("user", f"@say {marker}")]
