"""Errors, before and after a stream has begun."""

from tests.requirements import Requirement

CODES = "https://platform.openai.com/docs/guides/error-codes"
SDK = "https://github.com/openai/openai-python#handling-errors"
LETTA = "Letta 0.16.7, measured"

REQUIREMENTS = {
    "errors.unknown-model": Requirement("An unknown agent is 404 `model_not_found`, never another agent", CODES),
    "errors.matrix": Requirement(
        "Each kind of failure has its own status, type and code, the same streaming or not, and `x-should-retry` says "
        "whether OpenAI's SDKs may send the request again",
        SDK,
    ),
    "errors.nothing-sent": Requirement("What is refused with a 400 reached no agent", "Frontdesk"),
    "errors.json": Requirement("Every error is JSON in OpenAI's envelope with an `x-request-id`, never HTML", CODES),
    "errors.no-internals": Requirement(
        "No error shows internals: stack traces, the backend's words, keys", "Frontdesk"
    ),
    "errors.unknown-path": Requirement("Every other path or method is a 404 or 405 in the same envelope", CODES),
    "errors.in-band": Requirement(
        'A failure in mid-stream is a `data: {"error": …}` frame and `[DONE]`, without a finish chunk: the official '
        "client raises it",
        "https://github.com/openai/openai-python/blob/main/src/openai/_streaming.py",
    ),
    "errors.slow-start": Requirement(
        "When the agent is slow to begin, the stream is committed and kept alive; an error is in-band then",
        "Open WebUI",
    ),
    "errors.keepalive": Requirement("In silence a stream carries chunks without content", "VS Code, undici, Codex"),
    "errors.provider": Requirement(
        "The model provider's rate limit, quota, key, outage and context length are told apart, before and after the "
        "first token",
        CODES,
    ),
    "errors.after-failure": Requirement("A pinned conversation goes on after a failed turn", LETTA),
    "errors.nul": Requirement("A NUL in a text is a 400 or is delivered, never a failure of the server", LETTA),
    "errors.watchdog": Requirement(
        "An agent that only sends pings, or nothing, is a 504 `agent_timeout`, and its run is cancelled", LETTA
    ),
    "errors.garbage": Requirement("What is no Letta server is a 503 `backend_unavailable`", "Frontdesk"),
    "errors.backend-key": Requirement("A wrong LETTA_API_KEY is a 502 `backend_authentication`, not a 401", LETTA),
    "errors.backend-down": Requirement("A Letta that is down is a 503 which the SDKs try again", SDK),
    "errors.agent-gone": Requirement("An agent deleted on the server is 404 and leaves the list at once", CODES),
    "errors.no-done": Requirement("An answer whose stream ends without `[DONE]` is an answer", LETTA),
    "errors.slow-client": Requirement(
        "A client that stays, but takes nothing for `silence_seconds`, holds neither its agent nor its place",
        "own design",
    ),
}
