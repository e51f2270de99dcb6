"""What stands behind Python agents: a real LiteLLM proxy as their provider, with the scripted model behind that.

The agents are served, and OpenAI's client talks to them.
"""

import asyncio
import json
import socket
import subprocess
import tempfile
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
from rich.console import Console

from frontdesk import Agent
from frontdesk.demo.local_letta import inherited
from frontdesk.testing import Request, ScriptedModel
from tests.compat.clients import CLIENTS
from tests.compat.environments import NotInstalled, installed
from tests.served import Served, served

PROXY_KEY = "sk-a-key-for-the-proxy-on-this-machine-only"
KEY_BEHIND = "a-key-which-only-the-proxy-has"
CITIES = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SHOPPING: Any = {"type": "function", "function": {"name": "buy", "parameters": CITIES}}

out = Console()


def weather(city: str) -> str:
    """The weather in a city."""
    return f"12 degrees in {city}"


agents = [
    Agent("Behind a proxy", model="litellm/scripted", instructions="You are far away.", tools=[weather]),
    Agent("Without the key", model="litellm/scripted", api_key="sk-another"),
]


@dataclass(frozen=True)
class Stage:
    gateway: Served
    model: ScriptedModel

    def heard(self, marker: str, count: int = 1) -> list[Request]:
        """What the model behind the proxy was sent."""
        found = self.model.requests_with(marker)
        equal(len(found), count)
        return found


@contextmanager
def litellm(environment: Path, folder: Path, behind: str) -> Generator[str]:
    """The proxy on a free port. Yields its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    parameters = {"model": "openai/scripted", "api_base": behind, "api_key": KEY_BEHIND, "max_retries": 0}
    models = [{"model_name": "scripted", "litellm_params": parameters}]
    settings = {"model_list": models, "router_settings": {"num_retries": 0}}
    config = folder / "config.yaml"
    config.write_text(json.dumps(settings))  # which is YAML too
    command = [environment / "bin" / "litellm", "--config", config, "--telemetry", "False"]
    surroundings = inherited() | {
        "HOME": str(environment),
        "LITELLM_MASTER_KEY": PROXY_KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it is fetched
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with (
        (folder / "litellm.log").open("wb") as log,
        subprocess.Popen(
            [*map(str, command), "--host", "127.0.0.1", "--port", str(port)],
            env=surroundings,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as run,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            while not is_ready(url):
                if run.poll() is not None:
                    raise NotInstalled(f"the proxy did not start:\n{(folder / 'litellm.log').read_text()[-2000:]}")
                time.sleep(0.2)
            yield url
        finally:
            run.terminate()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/readiness").status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def stage(environment: Path) -> Generator[Stage]:
    with (
        tempfile.TemporaryDirectory(prefix="frontdesk-behind-") as folder,
        ScriptedModel() as model,
        litellm(environment, Path(folder), model.base_url) as proxy,
        served(
            Path(folder, "frontdesk"),
            agents=(f"{__spec__.name}:agents",),
            providers={"litellm": {"base_url": proxy, "api_key": PROXY_KEY}},
        ) as gateway,
    ):
        yield Stage(gateway, model)


# --- the cases ---------------------------------------------------------------------------------------------------


def equal(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")


async def say(stage: Stage, said: str, agent: str = agents[0].name, **fields: Any) -> Any:
    async with stage.gateway.client() as client:
        fields |= {"model": agent, "messages": [{"role": "user", "content": said}]}
        created: Any = client.chat.completions.create
        return await created(**fields)


async def plain(stage: Stage, marker: str) -> None:
    reply = await say(stage, f"{marker}\n@think hm\n@say Hello.\n@usage 20 10 5 3")
    message = reply.choices[0].message
    equal((message.content, message.reasoning_content, reply.choices[0].finish_reason), ("Hello.", "hm", "stop"))
    equal((reply.usage.prompt_tokens, reply.usage.completion_tokens), (20, 10))
    (request,) = stage.heard(marker)
    equal(request.headers["authorization"], f"Bearer {KEY_BEHIND}")
    equal(request.texts[0], "You are far away.")


async def streamed(stage: Stage, marker: str) -> None:
    async with stage.gateway.client() as client:
        messages: Any = [{"role": "user", "content": f"{marker}\n@pace 0.01\n@long 30"}]
        stream = await client.chat.completions.create(model=agents[0].name, messages=messages, stream=True)
        pieces = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
    said = [piece for piece in pieces if piece]
    equal("".join(said), " ".join(f"word{number}" for number in range(1, 31)))
    if len(said) < 5:
        raise AssertionError(f"it came in {len(said)} pieces")


async def own_tool(stage: Stage, marker: str) -> None:
    reply = await say(stage, f'{marker}\n@call weather {{"city": "Paris"}}\n@then\n@say Cold.')
    equal((reply.choices[0].message.content, reply.choices[0].message.tool_calls), ("Cold.", None))
    *_, request = stage.heard(marker, 2)
    equal(request.texts[-1], "12 degrees in Paris")


async def callers_tool(stage: Stage, marker: str) -> None:
    """Beside one of the agent's own: that has run when the caller answers."""
    said = f'{marker}\n@call weather {{"city": "Paris"}}\n@call buy {{"city": "Rome"}}\n@then\n@say Bought.'
    first = (await say(stage, said, tools=[SHOPPING])).choices[0].message
    (call,) = first.tool_calls
    equal((call.function.name, json.loads(call.function.arguments)), ("buy", {"city": "Rome"}))
    answer = {"role": "tool", "tool_call_id": call.id, "content": "a hat"}
    messages: Any = [{"role": "user", "content": said}, first.model_dump(exclude_none=True), answer]
    async with stage.gateway.client() as client:
        again: Any = client.chat.completions.create
        reply = await again(model=agents[0].name, messages=messages, tools=[SHOPPING])
    equal(reply.choices[0].message.content, "Bought.")
    *_, request = stage.heard(marker, 2)
    equal(
        [text for text in request.texts if text in ("12 degrees in Paris", "a hat")], ["12 degrees in Paris", "a hat"]
    )


