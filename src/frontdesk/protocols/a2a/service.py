"""A2A's methods, on our turns: a task is a turn that runs by itself, and its receipt.

So a task outlives its client, this process too, and any process finds it. Nothing is kept for strangers: they are
answered with a message, of which there is no task.

Imports the library, so that only those who need it import this.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import msgspec
import structlog
from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.server.routes.common import ServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.types import a2a_pb2 as types
from a2a.utils import errors
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE, VERSION_HEADER
from a2a.utils.proto_utils import validate_proto_required_fields
from a2a.utils.task import apply_history_length, validate_history_length, validate_page_size
from google.protobuf.message import Message
from sse_starlette.sse import AppStatus
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from frontdesk.conversations.receipts import Receipt, Receipts, Wanted
from frontdesk.errors import ConversationNotFound, GatewayError, InvalidRequest, TurnNotFound
from frontdesk.gateway import Gateway
from frontdesk.protocols.a2a import decode, encode
from frontdesk.protocols.a2a.cards import card
from frontdesk.protocols.aside import Aside
from frontdesk.protocols.front import Address, Visitor, address, again, trace, visitor
from frontdesk.protocols.replies import new_id
from frontdesk.stream import Collector
from frontdesk.turn import Agent, Principal, Turn

log = structlog.get_logger(__name__)

KIND = "a2a"
SETTLING_SECONDS = 0.25
"""How long to wait before a task is looked at again whose end is still being found out."""


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks whom. To whoever asks there is no other agent."""

    there: Address
    who: Visitor
    trace: tuple[str, ...] = ()

    @property
    def principal(self) -> Principal:
        return self.who.principal

    @property
    def agent(self) -> Agent:
        return self.there.agent


class Contexts(ServerCallContextBuilder):
    def build(self, request: Request) -> ServerCallContext:
        there = address(request.scope)
        assert there, "every request is for an agent"
        version = {VERSION_HEADER: request.headers.get(VERSION_HEADER, "")}
        return ServerCallContext(
            state={"call": Call(there, visitor(request.scope), trace(request.scope)), "headers": version}
        )


