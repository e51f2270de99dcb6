"""Schemathesis asks whatever our own document allows, and what it does not, over a socket.

`FRONTDESK_FUZZ_EXAMPLES` is how often for each endpoint and way of asking.
"""

import os
import re
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis import checks as its_checks

from frontdesk.protocols.operations import OPEN, OPERATIONS
from tests.spec.exchanges import House

EXAMPLES = int(os.environ.get("FRONTDESK_FUZZ_EXAMPLES", "4"))

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
]
"""Not among them: that all which the document forbids is refused (unknown fields are let through, as by OpenAI), and
that all which it allows is taken (much is said in words only: an agent has to exist, `n` to be 1)."""

ONCE = frozenset({"POST /v1/conversations/{conversation_id}/approvals"})
"""What can be done only once, to something that an agent has asked."""

SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]


@pytest.fixture(scope="module")
def document(house: House) -> Any:
    return schemathesis.openapi.from_dict(house.get("/openapi.json"))


@pytest.fixture
def known(house: House) -> dict[str, str]:
    """Names which stand for something, so that not every answer is a 404."""
    conversation = house.conversation("Hello", "#thinks#")
    item = house.get(f"/v1/conversations/{conversation}/items")["data"][0]["id"]
    response = house.respond("Hello", background=True)["id"]
    return {"model": "Milo", "name": "Milo", "conversation_id": conversation, "item_id": item, "response_id": response}


def known_body(body: dict[str, Any]) -> dict[str, Any]:
    """The same of an agent that is there, with something new to say, and without ids of what is not there."""
    said: Any = body.get("messages")
    new: dict[str, Any] = {
        "messages": [*said, {"role": "user", "content": "Hello"}] if isinstance(said, list) else said,
        "input": "Hello",
        "items": [{"role": "user", "content": "Hello"}],
        **dict.fromkeys(("previous_response_id", "conversation", "prompt", "top_logprobs", "tool_choice")),
    }
    return body | {"model": "Milo", "agent": "Milo"} | {field: new[field] for field in new if field in body}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_is_asked_the_answer_is_as_described(
    name: str, mode: GenerationMode, document: Any, known: dict[str, str], house: House
) -> None:
    method, path = name.split()
    operation = document[path][method]
    checks = cast("Any", its_checks).CHECKS.get_by_names(CHECKS)
    seen: list[int] = []

    def ask(case: Any) -> None:
        response = case.call(base_url=str(house.open.base_url))
        seen.append(response.status_code)
        assert '{"detail"' not in response.text
        case.validate_response(response, checks=checks)

    def ask_for_something_known(case: Any) -> None:
        body: Any = case.body
        if isinstance(body, dict):
            case.body = known_body(cast("dict[str, Any]", body))
        ask(case)

    bounded = settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=SLOW
    )
    bounded(given(operation.as_strategy(mode))(ask))()
    place = {each: known[each] for each in known if f"{{{each}}}" in path}
    bounded(given(operation.as_strategy(mode, path_parameters=place or None))(ask_for_something_known))()
    if mode is GenerationMode.POSITIVE and name not in ONCE:
        assert min(seen) < 300, "nothing that was asked was ever done"


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_is_answered_without_a_key_but_what_is_described_so(name: str, house: House) -> None:
    method, path = name.split()
    response = house.strict.request(method, re.sub(r"{\w+}", "any", path))
    assert response.status_code == (200 if name in OPEN else 401)
    if name not in OPEN:
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
