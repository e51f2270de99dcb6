"""Which conversation a request belongs to, and what the agent hears of it."""

import asyncio
import uuid
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from tests.protocols.chat_completions.asking import PIN, Chat, assistant, heard, user
from tests.protocols.conftest import Serve
from tests.requirements import requirement
from tests.served import Served, served


def texts(model: ScriptedModel, marker: str) -> list[str]:
    """What the model was given last, but for the agent's own prompt."""
    return [text for _, text in heard(model.requests_with(marker)[-1])]


# --- without a pin -----------------------------------------------------------------------------------------------


@requirement("conversations.lineage")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_transcript_is_heard_once_and_in_order(
    chat: Chat, model: ScriptedModel, marker: str, stream: bool
) -> None:
    said = [user(f"@say One {marker}")]
    first = await chat.ask(said, stream=stream)
    said += [first.message, user(f"@say Two {marker}")]
    second = await chat.ask(said, stream=stream)
    said += [second.message, user(f"@say Three {marker}")]
    await chat.ask(said, stream=stream)
    assert (first.identity, second.identity) == ("new", "lineage")
    assert first.conversation == second.conversation
    assert texts(model, marker) == [message["content"] for message in said]
    assert len(model.requests_with(marker)) == 3


@requirement("conversations.seeded")
async def test_equal_requests_are_answered_each_in_its_own_conversation(chat: Chat, marker: str) -> None:
    answers = await asyncio.gather(*(chat.ask(f"@say Hello {marker}") for _ in range(3)))
    assert {answer.text for answer in answers} == {f"Hello {marker}"}
    assert len({answer.conversation for answer in answers}) == 3


# --- pins --------------------------------------------------------------------------------------------------------


@requirement("conversations.pin")
@pytest.mark.parametrize("pin", ["plain {}", "ünï/cödé 漢字 🙂 {}", 'a:b;c="d"\' % {}', "{}" + "x" * 243])
async def test_a_pin_of_any_text_names_a_conversation_to_which_only_the_new_is_added(
    gateway: Served, milo: str, model: ScriptedModel, marker: str, pin: str
) -> None:
    named = {PIN.encode(): pin.format(marker).encode()}
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=30) as http:

        async def ask(*messages: Any) -> httpx.Response:
            body = {"model": milo, "messages": messages}
            return await http.post("/chat/completions", json=body, headers=named)  # type: ignore[arg-type]

        first = await ask(user("@say One"))
        second = await ask(user("@say Two"))
        third = await ask(
            user("@say One"), assistant("One"), user("@say Two"), assistant("Two"), user(f"@say {marker}")
        )
    assert [response.status_code for response in (first, second, third)] == [200, 200, 200]
    assert {response.headers["x-frontdesk-identity"] for response in (first, second, third)} == {"header"}
    assert len({response.headers[PIN] for response in (first, second, third)}) == 1
    assert texts(model, marker) == ["@say One", "One", "@say Two", "Two", f"@say {marker}"]


@requirement("conversations.pin")
async def test_a_pin_begins_with_the_transcript_which_the_client_has(
    chat: Chat, model: ScriptedModel, marker: str
) -> None:
    await chat.ask([user("One"), assistant("Two"), user(f"@say {marker}")], pin=marker)
    assert texts(model, marker) == ["One", "Two", f"@say {marker}"]


