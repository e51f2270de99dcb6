"""What every protocol does before it decodes."""

import pytest

from frontdesk.errors import InvalidRequest
from frontdesk.protocols import front
from frontdesk.protocols.front import MAX_IMAGES, Front
from frontdesk.turn import Image, Message, Text, ToolCall, ToolResult, Turn

fetches: list[str] = []


async def fetch(url: str, param: str) -> Image:
    fetches.append(url)
    return Image("image/png", url.encode(), param=param)


FRONT = Front(max_body_bytes=100, pin_headers=(), fetch_image=fetch)


def picture(url: str, param: str) -> Image:
    return Image(url=url, param=param)


def asked(*images: Image) -> Turn:
    return Turn("turn_1", "Milo", (Message("user", (Text("look"), *images)),))


@pytest.fixture(autouse=True)
def _afresh() -> None:  # pyright: ignore[reportUnusedFunction]
    fetches.clear()


async def test_each_picture_comes_to_its_place() -> None:
    history = (Message("user", (picture("a", "0"), Text("x"))), ToolCall("call_1", "look", "{}"))
    new = (ToolResult("call_1", (picture("b", "1"),)), Message("user", (picture("a", "2"),)))
    turn = await FRONT.with_images(Turn("turn_1", "Milo", new, history))
    assert turn.history == (Message("user", (Image("image/png", b"a"), Text("x"))), history[1])
    assert turn.input == (
        ToolResult("call_1", (Image("image/png", b"b"),)),
        Message("user", (Image("image/png", b"a"),)),
    )
    assert fetches == ["a", "b", "a"]


async def test_without_pictures_a_turn_stays_as_it_is() -> None:
    turn = asked()
    assert await FRONT.with_images(turn) is turn


async def test_pictures_have_a_bound_together() -> None:
    images = [picture(f"{number:060}", str(number)) for number in range(9)]
    with pytest.raises(InvalidRequest, match="100 bytes together") as info:
        await FRONT.with_images(asked(*images))
    assert (info.value.public_code, info.value.param) == ("invalid_image_url", "1")
    assert len(fetches) == 2


async def test_there_is_a_bound_of_how_many() -> None:
    images = [picture("", str(number)) for number in range(MAX_IMAGES + 1)]
    assert await FRONT.with_images(asked(*images[1:]))
    fetches.clear()
    with pytest.raises(InvalidRequest, match=str(front.MAX_IMAGES)) as info:
        await FRONT.with_images(asked(*images))
    assert info.value.param == str(MAX_IMAGES)
    assert not fetches
