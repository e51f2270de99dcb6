"""What the ledger keeps of attachments."""

import pytest

from frontdesk.store.codec import MAX_IMAGE_CHARACTERS, items_of, items_text
from frontdesk.turn import File, Image, Message, Text, ToolResult

LARGE = b"x" * (MAX_IMAGE_CHARACTERS + 1)


@pytest.mark.parametrize(
    "part",
    [
        File("a.txt", "text/plain", "Grüße\r\n\ufeff".encode()),
        File("large.log", "text/plain", LARGE),
        File("a.pdf", "application/pdf", b"%PDF-\xff\x00"),
        Image(url="https://example.org/a.png"),
    ],
)
def test_a_file_and_a_picture_are_kept(part: File | Image) -> None:
    items = (Message("user", (Text("a"), part, Text("b"))), ToolResult("call_1", (part,)))
    assert items_of(items_text(items)) == items


def test_of_what_is_large_and_no_text_is_kept_that_it_was_there() -> None:
    parts = (File("a.pdf", "application/pdf", LARGE), Image("image/png", LARGE))
    (kept,) = items_of(items_text([Message("user", parts)]))
    assert kept == Message("user", (Text("[a file: a.pdf]"), Text("[an image]")))
