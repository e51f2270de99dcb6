"""Agents as the tools of an MCP server: `/mcp`, by streamable HTTP."""
