"""The skill `AskAgent`, through gateways on real sockets: agents of one desk, of another, behind an API, and by A2A."""

import asyncio
import gzip
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from pydantic_ai.exceptions import ToolFailed

from frontdesk import Agent
from frontdesk.agents.context import Context, entered
from frontdesk.agents.errors import AgentError
from frontdesk.agents.services import Services
from frontdesk.agents.skills.ask import A2A, AskAgent, Local, Remote
from frontdesk.testing import ScriptedModel
from frontdesk.testing.model import Request
from frontdesk.turn import Signals, Turn
from tests.agents import colleagues
from tests.agents.on_http import on_http
from tests.faults.fake import FakeLetta, fake_letta
from tests.faults.watch import eventually
from tests.protocols.conftest import marker
from tests.requirements import requirement
from tests.served import Served, served

__all__ = ["marker"]

KEYS = tuple(
    {"name": name, "sha256": sha256(name.encode()).hexdigest()} | more
    for name, more in {
        "ann": {},
        "ida": {},
        "olga": {"scopes": ["owner"]},
        "narrow": {"agents": ["alice", "bob"]},
        "only-alice": {"agents": ["alice"]},
    }.items()
)


@pytest.fixture(scope="module")
def model() -> Generator[ScriptedModel]:
    with ScriptedModel() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def letta() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        yield fake


@contextmanager
def desk(folder: Path, model: ScriptedModel, **settings: Any) -> Generator[Served]:
    values: dict[str, Any] = {
        "agents": ("tests.agents.colleagues:agents",),
        "providers": {"openai": {"base_url": model.base_url, "api_key": "sk-scripted"}},
        "keys": KEYS,
        "probe_key": "ann",
    }
    with served(folder, **values | settings) as running:
        yield running


