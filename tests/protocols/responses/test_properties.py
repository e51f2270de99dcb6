"""Whatever clients do with responses, in whatever order: for each the agent has heard exactly what led to it."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from openai import OpenAI

from tests import machines
from tests.faults.fake import FakeLetta
from tests.faults.watch import until
from tests.protocols.responses.clients import CALL, MARKS, RETRIED, TOOLS, House, heard, open_house, somebody
from tests.requirements import requirement

Item = dict[str, Any]

FUNCTIONS: list[Item] = [{"type": "function", "function": {"name": tool["name"], "parameters": {}}} for tool in TOOLS]

texts = st.sampled_from(["a", "b", "c", CALL])
"""Few, so that chats come to say the same."""
places = st.integers(0, 1000)
ways = st.sampled_from(["plain", "stream", "background"])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    with open_house(tmp_path_factory.mktemp("house"), on_disconnect="cancel") as house:
        yield house


@dataclass(frozen=True)
class Told:
    """A response, and all that led to it: as its client would send it, with what it answered itself."""

    id: str
    conversation: str
    items: tuple[Item, ...]

    @property
    def waits(self) -> list[str]:
        """The ids of the calls that wait for the client."""
        last = self.items[-1]
        return [last["call_id"]] if last.get("type") == "function_call" else []


@dataclass
class Truth:
    """A conversation: all that led to where it stands, and what was cancelled there since."""

    items: tuple[Item, ...]
    cut: tuple[Item, ...] = ()


class Clients(RuleBasedStateMachine):
    house: House

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Told] = []
        self.conversations: dict[str, Truth] = {}
        self.client: OpenAI = self.house.gateway.blocking_client(**somebody())

    def teardown(self) -> None:
        self.client.close()
        assert not self.fake.overlaps

    # --- what clients do -----------------------------------------------------------------------------------------

    @initialize(text=texts)
    def begin(self, text: str) -> None:
        self.ask((), user(text), "plain")

    @rule(text=texts, way=ways)
    def begin_anew(self, text: str, way: str) -> None:
        self.ask((), user(text), way)

    @rule(place=places, text=texts, way=ways)
    def go_on_after(self, place: int, text: str, way: str) -> None:
        """After any response: the latest, an earlier one, one that was cancelled."""
        last = self.pick(place)
        self.ask(last.items, user(text), way, previous_response_id=last.id)

    @rule(place=places, text=texts, way=ways)
    def go_on_in(self, place: int, text: str, way: str) -> None:
        """Where a conversation stands."""
        conversation = self.pick(place).conversation
        truth = self.conversations[conversation]
        answered = self.ask((*truth.items, *truth.cut), user(text), way, conversation=conversation)
        assert answered.conversation == conversation

    @rule(place=places, text=texts, way=ways)
    def tell_all(self, place: int, text: str, way: str) -> None:
        """The full input, as a client sends it that keeps the transcript itself."""
        last = self.pick(place)
        self.ask(last.items, user(text), way, input=[*last.items, user(text)])

    @rule(place=places, text=texts)
    def tell_all_in_a_chat(self, place: int, text: str) -> None:
        """The same through the other protocol."""
        last = self.pick(place)
        before = len(self.fake.visits)
        create: Any = self.client.chat.completions.with_raw_response.create
        raw = create(model="Milo", messages=messages((*last.items, user(text))), tools=FUNCTIONS)
        self.check(before, (*last.items, user(text)))
        said = raw.parse().choices[0].message
        output = [message("assistant", said.content)] if said.content else []
        output += [called(each.id, each.function.name, each.function.arguments) for each in said.tool_calls or ()]
        conversation = raw.headers["x-frontdesk-conversation"]
        self.conversations[conversation] = Truth((*last.items, user(text), *output))

    @rule(place=places, text=texts, way=ways)
    def answer_calls(self, place: int, text: str, way: str) -> None:
        waiting = [each for each in self.told if each.waits]
        if waiting:
            last = waiting[place % len(waiting)]
            results = [{"type": "function_call_output", "call_id": call, "output": text} for call in last.waits]
            self.ask(last.items, results, way, previous_response_id=last.id)

    @rule(place=places, text=texts, way=ways)
    def retry(self, place: int, text: str, way: str) -> None:
        """An answer did not arrive, and the client's library asks again."""
        last = self.pick(place)
        first = self.ask(last.items, user(text), way, previous_response_id=last.id)
        before = len(self.fake.visits)
        again = self.send(way, input=[user(text)], previous_response_id=last.id, extra_headers=RETRIED)
        assert len(self.fake.visits) == before
        assert items_of(again["output"]) == list(first.items[-1:])
        assert again["conversation"]["id"] == first.conversation
        self.told.append(replace(first, id=again["id"]))

    @rule(place=places, how=st.sampled_from(["left", "cancelled", "failed"]), named=st.booleans())
    def cut_short(self, place: int, how: str, named: bool) -> None:
        """A client hangs up in the middle of an answer, or cancels one in the background, or that fails."""
        last = self.pick(place)
        truth = self.conversations[last.conversation]
        base = (*truth.items, *truth.cut) if named else last.items
        if base[-1].get("type") == "function_call":  # the call is denied, and stays so
            return
        where = {"conversation": last.conversation} if named else {"previous_response_id": last.id}
        self.fake.gate.clear()
        before = len(self.fake.visits)
        script = "#limited#" if how == "failed" else "#held#"
        said = f"{script} {len(self.told)}"  # what is said again after it was cut short is told once: see test_retries
        match how:
            case "left":
                response_id = self.left(said, where)
            case "cancelled":
                response_id = self.cancelled(said, where)
            case _:
                response_id = self.send("background", input=said, **where)["id"]
        self.fake.gate.set()
        self.check(before, (*base, user(said)))
        kept = self.client.responses.retrieve(response_id)
        assert kept.status == ("failed" if how == "failed" else "cancelled")
        assert kept.conversation
        conversation, rest = kept.conversation.id, (user(said), *items_of(kept.model_dump()["output"]))
        self.told.append(Told(response_id, conversation, (*base, *rest)))
        home = self.conversations.setdefault(conversation, Truth(base))
        if how != "failed":  # whoever goes on there does not say that the failed one came before
            home.cut += base[len(home.items) + len(home.cut) :] + rest

    def left(self, said: str, where: dict[str, str]) -> str:
        create: Any = self.client.responses.create
        response_id = ""
        with create(model="Milo", input=said, tools=TOOLS, stream=True, **where) as stream:
            for event in stream:
                response_id = response_id or event.response.id
                if event.type == "response.output_text.delta":
                    break
        until(lambda: self.client.responses.retrieve(response_id).status not in MARKS)
        return response_id

    def cancelled(self, said: str, where: dict[str, str]) -> str:
        create: Any = self.client.responses.create
        before = len(self.fake.visits)
        made = create(model="Milo", input=said, tools=TOOLS, background=True, **where)
        until(lambda: len(self.fake.visits) > before)
        self.client.responses.cancel(made.id)
        return made.id

    # --- what must be true ---------------------------------------------------------------------------------------

    def ask(self, before: Sequence[Item], new: Item | list[Item], way: str, **where: Any) -> Told:
        """A response, for which the agent has heard all of this exactly once."""
        new = new if isinstance(new, list) else [new]
        path = (*before, *new)
        visits = len(self.fake.visits)
        response = self.send(way, **{"input": new} | where)
        assert response["status"] == "completed", response
        self.check(visits, path)
        conversation = response["conversation"]["id"]
        told = Told(response["id"], conversation, (*path, *items_of(response["output"])))
        self.told.append(told)
        self.conversations[conversation] = Truth(told.items)
        return told

    def check(self, before: int, path: Sequence[Item]) -> None:
        visits = self.fake.visits[before:]
        assert [heard(visit) for visit in visits] == [expected(path)]

    # --- how -----------------------------------------------------------------------------------------------------

    @property
    def fake(self) -> FakeLetta:
        return self.house.fake

    def pick(self, place: int) -> Told:
        return self.told[place % len(self.told)]

    def send(self, way: str, **asked: Any) -> dict[str, Any]:
        create: Any = self.client.responses.create
        more = {"plain": {}, "stream": {"stream": True}, "background": {"background": True}}[way]
        made = create(**{"model": "Milo", "tools": TOOLS} | asked | more)
        if way == "stream":
            return list(made)[-1].response.model_dump()
        while made.status in MARKS:
            made = self.client.responses.retrieve(made.id)
        return made.model_dump()


