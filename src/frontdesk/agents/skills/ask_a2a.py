"""An agent that speaks A2A, as one that can be asked. Imports the library: only those who ask such agents import this.

https://a2a-protocol.org/latest/specification
"""

import asyncio
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import httpx
import structlog
from a2a.client import A2ACardResolver, Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError, A2AClientTimeoutError
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import A2AError
from google.protobuf.json_format import MessageToDict
from pydantic_ai.exceptions import ToolFailed

from frontdesk.agents.context import Context
from frontdesk.agents.skills.ask import Question
from frontdesk.agents.skills.outward import Elsewhere, label, origin

log = structlog.get_logger(__name__)

CARD_SECONDS = 300.0
"""How long a card is taken for what the agent is."""

POLL_SECONDS = 1.0
CANCEL_SECONDS = 5.0
MAX_THREADS = 10_000

AT_WORK = (TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING)
ASKS_BACK = (TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED)
FAILURES = {
    TaskState.TASK_STATE_FAILED: "It failed.",
    TaskState.TASK_STATE_REJECTED: "It refused the question.",
    TaskState.TASK_STATE_CANCELED: "It was stopped.",
}


@dataclass(frozen=True, slots=True)
class Thread:
    """Where a conversation stands with the agent; `task` is one that waits for what we say next."""

    context: str = ""
    task: str = ""


class A2AColleague:
    """Conversations with it are remembered by this process, the latest of them."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url.rstrip("/")
        self._http = http
        self._client: Client | None = None
        self._known_until = 0.0
        self._connecting = asyncio.Lock()
        self._threads: OrderedDict[str, Thread] = OrderedDict()
        self._cancelling: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        if self._cancelling:
            await asyncio.wait(self._cancelling, timeout=CANCEL_SECONDS)

    async def ask(self, here: Context, question: Question) -> str:
        try:
            return await self._ask(question)
        except A2AClientTimeoutError as error:
            raise TimeoutError from error
        except A2AClientError as error:
            self._known_until = 0.0
            log.warning("an A2A agent cannot be asked", url=label(self._url), error=reason(error))
            raise ToolFailed(told(error)) from error
        except A2AError as error:
            raise ToolFailed("It refused the question.") from error

    async def _ask(self, question: Question) -> str:
        client = await self._connected()
        context = ClientCallContext(service_parameters=question.headers)
        known = self._threads.get(question.pin, Thread())
        message = Message(
            message_id=uuid.uuid4().hex,
            role=Role.ROLE_USER,
            parts=[Part(text=question.message)],
            context_id=known.context,
            task_id=known.task,
        )
        task_id = ""
        try:
            async for event in client.send_message(SendMessageRequest(message=message), context=context):
                match event.WhichOneof("payload"):
                    case "message":
                        self._remember(question, Thread(event.message.context_id))
                        return text_of(event.message.parts)
                    case "task":
                        task_id = event.task.id
                    case "status_update":
                        task_id = event.status_update.task_id
                    case _:
                        pass
            task = await self._ended(client, task_id, context)
        except asyncio.CancelledError:
            self._cancel(client, task_id, context)
            raise
        state = task.status.state
        self._remember(question, Thread(task.context_id, task.id if state in ASKS_BACK else ""))
        if state in FAILURES:
            raise ToolFailed(f"{FAILURES[state]} {text_of(task.status.message.parts)}".strip())
        said = "\n\n".join(text for each in task.artifacts if (text := text_of(each.parts)))
        return said or text_of(task.status.message.parts)

    async def _ended(self, client: Client, task_id: str, context: ClientCallContext) -> Task:
        """The task, once it is at work no more."""
        if not task_id:
            raise ToolFailed("It answered nothing.")
        while True:
            task = await client.get_task(GetTaskRequest(id=task_id), context=context)
            if task.status.state not in AT_WORK:
                return task
            await asyncio.sleep(POLL_SECONDS)

    def _cancel(self, client: Client, task_id: str, context: ClientCallContext) -> None:
        """Nobody waits for the task any more."""
        if task_id:
            cancelling = asyncio.create_task(cancelled(client, task_id, context))
            self._cancelling.add(cancelling)
            cancelling.add_done_callback(self._cancelling.discard)

    def _remember(self, question: Question, thread: Thread) -> None:
        if question.pin:
            self._threads[question.pin] = thread
            self._threads.move_to_end(question.pin)
            while len(self._threads) > MAX_THREADS:
                self._threads.popitem(last=False)

    async def _connected(self) -> Client:
        """As the agent's card says. Raises A2AClientError."""
        async with self._connecting:
            if self._client is None or time.monotonic() > self._known_until:
                card = await A2ACardResolver(self._http, self._url).get_agent_card()
                home = origin(httpx.URL(self._url))
                near = [each for each in card.supported_interfaces if origin(httpx.URL(each.url)) == home]
                if not near:
                    raise A2AClientError("the card") from Elsewhere("the card names other servers only")
                del card.supported_interfaces[:]
                card.supported_interfaces.extend(near)
                self._client = ClientFactory(ClientConfig(httpx_client=self._http)).create(card)
                self._known_until = time.monotonic() + CARD_SECONDS
            return self._client


async def cancelled(client: Client, task_id: str, context: ClientCallContext) -> None:
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            await client.cancel_task(CancelTaskRequest(id=task_id), context=context)
    except Exception as error:
        log.info("an A2A task could not be cancelled", error=type(error).__name__)


def text_of(parts: Iterable[Part]) -> str:
    """What is text in them, and data as JSON. Files are not read."""
    said: list[str] = []
    for part in parts:
        match part.WhichOneof("content"):
            case "text":
                said.append(part.text)
            case "data":
                said.append(json.dumps(MessageToDict(part.data), ensure_ascii=False))
            case _:
                said.append(f"[{part.filename[:100] or part.media_type[:100] or 'a file'}: not shown]")
    return "".join(said)


def told(error: A2AClientError) -> str:
    """For the model, without what the other side has said."""
    cause = error.__cause__
    if isinstance(cause, Elsewhere):
        return "Its card names another server than the one it was written down with."
    if isinstance(cause, httpx.HTTPStatusError):
        return f"It answered with HTTP {cause.response.status_code}."
    if isinstance(cause, httpx.RequestError):
        return "It cannot be reached at the moment."
    return "It refused the question, or its answer cannot be read."


def reason(error: A2AClientError) -> str:
    return type(error.__cause__ or error).__name__
