"""A fast fake of the Letta 0.16.7 server: the routes a gateway uses, and turns of any pace.

From the shell, `python -m bench.fake_letta --port 0 --agents 20` prints `PORT <n>`. From Python:

    with FakeLetta(agents=20) as letta:
        letta.configure(pace_ms=20)
        ...  # letta.url, letta.stats()

Every token of a turn reads `~<marker> <kind><index> <nanoseconds>;`: the marker is taken from the last user message
(`#<marker>#`), the kind is `r` (reasoning) or `t` (text), and the time is CLOCK_MONOTONIC at the write of that token.
A client can so tell that a reply is whole, in order, in time and its own.

Unlike the real server, a turn ends when its client hangs up, and one conversation may run several turns at once.
"""

import argparse
import asyncio
import itertools
import re
import time
import uuid
from typing import Any
from urllib.parse import parse_qs

import msgspec

from bench import shapes
from bench.http1 import CHUNKED_END, SSE_HEAD, Connection, json_response, serve
from bench.processes import Child, fetch, python
from bench.shapes import Config, encode

MARKER = re.compile(rb"#(\w{1,64})#")
MAX_CONVERSATIONS = 5_000  # the oldest are forgotten, so that a long run does not grow
MAX_KEPT_BODY = 65_536


class Function(msgspec.Struct):
    """What the fake reads of a client tool."""

    name: str


class MessagesRequest(msgspec.Struct):
    """What the fake reads of a request to run a turn."""

    messages: list[msgspec.Raw] = []
    client_tools: list[Function] | None = None
    agent_id: str = ""


class Stats(msgspec.Struct):
    """`GET /__stats`; `POST /__config` begins a new count."""

    connections: int = 0
    requests: int = 0
    streams: int = 0
    open_streams: int = 0
    peak_streams: int = 0
    finished: int = 0
    hung_up: int = 0  # streams whose client went away before the end
    cancelled: int = 0


class Conversation:
    """A conversation and the turns it has had."""

    __slots__ = ("agent", "id", "settings", "stream", "turns")

    def __init__(self, agent: str, settings: dict[str, Any]) -> None:
        self.id = f"conv-{uuid.uuid4()}"
        self.agent = agent
        self.settings = settings
        self.turns: list[tuple[bytes, Stream]] = []
        self.stream: Stream | None = None  # the one that is running

    def json(self) -> bytes:
        return encode(shapes.conversation(self.id, self.agent, self.settings))


class Stream:
    """One turn on its way to one client."""

    __slots__ = ("conversation", "done", "marker", "pace", "place", "position", "script", "times", "tool", "transport")

    def __init__(self, transport: asyncio.Transport, script: list[bytes], marker: bytes, pace: int) -> None:
        self.transport = transport
        self.script = script
        self.marker = marker
        self.pace = pace
        self.place = str(uuid.uuid4()).encode()[:-1]
        self.position = 0
        self.done = False
        self.times: list[int] = []
        self.tool: str | None = None
        self.conversation: Conversation | None = None

    @property
    def run_id(self) -> str:
        return f"run-{self.place.decode()}0"

    def filled(self, events: bytes, now: int) -> bytes:
        """Events with this stream's ids, marker and time."""
        events = events.replace(shapes.UUID_PLACE, self.place)
        events = events.replace(shapes.MARKER_PLACE * len(self.marker), self.marker)
        return events.replace(shapes.TIME_PLACE, b"%016d" % now)

    def send(self, count: int, head: bytes = b"", tail: bytes = b"") -> None:
        """Write the next events in one go."""
        now = time.monotonic_ns()
        end = self.position + count
        events = self.script[self.position : end]
        self.times.extend(itertools.repeat(now, count))
        self.position = end
        self.transport.write(head + self.filled(events[0] if count == 1 else b"".join(events), now) + tail)

    def send_all(self) -> None:
        self.send(len(self.script), SSE_HEAD, CHUNKED_END)
        self.done = True

    def begin(self) -> None:
        """The ping and the first token, at once."""
        self.send(min(2, len(self.script) - 3), SSE_HEAD)

    def step(self) -> int:
        """Send one token, or what follows the last one, or the end of the body, which the real server sends by itself.

        Gives the milliseconds to the next step; 0 after the last.
        """
        if self.done:
            return 0
        if self.position < len(self.script) - 3:
            self.send(1)
            return self.pace
        if self.position < len(self.script):
            self.send(3)
            return 1
        self.transport.write(CHUNKED_END)
        self.done = True
        return 0

    def cancel(self) -> None:
        """A stop reason and the end: no usage, no [DONE], as the server does it."""
        self.done = True
        self.transport.write(shapes.CANCELLED + CHUNKED_END)