@pytest.fixture(scope="module")
def house(model: ScriptedModel, letta: FakeLetta, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    with desk(tmp_path_factory.mktemp("house"), model, letta_base_url=letta.url, on_disconnect="cancel") as running:
        yield running


@dataclass
class Table:
    """One test at a desk. Every message has the test's marker, by which the model's calls are found."""

    house: Served
    model: ScriptedModel
    marker: str
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def asks(self, agent: str, script: str) -> str:
        """A script that asks an agent to play a script."""
        return f"@call ask_agent {json.dumps({'agent': agent, 'message': f'{script}{chr(10)}{self.marker}'})}"

    async def say(self, agent: str, script: str, key: str = "ann", pin: str = "") -> str:
        headers = self.headers | ({"x-frontdesk-conversation": pin} if pin else {})
        async with self.house.client(api_key=key) as client:
            done = await client.chat.completions.create(
                model=agent,
                messages=[{"role": "user", "content": f"{script}\n{self.marker}"}],
                extra_headers=headers,
            )
        return done.choices[0].message.content or ""

    def calls_of(self, agent: str) -> list[Request]:
        """The calls of the model for an agent, which it knows by its instructions."""
        return [each for each in self.model.requests if each.has(self.marker) and f"You are {agent}." in each.texts[:1]]


@pytest.fixture
def table(house: Served, model: ScriptedModel, marker: str) -> Table:
    return Table(house, model, marker)


# --- at one desk -------------------------------------------------------------------------------------------------


@requirement("python.ask")
async def test_another_agent_is_asked_and_its_answer_is_the_tools_result(table: Table) -> None:
    assert await table.say("alice", table.asks("bob", "@say I am Bob.")) == "Tool results: I am Bob."
    (asked,) = table.calls_of("bob")
    assert [each["role"] for each in asked.messages] == ["system", "user"]
    assert asked.tool_names == ["ask_agent"]


@requirement("python.ask")
async def test_an_agent_of_letta_is_asked_like_any_other(table: Table, letta: FakeLetta) -> None:
    said = await table.say("alice", table.asks("Milo", "How are you?"))
    assert said.startswith("Tool results: You said: How are you?")
    assert letta.heard(table.marker)


async def test_it_remembers_what_it_was_asked_before_in_the_same_conversation_and_in_no_other(table: Table) -> None:
    await table.say("alice", table.asks("bob", "@say One."), pin=f"{table.marker} here")
    await table.say("alice", table.asks("bob", "@say Two."), pin=f"{table.marker} here")
    await table.say("alice", table.asks("bob", "@say Three."), pin=f"{table.marker} there")
    first, second, third = table.calls_of("bob")
    assert len(first.messages) == 2
    assert [text for text in second.texts if text in ("One.", "Two.")] == ["One."]
    assert len(third.messages) == 2


async def test_two_who_ask_are_never_heard_by_each_other(table: Table) -> None:
    await table.say("alice", table.asks("bob", "@say Of Ann."), "ann", pin=table.marker)
    await table.say("alice", table.asks("bob", "@say Of Olga."), "olga", pin=table.marker)
    assert "Of Ann." not in table.calls_of("bob")[-1].texts


async def test_who_wants_nothing_kept_leaves_nothing_with_those_who_are_asked(table: Table) -> None:
    for _ in range(2):
        await table.say("alice:stateless", table.asks("bob", "@say I am Bob."), "ida")
    assert [len(each.messages) for each in table.calls_of("bob")] == [2, 2]
    async with table.house.client(api_key="ida") as client:
        listed = await client.get("/conversations", cast_to=object)
    assert "asked-" not in json.dumps(listed)


async def test_the_callers_scopes_hold_for_whoever_is_asked(table: Table) -> None:
    script = table.asks("boss", "@say The safe is open.")
    assert "owner" in await table.say("alice", script, "ann")
    assert table.calls_of("boss") == []
    assert await table.say("alice", script, "olga") == "Tool results: The safe is open."


async def test_a_key_for_some_agents_asks_no_others_through_them(table: Table) -> None:
    script = table.asks("bob", table.asks("carol", "@say I am Carol."))
    assert "may not use this agent" in await table.say("alice", script, "narrow")
    assert "may not use this agent" in await table.say("alice", table.asks("bob", "@say Hi."), "only-alice")
    assert table.calls_of("carol") == []


async def test_who_comes_by_one_agents_own_url_can_have_others_asked(table: Table) -> None:
    async with table.house.client(api_key="ann", base_url=f"{table.house.url}/agents/alice/v1") as client:
        done = await client.chat.completions.create(
            model="alice", messages=[{"role": "user", "content": table.asks("bob", "@say I am Bob.")}]
        )
    assert done.choices[0].message.content == "Tool results: I am Bob."


async def test_only_named_agents_are_asked(table: Table) -> None:
    said = await table.say("alice", f"{table.asks('eve', '@say I am Eve.')}\n@then\n@say I gave up.")
    assert said == "I gave up."
    assert table.calls_of("eve") == []
    (tool,) = table.calls_of("alice")[0].tools
    assert tool["function"]["parameters"]["properties"]["agent"]["enum"] == ["bob", "boss", "missing", "Milo"]


async def test_a_named_agent_that_is_not_there_is_the_tools_error(table: Table) -> None:
    assert "missing could not be asked" in await table.say("alice", table.asks("missing", "Hello?"))


async def test_a_failure_of_the_asked_agent_is_the_tools_error_and_the_turn_goes_on(table: Table) -> None:
    said = await table.say("alice", f"{table.asks('bob', '@fail 400')}\n@then\n@say I go on without.")
    assert said == "I go on without."
    assert "could not be asked" in table.calls_of("alice")[-1].texts[-1]


async def test_many_at_once_each_hear_their_own_answer(table: Table) -> None:
    said = await asyncio.gather(*(table.say("alice", table.asks("bob", f"@say Number {n}.")) for n in range(20)))
    assert said == [f"Tool results: Number {n}." for n in range(20)]


# --- bounds ------------------------------------------------------------------------------------------------------


@requirement("python.ask.bounds")
async def test_a_question_goes_through_so_many_agents_and_no_further(table: Table) -> None:
    script = table.asks("bob", table.asks("carol", table.asks("dan", table.asks("eve", "@say I am Eve."))))
    assert "too many agents" in await table.say("alice", script)
    assert len(table.calls_of("dan")) == 2
    assert table.calls_of("eve") == []


@requirement("python.ask.bounds")
async def test_a_question_does_not_come_round(table: Table) -> None:
    assert "come to this agent before" in await table.say(
        "alice", table.asks("bob", table.asks("alice", "@say Again."))
    )
    assert len(table.calls_of("alice")) == 2


async def test_a_question_that_has_come_through_too_many_desks_asks_nobody_but_is_answered(table: Table) -> None:
    table.headers["x-frontdesk-trace"] = ",".join(f"{n:020x}" for n in range(500))
    assert "too many agents" in await table.say("alice", table.asks("bob", "@say Hi."))
    assert await table.say("alice", "@say I answer.") == "I answer."
    assert table.calls_of("bob") == []


async def test_so_it_is_where_agents_are_the_tools_of_mcp(table: Table) -> None:
    trace = ",".join(f"{n:020x}" for n in range(3))
    headers = {"authorization": "Bearer ann", "x-frontdesk-trace": trace}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(f"{table.house.url}/mcp", http_client=http)) as client,
    ):
        said = await client.call_tool("alice", {"message": table.asks("bob", "@say Hi.")})
    assert "too many agents" in str(said.structured_content)
    assert table.calls_of("bob") == []


