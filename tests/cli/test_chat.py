import codecs
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from rich.console import Console

from frontdesk.cli.reply import Page, Piece, finished

from .conftest import Run
from .servers import KEY, StubGateway, served

ANSWER = "You said: **{}**\n\nAnd that is all.\n"


def test_piped_lines_are_one_conversation_until_new(gateway: StubGateway, run: Run) -> None:
    result = run("chat", "Milo", "--url", gateway.url, lines="one\n\ntwo\n/new\nthree\n")
    assert result.stdout == "".join(map(ANSWER.format, ("one", "two", "three")))
    assert result.exit_code == 0
    assert gateway.messages == ["one", "two", "three"]
    assert all(len(body["messages"]) == 1 for body in gateway.bodies)
    first, second, third = gateway.pins
    assert first == second != third
    assert re.fullmatch(r"chat-[0-9a-f]{12}", third)


def test_two_sessions_are_two_conversations_unless_named(gateway: StubGateway, run: Run) -> None:
    for _ in range(2):
        run("chat", "Milo", "--url", gateway.url, lines="hi\n")
        run("chat", "Milo", "--url", gateway.url, "--conversation", "my talk", lines="hi\n")
    one, named, two, same = gateway.pins
    assert one != two
    assert named == same == "my talk"


def test_reasoning_is_kept_apart_and_can_be_left_out(gateway: StubGateway, run: Run) -> None:
    assert run("chat", "--url", gateway.url, lines="hi\n").stderr == "Let me think.\n"
    assert run("chat", "--url", gateway.url, "--no-reasoning", lines="hi\n").stderr == ""


def test_instructions_go_with_each_message(gateway: StubGateway, run: Run) -> None:
    run("chat", "--url", gateway.url, "--system", "Be brief.", lines="one\ntwo\n")
    for body, message in zip(gateway.bodies, ("one", "two"), strict=True):
        assert body["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": message},
        ]


def test_commands_switch_and_list_agents_and_end(gateway: StubGateway, run: Run) -> None:
    gateway.agents.append(served("Ada"))
    result = run("chat", "Milo", "--url", gateway.url, lines="a\n/agent Ada\nb\n/models\n/help\n/quit\nc\n")
    assert [body["model"] for body in gateway.bodies] == ["Milo", "Ada"]
    assert "128,000" in result.stderr
    assert "/agent NAME" in result.stderr
    assert result.exit_code == 0


def test_a_path_is_a_message_and_a_wrong_command_is_not(gateway: StubGateway, run: Run) -> None:
    result = run("chat", "Milo", "--url", gateway.url, lines="/etc/hosts is what?\n/nwe\n")
    assert gateway.messages == ["/etc/hosts is what?"]
    assert "There is no command /nwe." in result.stderr
    assert result.exit_code == 1


def test_without_a_name_the_only_agent_is_taken_or_the_choice_is_told(gateway: StubGateway, run: Run) -> None:
    assert run("chat", "--url", gateway.url, lines="hi\n").exit_code == 0
    gateway.agents.append(served("Ada Lovelace"))
    result = run("chat", "--url", gateway.url, lines="hi\n")
    assert "Milo, Ada Lovelace" in result.stderr
    gateway.agents.clear()
    assert "serves no agents" in run("chat", "--url", gateway.url, lines="hi\n").stderr
    assert len(gateway.bodies) == 1


def test_an_unknown_agent_is_told_before_anything_is_sent(gateway: StubGateway, run: Run) -> None:
    result = run("chat", "milo", "--url", gateway.url, lines="hi\n")
    assert "There is no agent 'milo'" in result.stderr
    assert "There are: Milo." in result.stderr
    assert (result.exit_code, gateway.bodies) == (1, [])


@pytest.mark.parametrize(
    ("message", "trouble"),
    [
        ("fail", "The Letta server cannot be reached. (backend_unavailable)"),
        ("inband", "The agent's run failed. (agent_error)"),
        ("cut", "The answer was cut off: the connection ended early."),
    ],
)
def test_an_error_is_one_line_never_sent_twice_and_the_next_line_goes_on(
    gateway: StubGateway, run: Run, message: str, trouble: str
) -> None:
    result = run("chat", "Milo", "--url", gateway.url, "--no-reasoning", lines=f"{message}\nthen\n")
    assert result.stderr.splitlines()[0] == f"error: {trouble}"
    assert gateway.messages == [message, "then"]
    assert result.stdout.endswith(ANSWER.format("then"))
    assert result.exit_code == 1


def test_a_key_is_sent(gateway: StubGateway, run: Run) -> None:
    gateway.key = KEY
    assert run("chat", "--url", gateway.url, "--key", KEY, lines="hi\n").exit_code == 0
    assert "wants a key" in run("chat", "Milo", "--url", gateway.url, lines="hi\n").stderr


def test_a_conversation_needs_a_name_that_fits_a_header(run: Run) -> None:
    assert run("chat", "Milo", "--conversation", "schön").exit_code == 2


