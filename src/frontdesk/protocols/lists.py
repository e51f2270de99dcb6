"""Lists, a page at a time, as OpenAI gives them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Query

from frontdesk.errors import InvalidRequest

Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]


def page(bodies: Sequence[dict[str, Any]], limit: int, order: Order, after: str) -> dict[str, Any]:
    """A part of a list, which is given oldest first. Raises InvalidRequest for an `after` that is not in it."""
    ordered = list(bodies) if order == "asc" else list(reversed(bodies))
    if after:
        places = [place for place, body in enumerate(ordered) if body["id"] == after]
        if not places:
            raise InvalidRequest("There is no item of this id to go on after.", param="after")
        ordered = ordered[places[0] + 1 :]
    return list_body(ordered[:limit], len(ordered) > limit)


def list_body(bodies: Sequence[dict[str, Any]], more: bool) -> dict[str, Any]:
    first, last = (bodies[0]["id"], bodies[-1]["id"]) if bodies else (None, None)
    return {"object": "list", "data": list(bodies), "first_id": first, "last_id": last, "has_more": more}
