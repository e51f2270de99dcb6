"""Everything that can go wrong, drawn as a tree. Each protocol says how it looks on its wire.

    GatewayError
    ├── InvalidRequest            the caller's input is wrong; nothing reached the agent
    │   ├── ContextLengthExceeded
    │   └── PreviousNotFound      the turn it is to come after is not the caller's, or gone
    ├── Unauthenticated           no key or token, or one that is not good here
    ├── Forbidden                 the key may not use this agent, or lacks a scope
    ├── NotFound
    │   ├── AgentNotFound
    │   ├── ConversationNotFound
    │   ├── TurnNotFound
    │   └── EndpointNotFound
    ├── MethodNotAllowed
    ├── RequestTooLarge
    ├── ConversationBusy          another turn is running there; nothing was appended
    ├── IdempotencyConflict       the key was used for another request
    ├── InsufficientBudget        nothing is left to spend, or too little for this turn
    │   ├── PriceUnknown          a budget in money, and nobody knows what the model costs
    │   └── PaymentRequired       … but the caller may pay for the turn; or has, and that will not do
    ├── PaymentUnavailable        who is to check a payment cannot be reached
    ├── RateLimited               our own limit; nothing was appended
    ├── Overloaded                more turns in flight than this server takes
    ├── ShuttingDown              this server ends, and the turn with it
    ├── TurnCancelled             its caller has cancelled it
    ├── StoreUnavailable          our own database cannot be used just now
    ├── IssuerUnavailable         the keys of a token's issuer cannot be had just now
    └── BackendError              the agent's side failed
        ├── BackendUnavailable    not reached, or it refused before it took the turn
        ├── BackendRejectedKey    the gateway's own key for the backend is wrong
        ├── AgentFailed           the run broke after the message was given to the agent
        │   └── ConnectionLost
        ├── AgentTimeout          silent for too long; the run may still be going
        ├── ApprovalRequired      a tool of the agent's own waits for a human
        └── ProviderError         the model provider behind the agent failed
            ├── ProviderRateLimited
            ├── ProviderQuotaExceeded
            ├── ProviderAuthentication
            └── ProviderTimeout

`code` is public and stable. `retry` is what clients are told: True, the same request may be sent again at once;
False, it must not be, because the message may have reached the agent; None, the status says enough.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class GatewayError(Exception):
    """Something failed inside the gateway."""

    code: ClassVar[str] = "internal_error"
    retry: bool | None = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry: bool | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.public_code = code or self.code
        self.retry_after_seconds = retry_after_seconds
        if retry is not None:
            self.retry = retry


class InvalidRequest(GatewayError):
    code = "invalid_value"
    retry = None


class ContextLengthExceeded(InvalidRequest):
    """Roo Code condenses and tries again on a 400 whose message says `maximum context length`: the words matter."""

    code = "context_length_exceeded"


class PreviousNotFound(InvalidRequest):
    code = "previous_response_not_found"


class Unauthenticated(GatewayError):
    code = "invalid_api_key"
    retry = None


class Forbidden(GatewayError):
    code = "agent_forbidden"
    retry = None


class NotFound(GatewayError):
    code = "not_found"
    retry = None


class AgentNotFound(NotFound):
    code = "model_not_found"


class ConversationNotFound(NotFound):
    code = "conversation_not_found"


class TurnNotFound(NotFound):
    code = "response_not_found"


class EndpointNotFound(NotFound):
    code = "unknown_endpoint"


class MethodNotAllowed(GatewayError):
    code = "method_not_allowed"
    retry = None


class RequestTooLarge(GatewayError):
    code = "request_too_large"
    retry = None


class ConversationBusy(GatewayError):
    code = "conversation_busy"
    retry = True


class IdempotencyConflict(GatewayError):
    code = "idempotency_key_conflict"


class InsufficientBudget(GatewayError):
    """Before a turn begins, nothing has reached the agent; in the midst of one, what was used is paid."""

    code = "insufficient_budget"


class PriceUnknown(InsufficientBudget):
    code = "price_unknown"


class PaymentRequired(InsufficientBudget):
    """`accepts` is what would do, as x402 has it, and `offer` the same for a header."""

    code = "payment_required"

    def __init__(
        self, message: str, *, accepts: Sequence[Mapping[str, Any]] = (), offer: str = "", code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.accepts = accepts
        self.offer = offer


class PaymentUnavailable(GatewayError):
    code = "payment_unavailable"
    retry = True


class RateLimited(GatewayError):
    code = "rate_limit_exceeded"
    retry = True


class Overloaded(RateLimited):
    code = "server_overloaded"


class ShuttingDown(GatewayError):
    code = "server_shutting_down"


class TurnCancelled(GatewayError):
    code = "response_cancelled"


class StoreUnavailable(GatewayError):
    code = "store_unavailable"
    retry = True


class IssuerUnavailable(GatewayError):
    code = "issuer_unavailable"
    retry = True


class BackendError(GatewayError):
    code = "backend_error"
    retry = False


class BackendUnavailable(BackendError):
    code = "backend_unavailable"
    retry = True


class BackendRejectedKey(BackendError):
    code = "backend_authentication"


class AgentFailed(BackendError):
    code = "agent_error"


class ConnectionLost(AgentFailed):
    """The connection to the backend broke in the middle of a turn."""


class AgentTimeout(BackendError):
    code = "agent_timeout"


class ApprovalRequired(BackendError):
    """The conversation waits for an answer, and goes on with it."""

    code = "approval_required"


class ProviderError(BackendError):
    code = "provider_error"


class ProviderRateLimited(ProviderError):
    code = "rate_limit_exceeded"


class ProviderQuotaExceeded(ProviderError):
    code = "insufficient_budget"


class ProviderAuthentication(ProviderError):
    code = "provider_authentication"


class ProviderTimeout(ProviderError):
    code = "provider_timeout"
