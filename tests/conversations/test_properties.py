"""Whatever clients do, in whatever order: for each answer the agent has heard exactly what its client shows."""

import asyncio
import itertools
import re
from collections.abc import Coroutine, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from openai import AsyncOpenAI

from tests import machines
from tests.faults.asking import create
from tests.faults.fake import FakeLetta, fake_letta, held
from tests.faults.watch import Watched, until, watched
from tests.protocols.chat_completions.asking import Answer, Chat, Message, assistant, function, user
from tests.requirements import requirement

TOOLS = [function("read")]
CALL = '#call read {"city": "Bern"}#'
KEYS = ({"name": "webui", "sha256": sha256(b"key").hexdigest(), "trust_user_headers": True},)

texts = st.sampled_from(["a", "b", "c", CALL])
"""Few, so that chats come to say the same."""
places = st.integers(0, 1000)
examples = itertools.count()


@dataclass
class House:
    """A gateway that can be started anew, and the Letta server behind it."""

    folder: Path
    fake: FakeLetta
    gateway: Watched
    stack: ExitStack
    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    def is_idle(self) -> bool:
        answer = httpx.get(f"{self.gateway.url}/health", headers={"authorization": "Bearer key"})
        return answer.json()["turns"]["in_flight"] == 0

    def start(self) -> None:
        self.stack.close()
        fields: dict[str, Any] = {"letta_base_url": self.fake.url, "keys": KEYS, "on_disconnect": "cancel"}
        self.gateway = self.stack.enter_context(watched(self.folder, **fields, probe_key="key"))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    with fake_letta() as fake, ExitStack() as stack:
        fake.scripts["held"] = held(fake)
        nowhere: Any = None
        house = House(tmp_path_factory.mktemp("house"), fake, nowhere, stack, asyncio.new_event_loop())
        house.start()
        yield house
        house.loop.close()


@dataclass(frozen=True)
class Place:
    """Where a chat may go on: all that is shown there. `calls` are the ids of those that wait for results."""

    said: tuple[Message, ...] = ()
    id: str = ""
    calls: tuple[str, ...] = ()


@dataclass
class Shown:
    """A chat as its client has it. The last place of `places` is the one last spoken at."""

    name: str
    named: bool
    places: list[Place] = field(default_factory=lambda: [Place()])
    conversations: set[str] = field(default_factory=set[str])


