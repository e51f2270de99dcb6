"""Agents of a real Letta server whose own tools wait for a human: denied, allowed, or decided on by the caller."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.demo.local_letta import LocalLetta
from frontdesk.testing import ScriptedModel
from tests.acceptance.talking import Talk
from tests.faults.process import serving
from tests.protocols.chat_completions.asking import Answer, Chat, function, told
from tests.requirements import requirement
from tests.served import Served, served

RULES = [{"type": "requires_approval", "tool_name": "memory_insert"}]
NOTE = "Likes trees."
INSERTS = f"@call memory_insert {json.dumps({'label': 'human', 'new_string': NOTE, 'insert_line': -1})}"
WEATHER = function("get_weather")
KEYS = {"ann": "key-of-ann", "ben": "key-of-ben", "eve": "key-of-eve"}


@pytest.fixture(scope="module")
def denying(letta: LocalLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    with served(tmp_path_factory.mktemp("denying"), letta_base_url=letta.base_url) as running:
        yield running


@pytest.fixture(scope="module")
def allowing(letta: LocalLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    data_dir = tmp_path_factory.mktemp("allowing")
    with served(data_dir, letta_base_url=letta.base_url, allowed_tools=("memory_*",)) as running:
        yield running


@pytest.fixture(scope="module")
def asking(letta: LocalLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    data_dir: Path = tmp_path_factory.mktemp("asking")
    with served(data_dir, letta_base_url=letta.base_url, approvals="surface") as running:
        yield running


@pytest.fixture
def gated(make_agent: Callable[..., Any]) -> Callable[..., Any]:
    """An agent which may write to its memory only with a human's approval."""

    def make(**fields: Any) -> Any:
        tools = ["memory_insert"] + (["send_message"] if "agent_type" in fields else [])
        return make_agent(tools=tools, tool_rules=RULES, include_base_tools=False, **fields)

    return make


def remembers(letta_api: Letta, agent: Any) -> int:
    """How often the tool has run."""
    return str(letta_api.agents.blocks.retrieve("human", agent_id=agent.id).value).count(NOTE)


def script(marker: str, *more: str) -> str:
    first = ["@usage 10 5", "@say Let me note that.", INSERTS, *more]
    return "\n".join([marker, *first, "@then", "@usage 20 7", "@say Done."])


async def both(client: AsyncOpenAI, agent: str, said: str, protocol: str, stream: bool) -> tuple[str, int, Any]:
    """Text, output tokens and the whole of an answer, by either protocol."""
    if protocol == "chat":
        answer = await Chat(client, agent).ask(said, stream=stream, stream_options=STREAM if stream else None)
        return answer.text, answer.usage.completion_tokens if answer.usage else 0, answer
    if not stream:
        response = await client.responses.create(model=agent, input=said)
    else:
        events = [event async for event in await client.responses.create(model=agent, input=said, stream=True)]
        last: Any = events[-1]
        assert last.type == "response.completed"
        response = last.response
    return response.output_text, response.usage.output_tokens if response.usage else 0, response


STREAM = {"include_usage": True}
EITHER = pytest.mark.parametrize(("protocol", "stream"), [(p, s) for p in ("chat", "responses") for s in (True, False)])


def runs(response: Any) -> list[tuple[str, bool]]:
    return [(item.name, bool(item.error)) for item in response.output if item.type == "mcp_call"]


# --- deny ------------------------------------------------------------------------------------------------------------


@requirement("approvals.deny")
@EITHER
async def test_by_default_the_agent_is_told_that_nobody_may_approve_and_answers_without(
    denying: Served,
    model: ScriptedModel,
    letta_api: Letta,
    gated: Callable[..., Any],
    marker: str,
    protocol: str,
    stream: bool,
) -> None:
    agent = gated()
    async with denying.client() as client:
        text, tokens, answer = await both(client, agent.name, script(marker), protocol, stream)
    assert text.replace("\n", "") == "Let me note that.Done."
    first, second = model.requests_with(marker)
    status, message = told(second, -1)
    assert status == "Failed"
    assert "Nobody here may approve" in message
    assert remembers(letta_api, agent) == 0
    assert tokens == 12
    if isinstance(answer, Answer):
        assert (answer.calls, answer.finish) == ((), "stop")
        assert "memory_insert" in answer.reasoning
        assert "Nobody here may approve" in answer.reasoning
    else:
        assert runs(answer) == [("memory_insert", True)]
    assert len(first.messages) < len(second.messages)


