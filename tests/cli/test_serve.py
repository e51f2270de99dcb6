import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from frontdesk.cli.serve import keys, without_password
from frontdesk.config import Settings

from .conftest import Run

ISSUER = (
    '[{"name": "a", "issuer": "i", "audience": "b", "jwks_url": "https://i.example/keys", "algorithms": ["RS256"],'
    ' "grants": ["owner"]}]'
)


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout.startswith("frontdesk ")
    help_ = run("--help").stdout
    assert all(command in help_ for command in ("serve", "agents", "chat", "doctor", "demo"))


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("FRONTDESK_PORT", "http", "port (FRONTDESK_PORT): Input should be a valid integer"),
        ("FRONTDESK_WORKERS", "0", "workers (FRONTDESK_WORKERS): Input should be greater than or equal to 1"),
        ("REMOVE_SYSTEM_PROMPT", "perhaps", "remove_system_prompt (REMOVE_SYSTEM_PROMPT): Input should be"),
        ("FRONTDESK_KEYS", '[{"name": "a", "sha256": "x"}]', "[[keys]] 1, sha256: String should match"),
        ("FRONTDESK_JWT", '[{"name": "a", "issuer": "i", "audience": "b"}]', "[[jwt]] 1, jwks_url: Field required"),
        ("FRONTDESK_JWT", ISSUER.replace("RS256", "HS256"), "algorithms has 'HS256'"),
        ("FRONTDESK_JWT", ISSUER.replace("owner", "superuser"), "'superuser', which is none here"),
        ("FRONTDESK_ON_DISCONNECT", "never", "on_disconnect (FRONTDESK_ON_DISCONNECT): use detach"),
        ("FRONTDESK_KEYS", "no json", "The settings cannot be read"),
        ("FRONTDESK_CONFIG", "missing.toml", "There is no settings file missing.toml."),
    ],
)
def test_a_wrong_setting_is_named(run: Run, name: str, value: str, line: str) -> None:
    result = run("serve", **{name: value})
    assert result.exit_code == 1
    assert line in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_key_is_never_shown(run: Run) -> None:
    result = run("serve", FRONTDESK_KEYS='[{"name": "a", "sha256": "my-secret-itself"}]')
    assert "my-secret-itself" not in result.stderr


def test_a_file_that_is_not_toml_is_named(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("port = ")
    assert f"{file} is not valid TOML" in run("serve", "--config", str(file)).stderr


def test_listening_for_everybody_needs_keys(run: Run) -> None:
    result = run("serve", "--host", "0.0.0.0")
    assert result.exit_code == 1
    assert "FRONTDESK_API_KEYS" in result.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_is_one_clear_line(run: Run, workers: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port), "--workers", workers)
    assert result.exit_code == 1
    assert f"error: Port {port} on 127.0.0.1 is already in use." in result.stderr
    assert f"--port {port + 1}" in result.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_data_folder_that_cannot_be_used_is_told(run: Run, tmp_path: Path, workers: str) -> None:
    (tmp_path / "file").write_text("")
    result = run("serve", "--port", "0", "--workers", workers, FRONTDESK_DATA_DIR=str(tmp_path / "file"))
    assert "error: Cannot open the store " in result.stderr
    assert result.exit_code == 1


def test_a_setting_that_is_none_is_told(run: Run, tmp_path: Path) -> None:
    """It serves all the same; here it cannot, so that the test ends."""
    (tmp_path / "file").write_text("")
    file = tmp_path / "frontdesk.toml"
    file.write_text('agent = "misspelt"')
    result = run("serve", "--port", "0", "--config", str(file), FRONTDESK_DATA_DIR=str(tmp_path / "file"))
    assert re.search(r"unknown +agent \(in .*frontdesk\.toml\) is not a setting", " ".join(result.stderr.split()))


def test_it_tells_where_it_serves_and_ends_quietly(env: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "frontdesk", "serve", "--port", "0", "--letta-url", "http://u:pw@127.0.0.1:9"]
    with subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = [process.stderr.readline() for _ in range(5)]
        base = lines[2].split()[-1]
        assert wait_until_live(base.removesuffix("/v1"))
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(20) == 0
    assert "loopback only" in lines[4]
    assert "letta at http://127.0.0.1:9" in lines[3]
    assert "Traceback" not in rest
    assert "Aborted" not in rest


def wait_until_live(url: str, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            return httpx.get(f"{url}/health/live").is_success
        except httpx.TransportError:
            time.sleep(0.05)
    return False


def test_it_tells_what_is_taken_for_a_key() -> None:
    def told(**settings: Any) -> str:
        return keys(Settings(_env_file=None, **settings))  # pyright: ignore[reportCallIssue]

    assert "listens on loopback only" in told()
    assert told(api_keys="one,two") == "needed: clients send one as their API key (2 known)"
    jwt = json.loads(ISSUER)
    assert told(jwt=jwt, allow_anonymous=True).endswith("(0 known), or a token of a; without one, public agents")


def test_a_password_in_an_address_is_not_shown() -> None:
    assert without_password("https://me:secret@letta.example/a@b") == "https://letta.example/a@b"
    assert without_password("http://localhost:8283") == "http://localhost:8283"
