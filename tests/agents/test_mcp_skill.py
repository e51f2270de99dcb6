"""The skill `MCP`, against servers made with the official SDK, over every transport."""

import asyncio
import base64
import json
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp.server.lowlevel import Server
from mcp_types import CallToolResult, ListToolsResult, TextContent
from mcp_types import Tool as Offered
from pydantic_ai import BinaryContent
from pydantic_ai.exceptions import ToolFailed

from frontdesk.agents.errors import AgentError
from frontdesk.agents.services import Services
from frontdesk.agents.skills.mcp import MCP
from frontdesk.agents.tools import Tool
from frontdesk.testing import ScriptedModel
from tests.agents import toolsmiths
from tests.agents.mcp_server import PIXEL, build
from tests.agents.on_http import App, on_http
from tests.protocols.conftest import marker
from tests.requirements import requirement
from tests.served import Served, served

__all__ = ["marker"]

COMMAND = [sys.executable, str(Path(__file__).with_name("mcp_server.py"))]
SECONDS = 20.0


@asynccontextmanager
async def connected(skill: MCP) -> AsyncGenerator[Callable[[], Mapping[str, Tool]]]:
    """The skill at work. Yields what gives its tools by name."""
    async with skill.lifespan(Services()):
        yield lambda: {tool.name: tool for tool in skill.tools()}


async def until(true: Callable[[], Any]) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < SECONDS, "it never came to be"
        await asyncio.sleep(0.01)


def skill_over(transport: str, running: ExitStack, **options: Any) -> MCP:
    match transport:
        case "stdio":
            return MCP(command=COMMAND, name="t", **options)
        case "sse":
            return MCP(running.enter_context(on_http(build().sse_app())) + "/sse", name="t", **options)
        case _:
            app = build().streamable_http_app(stateless_http=transport == "stateless http")
            return MCP(running.enter_context(on_http(app)) + "/mcp", name="t", **options)


@pytest.fixture(params=["stdio", "http", "stateless http", "sse"])
def over(request: pytest.FixtureRequest) -> Generator[Callable[..., MCP]]:
    with ExitStack() as running:
        yield partial(skill_over, request.param, running)


@pytest.fixture(scope="module")
def server() -> Generator[str]:
    """One server for the tests which leave no trace on it."""
    with on_http(build().streamable_http_app()) as url:
        yield f"{url}/mcp"


# --- every transport ---------------------------------------------------------------------------------------------


@requirement("python.mcp")
async def test_its_tools_are_those_of_the_server_and_run_there(over: Callable[..., MCP]) -> None:
    async with connected(over()) as tools:
        add = tools()["t_add"]
        assert add.definition.description == "Add two numbers."
        assert add.definition.parameters_json_schema["required"] == ["a", "b"]
        assert await add.run({"a": 20, "b": 22}) == 42


async def test_a_call_that_is_cancelled_is_cancelled_on_the_server(over: Callable[..., MCP]) -> None:
    async with connected(over()) as tools:
        call = asyncio.ensure_future(tools()["t_wait"].run({"label": "mine"}))
        await asyncio.sleep(0.3)  # there is nothing to see of a call that has begun
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        began = time.monotonic()
        while await tools()["t_stopped"].run({}) != ["mine"]:
            assert time.monotonic() - began < SECONDS
            await asyncio.sleep(0.02)


async def test_a_server_that_is_slow_is_said_to_be_slow_and_stays_of_use(over: Callable[..., MCP]) -> None:
    async with connected(over(timeout_seconds=0.5)) as tools:
        with pytest.raises(ToolFailed, match=r"did not answer within 0\.5 seconds"):
            await tools()["t_wait"].run({"label": "slow"})
        assert await tools()["t_add"].run({"a": 1, "b": 2}) == 3


@pytest.mark.parametrize("transport", ["stdio", "http"])
@requirement("python.mcp")
async def test_a_tool_that_the_server_has_from_now_on_is_there(transport: str) -> None:
    with ExitStack() as running:
        async with connected(skill_over(transport, running)) as tools:
            await tools()["t_learn"].run({"name": "dance"})
            await until(lambda: "t_dance" in tools())
            assert await tools()["t_dance"].run({}) == "dance was called"


