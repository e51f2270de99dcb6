"""What every protocol does with a request beside decoding it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from frontdesk.errors import InvalidRequest
from frontdesk.protocols import front
from frontdesk.protocols.front import MAX_IMAGES, Front
from frontdesk.turn import Image, Item, Message, Signals, Text, ToolCall, ToolResult

fetches: list[str] = []


async def fetch(url: str, param: str) -> Image:
    fetches.append(url)
    return Image("image/png", url.encode(), param=param)


FRONT = Front(
    max_body_bytes=100,
    pin_headers=(b"x-frontdesk-conversation", b"x-ours"),
    chat_headers=(b"x-openwebui-chat-id", b"thread-id"),
    pin_metadata=("chat_id",),
    fetch_image=fetch,
)


def picture(url: str, param: str) -> Image:
    return Image(url=url, param=param)


def asked(*images: Image) -> tuple[Item, ...]:
    return (Message("user", (Text("look"), *images)),)


@pytest.fixture(autouse=True)
def _afresh() -> None:  # pyright: ignore[reportUnusedFunction]
    fetches.clear()


# --- pictures ------------------------------------------------------------------------------------------------------


async def test_each_picture_comes_to_its_place_and_is_fetched_once() -> None:
    items = (
        Message("user", (picture("a", "0"), Text("x"))),
        ToolCall("call_1", "look", "{}"),
        ToolResult("call_1", (picture("b", "1"),)),
        Message("user", (picture("a", "2"), Image("image/gif", b"c"))),
    )
    assert await FRONT.with_images(items) == (
        Message("user", (Image("image/png", b"a"), Text("x"))),
        items[1],
        ToolResult("call_1", (Image("image/png", b"b"),)),
        Message("user", (Image("image/png", b"a"), Image("image/gif", b"c"))),
    )
    assert fetches == ["a", "b"]


async def test_without_pictures_items_stay_as_they_are() -> None:
    items = asked()
    assert await FRONT.with_images(items) is items


async def test_pictures_have_a_bound_together() -> None:
    images = [picture(f"{number:060}", str(number)) for number in range(9)]
    with pytest.raises(InvalidRequest, match="100 bytes together") as info:
        await FRONT.with_images(asked(*images))
    assert (info.value.public_code, info.value.param) == ("invalid_image_url", "1")
    assert len(fetches) == 2


async def test_one_picture_in_many_places_counts_in_each() -> None:
    with pytest.raises(InvalidRequest) as info:
        await FRONT.with_images(asked(*[picture("x" * 60, str(number)) for number in range(9)]))
    assert info.value.param == "1"
    assert len(fetches) == 1


async def test_there_is_a_bound_of_how_many() -> None:
    images = [picture("", str(number)) for number in range(MAX_IMAGES + 1)]
    assert await FRONT.with_images(asked(*images[1:]))
    fetches.clear()
    with pytest.raises(InvalidRequest, match=str(front.MAX_IMAGES)) as info:
        await FRONT.with_images(asked(*images))
    assert info.value.param == str(MAX_IMAGES)
    assert not fetches


async def test_pictures_have_a_bound_of_time_together() -> None:
    async def first_only(url: str, param: str) -> Image:
        if url != "a":
            await asyncio.Event().wait()
        return await fetch(url, param)

    slow = replace(FRONT, fetch_image=first_only, images_seconds=0.05)
    with pytest.raises(InvalidRequest, match=r"within 0\.05 seconds") as info:
        await slow.with_images(asked(picture("a", "0"), picture("b", "1")))
    assert (info.value.public_code, info.value.param) == ("invalid_image_url", "1")


# --- names ---------------------------------------------------------------------------------------------------------


def scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


def test_who_names_a_pin_may_send_only_what_is_new() -> None:
    assert FRONT.pin(scope(x_ours=" mine ", thread_id="theirs"), {"chat_id": "meta"}) == ("mine", False)


def test_who_names_a_chat_sends_all_of_it() -> None:
    assert FRONT.pin(scope(thread_id="theirs"), {"chat_id": "meta"}) == ("theirs", True)
    assert FRONT.pin(scope(), {"chat_id": "meta", "other": "no"}) == ("meta", True)
    assert FRONT.pin(scope(), {"other": "no"}) == ("", False)


@pytest.mark.parametrize("value", ["{{CHAT_ID}}", "${chat}", "  ", ""])
def test_a_template_left_unexpanded_is_no_name(value: str) -> None:
    told = scope(x_ours=value, x_openwebui_chat_id=value, thread_id="theirs")
    assert FRONT.pin(told, {}) == ("theirs", True)
    assert FRONT.pin(scope(), {"chat_id": value}) == ("", False)


@pytest.mark.parametrize("value", ["temporary:1", "local:1"])
def test_a_chat_that_will_be_forgotten_has_no_name(value: str) -> None:
    told = scope(x_openwebui_chat_id=value)
    assert FRONT.pin(told, {}) == ("", False)
    assert FRONT.signals(told, b"{}", resends=False).temporary
    assert not FRONT.signals(scope(x_openwebui_chat_id="1"), b"{}", resends=True).temporary


@pytest.mark.parametrize("name", ["x_ours", "thread_id"])
def test_a_name_has_a_bound(name: str) -> None:
    assert FRONT.pin(scope(**{name: "x" * 256}), {})[0] == "x" * 256
    with pytest.raises(InvalidRequest) as info:
        FRONT.pin(scope(**{name: "x" * 257}), {})
    assert info.value.param == name.replace("_", "-")


def test_signals_are_read_from_the_headers() -> None:
    told = scope(
        x_idempotency_key="key",
        x_stainless_retry_count="2",
        x_openwebui_message_id="m2",
        x_openwebui_user_message_parent_id="m1",
        x_openwebui_task="title_generation",
    )
    signals = FRONT.signals(told, b"{}", resends=True)
    assert signals == Signals(
        digest=signals.digest,
        key="key",
        retried=True,
        message="m2",
        parent="m1",
        resends=True,
        task="title_generation",
    )
    assert FRONT.signals(scope(), b"{}", resends=False) == Signals(digest=signals.digest)


@pytest.mark.parametrize("count", ["0", "", "-1", "many"])
def test_a_first_attempt_is_no_retry(count: str) -> None:
    assert not FRONT.signals(scope(x_stainless_retry_count=count), b"{}", resends=False).retried


def test_a_body_is_the_same_whatever_the_order_of_its_fields_and_however_it_is_answered() -> None:
    one = front.digest(b'{"model": "Milo", "messages": [], "stream": true}')
    assert one == front.digest(b'{"stream_options": {"x": 1}, "messages": [], "model": "Milo"}')
    assert one != front.digest(b'{"model": "Otis", "messages": []}')
    assert one != front.digest(b'{"model": "Milo", "messages": [], "user": "x"}')
    assert front.digest(b"no JSON") != front.digest(b"none either")