# --- allow -----------------------------------------------------------------------------------------------------------


@requirement("approvals.allow")
@EITHER
async def test_a_tool_that_is_allowed_runs_and_the_same_answer_goes_on(
    allowing: Served,
    model: ScriptedModel,
    letta_api: Letta,
    gated: Callable[..., Any],
    marker: str,
    protocol: str,
    stream: bool,
) -> None:
    agent = gated()
    async with allowing.client() as client:
        text, tokens, answer = await both(client, agent.name, script(marker), protocol, stream)
    assert text.replace("\n", "") == "Let me note that.Done."
    _, second = model.requests_with(marker)
    assert told(second, -1)[0] == "OK"
    assert (remembers(letta_api, agent), tokens) == (1, 12)
    if not isinstance(answer, Answer):
        assert runs(answer) == [("memory_insert", False)]


# --- the caller's tools in the same step -----------------------------------------------------------------------------


@requirement("approvals.mixed")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("policy", "ran", "status"), [("denying", 0, "Failed"), ("allowing", 1, "OK"), ("asking", 0, "Failed")]
)
async def test_beside_the_caller_s_tools_it_is_decided_when_their_results_come(
    request: pytest.FixtureRequest,
    model: ScriptedModel,
    letta_api: Letta,
    gated: Callable[..., Any],
    marker: str,
    policy: str,
    ran: int,
    status: str,
    stream: bool,
) -> None:
    agent = gated()
    gateway: Served = request.getfixturevalue(policy)
    async with gateway.client() as client:
        talk = Talk(client, agent.name, fields={"tools": [WEATHER]})
        first = await talk.say(script(marker, '@call get_weather {"city": "Oslo"}'), stream=stream)
        assert ([call.name for call in first.calls], first.finish) == (["get_weather"], "tool_calls")
        assert remembers(letta_api, agent) == 0
        answer = await talk.answer({"get_weather": "sunny"}, stream=stream)
        assert (answer.text, answer.finish) == ("Done.", "stop")
        assert "memory_insert" in answer.reasoning
        assert (await talk.say(f"{marker}\n@say And on.")).text == "And on."
    second = model.requests_with(marker)[1]
    assert {told(second, -2)[0], told(second, -1)[0]} == {status, "OK"}
    assert "sunny" in {told(second, -2)[1], told(second, -1)[1]}
    assert remembers(letta_api, agent) == ran


# --- surface ---------------------------------------------------------------------------------------------------------


def approvals(gateway: Served, conversation: str) -> str:
    return f"{gateway.base_url}/conversations/{conversation}/approvals"


async def asked(gateway: Served, agent: str, said: str, pin: str = "", **options: Any) -> tuple[str, Any]:
    """Say something to which the agent answers with a call that waits: the conversation, and how the caller is told."""
    async with gateway.client(**options) as client:
        with pytest.raises(openai.APIStatusError) as failed:
            await Chat(client, agent).ask(said, pin=pin)
    found = str(failed.value).rpartition("/conversations/")[2].partition("/")[0]
    return found, failed.value.response


@requirement("approvals.surface")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("approve", [True, False])
async def test_a_caller_decides_on_the_call_and_the_turn_goes_on(
    asking: Served,
    model: ScriptedModel,
    letta_api: Letta,
    gated: Callable[..., Any],
    marker: str,
    approve: bool,
    stream: bool,
) -> None:
    agent = gated()
    said = "\n".join([marker, INSERTS, "@then", "@say Done."])
    conversation, refused = await asked(asking, agent.name, said)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], refused.headers["x-should-retry"]) == (
        409,
        "approval_required",
        "false",
    )
    assert "memory_insert" in error["message"]
    assert NOTE in error["message"]
    assert remembers(letta_api, agent) == 0
    async with httpx.AsyncClient(timeout=30) as http:
        (waiting,) = (await http.get(approvals(asking, conversation))).json()["data"]
        assert (waiting["name"], json.loads(waiting["arguments"])["new_string"]) == ("memory_insert", NOTE)
        body = {
            "approvals": [{"id": waiting["id"], "approve": approve, "reason": "Because I say so."}],
            "stream": stream,
        }
        answer = await http.post(approvals(asking, conversation), json=body)
        assert answer.status_code == 200, answer.text
        response = last_of(answer) if stream else answer.json()
        assert [part["text"] for item in response["output"] for part in item.get("content", ())] == ["Done."]
        (run,) = [item for item in response["output"] if item["type"] == "mcp_call"]
        assert (run["name"], bool(run["error"])) == ("memory_insert", not approve)
        assert response["conversation"]["id"] == conversation
        assert (await http.get(approvals(asking, conversation))).json()["data"] == []
        again = await http.post(approvals(asking, conversation), json=body | {"stream": not stream})
        assert (again.status_code, again.json()["error"]["code"]) == (400, "approval_not_pending")
    first, second = model.requests_with(marker)
    assert told(second, -1)[0] == ("OK" if approve else "Failed")
    assert ("Because I say so." in second.texts[-1]) is not approve
    assert remembers(letta_api, agent) == approve
    async with asking.client() as client:
        later = await Chat(client, agent.name).ask(f"{marker}\n@say Later.", pin=conversation)
        assert later.conversation == conversation
        following = await client.responses.create(
            model=agent.name, input=f"{marker}\n@say After.", previous_response_id=response["id"]
        )
        assert following.output_text == "After."
    assert len(first.messages) < len(second.messages) < len(model.requests_with(marker)[2].messages)


