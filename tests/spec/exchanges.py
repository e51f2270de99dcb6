"""What can be asked of a gateway, and what each answer has to be. A line in `EXCHANGES` has an answer judged."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from aiohttp import web
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItem
from openai.types.conversations.conversation_item_list import ConversationItemList
from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from openai.types.shared import ErrorObject

from tests.faults.fake import FakeLetta

Body = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What an answer is: by a schema of OpenAI's document, a type of its client, and a schema of our document."""

    openai: str
    client: Any
    ours: str
    within: str = ""
    """The field that the client's type is of, where it has none for the whole."""


CHAT = Shape("CreateChatCompletionResponse", ChatCompletion, "ChatCompletion")
CHUNK = Shape("CreateChatCompletionStreamResponse", ChatCompletionChunk, "ChatCompletionChunk")
MODEL = Shape("Model", Model, "Agent")
MODELS = Shape("ListModelsResponse", list[Model], "Agents", within="data")
CONVERSATION = Shape("ConversationResource", Conversation, "Conversation")
DELETED = Shape("DeletedConversationResource", ConversationDeletedResource, "DeletedConversation")
ITEM = Shape("ConversationItem", ConversationItem, "Item")
ITEMS = Shape("ConversationItemList", ConversationItemList, "Items")
RESPONSE = Shape("Response", Response, "Response")
EVENT = Shape("ResponseStreamEvent", ResponseStreamEvent, "ResponseStreamEvent")
INPUT = Shape("ResponseItemList", list[ResponseItem], "Items", within="data")
ERROR = Shape("ErrorResponse", ErrorObject, "Error", within="error")


@dataclass(frozen=True)
class Door:
    """A gateway to ask."""

    open: httpx.Client

    def get(self, path: str) -> Body:
        return answered(self.open.get(path), 200)

    def post(self, path: str, body: Any, status: int = 200, headers: Body | None = None) -> Body:
        return answered(self.open.post(path, json=body, headers=headers), status)

    def chat(self, said: str, **more: Any) -> Body:
        return self.post("/v1/chat/completions", talk(said, **more))

    def chunks(self, said: str, **more: Any) -> list[Body]:
        """All that a stream holds, but for its end."""
        response = self.open.post("/v1/chat/completions", json=talk(said, stream=True, **more))
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        *events, done, nothing = response.text.split("\n\n")
        assert (done, nothing) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]

    def respond(self, said: Any, **more: Any) -> Body:
        return self.post("/v1/responses", {"model": "Milo", "input": said} | more)

    def events(self, said: Any, **more: Any) -> list[Body]:
        """All events of a response's stream, each under its name."""
        body = {"model": "Milo", "input": said, "stream": True} | more
        *events, done, nothing = self.open.post("/v1/responses", json=body).text.split("\n\n")
        assert (done, nothing) == ("data: [DONE]", "")
        told = [event.partition("\ndata: ") for event in events]
        bodies: list[Body] = [json.loads(data) for _, _, data in told]
        assert [name for name, _, _ in told] == [f"event: {body['type']}" for body in bodies]
        assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
        return bodies

    def responded(self, path: str = "", method: str = "GET", **more: Any) -> Body:
        """What is known later of a response."""
        made = self.respond("#thinks#", **more)["id"]
        return answered(self.open.request(method, f"/v1/responses/{made}{path}"), 200)

    def conversation(self, *scripts: str) -> str:
        """A conversation in which these were asked. Gives its id."""
        made = self.post("/v1/conversations", {"agent": "Milo"})["id"]
        for script in scripts:
            body = talk(script, tools=[LOOK])
            self.post("/v1/chat/completions", body, headers={"x-frontdesk-conversation": made})
        return made

    def items(self, *scripts: str) -> Body:
        return self.get(f"/v1/conversations/{self.conversation(*scripts)}/items")

    def put(self, text: str) -> str:
        """Put a message into a new conversation. Gives the item's path."""
        path = f"/v1/conversations/{self.conversation()}/items"
        return f"{path}/{self.post(path, {'items': [{'role': 'user', 'content': text}]})['data'][0]['id']}"

    def refused(self, status: int, said: str = "Hello", headers: Body | None = None, **more: Any) -> Body:
        response = self.open.post("/v1/chat/completions", json=talk(said, **more), headers=headers)
        return answered(response, status)

    def same_key(self) -> Body:
        """One idempotency key for two different requests."""
        headers = {"idempotency-key": "twice"}
        self.post("/v1/chat/completions", talk("One"), headers=headers)
        return self.refused(409, "Two", headers)


@dataclass(frozen=True)
class House(Door):
    """With one that has keys and narrow bounds, and the fake Letta behind both."""

    strict: httpx.Client
    fake: FakeLetta

    def turned_away(self, status: int, path: str, key: str, **request: Any) -> Body:
        """By the gateway with keys."""
        headers = {"authorization": f"Bearer {key}"}
        response = self.strict.request("POST" if request else "GET", path, headers=headers, **request)
        return answered(response, status)

    def unreached(self) -> Body:
        """Letta is down."""
        self.fake.answers["POST /v1/conversations/"] = lambda _: web.Response(status=503)
        try:
            return self.refused(503)
        finally:
            del self.fake.answers["POST /v1/conversations/"]