class Wheel:
    """One timer for all paced streams, so that a thousand of them cost a thousand writes and no tasks."""

    def __init__(self) -> None:
        self.due: dict[int, list[Stream]] = {}
        self.tick = 0
        self.turning = False

    def add(self, stream: Stream) -> None:
        if not self.turning:
            self.turning = True
            self.tick = int(time.monotonic() * 1000)
            asyncio.get_running_loop().call_later(0.001, self.turn)
        self.due.setdefault(self.tick + stream.pace, []).append(stream)

    def turn(self) -> None:
        now = int(time.monotonic() * 1000)
        while self.tick < now:
            self.tick += 1
            for stream in self.due.pop(self.tick, ()):
                if wait := stream.step():
                    self.due.setdefault(self.tick + wait, []).append(stream)
                else:
                    LETTA.finish(stream)
        self.turning = bool(self.due)
        if self.turning:
            asyncio.get_running_loop().call_later(0.001, self.turn)


class Letta:
    """The state of the fake server."""

    def __init__(self) -> None:
        self.config = Config()
        self.stats = Stats()
        self.agents: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.conversations: dict[str, Conversation] = {}
        self.scripts: dict[tuple[int, str | None], list[bytes]] = {}
        self.wheel = Wheel()

    def add_agents(self, count: int) -> None:
        for number in range(count):
            key = shapes.agent_id(number)
            self.agents[key] = encode(shapes.agent(number))
            self.names[shapes.agent_name(number)] = key

    def configure(self, changes: dict[str, Any]) -> None:
        current = msgspec.structs.asdict(self.config)
        self.config = msgspec.convert(current | changes, Config)
        self.scripts.clear()
        self.stats = Stats(open_streams=self.stats.open_streams)

    def script(self, marker: bytes, tool: str | None) -> list[bytes]:
        key = len(marker), tool
        if (script := self.scripts.get(key)) is None:
            script = self.scripts[key] = shapes.turn(self.config, len(marker), tool)
        return script

    def converse(self, agent: str, settings: dict[str, Any]) -> Conversation:
        made = Conversation(agent, settings)
        self.conversations[made.id] = made
        if len(self.conversations) > MAX_CONVERSATIONS:
            del self.conversations[next(iter(self.conversations))]
        return made

    def stream(self, transport: asyncio.Transport, body: bytes, conversation: Conversation | None) -> Stream:
        """Begin a turn; a turn without pace is over when this returns."""
        request = msgspec.json.decode(body, type=MessagesRequest)
        marker, tool = _marker(request), self._tool(request)
        stream = Stream(transport, self.script(marker, tool), marker, self.config.pace_ms)
        stream.tool = tool
        self.stats.streams += 1
        self.stats.open_streams += 1
        self.stats.peak_streams = max(self.stats.peak_streams, self.stats.open_streams)
        if conversation is not None and len(body) <= MAX_KEPT_BODY:
            stream.conversation = conversation
            conversation.stream = stream
            conversation.turns.append((body, stream))
        if stream.pace:
            stream.begin()
            self.wheel.add(stream)
        else:
            stream.send_all()
            self.finish(stream)
        return stream

    def _tool(self, request: MessagesRequest) -> str | None:
        if not self.config.tool or not request.client_tools or any(b'"approval"' in raw for raw in _raws(request)):
            return None
        return request.client_tools[0].name

    def finish(self, stream: Stream) -> None:
        """Count a stream's end, however it came."""
        self.stats.open_streams -= 1
        if stream.position == len(stream.script):
            self.stats.finished += 1
        if stream.conversation is not None and stream.conversation.stream is stream:
            stream.conversation.stream = None

    def cancel(self, conversation: Conversation) -> bytes:
        if (stream := conversation.stream) is None:
            detail = f"CONFLICT: No active runs to cancel for conversation {conversation.id}"
            return json_response(encode({"detail": detail}), 409)
        stream.cancel()
        conversation.turns.pop()
        conversation.stream = None
        self.stats.cancelled += 1
        return json_response(encode({stream.run_id: "cancelled"}))


LETTA = Letta()


def _raws(request: MessagesRequest) -> list[bytes]:
    return [bytes(raw) for raw in request.messages]


def _marker(request: MessagesRequest) -> bytes:
    """The marker of the last message that has one."""
    for raw in reversed(_raws(request)):
        if found := MARKER.findall(raw):
            return found[-1]
    return b"nobody"