def last_of(answer: httpx.Response) -> Any:
    frames = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return json.loads(frames[-1])["response"]


async def test_after_the_first_words_it_is_told_within_the_stream_by_either_protocol(
    asking: Served, gated: Callable[..., Any], marker: str
) -> None:
    agent = gated()
    async with asking.client() as client:
        with pytest.raises(openai.APIError) as failed:
            await Chat(client, agent.name).ask(script(marker), stream=True)
        assert failed.value.code == "approval_required"
        events = [
            event async for event in await client.responses.create(model=agent.name, input=script(marker), stream=True)
        ]
    last: Any = events[-1]
    assert last.type == "response.failed"
    assert "memory_insert" in last.response.error.message


async def test_a_message_while_it_waits_gives_the_call_up(
    asking: Served, model: ScriptedModel, letta_api: Letta, gated: Callable[..., Any], marker: str
) -> None:
    agent = gated()
    conversation, _ = await asked(asking, agent.name, f"{marker}\n{INSERTS}", pin=marker)
    async with asking.client() as client:
        answer = await Chat(client, agent.name).ask(f"{marker}\n@say Never mind.", pin=marker)
        assert (answer.text, answer.conversation) == ("Never mind.", conversation)
    last = model.requests_with(marker)[-1]
    assert any("went on without" in text for text in last.texts)
    async with httpx.AsyncClient() as http:
        assert (await http.get(approvals(asking, conversation))).json()["data"] == []
    assert remembers(letta_api, agent) == 0


@requirement("approvals.surface", "approvals.once")
async def test_all_that_waits_is_answered_at_once_and_only_what_waits(
    asking: Served, model: ScriptedModel, letta_api: Letta, gated: Callable[..., Any], marker: str
) -> None:
    agent = gated()
    said = "\n".join([marker, INSERTS, INSERTS, "@then", "@say Both."])
    conversation, _ = await asked(asking, agent.name, said)
    async with httpx.AsyncClient(timeout=30) as http:
        one, two = (await http.get(approvals(asking, conversation))).json()["data"]
        yes, no = {"id": one["id"], "approve": True}, {"id": two["id"], "approve": False}
        other = {"id": "call_nobody", "approve": True}
        for given in ([], [yes], [yes, no, other], [yes, yes, no]):
            answer = await http.post(approvals(asking, conversation), json={"approvals": given})
            assert answer.status_code == 400, given
        for field in ("model", "input", "conversation", "previous_response_id"):
            answer = await http.post(approvals(asking, conversation), json={"approvals": [yes, no], field: "x"})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
        assert remembers(letta_api, agent) == 0
        assert len(model.requests_with(marker)) == 1
        answers = await asyncio.gather(
            *(http.post(approvals(asking, conversation), json={"approvals": given}) for given in ([yes, no], [no, yes]))
        )
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    assert remembers(letta_api, agent) == 1
    second = model.requests_with(marker)[1]
    assert {told(second, -2)[0], told(second, -1)[0]} == {"OK", "Failed"}
    assert len(model.requests_with(marker)) == 2


