import hashlib
import importlib
import io
import json
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
import structlog

from frontdesk.cli.page import out
from tests.faults.fake import FakeLetta, fake_letta, own_tools
from tests.served import Served, served

from .conftest import Run

KEYS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("annes", "bobs")}


@pytest.fixture(scope="module", autouse=True)
def log() -> Generator[io.StringIO]:
    """Where the gateway writes its log, which runs within this process: not between the commands' own lines."""
    before, lines = structlog.get_config(), io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(lines))
    yield lines
    structlog.configure(**before)


@pytest.fixture(scope="module")
def letta() -> Generator[FakeLetta]:
    with fake_letta() as fake:
        fake.scripts["tools"] = own_tools("It [b]snows[/b]. \x1b[2J")
        yield fake


@pytest.fixture
def house(letta: FakeLetta, tmp_path: Path) -> Generator[Served]:
    """A gateway on which nothing has been said yet."""
    keys = [{"name": name, "sha256": digest} for name, digest in KEYS.items()]
    with served(tmp_path / "house", letta_base_url=letta.url, keys=keys, probe_key="annes") as gateway:
        yield gateway


@pytest.fixture
def mine(run: Run, house: Served) -> Run:
    """Run a command against the gateway, with Anne's key."""
    return lambda *arguments, **more: run(
        *arguments, **({"FRONTDESK_URL": house.url, "FRONTDESK_API_KEY": "annes"} | more)
    )


def talk(house: Served, *texts: object, model: str = "Milo", pin: str = "") -> str:
    headers = {"authorization": "Bearer annes"} | ({"x-frontdesk-conversation": pin} if pin else {})
    conversation_id = ""
    for text in texts:
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        headers |= {"x-frontdesk-conversation": conversation_id} if conversation_id else {}
        answer = httpx.post(f"{house.base_url}/chat/completions", json=body, headers=headers)
        conversation_id = answer.raise_for_status().headers["x-frontdesk-conversation"]
    return conversation_id


def test_conversations_are_listed_the_latest_first(mine: Run, house: Served) -> None:
    first = talk(house, "How deep is the snow on the mountain?", "And tomorrow?")
    second = talk(house, "[red]\x1b[2JWho are you?[/]", model="Otis")
    result = mine("conversations", "list")
    otis, milo = result.stdout.splitlines()[3:5]
    assert otis.split()[:2] == [second, "Otis"]
    assert "[red][2JWho are you?[/]" in otis
    assert milo.split()[:2] == [first, "Milo"]
    assert milo.rstrip().endswith("       2   How deep is the snow on…")
    assert (result.exit_code, result.stderr) == (0, "")


def test_ids_stay_whole_on_a_narrow_terminal(mine: Run, house: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "width", 80)
    conversation_id = talk(house, "How deep is the snow on the mountain?")
    line, words = mine("conversations", "list").stdout.splitlines()[3:5]
    assert line.split()[:2] == [conversation_id, "Milo"]
    assert words.split() == ["How", "deep", "is", "the", "snow", "on…"]


def test_a_name_stands_in_for_words_that_are_missing(mine: Run, house: Served) -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixel}"}}
    talk(house, [picture], pin="a picture of the dog")
    assert "a picture of the dog" in mine("conversations", "list").stdout


def test_the_list_is_short_unless_more_is_wanted(mine: Run, house: Served) -> None:
    ids = [talk(house, f"number {number}") for number in range(4)]
    short = mine("conversations", "list", "--limit", "3")
    assert [line.split()[0] for line in short.stdout.splitlines()[3:6]] == [ids[3], ids[2], ids[1]]
    assert ids[0] not in short.stdout
    assert "There are more." in short.stderr
    assert mine("conversations", "list", "--limit", "4").stderr == ""


def test_more_than_a_page_can_be_listed(mine: Run, house: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("frontdesk.cli.conversations"), "PAGE", 2)
    ids = [talk(house, f"number {number}") for number in range(5)]
    listed = json.loads(mine("conversations", "list", "--json", "--limit", "5").stdout)
    assert [each["id"] for each in listed] == ids[::-1]


def test_the_list_can_be_of_one_agent(mine: Run, house: Served) -> None:
    milo, otis = talk(house, "to Milo"), talk(house, "to Otis", model="Otis")
    listed = mine("conversations", "list", "--agent", "Otis").stdout
    assert otis in listed
    assert milo not in listed
    nobody = mine("conversations", "list", "--agent", "Nobody")
    assert (nobody.exit_code, nobody.stdout) == (1, "")
    assert "model_not_found" in nobody.stderr