def _not_found(what: str) -> bytes:
    return json_response(encode({"detail": f"{what} not found"}), 404)


def _page(query: dict[str, str], keys: list[str]) -> list[str]:
    """The keys of one page, by `limit`, `after` and `order` (newest first, unless `asc`)."""
    if query.get("order", "desc") != "asc":
        keys = keys[::-1]
    if (after := query.get("after")) is not None:
        keys = keys[keys.index(after) + 1 :] if after in keys else []
    limit = int(query.get("limit", "50"))
    return keys[:limit] if limit else keys


def _list_agents(query: dict[str, str]) -> bytes:
    keys = list(LETTA.agents)
    if (name := query.get("name")) is not None:
        keys = [LETTA.names[name]] if name in LETTA.names else []
    return json_response(b"[" + b",".join(LETTA.agents[key] for key in _page(query, keys)) + b"]")


def _list_conversations(query: dict[str, str]) -> bytes:
    wanted, agent = query.get("summary_search"), query.get("agent_id")
    found = {
        key: one
        for key, one in LETTA.conversations.items()
        if agent in (None, one.agent) and (wanted is None or wanted in (one.settings.get("summary") or ""))
    }
    return json_response(b"[" + b",".join(found[key].json() for key in _page(query, list(found))) + b"]")


def _text(stream: Stream, among: bytes) -> str:
    """The tokens of all events that hold `among`, as they were sent."""
    found: list[bytes] = []
    for event, now in zip(stream.script, stream.times, strict=False):
        if among in event and (at := event.find(b"~" + shapes.MARKER_PLACE)) >= 0:
            found.append(stream.filled(event[at : event.index(b";", at) + 1], now))
    return b"".join(found).decode()


def _calls(stream: Stream) -> list[dict[str, Any]]:
    """The calls of a client tool that a turn has made; there is one digit for them."""
    ids = [f"call_{shapes.UUID_PLACE.decode()}{number}".encode() for number in range(10)]
    made = {
        stream.filled(key, 0).decode(): _text(stream, key) for key in ids if any(key in one for one in stream.script)
    }
    return [
        {"name": stream.tool, "arguments": f'{{"text": "{text}"}}', "tool_call_id": key} for key, text in made.items()
    ]


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    """What was said in a conversation, oldest first."""
    said: list[dict[str, Any]] = []
    for body, stream in conversation.turns:
        base: dict[str, Any] = {"date": shapes.DATE, "run_id": stream.run_id, "is_err": None}
        for message in msgspec.json.decode(body).get("messages", ()):
            kind = f"{message.get('role', 'approval_response')}_message"
            extra: dict[str, Any] = {"id": f"message-{uuid.uuid4()}", "message_type": kind, "otid": None}
            said.append(base | extra | message)
        answer = base | {"id": f"message-{stream.place.decode()}1", "otid": f"{stream.place.decode()}1"}
        if stream.done:
            reasoning = _text(stream, b'"reasoning_message"')
            said.append(answer | {"message_type": "reasoning_message", "reasoning": reasoning})
        if stream.done and stream.tool is None:
            text = _text(stream, b'"assistant_message"')
            said.append(answer | {"message_type": "assistant_message", "content": text})
        elif stream.done and (calls := _calls(stream)):
            request = {"id": f"message-{stream.place.decode()}0", "tool_call": calls[0], "tool_calls": calls}
            said.append(answer | {"message_type": "approval_request_message"} | request)
    return said


def _list_messages(conversation: Conversation, query: dict[str, str]) -> bytes:
    said = _messages(conversation)
    if query.get("order", "desc") != "asc":
        said.reverse()
    return json_response(encode(said[: int(query.get("limit", "100"))]))


def _create_conversation(query: bytes, body: bytes) -> bytes:
    agent = query.rpartition(b"agent_id=")[2].partition(b"&")[0].decode()
    if agent not in LETTA.agents:
        return _not_found(f"Agent with ID {agent}")
    settings = msgspec.json.decode(body, type=dict[str, Any]) if body else {}
    return json_response(LETTA.converse(agent, settings).json())


