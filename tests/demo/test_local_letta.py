"""The local Letta server: what it keeps, what it refuses, what it leaves behind."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from frontdesk.demo import local_letta
from frontdesk.demo.local_letta import LettaOptions, LocalLetta, LocalLettaError
from tests.demo.conftest import Place, Serving
from tests.demo.processes import running, running_on, until

KEEPER = """
import sys
from frontdesk.demo.local_letta import LettaOptions, LocalLetta
LocalLetta(sys.argv[1], LettaOptions("http://127.0.0.1:9/v1")).start(lambda stage: print(stage, flush=True))
"""


def test_an_agent_and_its_memory_outlive_a_restart_with_the_model_at_another_address(next_time: Serving) -> None:
    """Letta by itself goes on asking the address it saw first, also for new agents."""
    heard = next_time.model.requests_with("What is my name?")
    assert heard
    assert "The user's name is Ada." in heard[0].texts[0]
    assert heard[0].headers["authorization"] == "Bearer sk-any"


def test_one_server_at_a_time_runs_on_a_folder_and_none_outlives_its_parent(place: Place) -> None:
    """One scenario, as a start is expensive; this one does not even have to succeed."""
    folder = place.folder / "shared"
    with running("-c", KEEPER, str(folder), environment=place.environment, folder=place.folder) as first:
        first.wait_for("Loading Letta")  # so Postgres is up
        second = LocalLetta(folder, LettaOptions("http://127.0.0.1:9/v1"))
        with pytest.raises(LocalLettaError, match=f"^Another Letta server already runs on {re.escape(str(folder))}.$"):
            second.start()
        assert second.pid is None
        assert len(running_on(folder)) > 2
        first.send(signal.SIGKILL)
        assert until(lambda: not running_on(folder), 20), running_on(folder)


@pytest.mark.parametrize(
    ("root", "environment", "cache", "data"),
    [
        (True, {}, "/var/cache/frontdesk", "/var/lib/frontdesk"),
        (False, {}, "/home/ada/.cache/frontdesk", "/home/ada/.local/share/frontdesk"),
        (True, {"FRONTDESK_CACHE_DIR": "/srv/c", "FRONTDESK_DATA_DIR": "/srv/d"}, "/srv/c", "/srv/d"),
        (False, {"FRONTDESK_CACHE_DIR": "/srv/c", "FRONTDESK_DATA_DIR": "/srv/d"}, "/srv/c", "/srv/d"),
    ],
)
def test_root_keeps_databases_out_of_its_home(
    root: bool, environment: dict[str, str], cache: str, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FRONTDESK_CACHE_DIR", "FRONTDESK_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(platformdirs, "user_cache_dir", always("/home/ada/.cache/frontdesk"))
    monkeypatch.setattr(platformdirs, "user_data_dir", always("/home/ada/.local/share/frontdesk"))
    monkeypatch.setattr(local_letta, "is_root", lambda: root)
    assert local_letta.cache_folder() == Path(cache)
    assert local_letta.data_folder() == Path(data)


def always(value: str) -> Callable[..., str]:
    return lambda *_, **__: value