def test_no_conversations_are_no_trouble(mine: Run) -> None:
    result = mine("conversations", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "frontdesk chat" in result.stderr
    assert json.loads(mine("conversations", "list", "--json").stdout) == []


def test_a_conversation_is_shown_as_it_was_said(mine: Run, house: Served) -> None:
    conversation_id = talk(house, "Is there snow?", "#tools#")
    result = mine("conversations", "show", conversation_id)
    assert [line for line in result.stdout.splitlines() if line] == [
        "you: Is there snow?",
        "Milo: You said: Is there snow?",
        "you: #tools#",
        "I could look it up.",
        '⚙ search({"q":"snow"}) → result 1',
        '⚙ search({"q":"snow"}) → failed: result 2',
        "Milo: It [b]snows[/b]. [2J",
    ]
    assert "Is there snow? (Milo, 2 turns, last used 20" in result.stderr


def test_a_conversation_can_be_had_as_json(mine: Run, house: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("frontdesk.cli.conversations"), "PAGE", 2)
    conversation_id = talk(house, "one", "two", "three")
    shown = json.loads(mine("conversations", "show", conversation_id, "--json").stdout)
    assert (shown["id"], shown["turns"]) == (conversation_id, 3)
    assert [item["content"][0]["text"] for item in shown["items"]][::2] == ["one", "two", "three"]


def test_a_fork_prints_its_id_and_how_to_go_on(mine: Run, house: Served) -> None:
    original = talk(house, "hello")
    result = mine("conversations", "fork", original)
    made = result.stdout.strip()
    assert made.startswith("conv_")
    assert made != original
    assert f"frontdesk chat Milo --conversation {made}" in result.stderr
    assert "you: hello" in mine("conversations", "show", made).stdout
    assert json.loads(mine("conversations", "fork", original, "--json").stdout)["turns"] == 1


def test_what_is_printed_to_go_on_with_a_fork_does_that(mine: Run, house: Served) -> None:
    made = mine("conversations", "fork", talk(house, "hello")).stdout.strip()
    assert mine("chat", "Milo", "--conversation", made, lines="and more\n").exit_code == 0
    assert [line for line in mine("conversations", "show", made).stdout.splitlines() if "you:" in line] == [
        "you: hello",
        "you: and more",
    ]


def test_deleting_asks_first(mine: Run, house: Served) -> None:
    conversation_id = talk(house, "Keep me?")
    kept = mine("conversations", "delete", conversation_id, lines="n\n")
    assert kept.exit_code == 1
    assert "Keep me? (Milo, 1 turn, last used" in kept.stderr
    assert conversation_id in mine("conversations", "list").stdout
    assert mine("conversations", "delete", conversation_id, lines="").exit_code == 1  # nobody there to ask
    assert conversation_id in mine("conversations", "list").stdout
    assert mine("conversations", "delete", conversation_id, lines="y\n").exit_code == 0
    assert conversation_id not in mine("conversations", "list").stdout


def test_several_are_deleted_without_asking(mine: Run, house: Served) -> None:
    ids = [talk(house, f"number {number}") for number in range(2)]
    result = mine("conversations", "delete", "--yes", *ids)
    assert (result.exit_code, result.stdout) == (0, "")
    assert [line.split() for line in result.stderr.splitlines()] == [["Deleted", f"{each}."] for each in ids]
    assert json.loads(mine("conversations", "list", "--json").stdout) == []


@pytest.mark.parametrize("command", ["show", "fork", "delete"])
def test_what_is_not_there_or_not_yours_is_one_line(mine: Run, house: Served, command: str) -> None:
    conversation_id = talk(house, "Anne's")
    for given, key in ((conversation_id, "bobs"), ("conv_unknown", "annes"), ("conv?limit=1#x", "annes")):
        result = mine("conversations", command, given, FRONTDESK_API_KEY=key)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.splitlines()[0].startswith("error: There is no conversation")
    assert json.loads(mine("conversations", "list", "--json", FRONTDESK_API_KEY="bobs").stdout) == []


def test_a_key_is_asked_for(mine: Run) -> None:
    result = mine("conversations", "list", FRONTDESK_API_KEY="")
    assert result.exit_code == 1
    assert "wants a key" in result.stderr
    assert "FRONTDESK_API_KEY" in result.stderr


def test_nobody_there_is_one_line_and_the_next_step(run: Run) -> None:
    result = run("conversations", "list", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    trouble, mend = result.stderr.splitlines()
    assert trouble.startswith("error: Cannot reach a gateway at http://127.0.0.1:9")
    assert "frontdesk serve" in mend


def test_another_server_is_not_taken_for_a_gateway(letta: FakeLetta, run: Run) -> None:
    result = run("conversations", "list", "--url", letta.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not as a gateway does" in result.stderr