class Door(Connection):
    """One client's connection to the fake server."""

    stream: Stream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        LETTA.stats.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.stream is not None and not self.stream.done:
            self.stream.done = True
            LETTA.stats.hung_up += self.stream.position < len(self.stream.script)

    def answer(self, method: bytes, target: bytes, body: bytes) -> None:
        LETTA.stats.requests += 1
        path, _, query = target.partition(b"?")
        try:
            response = self.route(method, path.strip(b"/").split(b"/"), query, body)
        except (msgspec.MsgspecError, ValueError) as error:
            response = json_response(encode({"detail": str(error)}), 422)
        if response:
            self.transport.write(response)

    def route(self, method: bytes, path: list[bytes], query: bytes, body: bytes) -> bytes | None:
        """The response, or None when it is on its way as a stream."""
        match method, path:
            case b"POST", [b"v1", b"conversations", key, b"messages"]:
                return self.run_in(key.decode(), body)
            case b"POST", [b"v1", b"conversations"]:
                return _create_conversation(query, body)
            case b"POST", [b"v1", b"agents", key, b"messages", b"stream"]:
                return self.run_agent(key.decode(), body)
            case _, [b"v1", b"conversations", key, *rest]:
                return self.conversation(method, key.decode(), rest, query, body)
            case b"GET", [b"v1", *rest]:
                return self.read(rest, {key: values[-1] for key, values in parse_qs(query.decode()).items()})
            case b"POST", [b"__config"]:
                LETTA.configure(msgspec.json.decode(body, type=dict[str, Any]))
                return json_response(encode(LETTA.config))
            case b"GET", [b"__stats"]:
                return json_response(encode(LETTA.stats))
            case _:
                return _not_found("Route")

    def run_in(self, key: str, body: bytes) -> bytes | None:
        """A turn in a conversation, or in an agent's default one under the agent's id."""
        if key == "default":
            key = msgspec.json.decode(body, type=MessagesRequest).agent_id
        if (conversation := LETTA.conversations.get(key)) is None:
            return self.run_agent(key, body)
        self.stream = LETTA.stream(self.transport, body, conversation)
        return None

    def run_agent(self, key: str, body: bytes) -> bytes | None:
        if key not in LETTA.agents:
            return _not_found(f"Agent with ID {key}" if key.startswith("agent-") else f"Conversation {key}")
        self.stream = LETTA.stream(self.transport, body, None)
        return None

    def conversation(self, method: bytes, key: str, rest: list[bytes], query: bytes, body: bytes) -> bytes:
        if (found := LETTA.conversations.get(key)) is None:
            return _not_found(f"Conversation {key}")
        match method, rest:
            case b"GET", []:
                return json_response(found.json())
            case b"PATCH", []:
                found.settings |= msgspec.json.decode(body, type=dict[str, Any])
                return json_response(found.json())
            case b"DELETE", []:
                del LETTA.conversations[key]
                return json_response(b"null")
            case b"GET", [b"messages"]:
                return _list_messages(found, {name: values[-1] for name, values in parse_qs(query.decode()).items()})
            case b"POST", [b"cancel"]:
                return LETTA.cancel(found)
            case _:
                return _not_found("Route")

    def read(self, path: list[bytes], query: dict[str, str]) -> bytes:
        match path:
            case [b"health"]:
                return json_response(b'{"version":"0.16.7","status":"ok"}')
            case [b"agents"]:
                return _list_agents(query)
            case [b"agents", b"count"]:
                return json_response(encode(len(LETTA.agents)))
            case [b"agents", key]:
                known = LETTA.agents.get(key.decode())
                return json_response(known) if known else _not_found(f"Agent with ID {key.decode()}")
            case [b"conversations"]:
                return _list_conversations(query)
            case _:
                return _not_found("Route")


class FakeLetta(Child):
    """A fake Letta in a process of its own, ended with the `with` block and with the process that began it."""

    def __init__(self, agents: int = 20, port: int = 0) -> None:
        super().__init__("fake", python("bench.fake_letta", "--port", str(port), "--agents", str(agents)))

    def configure(self, **changes: int | bool) -> Config:
        """Change how streams are made from now on (see `Config`), and begin a new count."""
        return msgspec.json.decode(fetch(f"{self.url}/__config", encode(changes)), type=Config)

    def stats(self) -> Stats:
        """What has happened since the last `configure`."""
        return msgspec.json.decode(fetch(f"{self.url}/__stats"), type=Stats)


def main() -> None:
    """Serve until the end."""
    parser = argparse.ArgumentParser(prog="python -m bench.fake_letta", description="A fast fake of the Letta server.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; printed as PORT <n>")
    parser.add_argument("--agents", type=int, default=20)
    options = parser.parse_args()
    LETTA.add_agents(options.agents)
    serve(Door, options.port)


if __name__ == "__main__":
    main()
