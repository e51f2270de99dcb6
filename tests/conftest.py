"""The real things: a Letta server, a scripted model behind it, a gateway before it, official clients."""

import itertools
import logging
import os
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import structlog
from letta_client import Letta
from openai import AsyncOpenAI

from frontdesk.demo.local_letta import LettaOptions, LocalLetta
from frontdesk.testing import ScriptedModel
from tests.served import Served, served

os.environ.pop("COLUMNS", None)  # as set for a worker process of the test run: what is piped is not folded

structlog.configure(  # a traceback with all local variables takes seconds, in which the server answers nobody
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

MODEL = "openai-proxy/scripted"
OUR_HANDLER = "frontdesk"  # of the standard library's logging, as `observe.logs` installs it
OTHER_MODEL = "understudy"


@pytest.fixture(autouse=True)
def logging_as_before() -> Generator[None]:
    """What one test sets up for logging, such as a command that is run within this process, is not there in the next:
    its streams are closed by then."""
    before, root = structlog.get_config(), logging.getLogger()
    installed = [handler for handler in root.handlers if handler.get_name() == OUR_HANDLER]
    yield
    structlog.configure(**before)
    for handler in [each for each in root.handlers if each.get_name() == OUR_HANDLER and each not in installed]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def model() -> Generator[ScriptedModel]:
    with ScriptedModel(models=("scripted", OTHER_MODEL)) as scripted:
        yield scripted


@pytest.fixture(scope="session")
def letta(model: ScriptedModel, tmp_path_factory: pytest.TempPathFactory) -> Generator[LocalLetta]:
    """One Letta server for the whole run: it takes most of a minute to start."""
    stdio = {"MCP_DISABLE_STDIO": "false"}  # it takes no MCP servers on loopback
    options = LettaOptions(model_base_url=model.base_url, extra_env=stdio)
    with LocalLetta(tmp_path_factory.mktemp("letta"), options) as server:
        yield server


@pytest.fixture(scope="session")
def letta_api(letta: LocalLetta) -> Letta:
    return Letta(base_url=letta.base_url, api_key="none")


@pytest.fixture(scope="session")
def make_agent(letta_api: Letta) -> Callable[..., Any]:
    """Make an agent with a name of its own."""
    numbers = itertools.count(1)

    def make(name: str = "", **fields: Any) -> Any:
        described: dict[str, Any] = {
            "name": name or f"agent-of-test-{next(numbers)}",
            "model": MODEL,
            "embedding": "letta/letta-free",
            "context_window_limit": 128_000,
            "memory_blocks": [
                {"label": "human", "value": "Nothing is known yet."},
                {"label": "persona", "value": "I am a test agent."},
            ],
        }
        return letta_api.agents.create(**described | fields)

    return make


@pytest.fixture(scope="session")
def milo(make_agent: Callable[..., Any]) -> str:
    """An agent for tests which leave no trace in its memory."""
    return make_agent("Milo").name


@pytest.fixture(scope="session")
def gateway(letta: LocalLetta, milo: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    data_dir: Path = tmp_path_factory.mktemp("frontdesk")
    with served(data_dir, letta_base_url=letta.base_url, image_allow_hosts=("127.0.0.1",)) as running:
        yield running


@pytest.fixture
async def client(gateway: Served) -> AsyncGenerator[AsyncOpenAI]:
    async with gateway.client() as openai:
        yield openai