class Clients(RuleBasedStateMachine):
    house: House

    def __init__(self) -> None:
        super().__init__()
        self.user = f"user-{next(examples)}"
        self.chats: list[Shown] = []
        self.numbers = itertools.count()
        self.left: set[str] = set()
        """Requests whose answer nobody took: they may be answered without the agent."""
        self.started = 0

    # --- what clients do -----------------------------------------------------------------------------------------

    @initialize(named=st.booleans())
    def begin(self, named: bool) -> None:
        self.new_chat(named)

    @rule(named=st.booleans())
    def new_chat(self, named: bool) -> None:
        self.chats.append(Shown(f"{self.user}-chat-{len(self.chats)}", named))

    @rule(chat=places, text=texts)
    def go_on(self, chat: int, text: str) -> None:
        """A next message; with calls that wait, the user goes on without them."""
        shown = self.chats[chat % len(self.chats)]
        self.ask(shown, shown.places[-1], user(text))

    @rule(chat=places, place=places, text=texts)
    def branch(self, chat: int, place: int, text: str) -> None:
        """An earlier message edited, or another branch gone on with; with the same text, an answer regenerated."""
        shown = self.chats[chat % len(self.chats)]
        self.ask(shown, shown.places[place % len(shown.places)], user(text))

    @rule(chat=places, text=texts)
    def retry(self, chat: int, text: str) -> None:
        """A message whose answer did not arrive, sent again by the client's library."""
        shown = self.chats[chat % len(self.chats)]
        place = shown.places[-1]
        headers = self.headers(shown, place)
        said = [*place.said, user(text)]
        first = self.ask(shown, place, user(text), headers=headers)
        before = len(self.fake.visits)
        again = self.send(said, headers | {"x-stainless-retry-count": "1"})
        assert self.fake.visits[before:] == []
        assert (again.text, again.calls) == (first.text, first.calls)

    @rule(chat=places, others=st.booleans())
    def answer_calls(self, chat: int, others: bool) -> None:
        waiting = [(shown, place) for shown in self.chats for place in shown.places if place.calls]
        if not waiting:
            return
        shown, place = waiting[chat % len(waiting)]
        results = [{"role": "tool", "tool_call_id": call, "content": "sunny"} for call in place.calls]
        self.ask(shown, place, *results, *([user("b")] if others else []))

    @rule(chat=places, place=places, keeps=st.booleans(), waits=st.booleans())
    def hang_up(self, chat: int, place: int, keeps: bool, waits: bool) -> None:
        """In the middle of an answer. The client keeps what it has seen, or forgets it."""
        shown = self.chats[chat % len(self.chats)]
        at = shown.places[place % len(shown.places)]
        if at.calls:  # the calls are denied, and stay so: see test_retries
            return
        self.fake.gate.clear()
        cancels = len(self.fake.cancels)
        said = [*at.said, user("#held#")]
        half = self.house.run(self.half(said, self.headers(shown, at)))
        if waits and self.key(shown, said) not in self.left:
            until(lambda: len(self.fake.cancels) > cancels)
        self.fake.gate.set()
        until(self.house.is_idle)
        self.left.add(self.key(shown, said))
        if keeps:
            shown.places.append(Place((*said, assistant(half)), self.new_id()))

    @rule(chat=places, place=places)
    def rewrite(self, chat: int, place: int) -> None:
        """The user edits an answer, and goes on from there."""
        shown = self.chats[chat % len(self.chats)]
        at = shown.places[place % len(shown.places)]
        if at.said and at.said[-1]["role"] == "assistant" and not at.calls:
            shown.places.append(Place((*at.said[:-1], assistant("I never said so.")), self.new_id()))

    @precondition(lambda self: self.started < 1)
    @rule()
    def restart(self) -> None:
        self.started += 1
        self.house.start()

    # --- what must be true ---------------------------------------------------------------------------------------

    def ask(self, shown: Shown, place: Place, *new: Message, headers: Any = None) -> Answer:
        said = [*place.said, *new]
        before = len(self.fake.visits)
        answer = self.send(said, headers or self.headers(shown, place))
        visits = self.fake.visits[before:]
        if visits or self.key(shown, said) not in self.left:
            (visit,) = visits
            assert told(visit.heard) == expected(said)
            shown.conversations.add(visit.conversation)
        assert not self.fake.overlaps
        shown.places.append(
            Place((*said, answer.message), self.new_id(), tuple(call.id for call in answer.calls)),
        )
        return answer

    def teardown(self) -> None:
        named = [shown.conversations for shown in self.chats if shown.named]
        assert sum(map(len, named)) == len(set[str]().union(*named)), "two chats met"

    # --- how -----------------------------------------------------------------------------------------------------

    @property
    def fake(self) -> FakeLetta:
        return self.house.fake

    def new_id(self) -> str:
        return f"{self.user}-{next(self.numbers)}"

    def key(self, shown: Shown, said: list[Message]) -> str:
        return repr((shown.name if shown.named else "", said))

    def headers(self, shown: Shown, place: Place) -> dict[str, str]:
        headers = {"X-OpenWebUI-User-Id": self.user}
        if not shown.named:
            return headers
        headers |= {"X-OpenWebUI-Chat-Id": shown.name, "X-OpenWebUI-Message-Id": self.new_id()}
        return headers | ({"X-OpenWebUI-User-Message-Parent-Id": place.id} if place.id else {})

    def client(self) -> AsyncOpenAI:
        return self.house.gateway.client(api_key="key")

    def send(self, said: list[Message], headers: dict[str, str]) -> Answer:
        async def work() -> Answer:
            async with self.client() as client:
                return await Chat(client, "Milo").ask(said, headers=headers, tools=TOOLS)

        return self.house.run(work())

    async def half(self, said: list[Message], headers: dict[str, str]) -> str:
        async with self.client() as client:
            stream = await create(client, model="Milo", messages=said, stream=True, extra_headers=headers, tools=TOOLS)
            async for chunk in stream:
                if text := chunk.choices[0].delta.content:
                    await stream.close()
                    return text
        raise AssertionError("the agent said nothing")


def told(heard: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What the agent heard, with tool calls in one form: a new conversation is told of them as text."""
    found: list[tuple[str, str]] = []
    for role, text in heard:
        if seeded := re.fullmatch(r"\[The tool call (\w+\(.*\)) (?:returned: (.*)|was not answered)\]", text):
            found.append(("call", seeded[1]))
            found.append(("tool", "denied" if seeded[2] is None else seeded[2]))
        else:
            found.append(("call", text) if role == "assistant" and text.startswith("read(") else (role, text))
    return found


def expected(said: list[Message]) -> list[tuple[str, str]]:
    """What a client shows, in the same form."""
    results = {each["tool_call_id"]: each["content"] for each in said if each["role"] == "tool"}
    found: list[tuple[str, str]] = []
    for each in said:
        if each["role"] != "tool" and each["content"]:
            found.append((each["role"], each["content"]))
        for call in each.get("tool_calls", ()):
            written = call["function"]
            found.append(("call", f"{written['name']}({written['arguments']})"))
            found.append(("tool", results.get(call["id"], "denied")))
    return found


@requirement("conversations.model-of-truth")
def test_the_agent_hears_what_the_client_shows(house: House) -> None:
    class InThisHouse(Clients):
        pass

    InThisHouse.house = house
    machines.run(InThisHouse, max_examples=40)
