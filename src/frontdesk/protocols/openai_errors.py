"""Our errors as OpenAI's: the envelope, the status, and the headers by which its SDKs decide whether to retry.

Source: https://platform.openai.com/docs/guides/error-codes and what openai-python and openai-node do with them.
"""

import math
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from frontdesk.errors import (
    AgentFailed,
    AgentTimeout,
    ApprovalRequired,
    BackendError,
    BackendUnavailable,
    ConversationBusy,
    Forbidden,
    GatewayError,
    IdempotencyConflict,
    InsufficientBudget,
    InvalidRequest,
    IssuerUnavailable,
    MethodNotAllowed,
    NotFound,
    PaymentRequired,
    PaymentUnavailable,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderTimeout,
    RateLimited,
    RequestTooLarge,
    ShuttingDown,
    StoreUnavailable,
    Unauthenticated,
)

STATUS: dict[type[GatewayError], tuple[int, str]] = {
    InvalidRequest: (400, "invalid_request_error"),
    Unauthenticated: (401, "invalid_request_error"),
    InsufficientBudget: (402, "insufficient_quota"),
    ProviderQuotaExceeded: (402, "insufficient_quota"),
    Forbidden: (403, "permission_error"),
    NotFound: (404, "invalid_request_error"),
    MethodNotAllowed: (405, "invalid_request_error"),
    ConversationBusy: (409, "conflict_error"),
    IdempotencyConflict: (409, "conflict_error"),
    ApprovalRequired: (409, "conflict_error"),
    RequestTooLarge: (413, "invalid_request_error"),
    RateLimited: (429, "rate_limit_error"),
    ProviderRateLimited: (429, "rate_limit_error"),
    AgentFailed: (500, "server_error"),
    ProviderError: (502, "server_error"),
    BackendUnavailable: (503, "server_error"),
    PaymentUnavailable: (503, "server_error"),
    ShuttingDown: (503, "server_error"),
    StoreUnavailable: (503, "server_error"),
    IssuerUnavailable: (503, "server_error"),
    ProviderTimeout: (504, "server_error"),
    AgentTimeout: (504, "server_error"),
    BackendError: (502, "server_error"),
    GatewayError: (500, "server_error"),
}


class ErrorObject(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None
    accepts: NotRequired[list[Mapping[str, Any]]]  # how one may pay, where one may


class ErrorBody(TypedDict):
    error: ErrorObject


def status_of(error: GatewayError) -> tuple[int, str]:
    """The HTTP status and OpenAI's error type."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def kind_of(status: int) -> str:
    """OpenAI's error type for a status which none of our errors may have."""
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    return next((kind for known, kind in STATUS.values() if known == status), fallback)


def body_of(error: GatewayError) -> ErrorBody:
    kind = status_of(error)[1]
    body: ErrorObject = {"message": error.message, "type": kind, "param": error.param, "code": error.public_code}
    if isinstance(error, PaymentRequired) and error.accepts:
        body["accepts"] = list(error.accepts)
    return {"error": body}


def headers_of(error: GatewayError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if error.retry is not None:
        headers["x-should-retry"] = "true" if error.retry else "false"
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_seconds)))
        headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after_seconds * 1000)))
    if isinstance(error, PaymentRequired) and error.offer:
        headers["payment-required"] = error.offer
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return headers