# --- results -----------------------------------------------------------------------------------------------------


async def test_a_picture_comes_as_a_picture(server: str) -> None:
    async with connected(MCP(server, name="t")) as tools:
        caption, picture = await tools()["t_picture"].run({})
        assert caption == "A pixel:"
        assert picture == BinaryContent(PIXEL, media_type="image/png")


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("fail", {}, "the well is dry"),
        ("crash", {}, "Error executing tool crash"),
        ("add", {"a": "one"}, "Input should be a valid integer"),
    ],
)
async def test_what_fails_there_is_told_as_the_tools_error(
    server: str, tool: str, arguments: dict[str, Any], said: str
) -> None:
    async with connected(MCP(server, name="t")) as tools:
        with pytest.raises(ToolFailed, match=said):
            await tools()[f"t_{tool}"].run(arguments)


async def test_a_long_text_is_cut_and_says_so(server: str) -> None:
    async with connected(MCP(server, name="t")) as tools:
        text = await tools()["t_long"].run({"characters": 300_000})
        assert len(text) == 100_000
        assert text.endswith("[cut]")


async def test_an_answer_too_large_to_be_read_is_the_tools_error_and_the_server_stays_of_use() -> None:
    with on_http(build().streamable_http_app(json_response=True, stateless_http=True)) as url:
        async with connected(MCP(f"{url}/mcp", name="t")) as tools:
            with pytest.raises(ToolFailed):
                await tools()["t_long"].run({"characters": 20 * 2**20})
            assert await tools()["t_add"].run({"a": 1, "b": 2}) == 3


async def test_many_calls_at_the_same_time_each_get_their_own_answer(server: str) -> None:
    async with connected(MCP(server, name="t")) as tools:
        add = tools()["t_add"]
        assert await asyncio.gather(*(add.run({"a": n, "b": n}) for n in range(200))) == [2 * n for n in range(200)]


# --- servers that come and go ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_a_server_that_is_down_at_the_start_keeps_nobody_from_starting_and_is_found_later() -> None:
    port = free_port()
    began = time.monotonic()
    async with connected(MCP(f"http://127.0.0.1:{port}/mcp", name="t")) as tools:
        assert time.monotonic() - began < 5
        assert tools() == {}
        with on_http(build().streamable_http_app(), port):
            await until(lambda: "t_add" in tools())
            assert await tools()["t_add"].run({"a": 1, "b": 2}) == 3


@asynccontextmanager
async def in_a_process(transport: str, port: int) -> AsyncGenerator[None]:
    """A server that is killed at the end of the block. Ready when it takes connections."""
    process = await asyncio.create_subprocess_exec(*COMMAND, transport, str(port))
    try:
        while True:
            with suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.01)
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_while_a_server_is_away_the_model_is_told_so_and_its_return_is_noticed(transport: str) -> None:
    port = free_port()
    path = "sse" if transport == "sse" else "mcp"
    async with AsyncExitStack() as stack:
        async with in_a_process(transport, port):
            skill = MCP(f"http://127.0.0.1:{port}/{path}", name="t")
            tools = await stack.enter_async_context(connected(skill))
            add = tools()["t_add"]
            assert await add.run({"a": 1, "b": 2}) == 3
        with pytest.raises(ToolFailed, match="cannot be reached"):
            await add.run({"a": 1, "b": 2})
        assert "t_add" in tools()
        async with in_a_process(transport, port):
            assert await add.run({"a": 1, "b": 2}) == 3


async def test_a_process_that_ends_is_started_anew() -> None:
    async with connected(MCP(command=COMMAND, name="t")) as tools:
        with pytest.raises(ToolFailed, match="cannot be reached"):
            await tools()["t_end"].run({})
        assert await tools()["t_add"].run({"a": 1, "b": 2}) == 3


async def test_a_command_that_does_not_exist_gives_no_tools() -> None:
    async with connected(MCP(command=["/no/such/program"], name="t")) as tools:
        assert tools() == {}