async def test_what_is_allowed_beside_it_runs_with_it_and_the_agent_has_the_client_s_tools_that_are_sent(
    letta: LocalLetta,
    model: ScriptedModel,
    letta_api: Letta,
    make_agent: Callable[..., Any],
    marker: str,
    tmp_path: Path,
) -> None:
    rules = [*RULES, {"type": "requires_approval", "tool_name": "memory_replace"}]
    agent = make_agent(tools=["memory_insert", "memory_replace"], tool_rules=rules, include_base_tools=False)
    change = {"label": "persona", "old_string": "I am a test agent.", "new_string": "I am well."}
    calls = [INSERTS, f"@call memory_replace {json.dumps(change)}"]
    said = "\n".join([marker, *calls, "@then", '@call get_weather {"city": "Oslo"}', "@then", "@say Sunny."])
    tools: Any = [{"type": "function", **WEATHER["function"]}]
    with served(tmp_path, letta_base_url=letta.base_url, approvals="surface", allowed_tools=("*_replace",)) as gateway:
        conversation, _ = await asked(gateway, agent.name, said)
        async with httpx.AsyncClient(timeout=30) as http:
            (waiting,) = (await http.get(approvals(gateway, conversation))).json()["data"]
            assert waiting["name"] == "memory_insert"
            body = {"approvals": [{"id": waiting["id"], "approve": True}], "tools": tools}
            response = (await http.post(approvals(gateway, conversation), json=body)).json()
        (call,) = [item for item in response["output"] if item["type"] == "function_call"]
        assert call["name"] == "get_weather"
        async with gateway.client() as client:
            result: Any = {"type": "function_call_output", "call_id": call["call_id"], "output": "sun"}
            answer = await client.responses.create(
                model=agent.name, input=[result], previous_response_id=response["id"], tools=tools
            )
    assert answer.output_text == "Sunny."
    assert remembers(letta_api, agent) == 1
    assert letta_api.agents.blocks.retrieve("persona", agent_id=agent.id).value == "I am well."
    assert [told(model.requests_with(marker)[1], number)[0] for number in (-2, -1)] == ["OK", "OK"]


async def test_in_the_thread_that_all_callers_share_nobody_may_approve(
    asking: Served, model: ScriptedModel, letta_api: Letta, gated: Callable[..., Any], marker: str
) -> None:
    agent = gated()
    async with asking.client() as client:
        assert (await Chat(client, f"{agent.name}:single").ask(script(marker))).text.endswith("Done.")
    assert told(model.requests_with(marker)[1], -1)[0] == "Failed"
    assert remembers(letta_api, agent) == 0


@requirement("approvals.principal")
async def test_only_whoever_was_asked_may_approve_and_with_a_key_for_the_agent(
    letta: LocalLetta,
    letta_api: Letta,
    gated: Callable[..., Any],
    make_agent: Callable[..., Any],
    marker: str,
    tmp_path: Path,
) -> None:
    agent, other = gated(), make_agent()
    keys = [{"name": name, "sha256": sha256(key)} for name, key in KEYS.items()]
    settings = {"letta_base_url": letta.base_url, "approvals": "surface", "probe_key": KEYS["ann"]}
    with served(tmp_path, **settings, keys=keys) as gateway:
        conversation, _ = await asked(gateway, agent.name, f"{marker}\n{INSERTS}", api_key=KEYS["ann"])
        async with httpx.AsyncClient(timeout=30) as http:
            mine = {"authorization": f"Bearer {KEYS['ann']}"}
            (waiting,) = (await http.get(approvals(gateway, conversation), headers=mine)).json()["data"]
            body = {"approvals": [{"id": waiting["id"], "approve": True}]}
            theirs = {"authorization": f"Bearer {KEYS['ben']}"}
            assert (await http.get(approvals(gateway, conversation), headers=theirs)).status_code == 404
            assert (await http.post(approvals(gateway, conversation), headers=theirs, json=body)).status_code == 404
    keys = [{"name": "ann", "sha256": sha256(KEYS["ann"]), "agents": [other.name]}]
    with served(tmp_path, **settings, keys=keys) as gateway:
        async with httpx.AsyncClient(timeout=30) as http:
            assert (await http.get(approvals(gateway, conversation), headers=mine)).status_code == 404
            assert (await http.post(approvals(gateway, conversation), headers=mine, json=body)).status_code == 404
    assert remembers(letta_api, agent) == 0
    keys = [{"name": "ann", "sha256": sha256(KEYS["ann"]), "agents": [agent.name]}]
    with served(tmp_path, **settings, keys=keys) as gateway:  # it waits across restarts
        async with httpx.AsyncClient(timeout=30) as http:
            assert (await http.post(approvals(gateway, conversation), headers=mine, json=body)).status_code == 200
    assert remembers(letta_api, agent) == 1


