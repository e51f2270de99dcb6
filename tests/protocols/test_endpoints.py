"""Agents' own HTTP endpoints: typed as FastAPI's are, with our errors, and open only to whom they are for."""

import hashlib
import http.client
import json
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from frontdesk import http as endpoint
from frontdesk.agents.errors import AgentError
from frontdesk.app import create_app
from frontdesk.config import Settings
from frontdesk.protocols.endpoints import mounted
from tests.protocols import shop
from tests.served import TLS, Served, served

USER, OWNER, PREMIUM, OTHER = "key-of-a-user", "key-of-an-owner", "premium-key", "key-to-another-agent"
MAX_BODY_BYTES = 4096


def key(name: str, secret: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), **more}


KEYS = [
    key("user", USER),
    key("owner", OWNER, scopes=["owner"]),
    key("premium", PREMIUM, scopes=["premium"]),
    key("other", OTHER, agents=["back office"], scopes=["admin"]),
]


def serving(folder: Path, **more: Any) -> Any:
    options: dict[str, Any] = {"agents": ("tests.protocols.shop:agents",), "scopes": ("premium",), "keys": KEYS}
    options |= {"agents_resolver": "tests.protocols.shop:made", "probe_key": USER, "max_body_bytes": MAX_BODY_BYTES}
    return served(folder, **options | more)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    with serving(tmp_path_factory.mktemp("shop")) as running:
        yield running


def ask(gateway: Served, method: str, path: str, secret: str = USER, **more: Any) -> httpx.Response:
    headers = ({"authorization": f"Bearer {secret}"} if secret else {}) | more.pop("headers", {})
    return httpx.request(method, f"{gateway.url}/agents/{path}", headers=headers, timeout=20, verify=TLS, **more)


def fault(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    """Its status, code and parameter."""
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return answer.status_code, error["code"], error["param"]


# --- types -------------------------------------------------------------------------------------------------------


def test_path_and_query_are_typed(gateway: Served) -> None:
    assert ask(gateway, "GET", "shop/orders/7").json() == {"number": 7, "limit": 5, "kind": "new"}
    answer = ask(gateway, "GET", "shop/orders/7/?limit=2&kind=old")
    assert answer.json() == {"number": 7, "limit": 2, "kind": "old"}
    assert answer.headers["x-request-id"].startswith("req_")
    assert fault(ask(gateway, "GET", "shop/orders/seven")) == (400, "invalid_type", "number")
    assert fault(ask(gateway, "GET", "shop/orders/7?limit=11")) == (400, "invalid_value", "limit")
    assert fault(ask(gateway, "GET", "shop/orders/7?kind=odd")) == (400, "invalid_value", "kind")


ODD_BODIES: list[tuple[bytes, str, str | None]] = [
    (b'{"items": [{"name": "tea", "count": 0}]}', "invalid_value", "items[0].count"),
    (b'{"items": [{"name": "tea"}]}', "missing_required_parameter", "items[0].count"),
    (b'{"items": "tea"}', "invalid_type", "items"),
    (b"{}", "missing_required_parameter", "items"),
    (b"", "missing_required_parameter", "body"),
    (b"[]", "invalid_type", "body"),
    (b'"tea"', "invalid_type", "body"),
    (b'{"items": ', "invalid_json", None),
    (b"[" * 3000, "invalid_value", None),
    (b'{"items": [{"name": "\xff", "count": 1}]}', "invalid_value", None),
]


@pytest.mark.parametrize(("body", "code", "param"), ODD_BODIES)
def test_a_body_that_does_not_fit(gateway: Served, body: bytes, code: str, param: str | None) -> None:
    answer = ask(gateway, "POST", "shop/orders", content=body, headers={"content-type": "application/json"})
    assert fault(answer) == (400, code, param)
    assert answer.headers["content-type"] == "application/json"


def test_a_body_that_fits_and_a_context(gateway: Served) -> None:
    answer = ask(gateway, "POST", "shop/orders", json={"items": [{"name": "tea", "count": 2}], "more": 1})
    items = [{"name": "tea", "count": 2}, {"name": "user", "count": 1}]
    assert answer.json() == {"items": items, "rush": False}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_request_may_be_asked_for_as_it_is(gateway: Served, method: str) -> None:
    answer = ask(gateway, method, "shop/orders", content=b"x" * 100)
    assert answer.json() == {"method": method, "path": "/agents/shop/orders", "bytes": 100}
    assert ask(gateway, "GET", "shop/depends", headers={"x-caller": "Anne"}).json() == "Anne"


def test_endpoints_of_a_skill_and_of_a_class(gateway: Served) -> None:
    assert ask(gateway, "GET", "shop/till").json() == {"open": True, "agent": "shop"}
    assert ask(gateway, "GET", "back%20office/safe", OWNER).json() == "back office"


def test_a_head_is_a_get_without_its_body(gateway: Served) -> None:
    answer = ask(gateway, "HEAD", "shop/orders/7")
    assert (answer.status_code, answer.content) == (200, b"")


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "shop/nothing", 404, "unknown_endpoint"),
        ("GET", "shop/orders/7/more", 404, "unknown_endpoint"),
        ("GET", "shop//orders/7", 404, "unknown_endpoint"),
        ("GET", "nobody/orders/7", 404, "model_not_found"),
        ("POST", "shop/orders/7", 405, "method_not_allowed"),
        ("GET", "shop/orders", 405, "method_not_allowed"),
        ("OPTIONS", "shop/orders", 405, "method_not_allowed"),
        ("GET", "shop/chat/completions", 405, "method_not_allowed"),
        ("GET", "shop/refuses", 400, "unsupported_value"),
    ],
)
def test_what_is_not_to_be_had(gateway: Served, method: str, path: str, status: int, code: str) -> None:
    assert fault(ask(gateway, method, path))[:2] == (status, code)


