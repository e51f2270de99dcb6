"""What this server says of itself: its front page, its health, its metrics."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from frontdesk import __version__
from frontdesk.directory import Directory, Listing
from frontdesk.gateway import Gateway
from frontdesk.observe.metrics import Metrics

PAGE = """<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Frontdesk</title>
<style>
  body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1.5rem;
    color: #1d2433 }}
  h1 {{ margin-bottom: 0 }} p.sub {{ margin-top: 0; color: #667 }}
  code {{ background: #f2f4f8; padding: .1em .35em; border-radius: .3em }}
  dt {{ font-weight: 600 }} dd {{ margin: 0 0 .8rem }}
  @media (prefers-color-scheme: dark) {{ body {{ background: #14171f; color: #dfe3ee }}
    code {{ background: #232838 }} }}
</style>
<h1>Frontdesk</h1><p class="sub">The front desk for your agents · {version}</p>
<p>{agents} behind the OpenAI API. Point any OpenAI client at <code>{base}</code>; the model is the agent's name.</p>
<dl>
  <dt><a href="v1/models">/v1/models</a></dt><dd>the agents you may use</dd>
  <dt>/v1/chat/completions</dt><dd>talk to one, with streaming and with tools that you run</dd>
  <dt><a href="v1/conversations">/v1/conversations</a></dt><dd>what you have talked about with them</dd>
  <dt><a href="agents">/agents</a></dt><dd>who they are; each has a base URL of its own: /agents/&lt;name&gt;/v1</dd>
  <dt>/mcp, /a2a/&lt;name&gt;</dt><dd>the same agents as MCP tools, and by the A2A protocol</dd>
  <dt><a href="docs">/docs</a></dt><dd>the API, described</dd>
  <dt><a href="health">/health</a></dt><dd>how it and the servers behind it are</dd>
  <dt><a href="metrics">/metrics</a></dt><dd>numbers for Prometheus</dd>
</dl>
"""

PLACES = {
    "models": "/v1/models",
    "chat_completions": "/v1/chat/completions",
    "conversations": "/v1/conversations",
    "agents": "/agents",
    "mcp": "/mcp",
    "a2a": "/a2a/{name}",
    "docs": "/docs",
    "health": "/health",
    "metrics": "/metrics",
}


def router(directory: Directory, gateway: Gateway, metrics: Metrics) -> APIRouter:
    routes = APIRouter(tags=["About"])

    @routes.get("/", summary="What this is and where things are")
    async def index(request: Request) -> Response:  # type: ignore[reportUnusedFunction]
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"name": "frontdesk", "version": __version__, "endpoints": PLACES})
        count = sum(len(listing.agents) for listing in directory.listings.values())
        agents = f"{count} agent{'' if count == 1 else 's'}"
        return HTMLResponse(PAGE.format(version=__version__, agents=agents, base=f"{request.base_url}v1"))

    @routes.get("/health", summary="This server, and each backend with its latency and agents")
    async def health() -> Response:  # type: ignore[reportUnusedFunction]
        backends = {name: backend_body(listing) for name, listing in directory.listings.items()}
        up = [body["status"] == "ok" for body in backends.values()]
        status = "ok" if all(up) else "degraded" if any(up) else "down"
        body: dict[str, Any] = {
            "status": status,
            "version": __version__,
            "turns": {"in_flight": gateway.in_flight, "waiting": gateway.waiting},
            "backends": backends,
        }
        return JSONResponse(body, 200 if any(up) else 503)

    @routes.get("/health/live", summary="The process answers")
    async def live() -> dict[str, str]:  # type: ignore[reportUnusedFunction]
        return {"status": "ok"}

    @routes.get("/health/ready", summary="At least one backend can be used")
    async def ready() -> Response:  # type: ignore[reportUnusedFunction]
        usable = any(listing.seen and not listing.error for listing in directory.listings.values())
        return JSONResponse({"status": "ok" if usable else "unavailable"}, 200 if usable else 503)

    @routes.get("/metrics", summary="Metrics in Prometheus's form")
    async def scrape() -> Response:  # type: ignore[reportUnusedFunction]
        data, media_type = metrics.render()
        return Response(data, headers={"content-type": media_type})

    return routes


def backend_body(listing: Listing) -> dict[str, Any]:
    if listing.error or not listing.seen:
        return {"status": "unreachable", "error": listing.error or "not asked yet", "agents": len(listing.agents)}
    latency = round(listing.latency_seconds * 1000, 1)
    return {
        "status": "ok",
        "version": listing.version,
        "agents": len(listing.agents),
        "twins": listing.hidden,
        "latency_ms": latency,
    }