@pytest.mark.parametrize("trace", ["", ",,,", "x" * 5000, 'a ;=\t"', "0" * 20, "../../.."])
async def test_a_trace_that_somebody_made_up_is_of_no_use(table: Table, trace: str) -> None:
    table.headers["x-frontdesk-trace"] = trace
    assert await table.say("alice", table.asks("bob", "@say I am Bob.")) == "Tool results: I am Bob."


@requirement("python.ask.bounds")
async def test_one_that_takes_too_long_is_stopped_and_the_model_is_told(table: Table) -> None:
    assert "did not answer within 0.5 seconds" in await table.say("hasty", table.asks("eve", "@hang"))
    (asked,) = table.calls_of("eve")
    await gone(table, asked)


async def gone(table: Table, asked: Request) -> None:
    """The provider behind an agent has seen that nobody waits any more."""
    await eventually(
        lambda: any(each.number == asked.number and each.outcome == "gone" for each in table.model.requests)
    )


async def test_whoever_hangs_up_stops_those_who_were_asked_too(table: Table) -> None:
    waiting = asyncio.ensure_future(table.say("alice", table.asks("bob", table.asks("carol", "@hang"))))
    await eventually(lambda: bool(table.calls_of("carol")))
    waiting.cancel()
    await gone(table, table.calls_of("carol")[0])


async def test_a_turn_causes_so_many_questions_and_no_more(table: Table) -> None:
    asks = [table.asks("eve", f"@say Number {n}.") for n in range(5)]
    said = await table.say("frugal", "\n".join(asks))
    assert said.count("Number ") == 2
    assert said.count("too many questions") == 3


async def test_the_questions_of_those_who_are_asked_count_too(table: Table) -> None:
    inner = "\n".join(table.asks("eve", f"@say Number {n}.") for n in range(3))
    await table.say("frugal", table.asks("busy", inner))
    assert len(table.calls_of("eve")) == 1


# --- elsewhere ---------------------------------------------------------------------------------------------------


@pytest.fixture
def abroad(model: ScriptedModel, marker: str, tmp_path: Path) -> Generator[Callable[..., Table]]:
    """A desk whose agent `traveller` asks these targets."""
    with ExitStack() as running:

        def start(**targets: Any) -> Table:
            colleagues.elsewhere.update(targets)
            running.callback(colleagues.elsewhere.clear)
            return Table(running.enter_context(desk(tmp_path, model)), model, marker)

        yield start


def at(house: Served, kind: str, key: str) -> Remote | A2A:
    """Bob at another desk."""
    if kind == "a2a":
        return A2A(f"{house.url}/a2a/bob", api_key=key)
    return Remote(house.base_url, model="bob", api_key=key)


async def test_an_agent_of_another_desk_is_asked_with_the_key_for_it_and_remembers(
    house: Served, abroad: Callable[..., Table]
) -> None:
    table = abroad(bob=Remote(house.base_url, model="bob", api_key="olga"))
    assert await table.say("traveller", table.asks("bob", "@say One."), pin="p") == "Tool results: One."
    assert await table.say("traveller", table.asks("bob", "@say Two."), pin="p") == "Tool results: Two."
    assert "One." in table.calls_of("bob")[-1].texts


@requirement("python.ask")
async def test_an_agent_is_asked_by_a2a_and_remembers(house: Served, abroad: Callable[..., Table]) -> None:
    table = abroad(bob=A2A(f"{house.url}/a2a/bob", api_key="olga"))
    assert await table.say("traveller", table.asks("bob", "@say One."), pin="p") == "Tool results: One."
    assert await table.say("traveller", table.asks("bob", "@say Two."), pin="p") == "Tool results: Two."
    assert "One." in table.calls_of("bob")[-1].texts
    await table.say("traveller", table.asks("bob", "@say Three."), pin="q")
    assert "Two." not in table.calls_of("bob")[-1].texts


async def test_without_the_right_key_nobody_answers(house: Served, abroad: Callable[..., Table]) -> None:
    keys = ["", "wrong", "only-alice"]
    targets = {f"{kind}{number}": at(house, kind, key) for number, key in enumerate(keys) for kind in ("remote", "a2a")}
    table = abroad(**targets)
    for name in targets:
        assert f"{name} could not be asked" in await table.say("traveller", table.asks(name, "@say Hi."))
    assert table.calls_of("bob") == []