def message(role: str, text: str) -> Item:
    return {"role": role, "content": text}


def user(text: str) -> Item:
    return message("user", text)


def called(call_id: str, name: str, arguments: str) -> Item:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def items_of(output: Sequence[Any]) -> list[Item]:
    """What was answered, as a client sends it back that keeps no ids."""
    found: list[Item] = []
    for item in output:
        if item["type"] == "message":
            found.append(message("assistant", item["content"][0]["text"]))
        elif item["type"] == "function_call":
            found.append(called(item["call_id"], item["name"], item["arguments"]))
    return found


def messages(items: Sequence[Item]) -> list[Item]:
    """The same for the other protocol."""
    found: list[Item] = []
    for item in items:
        match item:
            case {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}:
                call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                found.append({"role": "assistant", "content": "", "tool_calls": [call]})
            case {"type": "function_call_output", "call_id": call_id, "output": output}:
                found.append({"role": "tool", "tool_call_id": call_id, "content": output})
            case _:
                found.append(item)
    return found


def expected(items: Sequence[Item]) -> list[tuple[str, str]]:
    """What the agent must have heard of these, in the form of `heard`."""
    results = {item["call_id"]: item["output"] for item in items if item.get("type") == "function_call_output"}
    found: list[tuple[str, str]] = []
    for item in items:
        match item:
            case {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}:
                found += [("call", f"{name}({arguments})"), ("tool", results.get(call_id, "denied"))]
            case {"role": role, "content": text}:
                found.append((role, text))
            case _:
                pass
    return found


@requirement("responses.previous", "responses.conversation", "responses.input", "responses.branch")
def test_the_agent_has_heard_what_led_to_each_response(house: House) -> None:
    class InThisHouse(Clients):
        pass

    InThisHouse.house = house
    machines.run(InThisHouse, max_examples=24)