@requirement("approvals.once")
async def test_killed_while_an_approved_turn_runs_it_is_found_again_and_the_tool_has_run_once(
    letta: LocalLetta, model: ScriptedModel, letta_api: Letta, gated: Callable[..., Any], marker: str, tmp_path: Path
) -> None:
    agent = gated()
    said = "\n".join([marker, INSERTS, "@then", "@slow 1", "@say Done."])
    settings = {"FRONTDESK_APPROVALS": "surface"}
    with serving(tmp_path, letta.base_url, **settings) as first:
        gateway = Served(first.url)
        conversation, _ = await asked(gateway, agent.name, said)
        async with httpx.AsyncClient(timeout=30) as http:
            (waiting,) = (await http.get(approvals(gateway, conversation))).json()["data"]
            body = {"approvals": [{"id": waiting["id"], "approve": True}]}
            running = asyncio.create_task(http.post(approvals(gateway, conversation), json=body))
            while len(model.requests_with(marker)) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            first.popen.kill()
            with pytest.raises(httpx.HTTPError):
                await running
    with serving(tmp_path, letta.base_url, **settings) as second:
        gateway = Served(second.url)
        async with gateway.client(timeout=60) as client:
            later = await Chat(client, agent.name).ask(f"{marker}\n@say Later.", pin=conversation)
            assert later.text == "Later."
            items = [item async for item in client.conversations.items.list(conversation, order="asc")]
        assert "Done." in [
            part.text for item in items if item.type == "message" for part in item.content if part.type == "output_text"
        ]
        async with httpx.AsyncClient(timeout=30) as http:
            again = await http.post(approvals(gateway, conversation), json=body)
            assert (again.status_code, again.json()["error"]["code"]) == (400, "approval_not_pending")
    assert remembers(letta_api, agent) == 1
    assert len(model.requests_with(marker)) == 3


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


# --- older agents ----------------------------------------------------------------------------------------------------


async def test_of_an_older_agent_s_twin_the_caller_decides_too(
    asking: Served, model: ScriptedModel, letta_api: Letta, gated: Callable[..., Any], marker: str
) -> None:
    agent = gated(agent_type="memgpt_v2_agent")
    said = "\n".join([marker, INSERTS, "@then", "@say Done."])
    async with asking.client() as client:
        with pytest.raises(openai.ConflictError) as failed:
            await Chat(client, agent.name).ask(said, tools=[WEATHER])
    conversation = str(failed.value).rpartition("/conversations/")[2].partition("/")[0]
    async with httpx.AsyncClient(timeout=30) as http:
        (waiting,) = (await http.get(approvals(asking, conversation))).json()["data"]
        body = {"approvals": [{"id": waiting["id"], "approve": True}]}
        answer = await http.post(approvals(asking, conversation), json=body)
    assert answer.status_code == 200, answer.text
    assert told(model.requests_with(marker)[1], -1)[0] == "OK"
    assert remembers(letta_api, agent) == 1


@pytest.mark.parametrize(("policy", "ran"), [("denying", 0), ("allowing", 1), ("asking", 0)])
async def test_in_an_older_agent_s_own_thread_which_is_nobody_s_it_is_denied_or_allowed(
    request: pytest.FixtureRequest,
    model: ScriptedModel,
    letta_api: Letta,
    gated: Callable[..., Any],
    marker: str,
    policy: str,
    ran: int,
) -> None:
    agent = gated(agent_type="memgpt_v2_agent")
    gateway: Served = request.getfixturevalue(policy)
    speaks = f"@call send_message {json.dumps({'message': 'Done.'})}"
    inserts = INSERTS[:-1] + ', "request_heartbeat": true}'
    async with gateway.client() as client:
        answer = await Chat(client, agent.name).ask("\n".join([marker, inserts, "@then", speaks]), stream=True)
        assert (answer.text, answer.calls) == ("Done.", ())
        assert (await Chat(client, agent.name).ask(f"{marker}\n{speaks}")).text == "Done."
    assert told(model.requests_with(marker)[1], -1)[0] == ("OK" if ran else "Failed")
    assert remembers(letta_api, agent) == ran
