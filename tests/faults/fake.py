"""A Letta server that does as it is told: what a real one does only on a bad day.

The last user message names the script of its turn: `#name#`. A script is an async generator of bytes; it may also cut
the connection or wait until it is let go. `#call name {…}#` asks for a tool of the caller's.

It remembers as Letta 0.16.7 does: what a turn brought, and the reply, are kept when the agent stops, and nothing of a
turn that failed or was cancelled, but for tool results. A client that hangs up stops nothing.
"""

import asyncio
import json
import re
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.cli.servers import row

Script = Callable[["Visit"], AsyncGenerator[bytes, None]]
Answer = Callable[[web.Request], web.StreamResponse]
Row = dict[str, Any]

RELATIONS = ("blocks", "sources", "secrets", "tool_rules", "tools")
KEEPS = frozenset({"end_turn", "tool_rule", "requires_approval", "max_tokens_exceeded", "max_steps"})
RUN, MESSAGE = "run-1", "message-1"
"""What scripts call their run and its messages; each run has ids of its own instead."""


class Cut(Exception):
    """A script raises this to break the connection."""


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def ping() -> bytes:
    return event(message_type="ping", run_id=RUN)


def say(text: str) -> bytes:
    return event(message_type="assistant_message", id=MESSAGE, content=text)


def call(name: str, arguments: str, call_id: str = "") -> bytes:
    """The agent asks for a tool of the caller's."""
    asked = {"name": name, "arguments": arguments, "tool_call_id": call_id or f"call_{uuid.uuid4().hex}"}
    return event(message_type="approval_request_message", id=f"{MESSAGE}-call", tool_call=asked)


def stop(reason: str = "end_turn") -> bytes:
    return event(message_type="stop_reason", stop_reason=reason)


def usage() -> bytes:
    return event(message_type="usage_statistics", prompt_tokens=7, completion_tokens=3)


def failed(kind: str, detail: str = "", message: str = "") -> bytes:
    error = {"message_type": "error_message", "error_type": kind, "detail": detail, "message": message}
    return b"event: error\n" + event(**error, run_id=RUN)


DONE = b"data: [DONE]\n\n"
PROMPT = "You are an agent."
"""What each agent was made with; it begins every conversation."""
PROMPT_ROW: dict[str, Any] = {"id": "message-0", "message_type": "system_message", "content": PROMPT}
KEPT = b": kept\n\n"
"""A step ends here, and is kept whatever becomes of the turn. To clients it is a comment."""


@dataclass
class Visit:
    """One turn at the fake. `heard` is all that its model was given, the history first: role and text."""

    conversation: str
    body: dict[str, Any]
    cancelled: asyncio.Event
    run: str = RUN
    heard: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    rows: list[Row] = field(default_factory=list[Row])
    """What it brought, and what the agent has said since."""
    status: str = "running"
    reason: str = ""
    frames: "asyncio.Queue[bytes | Cut | None]" = field(default_factory=lambda: asyncio.Queue(maxsize=64))
    left: bool = False
    """Whether its client has hung up."""

    @property
    def texts(self) -> list[str]:
        return [message.get("content", "") for message in self.body["messages"]]

    async def send(self, frame: bytes | Cut | None) -> None:
        if not self.left:
            await self.frames.put(frame)

    def leave(self) -> None:
        self.left = True
        while not self.frames.empty():  # a script may wait for room
            self.frames.get_nowait()


