"""What Letta 0.16.7 says, byte for byte close to a live server: agents, conversations and the events of a turn.

Events hold placeholders of fixed length (ids, the stream's marker, the time of the write), so that a stream costs three
`bytes.replace` in all when it is sent at once, and three short ones per event when it is paced.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from bench.http1 import chunk

DATE = "2026-11-21T02:00:00+00:00"
UUID_PLACE = b"@" * 35  # all but the last digit of a uuid4: the ids of one stream differ in that digit only
TIME_PLACE = b"?" * 16
MARKER_PLACE = b"$"
USER = "user-00000000-0000-4000-8000-000000000000"
REASONING, TEXT = "r", "t"


def encode(value: object) -> bytes:
    """JSON without spaces."""
    return msgspec.json.encode(value)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the fake speaks. `POST /__config` changes the fields it names, for streams that begin after it.

    pace_ms: 0 sends a stream in one write; otherwise one event per so many milliseconds and stream.
    tool: how many calls of a client tool a turn asks for (true is one), instead of text. Only when the request brings
    `client_tools`, and not when it brings tool results.
    payload: extra characters in every token.
    """

    pace_ms: int = 0
    reasoning: int = 73
    text: int = 50
    tool: bool | int = 0
    payload: int = 0

    @property
    def events(self) -> int:
        """How many SSE events a stream without tool calls has: ping, tokens, stop reason, usage and [DONE]."""
        return self.reasoning + self.text + 4


def agent_name(number: int) -> str:
    """The name of the fake's agent of that number."""
    return f"bench-{number:03d}"


def agent_id(number: int) -> str:
    """The id of the fake's agent of that number; the same in every run."""
    return f"agent-{uuid.uuid5(uuid.NAMESPACE_URL, f'bench/{number}')}"


def agent(number: int) -> dict[str, Any]:
    """An agent as the server lists it, about 6 KB."""
    settings: dict[str, Any] = {
        "provider_type": "openai",
        "temperature": 1.0,
        "max_output_tokens": 4096,
        "parallel_tool_calls": True,
        "strict": False,
        "reasoning": {"reasoning_effort": "high"},
        "response_format": None,
    }
    return {
        "id": agent_id(number),
        "name": agent_name(number),
        "agent_type": "letta_v1_agent",
        "description": f"Agent {number} of the fake Letta.",
        "created_at": DATE,
        "updated_at": DATE,
        "created_by_id": USER,
        "last_updated_by_id": USER,
        "metadata": {},
        "tags": ["bench"],
        "hidden": None,
        "project_id": None,
        "template_id": None,
        "identity_ids": [],
        "model": "openai-proxy/gpt-4o",
        "embedding": "letta/letta-free",
        "model_settings": settings,
        "llm_config": _llm_config(),
        "embedding_config": {
            "embedding_endpoint_type": "openai",
            "embedding_model": "letta-free",
            "embedding_dim": 1536,
        },
        "system": "You are Letta, an agent with memory, tools and conversations of your own. " * 54,
        "message_ids": [f"message-{uuid.UUID(int=number * 100 + index)}" for index in range(8)],
        "tool_rules": [],
        "tools": [],
        "blocks": [],
        "memory": {"blocks": [], "file_blocks": [], "agent_type": "letta_v1_agent", "prompt_template": ""},
        "enable_sleeptime": False,
        "message_buffer_autoclear": False,
        "timezone": "UTC",
        "last_run_completion": None,
        "last_stop_reason": "end_turn",
        "pending_approval": None,
        "managed_group": None,
    }


def _llm_config() -> dict[str, Any]:
    return {
        "model": "gpt-4o",
        "display_name": "gpt-4o",
        "model_endpoint_type": "openai",
        "model_endpoint": "http://127.0.0.1:9/v1",
        "provider_name": "openai-proxy",
        "provider_category": "base",
        "model_wrapper": None,
        "context_window": 128000,
        "put_inner_thoughts_in_kwargs": False,
        "handle": "openai-proxy/gpt-4o",
        "temperature": 1.0,
        "max_tokens": 4096,
        "enable_reasoner": True,
        "reasoning_effort": "high",
        "max_reasoning_tokens": 0,
        "frequency_penalty": None,
        "compatibility_type": None,
        "verbosity": None,
        "tier": None,
        "parallel_tool_calls": False,
        "strict": False,
    }