# --- at a terminal -----------------------------------------------------------------------------------------------


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._master = master
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def interrupt(self, text: str) -> None:
        """Ctrl-C until it is heard: readline misses one that comes between its prompt and its reading of keys."""
        for _ in range(40):
            self.process.send_signal(signal.SIGINT)
            with suppress(AssertionError):
                self.wait_for(text, seconds=0.5)
                return
        raise AssertionError(f"no {text!r} in {self.seen!r}")

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Read on until `text` is there, and forget what came before its end."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += self._decoder.decode(os.read(self._master, 65536))
        self.seen = self.seen.partition(text)[2]


@contextmanager
def terminal(env: dict[str, str], folder: Path, *arguments: str) -> Generator[Terminal, None, None]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "frontdesk", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=env | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        cwd=folder,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(gateway: StubGateway, env: dict[str, str], tmp_path: Path) -> None:
    with terminal(env, tmp_path, "chat", "Milo", "--url", gateway.url) as screen:
        screen.wait_for("❯")
        screen.type("slow\r")
        screen.wait_for("word5")
        screen.process.send_signal(signal.SIGINT)
        screen.wait_for("Stopped.")
        assert gateway.left.wait(5)
        screen.wait_for("❯")
        screen.type("again\r")
        screen.wait_for("all.")
        screen.wait_for("❯")
        screen.type("\x04")
        screen.wait_for(f"--conversation {gateway.pins[0]}")
        assert screen.process.wait(10) == 0
    assert gateway.messages == ["slow", "again"]
    assert gateway.pins[0] == gateway.pins[1]


def test_trouble_and_ctrl_c_at_the_prompt_keep_the_chat(
    gateway: StubGateway, env: dict[str, str], tmp_path: Path
) -> None:
    with terminal(env, tmp_path, "chat", "Milo", "--url", gateway.url) as screen:
        screen.wait_for("❯")
        screen.type("fail\r")
        screen.wait_for("cannot be reached")
        screen.wait_for("❯")
        screen.interrupt("Ctrl-D quits.")
        screen.wait_for("❯")
        screen.type("/quit\r")
        assert screen.process.wait(10) == 0


# --- drawing an answer -------------------------------------------------------------------------------------------


def drawn(pieces: list[Piece], height: int = 10) -> str:
    """What stays on a terminal of 80 columns, after its control sequences have done their work."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=height, color_system=None)
    with Page(console) as page:
        for piece in pieces:
            page.add(piece)
            page.refresh()
    return played(console.file.getvalue())  # type: ignore[reportAttributeAccessIssue]


def played(output: str) -> str:
    """A very small terminal: carriage return, line feed, cursor up, erase line."""
    lines, at = [""], 0
    for token in re.findall(r"\x1b\[\??[0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", output):
        if token == "\n":
            at += 1
            lines += [""] * (at == len(lines))
        elif token.endswith("A") and token.startswith("\x1b"):
            at -= int(token[2:-1] or 1)
        elif token.endswith("K") and token.startswith("\x1b"):
            lines[at] = ""
        elif token != "\r" and not token.startswith("\x1b"):
            lines[at] += token
    return "\n".join(line.rstrip() for line in lines)


def words(text: str, kind: str = "text") -> list[Piece]:
    return [Piece(kind, part) for part in re.findall(r"\S+\s*|\s+", text)]  # type: ignore[reportArgumentType]


def test_an_answer_longer_than_the_screen_stays_whole() -> None:
    code = "\n".join(f"line {number}" for number in range(60))
    text = f"First.\n\n```\n{code}\n```\n\n" + "\n\n".join(f"Paragraph {number}." for number in range(30))
    shown = drawn(words(text))
    found = [line.strip() for line in shown.splitlines() if line.strip()]
    expected = ["First.", *(f"line {number}" for number in range(60)), *(f"Paragraph {n}." for n in range(30))]
    assert found == expected


def test_reasoning_comes_before_the_text_and_a_blank_line_parts_them() -> None:
    shown = drawn([*words("Hm.\nYes.", "reasoning"), *words("Good.\n\nDay.")])
    assert [line.strip() for line in shown.strip().splitlines()] == ["Hm.", "Yes.", "", "Good.", "", "Day."]


def test_blocks_are_one_blank_line_apart_however_they_came() -> None:
    text = "# Title\n\nText.\n\n```\ncode\n```\n\n| a |\n|---|\n| 1 |\n\n- one\n- two\n\nEnd."
    expected = "Title  Text.  code  a ─ 1  • one • two  End."
    for pieces in (words(text), [Piece("text", text)], [Piece("text", f"{text}\n\n")]):
        shown = drawn(pieces, height=40)
        assert " ".join(line.strip() for line in shown.strip().splitlines()) == expected


def test_tags_are_shown_and_escapes_are_not() -> None:
    shown = drawn([Piece("text", "A List<String>, \x1b[2Jand\n\n<div>\nthis\n</div>")])
    assert "A List<String>, [2Jand" in shown
    assert "<div>" in shown


def test_a_list_is_one_block_while_it_grows() -> None:
    text = "1. one\n\n2. two\n\nAfter it"
    assert [finished("text", text[:end]) for end in (10, 17, len(text))] == [0, 0, 0]
    assert finished("text", f"{text}.\n") == text.index("After")
