# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (this file runs in Letta's own environment, whose packages are others than ours)
"""A small MCP server, which Letta starts for each call."""

from mcp.server.fastmcp import FastMCP

harbour = FastMCP("harbour")


@harbour.tool()
def tide(port: str) -> str:
    """Tell when the tide is high at a port."""
    if port == "Nowhere":
        raise ValueError("No sea there.")
    return f"High tide at {port} is at 14:20."


if __name__ == "__main__":
    harbour.run("stdio")
