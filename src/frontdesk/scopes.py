"""Scopes: which there are, and what is said to whoever lacks one. Those of rank are in `turn.RANKS`."""

from collections.abc import Collection

from frontdesk.errors import Forbidden, GatewayError, Unauthenticated
from frontdesk.turn import RANKS, Principal

METRICS = "metrics"
"""Reads `/metrics` and `/health`. No agent asks for it."""

KEY_NEEDED = "An API key is needed. Send it as the header `Authorization: Bearer <key>`, or as `x-api-key`."


def all_scopes(custom: Collection[str]) -> frozenset[str]:
    """All scopes that a key can have: ours, and those the operator names."""
    return frozenset((*RANKS, METRICS, *custom))


def refusal(scope: str, principal: Principal, what: str = "This", *, param: str | None = None) -> GatewayError:
    """What is said to a principal who does not hold it: a stranger may have a key, all others have shown theirs."""
    if principal.stranger:
        return Unauthenticated(KEY_NEEDED)
    message = f"{what} needs the scope {scope!r}, which you do not have."
    return Forbidden(message, param=param, code="insufficient_scope")


def nothing_kept() -> Unauthenticated:
    """What is said to a stranger who asks for what others would find, too."""
    return Unauthenticated(f"Without an API key nothing is kept: each request stands for itself. {KEY_NEEDED}")


def check(scope: str, principal: Principal, what: str = "This") -> None:
    """Raises Unauthenticated for a stranger without this scope, Forbidden (`insufficient_scope`) for anybody else."""
    if not principal.holds(scope):
        raise refusal(scope, principal, what)
