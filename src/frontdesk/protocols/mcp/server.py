"""The MCP server behind /mcp: lists the agents which the caller may use, and runs a turn for each call.

Imports the library, so that only those who need it import this.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import mcp_types as types
import structlog
from mcp.server import Server as Library
from mcp.server import ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send

from frontdesk import __version__
from frontdesk.errors import GatewayError, InvalidRequest
from frontdesk.gateway import Gateway, Run
from frontdesk.protocols.aside import Aside
from frontdesk.protocols.front import Visitor, trace, visitor
from frontdesk.protocols.mcp.names import shown, tools
from frontdesk.protocols.mcp.routes import call_key, session_of
from frontdesk.protocols.replies import new_id
from frontdesk.protocols.requests import checked, invalid
from frontdesk.stream import Collector, Reply
from frontdesk.turn import (
    Agent,
    Batch,
    Identity,
    Message,
    ReasoningDelta,
    Signals,
    Text,
    TextDelta,
    ToolRunStarted,
    Turn,
)

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any]

INSTRUCTIONS = (
    "Each tool is an agent, which has tools and a memory of its own. Ask it in plain language, and tell it all it needs"
    " to know: it hears nothing but the message. To go on with what was said, give the `conversation` of its result."
)
PAGE = 200  # tools
TITLE_CHARACTERS = 100
DESCRIPTION_CHARACTERS = 1000
PROGRESS_SECONDS = 1.0

INPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "minLength": 1, "description": "What to tell or to ask the agent."},
        "conversation": {
            "type": "string",
            "maxLength": 256,
            "description": "The conversation to go on with, as an earlier result named it. A new one, if left out.",
        },
    },
    "required": ["message"],
    "additionalProperties": False,
}
OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "What the agent says."},
        "conversation": {"type": "string", "description": "To go on with this conversation."},
        "stop_reason": {"type": "string", "description": "`stop`; `length`, where it was cut short."},
    },
    "required": ["text", "stop_reason"],
}


class Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    message: StrictStr = Field(min_length=1)
    conversation: StrictStr = ""


class Server:
    """An ASGI application, once it has started."""

    def __init__(self, gateway: Gateway, max_body_bytes: int) -> None:
        self._gateway = gateway
        self._aside = Aside()
        library: Library[Any] = Library(
            "frontdesk",
            version=__version__,
            title="Frontdesk",
            instructions=INSTRUCTIONS,
            get_tool_input_schema=lambda _: INPUT,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        self._sessions = StreamableHTTPSessionManager(library, stateless=True, max_request_body_size=max_body_bytes)
        self._ending = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        AppStatus.disable_automatic_graceful_drain()  # calls may go on for as long as the server lets them
        started = asyncio.Event()
        self._running = asyncio.create_task(self._run(started))
        await started.wait()

    async def _run(self, started: asyncio.Event) -> None:
        """In a task of its own: what it opens must be closed by the same one."""
        async with self._sessions.run():
            started.set()
            await self._ending.wait()

    async def stop(self) -> None:
        self._ending.set()
        if self._running:
            await self._running
        self._aside.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._sessions.handle_request(scope, receive, send)

    # --- what there is -------------------------------------------------------------------------------------------

    async def _list(self, context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        after = (params and params.cursor) or ""
        found = [(name, agent) for name, agent in self._tools(visitor_of(context)).items() if name > after]
        more = found[PAGE - 1][0] if len(found) > PAGE else None
        return types.ListToolsResult(tools=[described(*each) for each in found[:PAGE]], next_cursor=more)

    def _tools(self, who: Visitor) -> Mapping[str, Agent]:
        return tools(self._gateway.directory.advertised(who.principal))

    # --- a call --------------------------------------------------------------------------------------------------

    async def _call(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        who = visitor_of(context)
        agent = self._tools(who).get(params.name)
        if agent is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {shown(params.name, 128)}")
        activity = Activity()
        telling = asyncio.create_task(tell(context, activity)) if wants_progress(context) else None
        try:
            run = self._gateway.run(turn_of(context, who, agent, arguments(params)))
            await self._aside.read(run, who.turn(), activity.hear)
            return answer(run, activity.reply())
        except GatewayError as error:
            return failure(error)
        except Exception:
            log.exception("a tool call failed", tool=params.name[:128])
            return failure(GatewayError("The gateway failed. Its log has the reason under this request id."))
        finally:
            if telling:
                telling.cancel()


class Activity:
    """What an agent is at, and at last its reply."""

    def __init__(self) -> None:
        self._collector = Collector()
        self._characters = 0
        self.now = "waiting"

    def hear(self, batch: Batch) -> None:
        self._collector.add(batch)
        for event in batch:
            match event:
                case TextDelta(text):
                    self._characters += len(text)
                    self.now = f"writing: {self._characters} characters"
                case ReasoningDelta():
                    self.now = "thinking"
                case ToolRunStarted(name=name):
                    self.now = f"using {shown(name, 64)}"
                case _:
                    pass

    def reply(self) -> Reply:
        return self._collector.reply()


async def tell(context: Context, activity: Activity) -> None:
    """Say every now and then that the agent is at work, so that clients go on waiting for it."""
    count = 0
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        count += 1
        await context.session.report_progress(count, message=activity.now)


def wants_progress(context: Context) -> bool:
    return bool(context.meta and context.meta.get("progress_token") is not None)


def visitor_of(context: Context) -> Visitor:
    assert context.request is not None, "every message comes by HTTP"
    return visitor(context.request.scope)


def described(name: str, agent: Agent) -> types.Tool:
    title = shown(agent.name or agent.id, TITLE_CHARACTERS)
    about = shown(agent.description, DESCRIPTION_CHARACTERS) or f"Ask the agent {title}."
    return types.Tool(name=name, title=title, description=about, input_schema=INPUT, output_schema=OUTPUT)


def arguments(params: types.CallToolRequestParams) -> Arguments:
    """Raises InvalidRequest: the model that wrote them can mend them."""
    try:
        asked = Arguments.model_validate(params.arguments or {})
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False)[0], never) from None
    checked(asked.conversation, "conversation")
    if not asked.message.strip():
        raise InvalidRequest("The message is empty.", param="message")
    return asked


def never(_: Any, param: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for {param!r}.", param=param)


def turn_of(context: Context, who: Visitor, agent: Agent, asked: Arguments) -> Turn:
    """A call in a session has a receipt and a key: by these it is cancelled, whichever process runs it."""
    session = session_of(context.request.scope) if context.request else ""
    known = bool(session) and not who.principal.stranger
    told = json.dumps([asked.message, asked.conversation])
    return Turn(
        id=f"turn_{new_id()}",
        agent=f"{agent.backend}/{agent.id}",
        input=(Message("user", (Text(asked.message),)),),
        conversation=asked.conversation,
        receipt={"mcp": True} if known else None,
        signals=Signals(
            digest=hashlib.blake2b(told.encode(), digest_size=16).hexdigest(),
            key=call_key(session, context.request_id) if known else "",
            trace=trace(context.request.scope) if context.request else (),
        ),
        principal=who.principal,
    )


def answer(run: Run, reply: Reply) -> types.CallToolResult:
    said = [part.text for part in reply.parts if isinstance(part, Message) and part.text]
    body = {"text": "\n\n".join(said), "stop_reason": str(reply.end.stop_reason)}
    if run.conversation_id and run.identity is not Identity.STATELESS:
        body["conversation"] = run.conversation_id
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=body["text"])],
        structured_content=body,
    )


def failure(error: GatewayError) -> types.CallToolResult:
    text = f"{error.message} ({error.public_code})"
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)