async def test_a_process_is_ended_with_the_app() -> None:
    async with connected(MCP(command=COMMAND, name="t")) as tools:
        add = tools()["t_add"]
        number = await tools()["t_number"].run({})
        assert psutil.pid_exists(number)
    assert not psutil.pid_exists(number)
    with pytest.raises(ToolFailed, match="not connected"):
        await add.run({"a": 1, "b": 2})


def cutting(app: App) -> App:
    """The same server, whose connection breaks when 13 is to be added."""

    async def cut(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await app(scope, receive, send)
        message = await receive()
        if b'"a":13' in message.get("body", b"").replace(b" ", b""):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            raise ConnectionResetError

        async def again() -> Any:
            nonlocal message
            given, message = message, None
            return given or await receive()

        return await app(scope, again, send)

    return cut


async def test_a_call_that_breaks_off_takes_no_other_with_it() -> None:
    with on_http(cutting(build().streamable_http_app())) as url:
        async with connected(MCP(f"{url}/mcp", name="t", timeout_seconds=3)) as tools:
            other = asyncio.ensure_future(tools()["t_wait"].run({"label": "other"}))
            with pytest.raises(ToolFailed):
                await tools()["t_add"].run({"a": 13, "b": 0})
            assert await tools()["t_add"].run({"a": 1, "b": 2}) == 3
            with pytest.raises(ToolFailed, match="did not answer within"):
                await other


# --- secrets -----------------------------------------------------------------------------------------------------


async def test_a_process_is_given_no_variable_of_ours_but_those_meant_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRONTDESK_API_KEYS", "sk-secret-of-ours")
    async with connected(MCP(command=COMMAND, name="t", env={"MEANT": "for it"})) as tools:
        names = await tools()["t_environment"].run({})
    assert "MEANT" in names
    assert "FRONTDESK_API_KEYS" not in names
    assert set(names) <= {"HOME", "LC_CTYPE", "LOGNAME", "MEANT", "PATH", "SHELL", "TERM", "USER"}


async def test_the_key_and_headers_are_sent_with_every_request(server: str) -> None:
    skill = MCP(server, name="t", api_key="sk-of-the-server", headers={"x-team": "red"})
    async with connected(skill) as tools:
        sent = await tools()["t_headers"].run({})
    assert sent["authorization"] == "Bearer sk-of-the-server"
    assert sent["x-team"] == "red"


async def test_the_key_does_not_follow_a_redirect_to_another_host() -> None:
    seen: list[str] = []

    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with on_http(elsewhere) as other:

        async def redirecting(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 307, "headers": [(b"location", other.encode())]})
            await send({"type": "http.response.body", "body": b""})

        with on_http(redirecting) as url:
            async with connected(MCP(f"{url}/mcp", name="t", api_key="sk-of-the-server")) as tools:
                assert tools() == {}
    assert seen == []


async def test_the_log_holds_neither_key_nor_query(capsys: pytest.CaptureFixture[str]) -> None:
    skill = MCP(f"http://127.0.0.1:{free_port()}/mcp?token=sk-in-the-address", api_key="sk-of-the-server")
    async with connected(skill):
        pass
    said = "".join(capsys.readouterr())
    assert "MCP server cannot be reached" in said
    assert "sk-" not in said


# --- what a hostile server says ----------------------------------------------------------------------------------


def schema(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {}, **fields}


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        made = {"type": "object", "properties": {"a": made}}
    return made


def laughing() -> dict[str, Any]:
    """A small schema that is a large one when its references are written out."""
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for n in range(1, 12):
        inner = {"$ref": f"#/$defs/d{n - 1}"}
        definitions[f"d{n}"] = {"type": "object", "properties": {str(k): inner for k in range(10)}}
    return {"type": "object", "properties": {"a": {"$ref": "#/$defs/d11"}}, "$defs": definitions}


