"""The composition root: the secret it keeps."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from frontdesk.app import secret
from frontdesk.config import Settings
from frontdesk.gateway import about
from frontdesk.turn import Turn


def settings(folder: Path, given: str = "") -> Settings:
    return Settings(data_dir=folder, secret=SecretStr(given), _env_file=None)  # pyright: ignore[reportCallIssue]


def test_the_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    made = secret(settings(folder))
    assert len(made) == 64
    assert secret(settings(folder)) == made
    assert secret(settings(folder, "given")) == b"given"
    assert (folder / "secret").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_nothing_is_signed_with_an_empty_secret(tmp_path: Path, content: bytes) -> None:
    """As a crash between making the file and writing it leaves behind."""
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(OSError, match="is empty"):
        secret(settings(tmp_path))


def test_metadata_in_the_logs_is_short() -> None:
    turn = Turn("turn_1", "Milo", (), metadata={"n" * 1000: "v" * 1000})
    assert about(turn) == {"metadata": {"n" * 64: "v" * 512}}
