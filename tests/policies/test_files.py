"""What a file is, told from its bytes."""

import base64

import pytest

from frontdesk.errors import InvalidRequest
from frontdesk.policies.files import file
from frontdesk.policies.options import Rules, check_files, settled
from frontdesk.turn import Agent, Content, File, Image, Item, Message, Text, ToolResult, Turn
from tests.policies.test_images import IMAGES, PNG

PARAM = "messages[0].content[0].file.file_data"
AGENT = Agent("agent-1", "Milo", "letta")


def written(content: bytes, media_type: str = "") -> str:
    encoded = base64.b64encode(content).decode()
    return f"data:{media_type};base64,{encoded}" if media_type else encoded


@pytest.mark.parametrize(
    ("content", "declared", "name", "media_type"),
    [
        (b"a,b\n1,2\n", "text/csv", "t.csv", "text/csv"),
        (b"a,b\n1,2\n", "", "t.csv", "text/plain"),
        (b"{}", "application/json", "x.json", "text/plain"),
        (b"let a: number", "video/mp2t", "a.ts", "text/plain"),
        (b"fn main() {}", "application/octet-stream", "main.rs", "text/plain"),
        ("Grüße, 世界 \N{GRINNING FACE}\r\n\t".encode(), "", "", "text/plain"),
        (b"<svg/>", "image/svg+xml", "a.svg", "text/plain"),
        (b"", "text/x-python", "__init__.py", "text/x-python"),
        (b"%PDF-1.7\n", "text/plain", "a.txt", "application/pdf"),
        (b"words", "application/pdf", "", "application/pdf"),
        (b"words", "", "Report.PDF", "application/pdf"),
        (b"PK\x03\x04\x00", "application/zip", "a.docx", "application/zip"),
        (b"\xff\xfea\x00", "text/plain", "utf16.txt", "application/octet-stream"),
        ("Grüße".encode("latin-1"), "text/plain; charset=latin-1", "a.txt", "application/octet-stream"),
        (b"\x00\x01", "", "", "application/octet-stream"),
        (b"\x00\x01", "nonsense'", "", "application/octet-stream"),
    ],
)
def test_its_bytes_say_what_a_file_is(content: bytes, declared: str, name: str, media_type: str) -> None:
    assert file(written(content, declared), name, PARAM) == File(name, media_type, content)


@pytest.mark.parametrize("media_type", IMAGES)
def test_a_picture_that_is_sent_as_a_file_is_a_picture(media_type: str) -> None:
    data = IMAGES[media_type]
    assert file(written(data, "application/octet-stream"), "x", PARAM) == Image(url=written(data, media_type))


def test_what_is_called_a_picture_is_judged_as_one() -> None:
    assert file(written(b"words", "image/png"), "x", PARAM) == Image(url=written(b"words", "image/png"))


def test_a_name_is_one_line_of_some_length() -> None:
    found = file(written(b"x"), "a\n\x1b[1m\u202eb.txt" + "x" * 300, PARAM)
    assert isinstance(found, File)
    assert found.name.startswith("a  [1m b.txt")
    assert len(found.name) == 255


@pytest.mark.parametrize(
    "data", ["?", "data:text/plain,words", "data:text/plain;base64", "data:;base64,?", "data:", "="]
)
def test_what_cannot_be_read_is_refused_with_its_place(data: str) -> None:
    with pytest.raises(InvalidRequest) as info:
        file(data, "a.txt", PARAM)
    assert (info.value.param, info.value.public_code) == (PARAM, "invalid_value")


def test_a_picture_s_bytes_are_kept() -> None:
    found = file(written(PNG), "", "here")
    assert isinstance(found, Image)
    assert found.param == "here"


# --- who takes which ----------------------------------------------------------------------------------------------

PDF: Content = File("a.pdf", "application/pdf", b"%PDF-1.7", "there")


@pytest.mark.parametrize("item", [Message("user", (Text("x"), PDF)), ToolResult("call_1", (PDF,))])
def test_a_type_that_an_agent_does_not_take_is_refused_also_in_the_past(item: Item) -> None:
    for turn in (Turn("turn_1", "Milo", (item,)), Turn("turn_1", "Milo", (), history=(item,))):
        with pytest.raises(InvalidRequest) as info:
            settled(turn, AGENT, Rules())
        assert (info.value.param, info.value.public_code) == ("there", "unsupported_content_type")
        assert "only text in UTF-8" in info.value.message
    check_files([item], {"text/*", "application/pdf"})


def test_text_of_any_kind_is_taken() -> None:
    check_files([Message("user", (File("a.csv", "text/csv", b"a,b"),))], AGENT.files)
