"""The demo's MCP server, made with the official SDK: `python -m frontdesk.demo.stations` speaks MCP over stdio."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("Weather stations", log_level="WARNING")

SKIES = {"lisbon": "24 °C, sunny, a light breeze", "oslo": "3 °C, snow", "london": "14 °C, drizzle"}


@server.tool(structured_output=False)
def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return SKIES.get(city.strip().lower(), "18 °C, a few clouds")


if __name__ == "__main__":
    server.run("stdio")