def talk(said: str, **more: Any) -> Body:
    return {"model": "Milo", "messages": [{"role": "user", "content": said}]} | more


def answered(response: httpx.Response, status: int) -> Body:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
LOOK: Body = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
USAGE = {"include_usage": True}

FUNCTION: Body = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
TALK: list[Body] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "What is it?"},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"type": "function_call", "call_id": "call_0", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_0", "output": "Snow."},
    {"role": "assistant", "content": [{"type": "output_text", "text": "It is snow.", "annotations": []}]},
    {"role": "user", "content": [{"type": "input_text", "text": "Really?"}, {"type": "input_image", "image_url": DOT}]},
]
SETTINGS: Body = {
    "instructions": "Be brief.",
    "tools": [FUNCTION],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]},
    "text": {"verbosity": "low"},
    "metadata": {"topic": "snow"},
    "parallel_tool_calls": True,
    "include": ["reasoning.encrypted_content"],
    "user": "somebody",
    "safety_identifier": "somebody",
    "prompt_cache_key": "a key",
    "truncation": "auto",
}

Asking = Callable[[Door], Body | list[Body]]
Ask = Callable[[House], Body | list[Body]]

EXCHANGES: dict[str, tuple[Shape, Ask]] = {
    # Chat Completions
    "a text": (CHAT, lambda house: house.chat("Hello")),
    "a text with thoughts": (CHAT, lambda house: house.chat("#thinks#")),
    "a text with the agent's own tools": (CHAT, lambda house: house.chat("#works#")),
    "a call": (CHAT, lambda house: house.chat("#asks#", tools=[LOOK])),
    "a text that was cut off": (CHAT, lambda house: house.chat("#is-cut#")),
    "chunks of a text": (CHUNK, lambda house: house.chunks("Hello")),
    "chunks of a text with thoughts": (CHUNK, lambda house: house.chunks("#thinks#", stream_options=USAGE)),
    "chunks of a text with the agent's own tools": (CHUNK, lambda house: house.chunks("#works#")),
    "chunks of a call": (CHUNK, lambda house: house.chunks("#asks#", tools=[LOOK], stream_options=USAGE)),
    "chunks of a text that was cut off": (CHUNK, lambda house: house.chunks("#is-cut#")),
    # Responses
    "a response": (RESPONSE, lambda house: house.respond("Hello")),
    "a response with thoughts": (RESPONSE, lambda house: house.respond("#thinks#")),
    "a response with the agent's own tools": (RESPONSE, lambda house: house.respond("#works#")),
    "a response that calls": (RESPONSE, lambda house: house.respond("#asks#", tools=[FUNCTION])),
    "a response that was cut off": (RESPONSE, lambda house: house.respond("#is-cut#")),
    "a response to a talk, with settings": (RESPONSE, lambda house: house.respond(TALK, **SETTINGS)),
    "a response in a conversation": (
        RESPONSE,
        lambda house: house.respond("Hello", conversation=house.conversation("Hello")),
    ),
    "a response after another": (
        RESPONSE,
        lambda house: house.respond("Hello", previous_response_id=house.respond("Hello")["id"]),
    ),
    "a response in the background": (RESPONSE, lambda house: house.respond("Hello", background=True)),
    "a response, asked for later": (RESPONSE, lambda house: house.responded()),
    "a cancelled response": (RESPONSE, lambda house: house.responded("/cancel", "POST", background=True)),
    "events": (EVENT, lambda house: house.events("Hello")),
    "events of thoughts": (EVENT, lambda house: house.events("#thinks#", **SETTINGS)),
    "events of the agent's own tools": (EVENT, lambda house: house.events("#works#")),
    "events of a call": (EVENT, lambda house: house.events("#asks#", tools=[FUNCTION])),
    "events of a response that was cut off": (EVENT, lambda house: house.events("#is-cut#")),
    "events of a response that fails": (EVENT, lambda house: house.events("#breaks#")),
    "input of a response": (INPUT, lambda house: house.responded("/input_items")),
    "input of a talk": (
        INPUT,
        lambda house: house.get(f"/v1/responses/{house.respond(TALK)['id']}/input_items"),
    ),
    # Models
    "the agents": (MODELS, lambda house: house.get("/v1/models")),
    "an agent": (MODEL, lambda house: house.get("/v1/models/Milo")),
    # Conversations
    "a new conversation": (CONVERSATION, lambda house: house.post("/v1/conversations", {"agent": "Milo"})),
    "a conversation": (
        CONVERSATION,
        lambda house: house.get(f"/v1/conversations/{house.conversation('Hello')}"),
    ),
    "a conversation with metadata": (
        CONVERSATION,
        lambda house: house.post(f"/v1/conversations/{house.conversation()}", {"metadata": {"topic": "snow"}}),
    ),
    "a branch": (
        CONVERSATION,
        lambda house: house.post(f"/v1/conversations/{house.conversation('Hello')}/fork", {}, 201),
    ),
    "a deleted conversation": (
        DELETED,
        lambda house: answered(house.open.delete(f"/v1/conversations/{house.conversation()}"), 200),
    ),
    "items of a text": (ITEMS, lambda house: house.items("Hello")),
    "items of thoughts": (ITEMS, lambda house: house.items("#thinks#")),
    "items of the agent's own tools": (ITEMS, lambda house: house.items("#works#")),
    "items of a call": (ITEMS, lambda house: house.items("#asks#")),
    "no items": (ITEMS, lambda house: house.items()),
    "an item": (
        ITEM,
        lambda house: house.get(
            f"/v1/conversations/{(made := house.conversation('Hello'))}/items/"
            + house.get(f"/v1/conversations/{made}/items")["data"][0]["id"]
        ),
    ),
    "a conversation of nobody's yet, with items": (
        CONVERSATION,
        lambda house: house.post("/v1/conversations", {"items": TALK, "metadata": {"topic": "snow"}}),
    ),
    "items put into it": (
        ITEMS,
        lambda house: house.post(f"/v1/conversations/{house.conversation('Hello')}/items", {"items": TALK}),
    ),
    "a conversation with an item taken back": (
        CONVERSATION,
        lambda house: answered(house.open.delete(house.put("Never mind.")), 200),
    ),
    # errors
    "400": (ERROR, lambda house: house.refused(400, n=2)),
    "400 of a field": (ERROR, lambda house: house.refused(400, temperature="hot")),
    "400 of no JSON": (ERROR, lambda house: answered(house.open.post("/v1/chat/completions", content="{"), 400)),
    "400 of a query": (ERROR, lambda house: answered(house.open.get("/v1/conversations?limit=0"), 400)),
    "400 of a full window": (ERROR, lambda house: house.refused(400, "#window#")),
    "401": (ERROR, lambda house: house.turned_away(401, "/v1/models", "unknown")),
    "402": (ERROR, lambda house: house.refused(402, "#unpaid#")),
    "403": (ERROR, lambda house: house.turned_away(403, "/v1/models/Otis", "narrow")),
    "404 of an agent": (ERROR, lambda house: house.refused(404, model="nobody")),
    "404 of a path": (ERROR, lambda house: answered(house.open.get("/v1/nowhere"), 404)),
    "404 of a conversation": (ERROR, lambda house: answered(house.open.get("/v1/conversations/conv_none"), 404)),
    "404 of a response": (ERROR, lambda house: answered(house.open.get("/v1/responses/resp_0"), 404)),
    "400 of a response": (ERROR, lambda house: answered(house.open.post("/v1/responses", json={"input": 1}), 400)),
    "405": (ERROR, lambda house: answered(house.open.delete("/v1/models"), 405)),
    "409": (ERROR, lambda house: house.same_key()),
    "413": (ERROR, lambda house: house.turned_away(413, "/v1/chat/completions", "wide", content="x" * 2000)),
    "429": (ERROR, lambda house: house.turned_away(429, "/v1/models", "rare")),
    "429 of the provider": (ERROR, lambda house: house.refused(429, "#limited#")),
    "500": (ERROR, lambda house: house.refused(500, "#fails#")),
    "502": (ERROR, lambda house: house.refused(502, "#provider#")),
    "503": (ERROR, lambda house: house.unreached()),
    "504": (ERROR, lambda house: house.refused(504, "#slow-provider#")),
    "an error within a stream": (ERROR, lambda house: house.chunks("#breaks#")[-1]),
}