def conversation(conversation_id: str, agent: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A conversation as the server shows it."""
    return {
        "id": conversation_id,
        "agent_id": agent,
        "summary": settings.get("summary"),
        "created_at": DATE,
        "updated_at": DATE,
        "created_by_id": USER,
        "last_updated_by_id": USER,
        "in_context_message_ids": [],
        "isolated_block_ids": [],
        "model": settings.get("model"),
        "model_settings": settings.get("model_settings"),
        "last_message_at": None,
    }


def _frame(event: dict[str, Any]) -> bytes:
    return b"data: " + encode(event) + b"\n\n"


def _ids(kind: str, last: str, part: str = "0") -> dict[str, Any]:
    """The fields every message has. `last` is the last digit of the message id, `part` of the content block's."""
    place = UUID_PLACE.decode()
    return {
        "id": f"message-{place}{last}",
        "date": DATE,
        "name": None,
        "message_type": kind,
        "otid": f"{place}{part}",
        "sender_id": None,
        "step_id": f"step-{place}0",
        "is_err": None,
        "seq_id": None,
        "run_id": f"run-{place}0",
    }


def token(kind: str, index: int, marker_length: int, payload: int) -> str:
    """The text of one token: whose it is, which one, and (filled in later) when it was written."""
    return f"~{MARKER_PLACE.decode() * marker_length} {kind}{index:03d} {TIME_PLACE.decode()}{'x' * payload};"


def _tokens(config: Config, marker_length: int, kind: str) -> list[str]:
    count = config.reasoning if kind == REASONING else config.text
    return [token(kind, index, marker_length, config.payload) for index in range(count)]


def _text_events(config: Config, marker_length: int) -> Iterator[dict[str, Any]]:
    for text in _tokens(config, marker_length, TEXT):
        yield _ids("assistant_message", "1", "1") | {"content": text}


def _call_events(config: Config, marker_length: int, tool: str) -> Iterator[dict[str, Any]]:
    """Calls of a client tool in pieces: the name first, then the argument `text`, which holds the tokens."""
    for number in range(int(config.tool)):
        call_id = f"call_{UUID_PLACE.decode()}{number}"
        pieces = [None, '{"text": "', *_tokens(config, marker_length, TEXT), '"}']
        for piece in pieces:
            delta = {"name": tool if piece is None else None, "arguments": piece, "tool_call_id": call_id}
            yield _ids("approval_request_message", "0", "1") | {"tool_call": delta, "tool_calls": delta}


def turn(config: Config, marker_length: int, tool: str | None) -> list[bytes]:
    """The events of one turn as chunks of a response body, with placeholders.

    `tool` is the name of the client tool to call, None for a turn that ends in text.
    """
    reasoning = ({"reasoning": text} for text in _tokens(config, marker_length, REASONING))
    source: dict[str, Any] = {"source": "reasoner_model", "signature": None}
    output = _text_events(config, marker_length) if tool is None else _call_events(config, marker_length, tool)
    messages = [
        _ids("ping", "f"),
        *(_ids("reasoning_message", "1") | source | delta for delta in reasoning),
        *output,
        {"message_type": "stop_reason", "stop_reason": "end_turn" if tool is None else "requires_approval"},
        _usage(config),
    ]
    return [*(chunk(_frame(message)) for message in messages), chunk(b"data: [DONE]\n\n")]


def _usage(config: Config) -> dict[str, Any]:
    made = config.reasoning + config.text
    return {
        "message_type": "usage_statistics",
        "completion_tokens": made,
        "prompt_tokens": 200,
        "total_tokens": 200 + made,
        "step_count": 1,
        "run_ids": None,
        "cached_input_tokens": 128,
        "cache_write_tokens": None,
        "reasoning_tokens": config.reasoning,
        "context_tokens": 200 + made,
    }


CANCELLED = chunk(_frame({"message_type": "stop_reason", "stop_reason": "cancelled"}))
