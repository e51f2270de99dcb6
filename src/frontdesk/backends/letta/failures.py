"""What Letta reports → our errors. Pure.

Letta's own words may hold internals (actor ids, SQL), so only the messages of the model provider are passed on, and
those shortened. Source: measured on 0.16.7; a stream says 200 first, and tells what went wrong by an `error_type`
before the first token and by the prefix of `detail` after it.
"""

import re
from typing import Any, cast

from frontdesk.errors import (
    AgentFailed,
    AgentNotFound,
    AgentTimeout,
    BackendError,
    BackendRejectedKey,
    BackendUnavailable,
    ContextLengthExceeded,
    ConversationBusy,
    ConversationNotFound,
    EndpointNotFound,
    GatewayError,
    InvalidRequest,
    NotFound,
    ProviderAuthentication,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderTimeout,
)

BUSY_SECONDS = 2.0  # Letta does not say how long; a turn may end at any moment

CONTEXT = "This conversation exceeds the agent's maximum context length. Shorten it and try again."

BY_TYPE: dict[str, type[BackendError]] = {
    "llm_rate_limit": ProviderRateLimited,
    "llm_authentication": ProviderAuthentication,
    "llm_timeout": ProviderTimeout,
    "llm_insufficient_credits": ProviderQuotaExceeded,
    "insufficient_credits": ProviderQuotaExceeded,
    "llm_error": ProviderError,
    "llm_api_error": ProviderError,
    "llm_bad_request": ProviderError,
    "llm_empty_response": ProviderError,
    "invalid_llm_response": ProviderError,
    "no_tool_call": ProviderError,
}

BY_PREFIX: dict[str, type[BackendError]] = {
    "RATE_LIMIT_EXCEEDED": ProviderRateLimited,
    "UNAUTHENTICATED": ProviderAuthentication,
    "PERMISSION_DENIED": ProviderAuthentication,
    "NOT_FOUND": ProviderError,
    "INVALID_ARGUMENT": ProviderError,
    "DEADLINE_EXCEEDED": ProviderTimeout,
    "INTERNAL_SERVER_ERROR": ProviderError,
}

BY_STATUS: dict[str, type[BackendError]] = {
    "401": ProviderAuthentication,
    "402": ProviderQuotaExceeded,
    "403": ProviderAuthentication,
    "408": ProviderTimeout,
    "429": ProviderRateLimited,
    "504": ProviderTimeout,
}

SAYS: dict[type[BackendError], str] = {
    ProviderRateLimited: "The agent's model provider refused the request for now: rate limit exceeded.",
    ProviderAuthentication: "The agent's model provider rejected the Letta server's own API key.",
    ProviderTimeout: "The agent's model provider did not answer in time.",
    ProviderQuotaExceeded: "The agent's model provider reports that its credits are used up.",
    ProviderError: "The agent's model provider failed.",
    AgentFailed: "The agent's run failed on the Letta server.",
}


class AwaitingApproval(AgentFailed):
    """A tool call of an earlier turn was never answered: deny it, and the message can go through."""


class WrongCallIds(AgentFailed):
    """The results do not match the pending calls. Nothing changed; `expected` is what Letta waits for."""

    def __init__(self, message: str, expected: tuple[str, ...]) -> None:
        super().__init__(message)
        self.expected = expected


class HeldByRun(ConversationBusy):
    """Letta keeps others out of the conversation while this run is at work there, or after it, by mistake."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message, retry_after_seconds=BUSY_SECONDS)
        self.run_id = run_id


def failure(
    error_type: str | None = None, message: Any = None, detail: Any = None, *, stop_reason: str = ""
) -> GatewayError:
    """The error for what a stream reported, or for a `stop_reason` which is not an ending."""
    text = f"{detail or ''} {message or ''}".strip()
    kind = error_type or stop_reason
    if "context_window" in kind or "CONTEXT_WINDOW_EXCEEDED" in text or "context_length_exceeded" in text:
        return ContextLengthExceeded(CONTEXT)
    if "waiting for approval" in text:
        return AwaitingApproval("The agent still waits for the result of a tool call.")
    if found := re.search(r"Invalid tool call IDs\. Expected '\[(.*?)\]'", text):
        expected = tuple(re.findall(r"'([^']+)'", found.group(1)))
        return WrongCallIds("The tool results do not answer the calls the agent waits for.", expected)
    if "Another request" in text and "being processed" in text:
        holder = re.search(r"run_id=(run-[0-9a-f-]{36})", text)
        return HeldByRun(
            "Another client is talking to this conversation on the Letta server.", holder[1] if holder else ""
        )
    prefix = text.split(":", 1)[0].strip()
    cls = BY_TYPE.get(kind) or BY_PREFIX.get(prefix) or AgentFailed
    if cls is ProviderError:  # `llm_error` is said of much, also of a 403
        cls = BY_PREFIX.get(prefix, cls)
    if cls is ProviderRateLimited and "insufficient_quota" in text:
        cls = ProviderQuotaExceeded
    return cls(SAYS[cls])


def refusal(status: int, body: Any) -> GatewayError:
    """The error for an HTTP answer other than 2xx, which Letta gives before it takes the message."""
    fields = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    if isinstance(error := fields.get("error"), dict):
        told = cast("dict[str, Any]", error)
        return failure(told.get("type"), told.get("message"), told.get("detail"))
    detail = str(fields.get("detail") or "")
    if status in (401, 403):
        return BackendRejectedKey("The Letta server rejected the gateway's key. Check LETTA_API_KEY.")
    if status == 404 and "gent" in detail:
        return AgentNotFound("The agent no longer exists on the Letta server.", param="model")
    if status in (404, 405) and detail in ("Not Found", "Method Not Allowed"):
        return EndpointNotFound("This Letta server has no such endpoint; it may be too old.")
    if status == 404 and detail.startswith("Conversation"):
        return ConversationNotFound("The conversation does not exist on the Letta server.")
    if status == 404 and detail.startswith("Run"):
        return NotFound("The run does not exist on the Letta server.")
    if status in (402, 429):
        cls = ProviderQuotaExceeded if status == 402 else ProviderRateLimited
        return cls(SAYS[cls])
    if generating := re.match(r"(?:Failed to process LLM response|LLM provider error): (.*)", detail, re.DOTALL):
        return generation(generating.group(1))
    known = failure(None, None, detail)
    if type(known) is not AgentFailed:
        return known
    if status in (502, 503, 504):
        return BackendUnavailable(f"The Letta server is not ready (HTTP {status}). Try again shortly.")
    if status in (400, 413, 422):
        return InvalidRequest(f"The Letta server refused the request (HTTP {status}): {brief(detail)}")
    return AgentFailed(f"The Letta server failed (HTTP {status}).")


def generation(detail: str) -> GatewayError:
    """The error for what the model's provider answered to a single question, outside any conversation."""
    known = failure("llm_error", None, detail)
    status = re.match(r"Error code: (\d+)", detail)
    if type(known) is not ProviderError or not status:
        return known
    cls = BY_STATUS.get(status.group(1), ProviderError)
    if cls is ProviderRateLimited and "insufficient_quota" in detail:
        cls = ProviderQuotaExceeded
    return cls(SAYS[cls])


def timeout(seconds: float) -> AgentTimeout:
    return AgentTimeout(f"The agent gave no sign of work for {seconds:g} seconds. Its run was cancelled.")


def brief(text: str) -> str:
    """A validation message without the caller's data: Letta repeats the whole input in it."""
    messages = re.findall(r"'msg': '([^']*)'", text)
    return "; ".join(messages)[:300] or text.split("\n")[0][:200]