class Service:
    def __init__(self, gateway: Gateway, receipts: Receipts) -> None:
        AppStatus.disable_automatic_graceful_drain()  # streams may go on for as long as the server lets them
        self._handler = Handler(gateway, receipts)
        self._dispatcher = JsonRpcDispatcher(self._handler, Contexts(), enable_v0_3_compat=True)

    async def answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Answer a request to an agent, which the scope names."""
        response = await self._dispatcher.handle_requests(Request(scope, again(body, receive)))
        await response(scope, receive, send)

    def card(self, agent: Agent, url: str, *, keyed: bool) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            body = agent_card_to_dict(card(agent, url, keyed=keyed))
            tag = f'W/"{sha256(msgspec.json.encode(body, order="sorted")).hexdigest()[:32]}"'
            headers = {"etag": tag, "cache-control": "private, max-age=60"}
            unchanged = Request(scope).headers.get("if-none-match") == tag
            response = Response(status_code=304, headers=headers) if unchanged else JSONResponse(body, headers=headers)
            await response(scope, receive, send)

        return answer

    def stop(self) -> None:
        self._handler.stop()


class Handler(RequestHandler):
    """What is asked in A2A's own words, from whichever version of the protocol and in whichever form."""

    def __init__(self, gateway: Gateway, receipts: Receipts) -> None:
        self._gateway = gateway
        self._receipts = receipts
        self._aside = Aside()

    def stop(self) -> None:
        self._aside.stop()

    # --- messages ------------------------------------------------------------------------------------------------

    async def on_message_send(
        self, params: types.SendMessageRequest, context: ServerCallContext
    ) -> types.Task | types.Message:
        call, asked = call_of(context), params.configuration
        with answering(params):
            turn = await self._turn(params, call)
            if call.principal.stranger:
                return await self._said(call, turn, params.message.context_id)
            id = await self._begin(call, turn)
            if not asked.return_immediately:
                async for _ in self._heard(call, await self._task(call, id)):
                    pass
            return apply_history_length(await self._task(call, id), asked)

    async def on_message_send_stream(
        self, params: types.SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        call = call_of(context)
        with answering(params):
            turn = await self._turn(params, call)
            if call.principal.stranger:
                yield await self._said(call, turn, params.message.context_id)
                return
            task = await self._task(call, await self._begin(call, turn))
            yield apply_history_length(task, params.configuration)
            async with aclosing(self._heard(call, task)) as updates:
                async for update in updates:
                    yield update

    async def _turn(self, params: types.SendMessageRequest, call: Call) -> Turn:
        """Raises InvalidRequest, and what A2A has for a message to a task: those of ours take no more of them."""
        validate_history_length(params.configuration)
        if params.configuration.HasField("task_push_notification_config"):
            raise errors.PushNotificationNotSupportedError
        if params.message.task_id:
            task = await self._task(call, encode.turn_id(params.message.task_id))
            if params.message.context_id not in ("", task.context_id):
                raise errors.InvalidParamsError("This task is of another context.")
            raise errors.UnsupportedOperationError(
                "A task takes no more messages. Send a message with its contextId, and no taskId, to go on after it."
            )
        return decode.turn(params.message, call.there.model, call.principal, f"turn_{new_id()}", call.trace)

    async def _begin(self, call: Call, turn: Turn) -> str:
        """Let a turn run by itself. Gives the one whose answer it has: another, if this message has come before."""
        run = self._gateway.run(turn)
        await self._gateway.begin(run, call.who.turn())
        return run.answered_by

    async def _said(self, call: Call, turn: Turn, context: str) -> types.Message:
        """A stranger's turn, from beginning to end."""
        collector = Collector()
        run = self._gateway.run(replace(turn, background=False, receipt=None))
        await self._aside.read(run, call.who.turn(), collector.add)
        return encode.message(collector.reply(), turn.id, context)

    async def _heard(self, call: Call, task: types.Task) -> AsyncGenerator[encode.Update]:
        """A task's updates from its beginning to its end."""
        turn_id = encode.turn_id(task.id)
        while task.status.state in encode.LIVE:
            updates = encode.Updates(task)
            try:
                async with aclosing(self._gateway.hear(turn_id).batches()) as batches:
                    async for batch in batches:
                        for update in updates(batch):
                            yield update
            except GatewayError:
                pass  # its receipt says what went wrong
            task = await self._task(call, turn_id)
            if task.status.state in encode.LIVE:  # the connection to its agent was lost, and it may go on there
                await asyncio.sleep(SETTLING_SECONDS)
        yield encode.ended(task)

    # --- tasks ---------------------------------------------------------------------------------------------------

    async def _task(self, call: Call, turn_id: str) -> types.Task:
        return encode.task(await self._receipt(call, turn_id))

    async def _receipt(self, call: Call, turn_id: str) -> Receipt:
        """Raises TurnNotFound, also for what was not asked for by A2A."""
        receipt = await self._receipts.get(call.principal, turn_id)
        if KIND not in receipt.body:
            raise TurnNotFound("There is no such task.")
        return receipt

    async def on_get_task(self, params: types.GetTaskRequest, context: ServerCallContext) -> types.Task:
        with answering(params):
            validate_history_length(params)
            return apply_history_length(await self._task(call_of(context), encode.turn_id(params.id)), params)

    async def on_cancel_task(self, params: types.CancelTaskRequest, context: ServerCallContext) -> types.Task:
        call = call_of(context)
        with answering(params):
            receipt = await self._receipt(call, encode.turn_id(params.id))
            if receipt.state not in ("queued", "running"):
                raise errors.TaskNotCancelableError("This task has come to its end.")
            await self._gateway.cancel(receipt.answered_by)
            return await self._task(call, receipt.turn_id)

    async def on_subscribe_to_task(
        self, params: types.SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        call = call_of(context)
        with answering(params):
            task = await self._task(call, encode.turn_id(params.id))
            if task.status.state not in encode.LIVE:
                raise errors.UnsupportedOperationError("This task has come to its end. Get it instead.")
            yield task
            async with aclosing(self._heard(call, task)) as updates:
                async for update in updates:
                    yield update

    async def on_list_tasks(
        self, params: types.ListTasksRequest, context: ServerCallContext
    ) -> types.ListTasksResponse:
        call, size = call_of(context), DEFAULT_LIST_TASKS_PAGE_SIZE
        with answering(params):
            validate_history_length(params)
            if params.HasField("page_size"):
                validate_page_size(size := params.page_size)
            wanted = Wanted(
                kind=KIND,
                context=params.context_id,
                states=encode.states(params.status),
                since=params.status_timestamp_after.ToMilliseconds() / 1000,
                after=params.page_token,
                limit=size,
            )
            page = await self._receipts.page(call.principal, call.agent, wanted)
            tasks = [apply_history_length(encode.task(receipt), params) for receipt in page.receipts]
            if not params.include_artifacts:
                for task in tasks:
                    task.ClearField("artifacts")
            return types.ListTasksResponse(
                tasks=tasks, next_page_token=page.next, page_size=size, total_size=page.total
            )

    # --- what there is none of -----------------------------------------------------------------------------------

    async def on_create_task_push_notification_config(
        self, params: types.TaskPushNotificationConfig, context: ServerCallContext
    ) -> types.TaskPushNotificationConfig:
        raise errors.PushNotificationNotSupportedError

    async def on_get_task_push_notification_config(
        self, params: types.GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> types.TaskPushNotificationConfig:
        raise errors.PushNotificationNotSupportedError

    async def on_list_task_push_notification_configs(
        self, params: types.ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> types.ListTaskPushNotificationConfigsResponse:
        raise errors.PushNotificationNotSupportedError

    async def on_delete_task_push_notification_config(
        self, params: types.DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        raise errors.PushNotificationNotSupportedError

    async def on_get_extended_agent_card(
        self, params: types.GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> types.AgentCard:
        raise errors.UnsupportedOperationError("There is no other card than the agent's one.")


def call_of(context: ServerCallContext) -> Call:
    return context.state["call"]


@contextmanager
def answering(params: Message) -> Generator[None]:
    """Our errors as A2A's, and first what these parameters lack. What is an error of neither is told to nobody."""
    try:
        validate_proto_required_fields(params)
        yield
    except errors.A2AError:
        raise
    except GatewayError as error:
        raise failure(error) from error
    except Exception as error:
        log.exception("an A2A request failed")
        sentence = "The gateway failed. Its log has the reason under this request id."
        raise errors.InternalError(sentence) from error


def failure(error: GatewayError) -> errors.A2AError:
    told: dict[str, Any] = {"code": error.public_code}
    match error:
        case TurnNotFound():
            return errors.TaskNotFoundError("There is no such task.")
        case InvalidRequest() if error.public_code == decode.FOREIGN:
            return errors.ContentTypeNotSupportedError(error.message, told)
        case InvalidRequest() | ConversationNotFound():
            return errors.InvalidParamsError(error.message, told | ({"param": error.param} if error.param else {}))
        case _:
            return errors.InternalError(error.message, told)
