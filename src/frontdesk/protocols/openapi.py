"""The OpenAPI document: what FastAPI finds out by itself, and what it cannot know.

That is the endpoints which are plain ASGI applications, the shapes of answers, every error, every header, the keys.
What is told of each endpoint stands in `operations`, the shapes of answers in `answers`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from frontdesk.errors import Forbidden, GatewayError, InvalidRequest, NotFound, PaymentRequired, Unauthenticated
from frontdesk.protocols import answers
from frontdesk.protocols.chat_completions import schema as chat_completions
from frontdesk.protocols.openai_errors import STATUS
from frontdesk.protocols.operations import ASKER_HEADERS, EVENTS, HTML, JSON, OPEN, OPERATIONS, TEXT, Operation
from frontdesk.protocols.responses import schema as responses

Schema = dict[str, Any]

COMPONENTS = "#/components/schemas/"
TEMPLATE = COMPONENTS + "{model}"

REFUSED: tuple[type[BaseModel], ...] = (chat_completions.OtherPart, responses.OtherPart)
"""Kinds which are read only to be refused with their place: they are not described."""

DESCRIPTION = """\
OpenAI's API, with agents behind it: `model` is an agent's name. Paths may be written without `/v1`.

Each agent also has a base URL of its own, `/agents/{name}/v1`, with the same endpoints for models, chat completions,
responses and conversations: there is no other agent there, and `model` may be left out.

Agents are also tools of an MCP server, at `/mcp`, and agents of the A2A protocol, at `/a2a/{name}`, with their cards at
`/a2a/{name}/.well-known/agent-card.json`. What is said there is described by those protocols.

Every error has one shape, with a `code` for programs. `x-should-retry` says whether the same request may be sent again.
"""

# --- errors ------------------------------------------------------------------------------------------------------

BESIDE: Mapping[type[GatewayError], tuple[str, ...]] = {
    InvalidRequest: (
        "agent_loop",
        "approval_not_pending",
        "item_not_found",
        "background_task_rejected",
        "invalid_http",
        "invalid_image_url",
        "invalid_json",
        "invalid_type",
        "missing_required_parameter",
        "unknown_history",
        "unsupported_content_type",
        "unsupported_parameter",
        "unsupported_value",
    ),
    Unauthenticated: ("token_expired",),
    Forbidden: ("insufficient_scope", "origin_forbidden"),
    NotFound: ("item_not_found",),
    PaymentRequired: (
        "payment_expired",
        "payment_insufficient",
        "payment_malformed",
        "payment_refused",
        "payment_used",
    ),
}
"""Codes which are given where an error is raised, beside the one of its class."""

ALWAYS = (400, 500, 503)
WITH_A_KEY = (401, 403, 429)


def codes() -> dict[int, list[str]]:
    """Every code that an error can have, by the status it comes with."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for kind in and_narrower(GatewayError):
        status = next(STATUS[each][0] for each in kind.__mro__ if each in STATUS)
        found[status] |= {kind.code, *BESIDE.get(kind, ())}
    return {status: sorted(names) for status, names in sorted(found.items())}