def test_a_method_that_is_not_allowed_names_those_that_are(gateway: Served) -> None:
    assert "takes POST, PUT, PATCH." in ask(gateway, "GET", "shop/orders").json()["error"]["message"]


@pytest.mark.parametrize("path", ["shop/fails", "shop/fails/to-fit"])
def test_what_an_endpoint_raises_is_told_to_nobody(gateway: Served, path: str) -> None:
    answer = ask(gateway, "GET", path)
    assert fault(answer) == (500, "internal_error", None)
    assert "swordfish" not in answer.text


def test_what_it_raises_for_its_caller_is_told(gateway: Served) -> None:
    answer = ask(gateway, "GET", "shop/sold-out")
    assert fault(answer) == (409, None, None)
    assert answer.json()["error"]["message"] == "Sold out."
    assert answer.json()["error"]["type"] == "conflict_error"
    assert answer.headers["x-next"] == "friday"


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
@pytest.mark.parametrize(("method", "path"), [("POST", "shop/orders"), ("PUT", "shop/orders")])
def test_a_body_that_is_too_large(gateway: Served, method: str, path: str, chunked: bool) -> None:
    big = json.dumps({"items": [], "more": "x" * MAX_BODY_BYTES}).encode()
    content: Any = iter([big[:1000], big[1000:]]) if chunked else big
    answer = ask(gateway, method, path, content=content, headers={"content-type": "application/json"})
    assert fault(answer)[:2] == (413, "request_too_large")


# --- who may -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("DELETE", "shop/orders/7", "owner"),
        ("POST", "shop/orders/7/items", "owner"),
        ("GET", "shop/premium", "premium"),
        ("GET", "made/owned", "owner"),
    ],
)
def test_an_endpoint_is_for_those_who_hold_its_scope(gateway: Served, method: str, path: str, scope: str) -> None:
    nobody = ask(gateway, method, path, "")
    assert fault(nobody)[:2] == (401, "invalid_api_key")
    assert nobody.headers["www-authenticate"] == "Bearer"
    assert fault(ask(gateway, method, path, "wrong"))[:2] == (401, "invalid_api_key")
    lacking = ask(gateway, method, path, OWNER if scope == "premium" else PREMIUM, content=b"{")
    assert fault(lacking)[:2] == (403, "insufficient_scope")
    assert f"'{scope}'" in lacking.json()["error"]["message"]
    assert shop.forgotten == []


def test_those_who_hold_it_are_answered(gateway: Served) -> None:
    assert ask(gateway, "GET", "shop/premium", PREMIUM).json() == "a chair"
    assert isinstance(ask(gateway, "GET", "made/owned", OWNER).json(), int)
    assert ask(gateway, "DELETE", "shop/orders/7", OWNER).status_code == 200
    assert shop.forgotten == [7]
    shop.forgotten.clear()


@pytest.mark.parametrize("path", ["shop/orders/7", "shop/premium", "shop/nothing", "shop"])
def test_a_key_to_other_agents_opens_none_of_them(gateway: Served, path: str) -> None:
    assert fault(ask(gateway, "GET", path, OTHER))[:2] == (403, "agent_forbidden")


def test_an_agents_own_scope_comes_before_that_of_its_endpoints(gateway: Served) -> None:
    assert fault(ask(gateway, "GET", "back%20office/safe"))[:2] == (403, "insufficient_scope")


