"""What Pydantic AI reports → our errors. Pure.

What a provider says may hold keys, and prompts: only our own words are passed on, with the status it gave.
"""

from json import JSONDecodeError

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
        case UnexpectedModelBehavior():
            return AgentFailed("The agent's model did not answer as it was asked to, and was given up.")
        case TimeoutError():
            return AgentTimeout("The agent gave no sign of work for too long, and was stopped.")
        case _ if type(error).__module__.partition(".")[0] in CLIENTS or isinstance(error, JSONDecodeError):
            return ProviderError("The agent's model provider sent what cannot be read.")
        case AgentRunError() | UserError():
            return AgentFailed("The agent's run failed. The gateway's log has the reason under this request id.")
        case _:
            return AgentFailed("The agent failed. The gateway's log has the reason under this request id.")


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