@dataclass
class FakeLetta:
    rows: list[dict[str, Any]] = field(default_factory=lambda: [row(1, "Milo"), row(2, "Otis")])
    password: str = ""
    url: str = ""
    shows_hidden: bool = True
    """Whether it lists hidden agents where it is asked to."""
    forks_anywhere: bool = False
    """Whether a fork ends at the message it names. 0.16.7 does not look at that."""
    scripts: dict[str, Script] = field(default_factory=dict[str, Script])
    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    """Other answers: by `METHOD /path`, the longest beginning wins."""
    visits: list[Visit] = field(default_factory=list["Visit"])
    cancels: list[str] = field(default_factory=list[str])
    calls: list[str] = field(default_factory=list[str])
    prompts: list[str] = field(default_factory=list[str])
    """What its model was asked without the agent."""
    overlaps: list[str] = field(default_factory=list[str])
    """Conversations that were given a turn while they had one: Letta would lose a message."""
    open_streams: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    """What `wait` waits for."""
    _conversations: dict[str, Row] = field(default_factory=dict[str, Row])
    _histories: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    _running: dict[str, Visit] = field(default_factory=dict[str, "Visit"])
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, asyncio.Task[None]])  # by run

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._front])
        app.router.add_get("/v1/health/", self._health)
        app.router.add_get("/v1/agents/", self._agents)
        app.router.add_post("/v1/agents/", self._make)
        app.router.add_get("/v1/agents/{id}", self._agent)
        app.router.add_patch("/v1/agents/{id}", self._change)
        app.router.add_delete("/v1/agents/{id}", self._unmake)
        app.router.add_post("/v1/agents/{id}/generate", self._generate)
        app.router.add_get("/v1/conversations/", self._find)
        app.router.add_post("/v1/conversations/", self._open)
        app.router.add_get("/v1/conversations/{id}", self._conversation)
        app.router.add_patch("/v1/conversations/{id}", self._conversation)
        app.router.add_delete("/v1/conversations/{id}", self._delete)
        app.router.add_get("/v1/conversations/{id}/messages", self._messages)
        app.router.add_post("/v1/conversations/{id}/fork", self._fork)
        app.router.add_post("/v1/conversations/{id}/cancel", self._cancel)
        app.router.add_post("/v1/conversations/{id}/messages", self._turn)
        app.router.add_get("/v1/agents/{id}/messages", self._messages)
        app.router.add_post("/v1/agents/{id}/messages/stream", self._turn)
        app.router.add_get("/v1/runs/", self._runs)
        app.router.add_get("/v1/runs/{id}", self._run)
        app.router.add_get("/v1/runs/{id}/messages", self._run)
        app.router.add_get("/v1/runs/{id}/steps", self._run)
        app.on_cleanup.append(self._end_all)
        return app

    @web.middleware
    async def _front(self, request: web.Request, handler: Any) -> web.StreamResponse:
        call = f"{request.method} {request.path}"
        self.calls.append(call if not request.query_string else f"{call}?{request.query_string}")
        if self.password and request.headers.get("Authorization") != f"Bearer {self.password}":
            return web.json_response({"detail": "Unauthorized"}, status=401)
        for beginning in sorted(self.answers, key=len, reverse=True):
            if call.startswith(beginning):
                return self.answers[beginning](request)
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.16.7", "status": "ok"})

    # --- agents --------------------------------------------------------------------------------------------------

    async def _agents(self, request: web.Request) -> web.Response:
        name = request.query.get("name")
        tags = set(request.query.getall("tags", ()))
        hidden = self.shows_hidden and "show_hidden_agents" in request.query
        rows = [row for row in self.rows if name in (None, row["name"]) and not (row.get("hidden") and not hidden)]
        rows = [row for row in rows if not tags or tags & set(row.get("tags") or ())]
        return web.json_response([] if "after" in request.query else rows)

    async def _agent(self, request: web.Request) -> web.Response:
        found = [row for row in self.rows if row["id"] == request.match_info["id"]]
        if not found:
            return not_found(f"Agent with ID {request.match_info['id']}")
        return web.json_response({name: [] for name in RELATIONS} | found[0])

    async def _make(self, request: web.Request) -> web.Response:
        moment = datetime.now(UTC).isoformat()
        about = {"id": f"agent-{uuid.uuid4()}", "created_at": moment}
        self.rows.append(await request.json() | about)
        return web.json_response(self.rows[-1])

    async def _change(self, request: web.Request) -> web.Response:
        changes = await request.json()
        for known in self.rows:
            if known["id"] == request.match_info["id"]:
                known |= changes
        return await self._agent(request)

    async def _unmake(self, request: web.Request) -> web.Response:
        answer = await self._agent(request)
        self.rows[:] = [row for row in self.rows if row["id"] != request.match_info["id"]]
        return answer

    async def _generate(self, request: web.Request) -> web.Response:
        self.prompts.append((await request.json())["prompt"])
        return web.json_response({"content": "By the model alone."})

    # --- conversations -------------------------------------------------------------------------------------------

    async def _find(self, request: web.Request) -> web.Response:
        wanted, agent = request.query["summary_search"], request.query["agent_id"]
        known = [one for one in self._conversations.values() if wanted in one["summary"] and one["agent_id"] == agent]
        return web.json_response(known[:1])

    async def _open(self, request: web.Request) -> web.Response:
        agent = request.query["agent_id"]
        if all(row["id"] != agent for row in self.rows):
            return not_found(f"Agent with ID {agent}")
        return web.json_response(self._made(agent, (await request.json())["summary"], []))

    def _made(self, agent: str, summary: str, history: list[Row]) -> Row:
        made = {"id": f"conv-{uuid.uuid4()}", "agent_id": agent, "summary": summary}
        self._conversations[made["id"]] = made
        self._histories[made["id"]] = history
        return made

    async def _conversation(self, request: web.Request) -> web.Response:
        found = self._conversations.get(request.match_info["id"])
        if found and request.method == "PATCH":
            found |= await request.json()
        if not found:
            return not_found("Conversation")
        ids = dict.fromkeys(row["id"] for row in self._histories[found["id"]])
        return web.json_response(found | {"in_context_message_ids": list(ids)})

    async def _delete(self, request: web.Request) -> web.Response:
        self._histories.pop(request.match_info["id"], None)
        found = self._conversations.pop(request.match_info["id"], None)
        return web.json_response({}) if found else not_found("Conversation")

    async def _fork(self, request: web.Request) -> web.Response:
        found = self._conversations.get(request.match_info["id"])
        if not found:
            return not_found("Conversation")
        history = list(self._histories[found["id"]])
        if self.forks_anywhere and (at := request.query.get("message_id")):
            ends = [index for index, row in enumerate(history) if row["id"] == at]
            if not ends:
                return not_found("Message")
            history = history[: ends[-1] + 1]
        return web.json_response(self._made(found["agent_id"], found["summary"], history))

    def _of(self, request: web.Request, agent: str | None = None) -> str:
        """The conversation of a request: an agent's own thread is kept under the agent's id."""
        name = request.match_info["id"]
        return (agent or request.query.get("agent_id", "")) if name == "default" else name

    async def _messages(self, request: web.Request) -> web.Response:
        rows = list(self._histories.get(self._of(request), ()))
        ids = list(dict.fromkeys(row["id"] for row in rows))
        if after := request.query.get("after"):
            ids = ids[ids.index(after) + 1 :]
        limit = int(request.query.get("limit", 100))
        newest_first = request.query.get("order") == "desc"
        chosen = ids[-limit:] if newest_first or request.match_info["id"] == "default" else ids[:limit]
        if newest_first and request.match_info["id"] != "default":
            chosen.reverse()
        told = [row for each in chosen for row in rows if row["id"] == each]
        if request.query.get("order") == "asc" and not after:
            told = [PROMPT_ROW, *told][:limit]
        return web.json_response(told)

    # --- turns ---------------------------------------------------------------------------------------------------

    async def _turn(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        conversation = self._of(request, body.get("agent_id"))
        if conversation.startswith("conv-") and conversation not in self._conversations:
            return not_found("Conversation")
        history = self._histories.setdefault(conversation, [])
        calls = waiting(history)
        answers = [answer for each in body["messages"] for answer in each.get("approvals", ())]
        if calls and not answers:
            return web.json_response({"detail": WAITING}, status=409)
        visit = Visit(conversation, body, asyncio.Event(), f"run-{len(self.visits) + 1}")
        self.visits.append(visit)
        if conversation in self._running:
            self.overlaps.append(conversation)
        self._running[conversation] = visit
        given = [answer["tool_call_id"] for answer in answers]
        if answers and sorted(given) != sorted(calls) and (calls or not answered(history, given)):
            expected = f"Invalid tool call IDs. Expected '{calls}', but received '{given}'."
            work = self._go(visit, refusing(expected if calls else NOT_WAITING))
        else:
            visit.rows = [input_row(visit, index, message) for index, message in enumerate(body["messages"])]
            if answers and not calls:  # it has these results already
                visit.rows[0] = visit.rows[0] | {"message_type": "user_message", "content": KEEP_ALIVE}
            results = [each for each in visit.rows if each["message_type"] == "approval_response_message"]
            history += results  # Letta keeps them whatever becomes of the turn
            visit.rows = [each for each in visit.rows if each not in results]
            visit.heard = [said for each in (*history, *visit.rows) for said in told(each)]
            work = self._go(visit, self._script(visit))
        self._tasks[visit.run] = asyncio.create_task(work)
        return await self._stream(request, visit)

    async def _stream(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        self.open_streams += 1
        try:
            while isinstance(frame := await visit.frames.get(), bytes):
                if not response.prepared:
                    await response.prepare(request)
                if frame:
                    await response.write(frame)
            if isinstance(frame, Cut) and request.transport:
                request.transport.abort()
        except ConnectionError:  # whoever asked has hung up
            pass
        finally:
            self.open_streams -= 1
            visit.leave()
        return response

    async def _go(self, visit: Visit, script: Script) -> None:
        """A run, to its end, whoever listens."""
        end: Cut | None = None
        try:
            async for frame in script(visit):
                frame = frame.replace(f'"{RUN}"'.encode(), f'"{visit.run}"'.encode())
                frame = frame.replace(f'"{MESSAGE}'.encode(), f'"message-{visit.run}'.encode())
                self._note(visit, frame)
                await visit.send(frame)
                await asyncio.sleep(0)
        except Cut as cut:
            end = cut
        except asyncio.CancelledError:
            if not visit.cancelled.is_set():
                raise
            visit.status, visit.reason = "cancelled", "cancelled"
            with suppress(asyncio.QueueFull):
                visit.frames.put_nowait(stop("cancelled"))
        finally:
            if visit.status == "running":
                visit.status, visit.reason = "failed", "error"
            self._ended(visit)
        await visit.send(end)

    def _note(self, visit: Visit, frame: bytes) -> None:
        if frame == KEPT:
            self._histories.setdefault(visit.conversation, []).extend(visit.rows)
            visit.rows = []
        for data in re.findall(rb"^data: (\{.*\})$", frame, re.MULTILINE):
            with suppress(ValueError):
                message: Row = json.loads(data)
                if message.get("message_type") == "stop_reason" and visit.status == "running":
                    self._stopped(visit, message["stop_reason"])
                elif visit.status == "running":
                    add(visit.rows, message, visit.run)

    def _stopped(self, visit: Visit, reason: str) -> None:
        visit.reason = reason
        visit.status = "completed" if reason in KEEPS else "cancelled" if reason == "cancelled" else "failed"
        if visit.status == "completed":
            self._histories.setdefault(visit.conversation, []).extend(visit.rows)
        self._ended(visit)

    def _ended(self, visit: Visit) -> None:
        if self._running.get(visit.conversation) is visit:
            del self._running[visit.conversation]

    async def _cancel(self, request: web.Request) -> web.Response:
        conversation = request.match_info["id"]
        self.cancels.append(conversation)
        if visit := self._running.get(conversation):
            visit.cancelled.set()
            self._tasks[visit.run].cancel()
            return web.json_response({visit.run: "cancelled"})
        return web.json_response({"detail": "CONFLICT: No active runs to cancel"}, status=409)

    async def _end_all(self, _: web.Application) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _script(self, visit: Visit) -> Script:
        last = text_of(visit.texts[-1])
        if "#call " in last:
            return calling
        names = re.findall(r"#([\w.-]+)#", last)
        return self.scripts.get(names[-1], echo) if names else echo

    # --- runs ----------------------------------------------------------------------------------------------------

    async def _runs(self, request: web.Request) -> web.Response:
        running = [visit for visit in self._running.values() if visit.conversation == request.query["conversation_id"]]
        return web.json_response([run_row(visit) for visit in running])

    async def _run(self, request: web.Request) -> web.Response:
        found = [visit for visit in self.visits if visit.run == request.match_info["id"]]
        if not found:
            return not_found("Run")
        if request.path.endswith("/messages"):
            return web.json_response(found[0].rows if found[0].status == "completed" else [])
        return web.json_response([] if request.path.endswith("/steps") else run_row(found[0]))

    # --- for tests -----------------------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Until the test opens the gate."""
        while not self.gate.is_set():  # noqa: ASYNC110 - it is opened in another thread
            await asyncio.sleep(0.01)

    def forget(self, conversation: str) -> None:
        """Somebody has deleted a conversation."""
        del self._conversations[conversation], self._histories[conversation]

    def texts(self, marker: str) -> list[list[str]]:
        """What each turn whose messages hold the marker was given."""
        return [visit.texts for visit in self.visits if any(marker in text for text in visit.texts)]

    def heard(self, marker: str) -> list[tuple[str, str]]:
        """All that the model was given in the latest turn which brought the marker."""
        return self.visits_with(marker)[-1].heard

    def visits_with(self, marker: str) -> list[Visit]:
        """The turns which brought the marker with their last message."""
        return [visit for visit in self.visits if visit.heard and marker in visit.heard[-1][1]]


WAITING = (
    "CONFLICT: Cannot send a new message: The agent is waiting for approval on a tool call. "
    "Please approve or deny the pending request before continuing."
)
KEEP_ALIVE = "<system-alert>Automated keep-alive ping, ignore this.</system-alert>"
NOT_WAITING = "Cannot process approval response: No tool call is currently awaiting approval."


def input_row(visit: Visit, index: int, message: Row) -> Row:
    """A message of a turn as Letta lists it."""
    kept: Row = {"id": f"message-{visit.run}-in-{index}", "run_id": visit.run, "otid": message.get("otid")}
    if "approvals" in message:
        return kept | {"message_type": "approval_response_message", "approvals": message["approvals"]}
    return kept | {"message_type": f"{message['role']}_message", "content": message["content"]}


def add(rows: list[Row], message: Row, run: str) -> None:
    """One more piece of what the agent says."""
    kind, same = message.get("message_type"), rows[-1] if rows else {}
    goes_on = (same.get("message_type"), same.get("id")) == (kind, message.get("id"))
    match kind:
        case "assistant_message" | "reasoning_message":
            name = "content" if kind == "assistant_message" else "reasoning"
            if goes_on:
                same[name] += message[name]
            else:
                rows.append({"id": message["id"], "message_type": kind, name: message[name], "run_id": run})
        case "approval_request_message" | "tool_call_message":
            called = dict(message["tool_call"])
            calls: list[Row] = same["tool_calls"] if goes_on else []
            if calls and calls[-1]["tool_call_id"] == called["tool_call_id"]:
                calls[-1]["arguments"] += called["arguments"] or ""
            elif goes_on:
                calls.append(called)
            else:
                rows.append({"id": message["id"], "message_type": kind, "tool_calls": [called], "run_id": run})
        case "tool_return_message":
            rows.append(message | {"run_id": run})
        case _:
            pass


def told(each: Row) -> list[tuple[str, str]]:
    """A message as the model is given it."""
    match each["message_type"]:
        case "user_message" | "system_message" | "assistant_message" as kind:
            return [(kind.removesuffix("_message"), text_of(each["content"]))]
        case "approval_request_message" | "tool_call_message":
            return [("assistant", f"{one['name']}({one['arguments']})") for one in each["tool_calls"]]
        case "approval_response_message":
            return [("tool", text_of(one.get("tool_return", "denied"))) for one in each["approvals"]]
        case "tool_return_message":
            return [("tool", text_of(each["tool_return"]))]
        case _:
            return []


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts: Sequence[Row] = content or ()
    return "".join(part.get("text", "[picture]") for part in parts)


def waiting(history: Sequence[Row]) -> list[str]:
    """The calls which the caller has to answer before the agent goes on."""
    last = history[-1] if history else {}
    if last.get("message_type") != "approval_request_message":
        return []
    return [one["tool_call_id"] for one in last["tool_calls"]]


def answered(history: Sequence[Row], calls: Sequence[str]) -> bool:
    """Whether these calls are the ones which were answered last: Letta then lets the agent speak again."""
    rows = [each for each in history if each["message_type"] == "approval_response_message"]
    return bool(rows) and sorted(one["tool_call_id"] for one in rows[-1]["approvals"]) == sorted(calls)


def run_row(visit: Visit) -> Row:
    own = not visit.conversation.startswith("conv-")
    conversation = None if own else visit.conversation
    return {"id": visit.run, "status": visit.status, "stop_reason": visit.reason, "conversation_id": conversation}


def refusing(detail: str) -> Script:
    async def script(_: Visit) -> AsyncGenerator[bytes, None]:
        for frame in (ping(), stop("error"), failed("internal_error", detail), DONE):
            yield frame

    return script


def own_tools(text: str) -> Script:
    """The agent thinks, runs two tools of its own, of which one fails, and says so."""

    async def script(_: Visit) -> AsyncGenerator[bytes, None]:
        yield ping()
        yield event(message_type="reasoning_message", id="r-1", reasoning="I could look it up.")
        for number, status in ((1, "success"), (2, "error")):
            tool = {"name": "search", "arguments": '{"q":"snow"}', "tool_call_id": f"own-{number}"}
            yield event(message_type="tool_call_message", id=f"t-{number}", tool_call=tool)
            returned = {"tool_call_id": f"own-{number}", "tool_return": f"result {number}", "status": status}
            yield event(message_type="tool_return_message", id=f"u-{number}", **returned)
        for frame in (say(text), stop(), usage(), DONE):
            yield frame

    return script


def held(fake: FakeLetta, begins: str = "Begun, ", ends: str = "and done.") -> Script:
    """The agent begins to speak, and ends when it is let go: by `fake.gate`."""

    async def script(_: Visit) -> AsyncGenerator[bytes, None]:
        for frame in (ping(), say(begins)):
            yield frame
        await fake.wait()
        for frame in (say(ends), stop(), usage(), DONE):
            yield frame

    return script


async def limited(_: Visit) -> AsyncGenerator[bytes, None]:
    """In the middle of the answer, the model's provider allows no more."""
    for frame in (ping(), say("Half"), failed("llm_rate_limit", "RATE_LIMIT_EXCEEDED: slow down")):
        yield frame


async def echo(visit: Visit) -> AsyncGenerator[bytes, None]:
    said = visit.heard[-1][1] if visit.heard else text_of(visit.texts[-1])
    for data in (ping(), say("You said: "), say(said), stop(), usage(), DONE):
        yield data


async def calling(visit: Visit) -> AsyncGenerator[bytes, None]:
    """Asks for each tool of `#call name {…}#`, in pieces."""
    yield ping()
    for name, arguments in re.findall(r"#call (\w+) (.*?)#", text_of(visit.texts[-1])):
        call_id = f"call_{uuid.uuid4().hex}"
        yield call(name, arguments[:2], call_id)
        yield call(name, arguments[2:], call_id)
    for frame in (stop("requires_approval"), usage(), DONE):
        yield frame


def not_found(what: str) -> web.Response:
    return web.json_response({"detail": f"{what} not found"}, status=404)


@contextmanager
def listening(app: web.Application) -> Generator[str]:
    """The app on a free port, in a thread with a loop of its own. Yields its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)

    async def start() -> str:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def fake_letta(**fields: Any) -> Generator[FakeLetta]:
    fake = FakeLetta(**fields)
    with listening(fake.app()) as fake.url:
        try:
            yield fake
        finally:
            fake.gate.set()