async def test_agents_elsewhere_that_take_too_long_are_given_up_and_stopped(
    house: Served, abroad: Callable[..., Table]
) -> None:
    table = abroad(remote=at(house, "remote", "ann"), a2a=at(house, "a2a", "ann"))
    said = await table.say("traveller", f"{table.asks('remote', '@hang')}\n{table.asks('a2a', '@hang')}")
    assert said.count("did not answer within 4 seconds") == 2
    first, second = table.calls_of("bob")
    await gone(table, first)
    await gone(table, second)


@dataclass
class Relay:
    """A server that hands requests on to another, which may be known later than it."""

    to: str = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"host", b"content-length")]
        async with httpx.AsyncClient(timeout=60) as client:
            reply = await client.request(scope["method"], self.to + scope["path"], content=body, headers=headers)
        media_type = reply.headers["content-type"].encode()
        head = {"status": reply.status_code, "headers": [(b"content-type", media_type)]}
        await send({"type": "http.response.start", **head})
        await send({"type": "http.response.body", "body": reply.content})


@pytest.mark.parametrize("kind", ["remote", "a2a"])
async def test_a_question_does_not_come_round_over_another_desk(
    model: ScriptedModel, marker: str, tmp_path: Path, kind: str
) -> None:
    relay = Relay()
    with ExitStack() as running:
        running.callback(colleagues.elsewhere.clear)
        way = running.enter_context(on_http(relay))
        there = A2A(f"{way}/a2a/traveller", api_key="ann")
        back = Remote(f"{way}/v1", model="traveller", api_key="ann")
        colleagues.elsewhere["friend"] = back if kind == "remote" else there
        first = running.enter_context(desk(tmp_path / "first", model))
        colleagues.elsewhere["friend"] = Remote(first.base_url, model="traveller", api_key="ann")
        relay.to = running.enter_context(desk(tmp_path / "second", model, public_url=way)).url
        table = Table(first, model, marker)
        said = await table.say("traveller", table.asks("friend", table.asks("friend", "@say Round.")))
    assert "It refused the question." in said
    assert len(table.calls_of("traveller")) == 4