def and_narrower(kind: type[GatewayError]) -> Iterable[type[GatewayError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from and_narrower(narrower)


def error(status: int, names: Iterable[str], shapes: "Shapes") -> Schema:
    headers = [*ANSWER_HEADERS, "x-should-retry", "retry-after", "retry-after-ms"]
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{name}`' for name in names)}",
        "headers": referred([*headers, *OF_STATUS.get(status, ())]),
        "content": {JSON: {"schema": shapes.of(answers.Error)}},
    }


# --- headers -----------------------------------------------------------------------------------------------------

ANSWER_HEADERS = (
    "x-request-id",
    "x-client-request-id",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
)
"""Of every answer."""

OF_STATUS: Mapping[int, Sequence[str]] = {401: ("www-authenticate",), 402: ("payment-required",)}
"""Of errors."""

NAME: Schema = {"type": "string", "maxLength": 256}
NUMBER: Schema = {"type": "string", "pattern": "^[0-9]+$"}

HEADERS: Mapping[str, tuple[str, Schema]] = {
    "x-request-id": ("The request, as this server's log has it", {"type": "string"}),
    "x-client-request-id": ("What the request calls itself", {"type": "string", "maxLength": 512}),
    "x-ratelimit-limit-requests": ("Requests in a period, for keys with a rate", NUMBER),
    "x-ratelimit-remaining-requests": ("Those which are left", NUMBER),
    "x-ratelimit-reset-requests": ("How long until all are free again, as `1m30s`", {"type": "string"}),
    "x-should-retry": (
        "Whether the same request may be sent again: not once it may have reached the agent",
        {"enum": ["true", "false"]},
    ),
    "retry-after": ("After how many seconds", NUMBER),
    "retry-after-ms": ("The same in milliseconds", NUMBER),
    "mcp-session-id": ("What older clients of `/mcp` are to send with their next requests", {"type": "string"}),
    "payment-required": (
        "What would do as a payment, as version 2 of x402 has it. One pays with the header `payment-signature`",
        {"type": "string"},
    ),
    "www-authenticate": ("How to send the key", {"const": "Bearer"}),
    "x-frontdesk-turn": ("The turn, as this server's log has it", {"type": "string"}),
    "x-frontdesk-conversation": ("The conversation it was placed in", {"type": "string"}),
    "x-frontdesk-identity": (
        "How that was found",
        {"enum": ["header", "lineage", "response", "seeded", "stateless", "new"]},
    ),
    "x-frontdesk-ignored-params": ("Parameters that were not carried out, with commas between", {"type": "string"}),
    "idempotency-replayed": ("The answer of an earlier, equal request", {"const": "true"}),
    "openai-processing-ms": ("Milliseconds until the answer began", NUMBER),
    "openai-version": ("The version of OpenAI's API", {"type": "string"}),
}

REQUEST_HEADERS: Mapping[str, tuple[str, Schema]] = {
    "x-client-request-id": ("Comes back with the answer", {"type": "string", "maxLength": 512}),
    "x-openwebui-user-id": ("Who asks, where the key may speak for others", {"type": "string", "maxLength": 128}),
    "x-openwebui-user-jwt": ("The same, signed, where this server knows the secret", {"type": "string"}),
    "x-frontdesk-conversation": (
        "The conversation: a name, which is made on first use, or a `conv_…` id from an answer",
        NAME,
    ),
    "idempotency-key": ("Requests with the same key are one; also as `x-idempotency-key`", NAME),
    "x-openwebui-chat-id": ("The chat of a client that sends its whole transcript each time", NAME),
    "x-openwebui-message-id": ("The answer that is asked for", NAME),
    "x-openwebui-user-message-parent-id": ("The message before the one that is new", NAME),
    "x-openwebui-task": ("What the client asks for itself, as a title: it is no part of the conversation", NAME),
}


def referred(names: Iterable[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def header(name: str) -> Schema:
    description, schema = HEADERS[name]
    always = {"required": True} if name == "x-request-id" else {}
    return {"description": description, **always, "schema": schema}


def request_header(name: str) -> Schema:
    description, schema = REQUEST_HEADERS[name]
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


# --- the document ------------------------------------------------------------------------------------------------

KEYS: Schema = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "As OpenAI's clients send it"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
"""The same key, in one of three headers. A server without keys, which listens to its own machine only, needs none."""


def document_of(app: FastAPI) -> Schema:
    """The document of all the app's endpoints. It is made once."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description or DESCRIPTION,
            routes=app.routes,
        )
        app.openapi_schema = completed(found)
    return app.openapi_schema


def completed(found: Schema) -> Schema:
    """FastAPI's document, with the rest."""
    shapes = Shapes(OPERATIONS.values())
    paths: dict[str, Schema] = {path: dict(methods) for path, methods in found["paths"].items()}
    names = {f"{method.upper()} {path}": None for path, methods in paths.items() for method in methods}
    names |= {name: None for name, operation in OPERATIONS.items() if operation.summary}
    for name in names:
        method, path = name.lower().split()
        methods = paths.setdefault(path, {})
        methods[method] = described(name, methods.get(method, {}), shapes)
    return found | {
        "paths": paths,
        "security": [{name: []} for name in KEYS] + [{}],
        "components": {
            "schemas": shapes.schemas,
            "responses": {f"Error{status}": error(status, names, shapes) for status, names in codes().items()},
            "headers": {name: header(name) for name in HEADERS},
            "securitySchemes": KEYS,
        },
    }


def described(name: str, found: Schema, shapes: "Shapes") -> Schema:
    """An operation as FastAPI has it, or nothing, with all it has not."""
    operation = OPERATIONS.get(name) or Operation(found["operationId"])
    body = {"requestBody": request_body(operation.request, shapes)} if operation.request else {}
    statuses = {*ALWAYS, *operation.errors}
    if name not in OPEN:
        statuses |= {*WITH_A_KEY}
    if "requestBody" in found | body:
        statuses |= {413}
    if "{" in name:
        statuses |= {404}
    answered: dict[int, Schema] = {status: {"$ref": f"#/components/responses/Error{status}"} for status in statuses}
    answered |= {status: answer(operation, shapes, also=(answers.Error,)) for status in operation.also}
    answered[operation.status] = answer(operation, shapes)
    asker = () if name in OPEN else ASKER_HEADERS
    headers = [request_header(each) for each in ("x-client-request-id", *asker, *operation.request_headers)]
    return {
        "tags": [operation.tag],
        "summary": operation.summary,
        **found,
        **body,
        "operationId": operation.id,
        "parameters": [*found.get("parameters", ()), *headers],
        "responses": {str(status): answered[status] for status in sorted(answered)},
        **({"security": []} if name in OPEN else {}),
    }


def request_body(model: type[BaseModel], shapes: "Shapes") -> Schema:
    return {"required": True, "content": {JSON: {"schema": shapes.of(model)}}}


def answer(operation: Operation, shapes: "Shapes", also: Sequence[type[BaseModel]] = ()) -> Schema:
    """`also`: other shapes which the JSON may have."""
    known: dict[str, Schema] = {HTML: {"type": "string"}, TEXT: {"type": "string"}}
    if operation.answer:
        known[JSON] = shapes.either(operation.answer, *also)
    if operation.event:
        known[EVENTS] = event(operation.event, shapes)
    streams = EVENTS in operation.media
    return {
        "description": "One body, or with `stream: true` server-sent events" if streams else "The answer",
        "headers": referred([*ANSWER_HEADERS, *operation.answer_headers]),
        "content": {media: {"schema": known.get(media, {})} for media in operation.media},
    }


def event(model: type[BaseModel], shapes: "Shapes") -> Schema:
    """One server-sent event, whose data is JSON as text. Before OpenAPI 3.2 a stream's schema is that of its events."""
    held = {"type": "string", "contentMediaType": JSON, "contentSchema": shapes.either(model, answers.Error)}
    data = {"anyOf": [held, {"const": "[DONE]"}]}
    return {"type": "object", "required": ["data"], "properties": {"event": {"type": "string"}, "data": data}}


class Shapes:
    """The schemas of all bodies, and of what streams hold."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        models: list[type[BaseModel]] = [answers.Error, *REFUSED]
        for each in operations:
            models += [model for model in (each.request, each.answer, each.event) if model]
        self._references, found = models_json_schema(
            [(model, "validation") for model in dict.fromkeys(models)], ref_template=TEMPLATE
        )
        refused = [self._references[model, "validation"] for model in REFUSED]
        self.schemas: Schema = {
            shorter(name): lenient(each, refused)
            for name, each in found["$defs"].items()
            if {"$ref": TEMPLATE.format(model=name)} not in refused
        }

    def of(self, model: type[BaseModel]) -> Schema:
        return lenient(self._references[model, "validation"], ())

    def either(self, *models: type[BaseModel]) -> Schema:
        found = [self.of(model) for model in models]
        return found[0] if len(found) == 1 else {"anyOf": found}


def lenient(schema: Any, refused: Sequence[Schema]) -> Any:
    """Unions which we tell apart in our own way overlap: what we read may be of several kinds at once."""
    match schema:
        case dict():
            named = cast("Schema", schema)
            several = "oneOf" if "discriminator" in named else "anyOf"
            return {several if name == "oneOf" else name: lenient(each, refused) for name, each in named.items()}
        case list():
            return [lenient(each, refused) for each in cast("list[Any]", schema) if each not in refused]
        case str() if schema.startswith(COMPONENTS):
            return COMPONENTS + shorter(schema.removeprefix(COMPONENTS))
        case _:
            return schema


def shorter(name: str) -> str:
    """The name of a shape of which two protocols have one each."""
    return name.replace("frontdesk__protocols__", "").replace("schema__", "").replace("__", ".")
