"""The OpenAPI document: what FastAPI finds out by itself, and the endpoints which are plain ASGI applications."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from frontdesk.protocols.chat_completions.schema import ChatCompletionRequest

REFERENCE = "#/components/schemas/{model}"

ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe(app: FastAPI) -> None:
    """Give the app a document that has all of its endpoints."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            models = ChatCompletionRequest.model_json_schema(ref_template=REFERENCE)
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            components |= models.pop("$defs", {}) | {"ChatCompletionRequest": models, "Error": ERROR}
            schema["paths"]["/v1/chat/completions"] = {"post": chat_completions()}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document


def chat_completions() -> dict[str, Any]:
    request = {"schema": {"$ref": REFERENCE.format(model="ChatCompletionRequest")}}
    error = {
        "description": "An error; `x-should-retry` says whether the same request may be sent again",
        "content": {"application/json": {"schema": {"$ref": REFERENCE.format(model="Error")}}},
    }
    return {
        "tags": ["Chat Completions"],
        "summary": "Talk to an agent",
        "operationId": "create_chat_completion",
        "parameters": [
            {
                "name": "x-frontdesk-conversation",
                "in": "header",
                "required": False,
                "description": "Names the conversation: free text, made on first use, or a `conv_…` id from an answer",
                "schema": {"type": "string", "maxLength": 256},
            }
        ],
        "requestBody": {"required": True, "content": {"application/json": request}},
        "responses": {
            "200": {
                "description": "The answer: one body, or chunks as server-sent events with `stream: true`",
                "content": {
                    "application/json": {"schema": {"type": "object"}},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            },
            "default": error,
        },
    }
