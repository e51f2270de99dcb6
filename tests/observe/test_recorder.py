"""Recordings of what backends sent."""

import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from frontdesk.observe.recorder import Recorder


def test_without_a_directory_nothing_is_recorded() -> None:
    assert Recorder(None)("turn_1") is None


def test_the_bytes_of_a_turn_are_appended_to_its_own_file_for_us_alone(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "deep" / "records")
    one, two = recorder("turn_1"), recorder("turn_2")
    assert one
    assert two
    assert not (tmp_path / "deep").exists()
    one(b"data: 1\n\n")
    two(b"other")
    one(b"data: \xff\n\n")
    path = tmp_path / "deep" / "records" / "turn_1.sse"
    assert path.read_bytes() == b"data: 1\n\ndata: \xff\n\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("turn_id", ["../../etc/passwd", "/etc/passwd", "a\0b", "", ".", "..", "x" * 5000])
def test_no_turn_id_leads_out_of_the_directory(tmp_path: Path, turn_id: str) -> None:
    record = Recorder(tmp_path / "records")(turn_id)
    assert record
    record(b"x")
    assert len(list((tmp_path / "records").iterdir())) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "records"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "turn_1.sse").symlink_to(tmp_path / "target")
    record = Recorder(tmp_path)("turn_1")
    assert record
    record(b"x")
    assert (tmp_path / "target").read_bytes() == b""


def test_a_disk_that_refuses_is_logged_once_and_ends_the_recording(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    recorder = Recorder(tmp_path / "file" / "records")
    one, two = recorder("turn_1"), recorder("turn_2")
    assert one
    assert two
    with capture_logs() as logged:
        for record in (one, two, one):
            record(b"x")
    assert [line["event"] for line in logged] == ["recording stopped"]
    assert recorder("turn_3") is None
