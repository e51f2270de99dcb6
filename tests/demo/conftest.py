import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from frontdesk.demo.local_letta import cache_folder
from frontdesk.testing import ScriptedModel
from tests.demo.processes import Running, running, running_on, until

SET_BY_USERS = ("FRONTDESK_", "LETTA_", "OPENAI_", "ANTHROPIC_", "OLLAMA_", "COLUMNS")


@dataclass(frozen=True)
class Place:
    """A machine's user who has never started the demo, but has a Letta environment, as that takes a while."""

    folder: Path
    environment: dict[str, str]

    @property
    def data(self) -> Path:
        return Path(self.environment["FRONTDESK_DATA_DIR"])


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("demo")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SET_BY_USERS)}
    ours = {"FRONTDESK_DATA_DIR": str(folder / "data"), "FRONTDESK_CACHE_DIR": str(cache_folder())}
    # A gateway of the user's own, which is no business of the demo's.
    (folder / "frontdesk.toml").write_text('port = "mistaken"\n')
    (folder / ".env").write_text("FRONTDESK_API_KEYS=secret\nLETTA_BASE_URL=http://127.0.0.1:9\n")
    return Place(folder, kept | ours | {"PYTHONWARNINGS": "error"})


@dataclass(frozen=True)
class Played:
    code: int
    printed: str
    left: list[str]


@pytest.fixture(scope="session")
def first_time(place: Place) -> Played:
    """`frontdesk demo --once`, where there was nothing."""
    with running("-m", "frontdesk", "demo", "--once", environment=place.environment, folder=place.folder) as demo:
        code = demo.wait()
        return Played(code, demo.printed, running_on(place.data))


@dataclass(frozen=True)
class Serving:
    demo: Running
    model: ScriptedModel
    url: str


@pytest.fixture(scope="session")
def next_time(place: Place, first_time: Played) -> Generator[Serving]:
    """`frontdesk demo` again on the same data, with "a real model" at another address. It has played; now it serves."""
    assert first_time.code == 0, first_time.printed
    with ScriptedModel() as model:
        environment = place.environment | {"OPENAI_API_KEY": "sk-any", "OPENAI_BASE_URL": model.base_url}
        with running("-m", "frontdesk", "demo", "--port=0", environment=environment, folder=place.folder) as demo:
            demo.wait_for("Ctrl-C")
            url = demo.printed.partition("The gateway listens on ")[2].partition(".\n")[0]
            yield Serving(demo, model, url)
        assert until(lambda: not running_on(place.data), 20)
