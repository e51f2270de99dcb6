"""What is told of each endpoint in the OpenAPI document, beside what FastAPI finds out by itself: a table.

A new endpoint takes a line in `OPERATIONS`, and the shape of its answer in `answers`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from frontdesk.protocols import answers
from frontdesk.protocols.a2a.paths import CARD
from frontdesk.protocols.chat_completions import schema as chat_completions
from frontdesk.protocols.responses import schema as responses

JSON, EVENTS, HTML, TEXT = "application/json", "text/event-stream", "text/html", "text/plain"


@dataclass(frozen=True, slots=True)
class Operation:
    """What FastAPI does not find out about an endpoint."""

    id: str
    answer: type[BaseModel] | None = None
    status: int = 200
    media: tuple[str, ...] = (JSON,)
    """What the answer comes as. `answer` is the shape of the JSON."""
    errors: tuple[int, ...] = ()
    """Statuses, beside those which every endpoint, or every one with a body or with a name in its path, can answer."""
    also: tuple[int, ...] = ()
    """Statuses of errors which may have the shape of the answer."""
    request_headers: tuple[str, ...] = ()
    answer_headers: tuple[str, ...] = ()
    event: type[BaseModel] | None = None
    """What each event of a stream holds, unless it is an error."""
    request: type[BaseModel] | None = None
    summary: str = ""
    tag: str = ""
    """These three where FastAPI has no route to read them from."""


BACKEND = (502, 503, 504)
TURN = (402, 403, 404, 409, *BACKEND)

ASKER_HEADERS = ("x-openwebui-user-id", "x-openwebui-user-jwt")

TURN_REQUEST_HEADERS = (
    "x-frontdesk-conversation",
    "idempotency-key",
    "x-openwebui-chat-id",
    "x-openwebui-message-id",
    "x-openwebui-user-message-parent-id",
    "x-openwebui-task",
)
TURN_ANSWER_HEADERS = (
    "x-frontdesk-turn",
    "x-frontdesk-conversation",
    "x-frontdesk-identity",
    "x-frontdesk-ignored-params",
    "idempotency-replayed",
    "openai-processing-ms",
    "openai-version",
)

ELSEWHERE = frozenset({"/mcp", "/a2a/{rest}", CARD, f"/agents/{{rest}}{CARD}"})
"""Paths of other protocols, which describe them."""

OPEN = frozenset({"GET /health/live", "GET /health/ready"})
"""They need no key."""

OPERATIONS: Mapping[str, Operation] = {
    "GET /": Operation("index", answers.Places, media=(JSON, HTML)),
    "GET /health": Operation("health", answers.Health, also=(503,)),
    "GET /health/live": Operation("live", answers.Alive),
    "GET /health/ready": Operation("ready", answers.Ready, also=(503,)),
    "GET /metrics": Operation("metrics", media=(TEXT,)),
    "GET /openapi.json": Operation("openapi", answers.Document, summary="This document", tag="About"),
    "GET /docs": Operation("docs", media=(HTML,), summary="This document, to read and to try", tag="About"),
    "GET /agents": Operation("list_agents", answers.AgentEntries),
    "GET /agents/{name}": Operation("retrieve_agent", answers.AgentDescription, errors=BACKEND),
    "GET /v1/models": Operation("list_models", answers.Agents),
    "GET /v1/models/{model}": Operation("retrieve_model", answers.Agent, errors=BACKEND),
    "POST /v1/chat/completions": Operation(
        "create_chat_completion",
        answers.ChatCompletion,
        media=(JSON, EVENTS),
        errors=TURN,
        request_headers=TURN_REQUEST_HEADERS,
        answer_headers=TURN_ANSWER_HEADERS,
        event=answers.ChatCompletionChunk,
        request=chat_completions.ChatCompletionRequest,
        summary="Talk to an agent",
        tag="Chat Completions",
    ),
    "POST /v1/responses": Operation(
        "create_response",
        answers.Response,
        media=(JSON, EVENTS),
        event=answers.ResponseStreamEvent,
        errors=TURN,
        request_headers=TURN_REQUEST_HEADERS,
        answer_headers=TURN_ANSWER_HEADERS,
        request=responses.ResponsesRequest,
        summary="Talk to an agent",
        tag="Responses",
    ),
    "GET /v1/responses/{response_id}": Operation(
        "retrieve_response",
        answers.Response,
        media=(JSON, EVENTS),
        event=answers.ResponseStreamEvent,
        errors=BACKEND,
    ),
    "DELETE /v1/responses/{response_id}": Operation("delete_response", answers.DeletedResponse, errors=BACKEND),
    "POST /v1/responses/{response_id}/cancel": Operation("cancel_response", answers.Response, errors=(409, *BACKEND)),
    "GET /v1/responses/{response_id}/input_items": Operation(
        "list_response_input_items", answers.Items, errors=BACKEND
    ),
    "GET /v1/conversations": Operation("list_conversations", answers.Conversations, errors=(404, *BACKEND)),
    "POST /v1/conversations": Operation(
        "create_conversation",
        answers.Conversation,
        errors=(404, *BACKEND),
        answer_headers=("x-frontdesk-ignored-params",),
    ),
    "GET /v1/conversations/{conversation_id}": Operation("retrieve_conversation", answers.Conversation, errors=BACKEND),
    "POST /v1/conversations/{conversation_id}": Operation(
        "update_conversation",
        answers.Conversation,
        errors=BACKEND,
        answer_headers=("x-frontdesk-ignored-params",),
    ),
    "DELETE /v1/conversations/{conversation_id}": Operation(
        "delete_conversation", answers.DeletedConversation, errors=(409, *BACKEND)
    ),
    "POST /v1/conversations/{conversation_id}/fork": Operation(
        "fork_conversation", answers.Conversation, status=201, errors=(409, *BACKEND)
    ),
    "GET /v1/conversations/{conversation_id}/approvals": Operation("list_approvals", answers.Approvals, errors=BACKEND),
    "POST /v1/conversations/{conversation_id}/approvals": Operation(
        "answer_approvals",
        answers.Response,
        media=(JSON, EVENTS),
        event=answers.ResponseStreamEvent,
        errors=TURN,
        answer_headers=TURN_ANSWER_HEADERS,
    ),
    "GET /v1/conversations/{conversation_id}/items": Operation(
        "list_conversation_items", answers.Items, errors=BACKEND
    ),
    "POST /v1/conversations/{conversation_id}/items": Operation(
        "create_conversation_items",
        answers.Items,
        errors=(409, *BACKEND),
        answer_headers=("x-frontdesk-ignored-params",),
    ),
    "DELETE /v1/conversations/{conversation_id}/items/{item_id}": Operation(
        "delete_conversation_item", answers.Conversation, errors=(409, *BACKEND)
    ),
    "GET /v1/conversations/{conversation_id}/items/{item_id}": Operation(
        "retrieve_conversation_item", answers.Item, errors=BACKEND
    ),
}