SETTINGS: dict[str, Any] = {
    "temperature": 0.25,
    "top_p": 0.5,
    "max_tokens": 77,
    "frequency_penalty": 0.125,
    "presence_penalty": 0.75,
    "logit_bias": {"5": 3},
    "seed": 11,
    "stop": ["END"],
}


async def settings(stage: Stage, marker: str) -> None:
    await say(stage, f"{marker}\n@say Fine.", **SETTINGS)
    (request,) = stage.heard(marker)
    equal({name: request.body.get(name) for name in SETTINGS}, SETTINGS)


async def structured(stage: Stage, marker: str) -> None:
    schema = {**CITIES, "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    reply = await say(stage, f'{marker}\n@say {{"city": "Paris"}}', response_format=form)
    equal(json.loads(reply.choices[0].message.content), {"city": "Paris"})
    (request,) = stage.heard(marker)
    equal(request.body["response_format"], form)


async def failing(stage: Stage, marker: str) -> None:
    for script, kind in (
        ("@fail 429 should-retry=false", openai.RateLimitError),
        ("@fail 400 context_length_exceeded", openai.BadRequestError),
        ("@fail 500 should-retry=false", openai.APIStatusError),
    ):
        try:
            reply = await say(stage, f"{marker}\n{script}")
        except kind as error:
            if KEY_BEHIND in str(error) or PROXY_KEY in str(error):
                raise AssertionError("the error shows a key") from error
        else:
            raise AssertionError(f"{script}: {reply!r}")


async def without_the_key(stage: Stage, marker: str) -> None:
    """What the proxy says of it depends on its version, and its database."""
    try:
        reply = await say(stage, f"{marker}\n@say Never.", agent=agents[1].name)
    except openai.APIStatusError as error:
        equal("sk-" in str(error), False)
    else:
        raise AssertionError(f"{reply!r}")
    stage.heard(marker, 0)


Case = Callable[[Stage, str], Awaitable[None]]

CASES: dict[str, tuple[str, Case]] = {
    "behind.plain": ("a plain answer, with reasoning and usage", plain),
    "behind.stream": ("a streamed answer", streamed),
    "behind.own-tool": ("a tool that the agent runs", own_tool),
    "behind.tool": ("a tool that the agent runs and one that the client runs, in one step", callers_tool),
    "behind.settings": ("settings reach the model", settings),
    "behind.structured": ("structured output", structured),
    "behind.errors": ("errors", failing),
    "behind.key": ("a wrong key", without_the_key),
}


async def played(ready: Stage, names: Sequence[str]) -> list[str]:
    """Play these cases. Gives the names of those that failed."""
    failed: list[str] = []
    for name in names:
        title, case = CASES[name]
        try:
            async with asyncio.timeout(60):
                await case(ready, f"#{uuid.uuid4().hex[:12]}")
            out.print(f"{name}: passed ({title})", highlight=False)
        except Exception:
            traceback.print_exc(limit=-4)
            out.print(f"{name}: [red]failed[/] ({title})", highlight=False)
            failed.append(name)
    return failed


def run(prefix: str = "") -> list[str]:
    """Play the cases that begin so. Gives the names of those that failed."""
    names = [name for name in CASES if name.startswith(prefix)]
    if not names:
        return []
    out.print("LiteLLM as a provider")
    try:
        environment = installed(next(client for client in CLIENTS if client.folder.name == "litellm"))
        with stage(environment) as ready:
            return asyncio.run(played(ready, names))
    except NotInstalled as error:
        out.print(f"[red]LiteLLM as a provider[/]: {error}", highlight=False)
        return ["environment"]
