"""An MCP server made with the official SDK, for tests to serve, or to run: over stdio, or `http PORT`, `sse PORT`."""

import asyncio
import os
import sys
from typing import Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp_types import CallToolResult, TextContent

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


def build() -> MCPServer:
    """A new server with the same tools."""
    server = MCPServer("tools of a test", log_level="CRITICAL")
    cancelled: list[str] = []

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool(structured_output=False)
    def picture() -> list[Any]:
        """Give a picture with its caption."""
        return ["A pixel:", Image(data=PIXEL, format="png")]

    @server.tool()
    def fail() -> CallToolResult:
        """Fail, and say why."""
        return CallToolResult(content=[TextContent(type="text", text="the well is dry")], is_error=True)

    @server.tool()
    def crash() -> str:
        """Raise something."""
        raise KeyError("nobody foresaw this")

    @server.tool()
    def long(characters: int) -> str:
        """Say much."""
        return "x" * characters

    @server.tool()
    def environment() -> list[str]:
        """The names of the variables that the server was started with."""
        return sorted(os.environ)

    @server.tool()
    async def wait(label: str) -> str:
        """Never answer."""
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(label)
        return "woken"

    @server.tool()
    def stopped() -> list[str]:
        """The labels of the calls of `wait` that were cancelled."""
        return cancelled

    @server.tool()
    def number() -> int:
        """The number of the server's process."""
        return os.getpid()

    @server.tool()
    def end() -> str:
        """End the server at once, without an answer."""
        os._exit(3)

    @server.tool()
    def headers(ctx: Context) -> dict[str, str]:
        """What the client sent beside the call."""
        return dict(ctx.headers or {})

    @server.tool()
    async def learn(name: str, ctx: Context) -> str:
        """Have one more tool from now on."""

        def learned() -> str:
            return f"{name} was called"

        server.add_tool(learned, name=name, description="Learned later.")
        await ctx.notify_tools_changed()  # for those who listen, as of protocol 2026-07-28
        if ctx.request_context.session.protocol_version < "2026":
            await ctx.request_context.session.send_tool_list_changed()
        return "done"

    return server


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["http", port]:
            build().run("streamable-http", port=int(port))
        case ["sse", port]:
            build().run("sse", port=int(port))
        case _:
            build().run("stdio")