REAL: dict[str, tuple[Shape, Asking]] = {
    "a text": (CHAT, lambda door: door.chat("@think Let me see.\n@say It is so.")),
    "a call": (CHAT, lambda door: door.chat("@call look {}", tools=[LOOK])),
    "chunks of a text": (CHUNK, lambda door: door.chunks("@think Hm.\n@say It is so.", stream_options=USAGE)),
    "chunks of a call": (CHUNK, lambda door: door.chunks("@call look {}\n@call look {}", tools=[LOOK])),
    "the agents": (MODELS, lambda door: door.get("/v1/models")),
    "a conversation": (CONVERSATION, lambda door: door.get(f"/v1/conversations/{door.conversation('@say Hello.')}")),
    "items": (ITEMS, lambda door: door.items("@think Hm.\n@say Hello.", "@call look {}")),
    "a response": (RESPONSE, lambda door: door.respond("@think Hm.\n@say It is so.")),
    "a response to a talk, with settings": (RESPONSE, lambda door: door.respond(TALK, **SETTINGS)),
    "events": (EVENT, lambda door: door.events("@think Hm.\n@say It is so.")),
    "events of a call": (EVENT, lambda door: door.events("@say Wait.\n@call look {}", tools=[FUNCTION])),
    "an error of the provider": (ERROR, lambda door: door.refused(429, "@fail 429 should-retry=false")),
}
"""The same of a gateway on a real Letta server."""