@dataclass
class Recorder:
    """A server that answers everything in one way, and remembers what it was sent."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    seen: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        sent: Mapping[bytes, bytes] = dict(scope["headers"])
        self.seen.append({"path": scope["path"]} | {name.decode(): value.decode() for name, value in sent.items()})
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": self.body})


def answering(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()


def turn() -> Turn:
    return Turn(id="turn_1", agent="asker", input=(), signals=Signals(trace=("first",)))


async def ask(target: Any, message: str = "Hello?") -> str:
    """Ask directly, as a turn of an agent `asker` would, which has come through one other."""
    skill = AskAgent({"friend": target}, timeout_seconds=5)
    entered(Context("asker", turn(), "thread-1"))
    async with skill.lifespan(Services()):
        return await skill.asking.run({"agent": "friend", "message": message})


async def test_what_is_sent_elsewhere_is_the_question_and_the_key_for_it_and_nothing_of_the_caller() -> None:
    recorder = Recorder(body=answering("Hello."))
    with on_http(recorder) as url:
        assert await ask(Remote(f"{url}/v1", api_key="sk-theirs", headers={"x-team": "red"})) == "Hello."
    (sent,) = recorder.seen
    assert sent["path"] == "/v1/chat/completions"
    assert sent["authorization"] == "Bearer sk-theirs"
    assert sent["x-team"] == "red"
    assert sent["x-frontdesk-trace"].startswith("first,")
    assert "thread-1" not in json.dumps(sent)


@pytest.mark.parametrize(
    ("recorder", "said"),
    [
        (Recorder(status=500, body=b"sk-their-secret"), "HTTP 500"),
        (Recorder(status=401, body=b"sk-their-secret"), "does not know the key"),
        (Recorder(status=429), "busy"),
        (Recorder(body=b"<html>"), "cannot be read"),
        (Recorder(body=b"[" * 100_000), "cannot be read"),
        (Recorder(body=b'{"choices": []}'), "cannot be read"),
        (Recorder(body=b'{"choices": [{"message": {"content": 7}}]}'), "cannot be read"),
        (Recorder(body=answering("  ")), "answered nothing"),
        (Recorder(body=answering("x" * 5 * 2**20)), "cannot be reached"),
        (
            Recorder(body=gzip.compress(b" " * 50 * 2**20), headers=((b"content-encoding", b"gzip"),)),
            "cannot be reached",
        ),
    ],
    ids=["500", "401", "429", "html", "deep", "empty", "odd", "blank", "large", "bomb"],
)
async def test_whatever_comes_from_elsewhere_the_model_is_told_in_our_words(recorder: Recorder, said: str) -> None:
    with on_http(recorder) as url, pytest.raises(ToolFailed, match=said) as told:
        await ask(Remote(f"{url}/v1", api_key="sk-ours"))
    assert "sk-" not in str(told.value)


async def test_a_long_answer_is_cut_and_says_so() -> None:
    with on_http(Recorder(body=answering("x" * 200_000))) as url:
        said = await ask(Remote(f"{url}/v1"))
    assert len(said) == 100_000
    assert said.endswith("[cut]")


async def test_the_key_does_not_follow_a_redirect() -> None:
    other = Recorder(body=answering("Caught."))
    with on_http(other) as there:
        redirect = Recorder(status=307, headers=((b"location", f"{there}/v1/chat/completions".encode()),))
        with on_http(redirect) as url, pytest.raises(ToolFailed, match="HTTP 307"):
            await ask(Remote(f"{url}/v1", api_key="sk-ours"))
    assert other.seen == []


async def test_the_key_does_not_follow_an_agent_card_to_another_server() -> None:
    other = Recorder(body=b"{}")
    with on_http(other) as there:
        card: dict[str, Any] = {
            "name": "friend",
            "supportedInterfaces": [{"url": f"{there}/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
        }
        recorder = Recorder(body=json.dumps(card).encode())
        with on_http(recorder) as url, pytest.raises(ToolFailed, match="names another server"):
            await ask(A2A(url, api_key="sk-ours"))
    assert other.seen == []


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"name": 7}', b"[" * 100_000, b'{"supportedInterfaces": 7}'])
async def test_what_is_no_agent_card_is_the_tools_error(body: bytes) -> None:
    recorder = Recorder(body=body)
    with on_http(recorder) as url, pytest.raises(ToolFailed, match=r"could not be asked|cannot be read"):
        await ask(A2A(url))


async def test_nobody_there_is_the_tools_error() -> None:
    with pytest.raises(ToolFailed, match="cannot be reached"):
        await ask(Remote("http://127.0.0.1:9/v1"))
    with pytest.raises(ToolFailed, match="cannot be reached"):
        await ask(A2A("http://127.0.0.1:9"))


# --- as an author writes it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "options", "said"),
    [
        ([], {}, "at least one target"),
        ([Remote("https://example.com/v1")], {}, "needs a name"),
        ({"": "bob"}, {}, "cannot be called"),
        ({"a\nb": "bob"}, {}, "cannot be called"),
        ({"bob": 7}, {}, "must be the name of an agent"),
        ({"bob": {"url": "https://example.com", "colour": "red"}}, {}, "not as it must be"),
        (["bob", "bob"], {}, "same name"),
        (["bob"], {"max_depth": 0}, "more than 0"),
    ],
)
def test_what_cannot_work_is_said_at_once(targets: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentError, match=said):
        AskAgent(targets, **options)


@pytest.mark.parametrize("kind", [Remote, A2A])
@pytest.mark.parametrize("url", ["example.com", "file:///etc/passwd", "https://key@example.com"])
def test_an_address_that_cannot_be_is_refused(kind: Callable[[str], object], url: str) -> None:
    with pytest.raises(AgentError, match="URL of"):
        kind(url)


def test_an_agent_itself_may_be_named_and_a_file_may_write_mappings() -> None:
    bob = Agent("bob", model="openai/scripted")
    assert AskAgent([bob]).asking.definition == AskAgent({"bob": {"agent": "bob"}}).asking.definition
    assert AskAgent([bob]).asking.definition == AskAgent("bob").asking.definition
    targets = {"far": {"url": "https://example.com/v1", "model": "m"}, "a2a": {"a2a": "https://example.com"}}
    assert AskAgent(targets).asking.definition.parameters_json_schema["properties"]["agent"]["enum"] == ["far", "a2a"]


def test_what_an_agent_is_for_is_told_to_the_model() -> None:
    asking = AskAgent({"bob": Local("bob", "Knows the law.")}).asking
    assert "- bob: Knows the law." in (asking.definition.description or "")


def test_keys_are_not_shown() -> None:
    skill = AskAgent({"far": Remote("https://example.com/v1", api_key="sk-of-theirs", headers={"x-k": "sk-too"})})
    assert "sk-" not in repr(vars(skill))