HOSTILE = [
    Offered(name="transfer_to_billing", input_schema=schema()),
    Offered(name="../../../etc/passwd\n\x1b[2J", input_schema=schema()),
    Offered(name="a.b", input_schema=schema()),
    Offered(name="a b", input_schema=schema()),
    Offered(name="a b", input_schema=schema()),
    Offered(name="x" * 100_000, input_schema=schema()),
    Offered(name="ünïcode", input_schema=schema()),
    Offered(name="", input_schema=schema()),
    Offered(name="talkative", description="Be\u200bware\u202e \x07" + "!" * 100_000, input_schema=schema()),
    Offered(name="deep", input_schema=nested(60)),
    Offered(name="large", input_schema=schema(description="x" * 100_000)),
    Offered(name="laughing", input_schema=laughing()),
    Offered(name="dangling", input_schema=schema(properties={"a": {"$ref": "#/$defs/nowhere"}})),
    Offered(name="crooked", input_schema=schema(properties=["a"])),
]


@requirement("python.mcp.hostile")
async def test_names_descriptions_and_schemas_are_bounded_and_what_cannot_be_read_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def list_tools(*_: Any) -> ListToolsResult:
        return ListToolsResult(tools=HOSTILE)

    async def call_tool(_: Any, params: Any) -> CallToolResult:
        return CallToolResult(content=[TextContent(text=f"I am {params.name!r}"[:40])])

    app = Server("hostile", on_list_tools=list_tools, on_call_tool=call_tool).streamable_http_app()
    with on_http(app) as url:
        async with connected(MCP(f"{url}/mcp", name="evil")) as tools:
            found = tools()
            assert await found["evil_a_b"].run({}) == "I am 'a.b'"
            marked = [name for name in found if name.startswith("evil_a_b_")]
            assert [await found[name].run({}) for name in marked] == ["I am 'a b'"]
    assert all(name.startswith("evil_") and len(name) <= 64 for name in found)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for name in found)
    assert len(found["evil_talkative"].definition.description or "") == 1024
    assert (found["evil_talkative"].definition.description or "").startswith("Beware !!!")
    assert not any(name in found for name in ("evil_deep", "evil_large", "evil_laughing", "evil_dangling"))
    assert not any(name in found for name in ("evil_crooked", "transfer_to_billing"))
    said = capsys.readouterr().out
    assert "evil_laughing" in said
    assert "\x1b" not in said


async def test_no_more_tools_are_taken_than_a_model_could_be_shown() -> None:
    async def list_tools(_: Any, params: Any) -> ListToolsResult:
        start = int(params.cursor or 0) if params else 0
        page = [Offered(name=f"tool{start + n}", input_schema=schema()) for n in range(90)]
        return ListToolsResult(tools=page, next_cursor=str(start + 90))  # and so on, without end

    with on_http(Server("endless", on_list_tools=list_tools).streamable_http_app()) as url:
        async with connected(MCP(f"{url}/mcp", name="e")) as tools:
            assert len(tools()) == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"<html>", b'{"jsonrpc": "2.0", "id": 1, "result": 7}', b"[" * 100_000, b"\xff\xfe"],
    ids=["empty", "list", "html", "odd result", "deep", "bytes"],
)
@pytest.mark.parametrize("media_type", [b"application/json", b"text/event-stream", b"text/html"])
async def test_what_is_no_mcp_server_gives_no_tools(body: bytes, media_type: bytes) -> None:
    async def odd(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media_type)]})
        await send({"type": "http.response.body", "body": body})

    with on_http(odd) as url:
        async with connected(MCP(f"{url}/mcp", name="t")) as tools:
            assert tools() == {}


# --- as an author writes it --------------------------------------------------------------------------------------


async def test_only_what_is_allowed_is_there(server: str) -> None:
    async with connected(MCP(server, name="t", allow=["add", "pic*"])) as tools:
        assert set(tools()) == {"t_add", "t_picture"}


