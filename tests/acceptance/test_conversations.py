"""Whole chats, as real clients hold them, on a real Letta server: what the agent's model was really sent.

Each promise of the conversations is shown here once from end to end; the details are tested beside each part.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from tests.acceptance.talking import CLIENTS, OpenWebUI, RooCode, Said, Talk, conversations_of, heard, heard_last
from tests.conversations.test_tasks import FOLLOW_UPS, TAGS, TITLE
from tests.faults.asking import create
from tests.faults.watch import eventually
from tests.protocols.chat_completions.asking import PIN, Chat, function, user
from tests.protocols.chat_completions.test_node import run
from tests.requirements import requirement
from tests.served import Served, served

MakeAgent = Callable[..., Any]

each_client = pytest.mark.parametrize("kind", CLIENTS.values(), ids=CLIENTS.keys())

# --- one chat, one conversation ----------------------------------------------------------------------------------


@requirement("conversations.lineage")
async def test_ten_turns_without_any_header_are_one_conversation_in_which_each_message_is_heard_once(
    client: AsyncOpenAI, agent: Any, model: ScriptedModel, letta_api: Letta, marker: str
) -> None:
    talk = Talk(client, agent.name)
    for turn in range(10):
        await talk.say(f"@say Answer {turn} {marker}", stream=bool(turn % 2))
        assert heard_last(model, marker) == talk.shown
    assert talk.identities == ["new"] + ["lineage"] * 9
    assert len(set(talk.conversations)) == 1
    assert len(model.requests_with(marker)) == 10
    assert len(conversations_of(letta_api, agent.id)) == 1


@requirement("conversations.restart")
async def test_ten_turns_are_one_conversation_also_if_the_gateway_is_restarted_between_any_two(
    letta: LocalLetta, agent: Any, model: ScriptedModel, letta_api: Letta, marker: str, tmp_path: Path
) -> None:
    said: list[Any] = []
    conversations: set[str] = set()
    for turn in range(10):
        with served(tmp_path, letta_base_url=letta.base_url) as gateway:
            async with gateway.client() as client:
                talk = Talk(client, agent.name, said)
                await talk.say(f"@say Answer {turn} {marker}", stream=bool(turn % 2))
        assert heard_last(model, marker) == talk.shown
        conversations |= set(talk.conversations)
    assert len(conversations) == len(conversations_of(letta_api, agent.id)) == 1
    assert len(model.requests_with(marker)) == 10


@requirement("conversations.twins")
@pytest.mark.parametrize("beside", [False, True], ids=["in turns", "at once"])
async def test_two_chats_with_identical_text_never_meet(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, beside: bool
) -> None:
    ann, bob = Talk(client, milo), Talk(client, milo)
    for turn in range(3):
        words = f"@say The same {turn} {marker}"
        if beside:
            await asyncio.gather(ann.say(words), bob.say(words))
        else:
            await ann.say(words)
            await bob.say(words)
        assert ann.conversations[-1] != bob.conversations[-1]
    for turn in range(2):
        for talk, name in ((ann, "ann"), (bob, "bob")):
            await talk.say(f"@say A secret of {name}'s {turn} {marker}")
            assert heard_last(model, marker) == talk.shown
    assert not set(ann.conversations) & set(bob.conversations)


# --- edited, regenerated, branched -------------------------------------------------------------------------------


@requirement("conversations.regenerate")
@each_client
async def test_a_regenerated_answer_leaves_no_trace_of_the_one_it_replaced(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, kind: type[Talk]
) -> None:
    talk = kind(client, milo)
    await talk.say(f"@say One {marker}")
    await talk.regenerate()
    assert heard_last(model, marker) == talk.shown
    await talk.say(f"@say Two {marker}")
    assert heard_last(model, marker) == talk.shown
    await talk.regenerate()
    assert heard_last(model, marker) == talk.shown
    await talk.say(f"@say Three {marker}")
    assert heard_last(model, marker) == talk.shown
    assert len(model.requests_with(marker)) == talk.asked == 5


@requirement("conversations.edit")
@each_client
async def test_an_edited_message_leaves_no_trace_of_what_it_replaced(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, kind: type[Talk]
) -> None:
    talk = kind(client, milo)
    for turn in range(5):
        await talk.say(f"@say Old {turn} {marker}")
    for turn in (4, 2, 0):
        await talk.edit(turn, f"@say Edited {turn} {marker}")
        assert heard_last(model, marker) == talk.shown
        await talk.say(f"@say After {turn} {marker}")
        assert heard_last(model, marker) == talk.shown
    assert not any("Old" in text for _, text in heard_last(model, marker))
    assert len(model.requests_with(marker)) == talk.asked


@requirement("conversations.branch")
@each_client
async def test_a_branch_that_was_left_goes_on_where_it_was_left(
    client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, kind: type[Talk]
) -> None:
    talk = kind(client, milo)
    await talk.say(f"@say Root {marker}")
    await talk.say(f"@say Left {marker}")
    left, conversation = list(talk.said), talk.conversations[-1]
    await talk.edit(1, f"@say Right {marker}")
    right = list(talk.said)
    for branch, word in ((left, "left"), (right, "right")):
        talk.said[:] = branch
        await talk.say(f"@say On the {word} {marker}")
        assert heard_last(model, marker) == talk.shown
    assert talk.conversations[0] == conversation != talk.conversations[2]
    assert talk.conversations[3:] == [conversation, talk.conversations[2]]


async def snapshots(folder: Path, count: int) -> None:
    """Wait until the gateway has so many. It takes them once the answer is given."""

    def taken() -> bool:
        with closing(sqlite3.connect(f"file:{folder}/frontdesk.db?mode=ro", uri=True)) as store:
            (found,) = store.execute("SELECT count(*) FROM conversations WHERE kind = 'snapshot'").fetchone()
        return found == count

    await eventually(taken)


async def used_a_tool(talk: Talk, folder: Path, marker: str) -> None:
    talk.fields = {"tools": [function("look"), function("get_time")]}
    await talk.say(f'@say I look. {marker}\n@call look {{"city": "Oslo"}}\n@then\n@say It is cold. {marker}')
    await talk.answer({"look": f"-4 °C {marker}"})
    await snapshots(folder, 1)


@requirement("conversations.branch-tools")
@each_client
async def test_an_edit_after_a_client_tool_was_used_keeps_the_use_and_leaves_no_trace_of_what_it_replaced(
    letta: LocalLetta, milo: str, model: ScriptedModel, marker: str, tmp_path: Path, kind: type[Talk]
) -> None:
    with served(tmp_path, letta_base_url=letta.base_url) as gateway:
        async with gateway.client() as client:
            talk = kind(client, milo)
            await used_a_tool(talk, tmp_path, marker)
            await talk.say(f"@say Old {marker}")
            assert heard_last(model, marker) == talk.shown
            assert talk.shown[1:3] == [
                ("assistant", f'I look. {marker}\nlook({{"city": "Oslo"}})'),
                ("tool", f"-4 °C {marker}"),
            ]
            await snapshots(tmp_path, 2)
            await talk.edit(1, f"@say Edited {marker}")
            assert heard_last(model, marker) == talk.shown
            await snapshots(tmp_path, 3)
            await talk.regenerate()
            assert heard_last(model, marker) == talk.shown
            await talk.say(f"@say And on {marker}")
            assert heard_last(model, marker) == talk.shown
            assert len(model.requests_with(marker)) == talk.asked


async def test_a_message_can_be_edited_again_and_again_after_a_client_tool_was_used(
    letta: LocalLetta, milo: str, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    with served(tmp_path, letta_base_url=letta.base_url) as gateway:
        async with gateway.client() as client:
            talk = Talk(client, milo)
            await used_a_tool(talk, tmp_path, marker)
            await talk.say(f"@say Version 0 {marker}")
            for version in range(1, 4):
                await snapshots(tmp_path, min(version + 1, 3))
                await talk.edit(1, f"@say Version {version} {marker}")
                assert heard_last(model, marker) == talk.shown


# --- background tasks --------------------------------------------------------------------------------------------

SECRET = "The user bakes bread on Sundays"


async def ask_task(chat: OpenWebUI, prompt: str) -> Any:
    body: dict[str, Any] = {"model": chat.agent, "messages": [user(prompt)], "stream": False, "max_tokens": 1000}
    answer = await create(chat.client, **body, extra_headers=chat.headers())
    return json.loads(answer.choices[0].message.content)


@requirement("tasks.no-trace")
async def test_the_burst_of_tasks_of_open_webui_reaches_no_agent(
    client: AsyncOpenAI, make_agent: MakeAgent, model: ScriptedModel, letta_api: Letta, marker: str
) -> None:
    agent = make_agent(memory_blocks=[{"label": "human", "value": SECRET}, {"label": "persona", "value": "I am Nell."}])
    quoted = f"My name is Sam {marker}-task"  # a scripted model with an agent's tools would note this down
    title, tags, follow_ups = (prompt.replace("How do I bake bread?", quoted) for prompt in (TITLE, TAGS, FOLLOW_UPS))
    talk = OpenWebUI(client, agent.name, fields={"tools": [function("get_time")]})

    titled = asyncio.create_task(ask_task(talk, title))  # it comes before the first message
    await asyncio.to_thread(model.wait_for, lambda _: model.requests_with(f"{marker}-task"))
    await talk.say(f"@say Hello {marker}")
    assert isinstance((await titled)["title"], str)
    found = await asyncio.gather(ask_task(talk, tags), ask_task(talk, follow_ups))
    assert [list(each) for each in found] == [["tags"], ["follow_ups"]]
    await talk.say(f"@say Hello again {marker}")
    assert list(await ask_task(talk, follow_ups)) == ["follow_ups"]

    tasks = model.requests_with(f"{marker}-task")
    assert len(tasks) == 4
    for request in tasks:
        assert not request.has(SECRET)
        assert not request.tools
        assert [text for role, text in heard(request) if role != "user"] == []
    assert heard(model.requests_with(f"Hello again {marker}")[-1]) == talk.shown
    assert len(conversations_of(letta_api, agent.id)) == len(set(talk.conversations)) == 1
    blocks = {block.label: block.value for block in letta_api.agents.blocks.list(agent.id)}
    assert blocks == {"human": SECRET, "persona": "I am Nell."}


# --- retries -----------------------------------------------------------------------------------------------------


@requirement("retries.sdk")
@pytest.mark.parametrize("begun", [False, True], ids=["first message", "later message"])
async def test_a_plain_request_that_the_python_sdk_times_out_and_retries_reaches_the_agent_once(
    gateway: Served, agent: Any, model: ScriptedModel, letta_api: Letta, marker: str, begun: bool
) -> None:
    async with gateway.client(timeout=3.0, max_retries=1) as client:
        talk = Talk(client, agent.name)
        if begun:
            await talk.say("@say Before.")
        answer = await talk.say(f"@slow 4\n@say Late {marker}", stream=False)
        assert answer.text == f"Late {marker}"
        assert answer.headers["idempotency-replayed"] == "true"
        assert len(model.requests_with(marker)) == 1
        await talk.say(f"@say Next {marker}")
    assert heard_last(model, marker) == talk.shown
    assert len(conversations_of(letta_api, agent.id)) == 1


@requirement("retries.sdk")
async def test_a_plain_request_that_the_node_sdk_times_out_and_retries_reaches_the_agent_once(
    node_folder: Path, gateway: Served, milo: str, model: ScriptedModel, marker: str
) -> None:
    found = await run(node_folder, gateway, "retried", marker)
    assert found == {"late": f"Late {marker}", "replayed": "true", "next": f"Next {marker}"}
    late, following = model.requests_with(marker)
    assert heard(late) == [("user", f"@slow 4\n@say Late {marker}")]
    assert heard(following) == [*heard(late), ("assistant", f"Late {marker}"), ("user", f"@say Next {marker}")]


@asynccontextmanager
async def streaming(gateway: Served, talk: Talk) -> AsyncGenerator[httpx.Response]:
    """The chat as it stands, sent by hand: leaving the block cuts the connection."""
    async with (
        httpx.AsyncClient(timeout=30) as http,
        http.stream("POST", f"{gateway.base_url}/chat/completions", json=talk.body, headers=talk.headers()) as answer,
    ):
        assert answer.status_code == 200
        yield answer
    await asyncio.to_thread(httpx.get, f"{gateway.url}/health/live")  # a round trip later, it has seen the cut


async def words(answer: httpx.Response, enough: int) -> str:
    """What is said, until there are so many words of it."""
    said = ""
    async for line in answer.aiter_lines():
        if line.startswith("data: {"):
            choices = json.loads(line.removeprefix("data: "))["choices"]
            said += "".join(choice["delta"].get("content") or "" for choice in choices)
        if len(said.split()) >= enough:
            break
    return said


@requirement("retries.join")
@each_client
@pytest.mark.parametrize("begun", [False, True], ids=["first message", "later message"])
async def test_a_stream_that_is_cut_in_the_middle_and_sent_again_is_joined(
    gateway: Served, client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str, kind: type[Talk], begun: bool
) -> None:
    talk = kind(client, milo)
    if begun:
        await talk.say("@say Before.")
    talk.write(f"{marker}\n@pace 0.05\n@long 30")
    async with streaming(gateway, talk) as answer:
        begin = await words(answer, 4)
    whole = await talk.ask()
    assert whole.text.startswith(begin.strip())
    assert len(whole.text.split()) == 30
    assert len(model.requests_with(marker)) == 1
    await talk.say(f"@say Next {marker}")
    assert heard_last(model, marker) == talk.shown
    assert len(model.requests_with(marker)) == 2


async def test_a_stream_that_is_cut_and_sent_again_after_its_end_is_given_again(
    gateway: Served, client: AsyncOpenAI, milo: str, model: ScriptedModel, marker: str
) -> None:
    talk = Talk(client, milo)
    talk.write(f"{marker}\n@pace 0.05\n@long 20")
    async with streaming(gateway, talk) as answer:
        await words(answer, 4)
    await asyncio.to_thread(model.wait_for, lambda _: model.requests_with(marker)[-1].outcome == "finished")
    whole = await talk.ask()
    assert len(whole.text.split()) == 20
    await talk.say(f"@say Next {marker}")
    assert heard_last(model, marker) == talk.shown
    assert len(model.requests_with(marker)) == 2


def in_flight(gateway: Served) -> int:
    return httpx.get(f"{gateway.url}/health").json()["turns"]["in_flight"]


# --- Roo Code ----------------------------------------------------------------------------------------------------

ROO = {
    "temperature": 0,
    "stream_options": {"include_usage": True},
    "tools": [function("read_file", {"type": "object", "properties": {"path": {"type": "string"}}}), function("done")],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}


@pytest.fixture
def roo(client: AsyncOpenAI, milo: str) -> RooCode:
    return RooCode(client, milo, fields=dict(ROO))


async def broken(talk: Talk) -> None:
    """The stream begins, and ends in an error."""
    with pytest.raises(openai.APIError) as info:
        await talk.ask()
    assert type(info.value) is openai.APIError  # within the stream, not a status


async def cut(gateway: Served, talk: Talk) -> None:
    async with streaming(gateway, talk) as answer:
        await words(answer, 3)


async def test_a_tool_loop_of_roo_code_is_heard_once(roo: RooCode, model: ScriptedModel, marker: str) -> None:
    await roo.say(roo.task(f'{marker}\n@say I read.\n@call read_file {{"path": "a.py"}}'))
    await roo.answer({"read_file": f"print() {marker}"}, user([roo.environment("@say It prints.")]))
    assert heard_last(model, marker) == roo.shown
    await roo.say(roo.task(f"@say Next {marker}"))
    assert heard_last(model, marker) == roo.shown
    assert len(set(roo.conversations)) == 1
    assert len(model.requests_with(marker)) == 3
    (system,) = [text for text in model.requests_with(marker)[-1].texts if "You are Roo" in text]
    assert system.count("TOOL USE") == 1


@requirement("retries.after-failure")
@pytest.mark.parametrize("begun", [False, True], ids=["first message", "later message"])
async def test_what_roo_code_sends_again_after_an_error_in_the_stream_is_heard_once(
    roo: RooCode, model: ScriptedModel, marker: str, begun: bool
) -> None:
    if begun:
        await roo.say(roo.task("@say Before."))
    roo.write(roo.task(f"@say Let me see {marker}", open_tabs="@error"))
    await broken(roo)
    roo.move_on()
    await roo.ask()
    assert heard_last(model, marker) == roo.shown
    await roo.say(roo.task(f"@say Next {marker}"))
    assert heard_last(model, marker) == roo.shown
    assert not any("@error" in text for _, text in heard_last(model, marker))


async def test_the_very_same_request_after_an_error_behind_a_step_of_the_agents_own_is_heard_once(
    client: AsyncOpenAI, agent: Any, model: ScriptedModel, marker: str
) -> None:
    talk = RooCode(client, agent.name, fields=dict(ROO))
    await talk.say(talk.task("@say Before."))
    own = '@say I look it up.\n@call conversation_search {"query": "bread"}'
    talk.write(talk.task(f"{own}\n@then\n@fail-times 1 400 should-retry=false\n@say Found {marker}"))
    await broken(talk)
    await talk.ask()
    asked = [text for role, text in heard_last(model, marker) if role == "user"]
    assert asked == [text for role, text in talk.shown if role == "user"]
    await talk.say(talk.task(f"@say Next {marker}"))
    asked = [text for role, text in heard_last(model, marker) if role == "user"]
    assert asked == [text for role, text in talk.shown if role == "user"]


async def test_what_roo_code_sends_again_after_a_cut_is_joined(
    gateway: Served, roo: RooCode, model: ScriptedModel, marker: str
) -> None:
    await roo.say(roo.task("@say Before."))
    roo.write(roo.task(f"{marker}\n@pace 0.05\n@long 30"))
    await cut(gateway, roo)
    assert len((await roo.ask()).text.split()) == 30
    assert len(model.requests_with(marker)) == 1
    await roo.say(roo.task(f"@say Next {marker}"))
    assert heard_last(model, marker) == roo.shown


async def test_after_a_cut_the_same_message_with_another_state_of_the_editor_replaces_the_one_that_was_cut(
    gateway: Served, roo: RooCode, model: ScriptedModel, marker: str
) -> None:
    await roo.say(roo.task("@say Before."))
    roo.write(roo.task(f"@say Let me see {marker}", open_tabs="@pace 0.05\n@long 200"))
    await cut(gateway, roo)
    roo.move_on()
    assert (await roo.ask()).text == f"Let me see {marker}"
    assert heard_last(model, marker) == roo.shown
    await roo.say(roo.task(f"@say Next {marker}"))
    assert heard_last(model, marker) == roo.shown


async def test_a_result_that_roo_code_sends_again_after_an_error_in_the_stream_is_heard_once(
    roo: RooCode, model: ScriptedModel, marker: str
) -> None:
    await roo.say(roo.task(f'{marker}\n@say I read.\n@call read_file {{"path": "a.py"}}'))
    with pytest.raises(openai.APIError):
        await roo.answer({"read_file": f"print() {marker}"}, user([roo.environment("@say It\n@error")]))
    roo.move_on("@say It prints.")
    assert (await roo.ask()).text == "It prints."
    results = [text for role, text in heard_last(model, marker) if role == "tool"]
    assert results == [f"print() {marker}"]
    await roo.say(roo.task(f"@say Next {marker}"))
    assert heard_last(model, marker) == roo.shown


async def test_a_result_that_roo_code_sends_again_after_a_cut_is_joined(
    gateway: Served, roo: RooCode, model: ScriptedModel, marker: str
) -> None:
    first = await roo.say(roo.task(f'{marker}\n@say I read.\n@call read_file {{"path": "a.py"}}'))
    roo.said.append(Said(first.calls[0].result(f"print() {marker}")))
    roo.write([roo.environment("@pace 0.05\n@long 30")])
    await cut(gateway, roo)
    assert len((await roo.ask()).text.split()) == 30
    assert len(model.requests_with(marker)) == 2
    await roo.say(roo.task(f"@say Next {marker}"))
    assert heard_last(model, marker) == roo.shown


# --- stopped -----------------------------------------------------------------------------------------------------


@requirement("disconnect.redelivery")
@each_client
@pytest.mark.parametrize("within_grace", [True, False], ids=["within the grace", "after the grace"])
async def test_an_answer_that_was_stopped_is_told_with_its_question_when_the_chat_goes_on(
    letta: LocalLetta,
    milo: str,
    model: ScriptedModel,
    marker: str,
    tmp_path: Path,
    kind: type[Talk],
    within_grace: bool,
) -> None:
    grace = "grace:60s" if within_grace else "grace:0.1s"
    with served(tmp_path, letta_base_url=letta.base_url, on_disconnect=grace) as gateway:
        async with gateway.client() as client:
            await stop_and_go_on(gateway, kind(client, milo), model, marker, within_grace=within_grace)


async def stop_and_go_on(gateway: Served, talk: Talk, model: ScriptedModel, marker: str, *, within_grace: bool) -> None:
    await talk.say("@say Before.")
    talk.write(f"{marker}\n@pace 0.05\n@long 400")
    async with streaming(gateway, talk) as answer:
        seen = await words(answer, 4)
    if not within_grace:
        await eventually(lambda: in_flight(gateway) == 0)
    talk.said.append(Said({"role": "assistant", "content": seen}, talk.next_id()))
    await talk.say(f"@say Next {marker}")
    assert heard_last(model, marker) == talk.shown
    await talk.say(f"@say And on {marker}")
    assert heard_last(model, marker) == talk.shown


async def test_a_pinned_chat_that_sends_only_what_is_new_is_told_again_what_was_stopped_also_after_a_restart(
    letta: LocalLetta, milo: str, model: ScriptedModel, marker: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"letta_base_url": letta.base_url, "on_disconnect": "cancel"}
    question = f"{marker}\n@pace 0.05\n@long 400"
    with served(tmp_path, **settings) as gateway:
        async with gateway.client() as client:
            await Chat(client, milo).ask("@say Before.", pin=marker)
        async with httpx.AsyncClient(timeout=30) as http:
            body = {"model": milo, "messages": [user(question)], "stream": True}
            url = f"{gateway.base_url}/chat/completions"
            async with http.stream("POST", url, json=body, headers={PIN: marker}) as answer:
                seen = await words(answer, 4)
        await eventually(lambda: in_flight(gateway) == 0)
    with served(tmp_path, **settings) as gateway:
        async with gateway.client() as client:
            for word in ("Next", "And on"):
                await Chat(client, milo).ask(f"@say {word} {marker}", pin=marker)
    spoken = heard_last(model, f"And on {marker}")
    assert [role for role, _ in spoken] == ["user", "assistant"] * 3 + ["user"]
    assert [spoken[0], spoken[1], spoken[2]] == [("user", "@say Before."), ("assistant", "Before."), ("user", question)]
    assert spoken[3][1].startswith(seen.strip())
    assert spoken[4:] == [
        ("user", f"@say Next {marker}"),
        ("assistant", f"Next {marker}"),
        ("user", f"@say And on {marker}"),
    ]


# --- many at once ------------------------------------------------------------------------------------------------


@requirement("conversations.concurrent")
@pytest.mark.parametrize(("count", "turns"), [(20, 4), (50, 2)], ids=["20 chats", "50 chats"])
async def test_chats_at_the_same_time_with_one_agent_stay_apart(
    client: AsyncOpenAI,
    agent: Any,
    model: ScriptedModel,
    letta_api: Letta,
    marker: str,
    count: int,
    turns: int,
) -> None:
    """They all begin alike, and differ only later."""
    talks = [Talk(client, agent.name) for _ in range(count)]

    async def hold(number: int, talk: Talk) -> None:
        await talk.say("@say Hello.")
        for turn in range(1, turns):
            await talk.say(f"@say {turn} {marker}-{number}-", stream=turn < turns - 1)

    await asyncio.gather(*(hold(number, talk) for number, talk in enumerate(talks)))
    for number, talk in enumerate(talks):
        assert heard_last(model, f"{marker}-{number}-") == talk.shown
        assert len(model.requests_with(f"{marker}-{number}-")) == turns - 1
    last = {talk.conversations[-1] for talk in talks}
    assert len(last) == count
