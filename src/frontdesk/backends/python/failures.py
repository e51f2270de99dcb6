"""What Pydantic AI reports → our errors. Pure.

What a provider says may hold keys, and prompts: only our own words are passed on, with the status it gave.
"""

from collections.abc import Iterator
from types import FrameType

from pydantic_ai.exceptions import (
    AgentRunError,
    FallbackExceptionGroup,
    IncompleteToolCall,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelTimeoutError,
    UnexpectedModelBehavior,
    UserError,
)

from frontdesk.errors import (
    AgentFailed,
    AgentTimeout,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ProviderAuthentication,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderTimeout,
)

CLIENTS = frozenset({"anthropic", "botocore", "google", "groq", "httpx", "httpx2", "mistralai", "openai"})
"""The packages through which providers are asked: what they raise is about what they were told."""

READERS = frozenset({*CLIENTS, "frontdesk", "json", "pydantic", "pydantic_ai"})
"""Those which read what a provider has sent."""

MODELS = "pydantic_ai.models"
WRAPPING = "pydantic_ai.models._continuation"  # asks within what reads
READING = frozenset({"_process_response", "_process_streamed_response", "_get_event_iterator"})
"""What the engine calls it, whichever the provider is."""

UNREADABLE = "The agent's model provider sent what is no answer."

NO_SCHEMA = "Invalid JSON Schema"
MOST_SAID = 500
"""Characters of what the engine says of a caller's own words."""

TRANSIENT = (ProviderRateLimited, ProviderTimeout, ProviderError)


def failure(error: Exception, *, untouched: bool) -> GatewayError:
    """The error for what ended a run. `untouched`: nothing was said or done yet, so that it may be tried again."""
    found = kind_of(error)
    if untouched and isinstance(found, TRANSIENT) and not isinstance(found, ProviderAuthentication):
        found.retry = True
    return found


def kind_of(error: Exception) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, FallbackExceptionGroup):
        return kind_of(last_of(error))
    match error:
        case ModelContextWindowExceededError():
            return ContextLengthExceeded("This conversation exceeds the agent's maximum context length. Shorten it.")
        case ModelQuotaExceededError():
            return ProviderQuotaExceeded("The agent's model provider reports that its credits are used up.")
        case ModelRateLimitError():
            return ProviderRateLimited("The agent's model provider refused the request for now: rate limit exceeded.")
        case ModelAuthenticationError():
            return ProviderAuthentication("The agent's model provider rejected the agent's own API key.")
        case ModelTimeoutError() | ModelRequestTimeout():
            return ProviderTimeout("The agent's model provider did not answer in time.")
        case ModelConnectionError():
            return ProviderError("The agent's model provider cannot be reached.")
        case ModelRequestRejectedError():
            return rejected(error)
        case ModelAPIError():
            return ProviderError(f"The agent's model provider failed{status_of(error)}.")
        case IncompleteToolCall():
            return AgentFailed("The model's answer was cut off in the middle of a tool call: allow it more tokens.")
        case UnexpectedModelBehavior() if error.__cause__ and not is_in_an_answer(error):  # of what it was told to mend
            return AgentFailed("The agent's model did not answer as it was asked to, and was given up.")
        case UnexpectedModelBehavior():
            return ProviderError(UNREADABLE)
        case TimeoutError():
            return AgentTimeout("The agent gave no sign of work for too long, and was stopped.")
        case _ if type(error).__module__.partition(".")[0] in CLIENTS or is_in_an_answer(error):
            return ProviderError(UNREADABLE)
        case UserError() if NO_SCHEMA in str(error):  # agents' own are looked at when they are made
            what = f"A tool's parameters, or the form of the answer, are no JSON Schema. {error}"
            return InvalidRequest(what[:MOST_SAID])
        case AgentRunError() | UserError():
            return AgentFailed("The agent's run failed. The gateway's log has the reason under this request id.")
        case _:
            return AgentFailed("The agent failed. The gateway's log has the reason under this request id.")


def is_in_an_answer(error: Exception) -> bool:
    """Whether it came up where a provider's answer was read, and in no author's code."""
    where = [(str(at.f_globals.get("__name__", "")), at.f_code.co_name) for at in frames(error)]
    reads = any(module.startswith(MODELS) and module != WRAPPING and function in READING for module, function in where)
    return reads and where[-1][0].partition(".")[0] in READERS


def frames(error: Exception) -> Iterator[FrameType]:
    """Those it went through, the one that raised it last."""
    at = error.__traceback__
    while at:
        yield at.tb_frame
        at = at.tb_next


def rejected(error: ModelRequestRejectedError) -> GatewayError:
    """What the provider will not take is most often what the caller has asked for."""
    if isinstance(error, ModelHTTPError) and error.status_code in (400, 413, 422):
        return InvalidRequest(f"The agent's model provider refused the request{status_of(error)}.")
    return ProviderError(f"The agent's model provider refused the request{status_of(error)}.")


def status_of(error: ModelAPIError) -> str:
    return f" (HTTP {error.status_code})" if isinstance(error, ModelHTTPError) else ""


def last_of(group: FallbackExceptionGroup) -> Exception:
    """Of a chain of models, what the last one said."""
    last = group.exceptions[-1]
    return last if not isinstance(last, FallbackExceptionGroup) else last_of(last)