def test_only_those_are_shown_which_the_caller_may_use(gateway: Served) -> None:
    def shown(secret: str) -> dict[str, Any]:
        endpoints = ask(gateway, "GET", "shop", secret).json()["endpoints"]
        return {f"{','.join(each['methods'])} {each['path']}": each for each in endpoints}

    mine = shown(USER)
    assert mine["GET /orders/{number}"] == {
        "path": "/orders/{number}",
        "methods": ["GET"],
        "scope": "user",
        "description": "One order.",
        "url": "/agents/shop/orders/{number}",
    }
    assert "GET /till" in mine
    assert "DELETE /orders/{number}" not in mine
    assert shown(OWNER).keys() - mine.keys() == {"DELETE /orders/{number}", "POST /orders/{number}/items"}
    assert shown(PREMIUM).keys() - mine.keys() == {"GET /premium"}
    assert "swordfish" not in ask(gateway, "GET", "shop").text


# --- context -----------------------------------------------------------------------------------------------------


def test_two_at_once_do_not_see_each_other(gateway: Served) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(ask, gateway, "GET", f"shop/who?tag={secret}", secret) for secret in (USER, OWNER)]
        told = [each.result().json() for each in both]
    assert told == [
        {"agent": "shop", "principal": "user", "tag": USER},
        {"agent": "shop", "principal": "owner", "tag": OWNER},
    ]


def test_a_function_that_waits_runs_in_a_thread_with_its_context(gateway: Served) -> None:
    assert ask(gateway, "GET", "shop/thread", OWNER).json() == {"principal": "owner", "loop": False}


def test_a_stream_comes_as_it_is_made(gateway: Served) -> None:
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=20)
    connection.request("GET", "/agents/shop/stream", headers={"authorization": f"Bearer {USER}"})
    answer = connection.getresponse()
    assert answer.read1() == b"shop "
    shop.going_on.set()
    assert answer.read() == b"goes on"
    connection.close()


def test_a_generator_is_a_stream_of_lines(gateway: Served) -> None:
    answer = ask(gateway, "GET", "shop/lines")
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"name": "shop", "count": 1},
        {"name": "shop", "count": 2},
    ]


async def test_who_comes_by_an_agents_url_is_not_bound_to_it_within_a_turn(gateway: Served) -> None:
    async with gateway.client(base_url=f"{gateway.url}/agents/shop/v1", api_key=USER) as client:
        response = await client.responses.create(input="@call elsewhere {}")
    runs: list[Any] = [item for item in response.output if item.type == "mcp_call"]
    assert [run.output for run in runs] == ["free"]


# --- coming and going --------------------------------------------------------------------------------------------


def test_endpoints_are_those_which_the_agent_has_now(tmp_path: Path) -> None:
    with serving(tmp_path, agents_resolver_seconds=0.05) as gateway:
        first = ask(gateway, "GET", "made/number").json()
        seen = threading.Event()
        later = first
        while later == first and not seen.wait(0.02):
            later = ask(gateway, "GET", "made/number").json()
        assert later > first


def test_one_that_is_made_with_a_fault_is_a_failure_and_not_missing(gateway: Served) -> None:
    assert ask(gateway, "GET", "faulty/number").status_code >= 500


async def a_page() -> str:
    return "page"


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/orders",
        "/v1/chat/completions",
        "/chat/completions",
        "/models",
        "/models/{id}",
        "/responses",
        "/responses/{id}/cancel",
        "/conversations",
        "/conversations/{id}",
        "/.well-known",
        "/.well-known/agent-card.json",
    ],
)
def test_where_every_agent_has_something_nothing_else_can_be(path: str) -> None:
    with pytest.raises(AgentError, match="Choose another path"):
        mounted([endpoint(path)(a_page)])


def unreadable(page: "Missing") -> str:  # type: ignore # noqa: F821
    return "page"


def untyped(page: threading.Thread) -> str:
    return "page"


UNFIT: list[Callable[..., Any]] = [unreadable, untyped]


@pytest.mark.parametrize("function", UNFIT)
def test_what_cannot_be_typed_is_no_endpoint(function: Callable[..., Any]) -> None:
    with pytest.raises(AgentError, match=function.__name__):
        mounted([endpoint("/page")(function)])


def test_two_endpoints_cannot_be_in_one_place() -> None:
    with pytest.raises(AgentError, match="both answer to POST /page"):
        mounted([endpoint("/page", method=["get", "post"])(a_page), endpoint("/page", method="post")(untaken)])


async def untaken() -> str:
    return "other"


def test_a_fault_is_told_before_the_server_starts(tmp_path: Path) -> None:
    faulty = ("tests.protocols.shop:faulty",)
    settings = Settings(agents=faulty, data_dir=tmp_path, _env_file=None)  # pyright: ignore[reportCallIssue]
    with pytest.raises(AgentError, match="taken cannot answer at '/models'"):
        create_app(settings)