@pytest.mark.parametrize(
    ("skill", "name"),
    [
        (lambda: MCP("https://mcp.example.com/mcp"), "example_com"),
        (lambda: MCP(command=["npx", "-y", "@scope/server-files"]), "server-files"),
        (lambda: MCP(command=["python", "tools/weather.py"]), "weather"),
        (lambda: MCP("https://example.com", name="my docs!"), "my_docs"),
        (lambda: MCP("https://example.com", name="x" * 200), "x" * 32),
    ],
)
def test_a_server_without_a_name_is_called_after_its_host_or_program(skill: Callable[[], MCP], name: str) -> None:
    assert skill().name == name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs a server"),
        ({"target": "https://example.com", "command": ["x"]}, "needs a server"),
        ({"target": "example.com/mcp"}, "begins with https://"),
        ({"target": "file:///etc/passwd"}, "begins with https://"),
        ({"target": "https://example.com", "transport": "websocket"}, "no transport 'websocket'"),
        ({"target": "https://example.com", "api_key": "k", "headers": {"authorization": "x"}}, "both `api_key`"),
        ({"target": "https://example.com", "api_key": "k\r\nx-evil: 1"}, "one line"),
        ({"target": "https://example.com", "allow": "add"}, "are lists"),
        ({"target": "https://example.com", "timeout_seconds": 0}, "more than 0"),
        ({"target": "https://example.com", "name": "!!!"}, "no letter or digit"),
        ({"command": "python server.py"}, "are lists"),
        ({"command": ["x"], "api_key": "k"}, "use `env`"),
    ],
)
def test_what_cannot_work_is_said_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentError, match=said):
        MCP(**options)


def test_a_key_is_not_shown() -> None:
    skill = MCP("https://example.com/mcp", api_key="sk-of-the-server", headers={"x-other": "sk-too"})
    assert "sk-" not in repr(skill) + repr(vars(skill)) + json.dumps(vars(skill), default=repr)


# --- in turns ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Generator[ScriptedModel]:
    with ScriptedModel() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def house(server: str, model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    toolsmiths.server[:] = [server]
    keys = ({"name": "ann", "sha256": sha256(b"ann").hexdigest()},)
    olga = {"name": "olga", "sha256": sha256(b"olga").hexdigest(), "scopes": ["owner"]}
    with served(
        tmp_path_factory.mktemp("house"),
        agents=("tests.agents.toolsmiths:agents",),
        providers={"openai": {"base_url": model.base_url, "api_key": "sk-scripted"}},
        keys=(*keys, olga),
        probe_key="ann",
    ) as running:
        yield running


async def say(house: Served, agent: str, script: str, key: str = "ann") -> str:
    async with house.client(api_key=key) as client:
        done = await client.chat.completions.create(model=agent, messages=[{"role": "user", "content": script}])
    return done.choices[0].message.content or ""


@requirement("python.mcp.hostile")
async def test_an_agent_has_the_tools_and_its_own_are_not_taken_from_it(house: Served) -> None:
    assert "t_picture" in await say(house, "smith", "@tools")
    assert await say(house, "smith", '@call t_add {"a": 20, "b": 22}') == "Tool results: our own 42"
    assert "the well is dry" in await say(house, "smith", "@call t_fail {}")


async def test_a_picture_reaches_the_model(house: Served, model: ScriptedModel, marker: str) -> None:
    await say(house, "smith", f"@call t_picture {{}}\n@then\n@say I see.\n{marker}")
    last = next(each for each in reversed(model.requests) if each.has(marker))
    assert base64.b64encode(PIXEL).decode() in last.json_text


async def test_who_lacks_the_scope_is_neither_shown_the_tools_nor_can_have_them_run(house: Served) -> None:
    script = '@call m_add {"a": 20, "b": 22}\n@then\n@say No more.'
    assert "m_add" not in await say(house, "master", "@tools", "ann")
    assert await say(house, "master", script, "ann") == "No more."
    assert await say(house, "master", '@call m_add {"a": 20, "b": 22}', "olga") == "Tool results: 42"


async def test_an_agent_whose_server_is_down_serves_without_its_tools(house: Served) -> None:
    assert await say(house, "lonely", "@say I am here.") == "I am here."
    assert await say(house, "lonely", "@tools") == "[]"


async def test_many_turns_use_one_connection_at_the_same_time(house: Served) -> None:
    async with house.client(api_key="ann") as client:

        async def long(characters: int) -> str | None:
            script = f'@call t_long {{"characters": {characters}}}'
            done = await client.chat.completions.create(model="smith", messages=[{"role": "user", "content": script}])
            return done.choices[0].message.content

        said = await asyncio.gather(*(long(n) for n in range(1, 51)))
    assert said == [f"Tool results: {'x' * n}" for n in range(1, 51)]