@requirement("conversations.restart")
async def test_pins_and_ids_survive_a_restart(
    letta: LocalLetta, milo: str, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    with served(tmp_path, letta_base_url=letta.base_url) as gateway:
        async with gateway.client() as client:
            first = await Chat(client, milo).ask("@say One", pin=marker)
            call = await Chat(client, milo).ask("@call f {}", tools=[{"type": "function", "function": {"name": "f"}}])
    with served(tmp_path, letta_base_url=letta.base_url) as gateway:
        async with gateway.client() as client:
            chat = Chat(client, milo)
            second = await chat.ask("@say Two", pin=marker)
            third = await chat.ask(f"@say Three {marker}", pin=first.conversation)
            said = [user("@call f {}"), call.message, call.calls[0].result(f"result {marker}")]
            assert (await chat.ask(said)).identity == "lineage"
    assert first.conversation == second.conversation == third.conversation
    heard_last = model.requests_with(f"Three {marker}")[-1]
    assert [text for _, text in heard(heard_last)] == ["@say One", "One", "@say Two", "Two", f"@say Three {marker}"]


@requirement("conversations.id")
async def test_the_id_of_any_conversation_is_a_pin(chat: Chat, model: ScriptedModel, marker: str) -> None:
    first = await chat.ask("@say One")
    second = await chat.ask(f"@say {marker}", pin=first.conversation)
    assert (second.conversation, second.identity) == (first.conversation, "header")
    assert texts(model, marker) == ["@say One", "One", f"@say {marker}"]


FORGERIES: dict[str, Callable[[str], str]] = {
    "free": lambda conversation: "conv_nothing",
    "Letta's own": lambda conversation: f"conv_{uuid.uuid4()}",
    "zero": lambda conversation: "conv_" + "A" * 35,
    "wrong signature": lambda conversation: (
        conversation[:-2] + ("A" if conversation[-2] != "A" else "B") + conversation[-1]
    ),
    "wrong thread": lambda conversation: (
        conversation[:9] + ("A" if conversation[9] != "A" else "B") + conversation[10:]
    ),
    "cut": lambda conversation: conversation[:-1],
    "bare": lambda conversation: "conv_",
}


async def not_found(chat: Chat, model: ScriptedModel, marker: str, pin: str) -> None:
    with pytest.raises(openai.NotFoundError) as info:
        await chat.ask(f"@say {marker}", pin=pin)
    assert info.value.code == "conversation_not_found"
    assert model.requests_with(marker) == []


@requirement("conversations.foreign")
@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_an_id_nobody_was_given_is_a_404(
    chat: Chat, model: ScriptedModel, marker: str, forge: Callable[[str], str]
) -> None:
    conversation = (await chat.ask("@say One")).conversation
    await not_found(chat, model, marker, forge(conversation))


@requirement("conversations.foreign")
async def test_the_id_of_another_agents_conversation_is_a_404(
    chat: Chat, model: ScriptedModel, marker: str, make_agent: Callable[..., Any]
) -> None:
    conversation = (await chat.ask("@say One")).conversation
    await not_found(Chat(chat.client, make_agent().name), model, marker, conversation)


@requirement("conversations.foreign", "conversations.apart")
async def test_a_conversation_belongs_to_the_key_which_began_it(
    serve: Serve, milo: str, model: ScriptedModel, marker: str
) -> None:
    gateway = serve(keys=[{"name": name, "sha256": sha256(name.encode()).hexdigest()} for name in ("ann", "bob")])
    async with gateway.client(api_key="ann") as ann, gateway.client(api_key="bob") as bob:
        first = await Chat(ann, milo).ask("@say Secret", pin="diary")
        await not_found(Chat(bob, milo), model, marker, first.conversation)
        second = await Chat(bob, milo).ask(f"@say {marker}", pin="diary")
        assert second.conversation != first.conversation
        assert texts(model, marker) == [f"@say {marker}"]
        assert (await Chat(ann, milo).ask("@say More", pin="diary")).conversation == first.conversation


@requirement("conversations.foreign")
async def test_a_deleted_conversation_is_a_404(chat: Chat, model: ScriptedModel, marker: str, letta_api: Letta) -> None:
    conversation = (await chat.ask("@say One", pin=marker)).conversation
    agent = next(iter(letta_api.agents.list(name=chat.agent)))
    newest = next(iter(letta_api.conversations.list(agent_id=agent.id, limit=1, order="desc")))
    letta_api.conversations.delete(newest.id)
    await not_found(chat, model, f"{marker}-x", conversation)
    again = await chat.ask("@say Two", pin=marker)
    assert again.conversation != conversation


@requirement("conversations.template")
@pytest.mark.parametrize("pin", ["{{CHAT_ID}}", "${chat_id}", "x-{{ chat }}-y", ""])
async def test_a_template_left_as_it_is_counts_as_no_pin(chat: Chat, pin: str) -> None:
    answers = [await chat.ask("@say One", headers={PIN: pin}) for _ in range(2)]
    assert [answer.identity for answer in answers] == ["new", "new"]
    assert len({answer.conversation for answer in answers}) == 2


@requirement("conversations.pin")
async def test_a_pin_that_is_too_long_is_refused(chat: Chat, model: ScriptedModel, marker: str) -> None:
    with pytest.raises(openai.BadRequestError) as info:
        await chat.ask(f"@say {marker}", pin="x" * 257)
    assert info.value.param == PIN
    assert model.requests_with(marker) == []


@requirement("conversations.pin")
async def test_other_headers_can_be_pins(serve: Serve, milo: str, model: ScriptedModel, marker: str) -> None:
    async with serve(conversation_headers=(PIN, "X-OpenWebUI-Chat-Id")).client() as client:
        chat = Chat(client, milo)
        await chat.ask("@say One", headers={"X-OpenWebUI-Chat-Id": marker})
        await chat.ask(f"@say {marker}", headers={"x-openwebui-chat-id": marker})
        assert texts(model, marker) == ["@say One", "One", f"@say {marker}"]
        ours = await chat.ask("@say One", pin=f"{marker}-ours", headers={"X-OpenWebUI-Chat-Id": marker})
        assert texts(model, "@say One") == ["@say One"]
        assert ours.identity == "header"


@requirement("conversations.apart")
async def test_two_pins_of_one_agent_do_not_see_each_other(chat: Chat, model: ScriptedModel, marker: str) -> None:
    await chat.ask("@say Alpha", pin=f"{marker}-a")
    await chat.ask("@say Beta", pin=f"{marker}-b")
    await chat.ask(f"@say a {marker}", pin=f"{marker}-a")
    await chat.ask(f"@say b {marker}", pin=f"{marker}-b")
    assert texts(model, f"@say a {marker}") == ["@say Alpha", "Alpha", f"@say a {marker}"]
    assert texts(model, f"@say b {marker}") == ["@say Beta", "Beta", f"@say b {marker}"]


# --- many at once ------------------------------------------------------------------------------------------------


@requirement("conversations.concurrent")
async def test_ten_pinned_chats_at_once_do_not_mix(chat: Chat, model: ScriptedModel, marker: str) -> None:
    async def talk(number: int) -> None:
        for turn in range(3):
            words = f"{number}.{turn} {marker}-{number}"
            answer = await chat.ask(f"@slow 0.05\n@say {words}", pin=f"{marker}-{number}", stream=bool(turn % 2))
            assert answer.text == words

    await asyncio.gather(*map(talk, range(10)))
    for number in range(10):
        spoken = [text for role, text in heard(model.requests_with(f"{marker}-{number}")[-1]) if role == "assistant"]
        assert spoken == [f"{number}.{turn} {marker}-{number}" for turn in range(2)]


@requirement("conversations.one-at-a-time")
@pytest.mark.parametrize("known", [False, True], ids=["new pin", "known pin"])
async def test_messages_sent_at_once_to_one_pin_run_one_after_the_other(
    chat: Chat, model: ScriptedModel, marker: str, known: bool
) -> None:
    if known:
        await chat.ask("@say Begin", pin=marker)
    system: Any = {"role": "system", "content": "Be brief."}

    async def ask(number: int) -> str:
        return (await chat.ask([system, user(f"@slow 0.2\n@say {number} {marker}")], pin=marker)).text

    said = await asyncio.gather(*map(ask, range(4)))
    assert said == [f"{number} {marker}" for number in range(4)]
    await chat.ask([system, user(f"@say End {marker}")], pin=marker)
    request = model.requests_with(f"@say End {marker}")[-1]
    spoken = heard(request)
    answers = [text for role, text in spoken if role == "assistant" and marker in text]
    assert sorted(answers) == sorted(said)
    assert request.texts[0].count("Be brief.") == 1
    assert "system" not in [role for role, _ in spoken]
    alternating = [role for role, text in spoken if marker in text]
    assert alternating == ["user", "assistant"] * 4 + ["user"]


# --- modes -------------------------------------------------------------------------------------------------------


@requirement("conversations.stateless")
async def test_stateless_turns_know_nothing_of_each_other(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    chat = Chat(client, f"{milo}:stateless")
    first = await chat.ask("@say One", pin=marker)
    second = await chat.ask([user("x"), assistant("y"), user(f"@say {marker}")], pin=marker)
    assert (first.identity, second.identity) == ("stateless", "stateless")
    assert first.conversation != second.conversation
    assert texts(model, marker) == ["x", "y", f"@say {marker}"]


@requirement("conversations.single")
async def test_a_single_thread_is_shared_by_all(
    client: AsyncOpenAI, make_agent: Callable[..., Any], model: ScriptedModel, marker: str, letta_api: Letta
) -> None:
    agent = make_agent()
    letta_api.agents.messages.create(agent.id, messages=[{"role": "user", "content": "@say From elsewhere"}])
    chat = Chat(client, f"{agent.name}:single")
    first = await chat.ask("@say One", pin="a")
    said = [user("@say One"), first.message, user(f"@say {marker}")]
    second = await chat.ask(said, pin="b", stream=True)
    assert second.conversation == first.conversation
    spoken = [
        text for role, text in heard(model.requests_with(f"@say {marker}")[-1]) if "@say" in text or role == "assistant"
    ]
    assert spoken[-5:] == ["@say From elsewhere", "From elsewhere", "@say One", "One", f"@say {marker}"]


@requirement("conversations.single")
async def test_tools_work_in_a_single_thread(
    client: AsyncOpenAI, make_agent: Callable[..., Any], model: ScriptedModel, marker: str
) -> None:
    chat = Chat(client, f"{make_agent().name}:single")
    tools: Any = [{"type": "function", "function": {"name": "f"}}]
    asked = user(f"@call f {{}}\n@then\n@say Done {marker}")
    first = await chat.ask([asked], tools=tools)
    end = await chat.ask([asked, first.message, first.calls[0].result("fine")], tools=tools)
    assert (end.text, end.identity) == (f"Done {marker}", "lineage")
    assert (await chat.ask([user("@call f {}")], tools=tools)).calls
    assert (await chat.ask([user("@say Never mind")], tools=tools)).text == "Never mind"
