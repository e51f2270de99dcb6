"""Pictures, on their way to the agent's model."""

import base64
import socket
from collections.abc import Generator
from typing import Any

import openai
import pytest
from aiohttp import web

from frontdesk.testing import ScriptedModel
from tests.cli.servers import listening
from tests.protocols.chat_completions.asking import Chat, assistant, function, user
from tests.protocols.conftest import Serve
from tests.requirements import requirement

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@pytest.fixture(scope="module")
def pictures() -> Generator[str]:
    """A server of pictures on this machine."""

    async def png(request: web.Request) -> web.Response:
        return web.Response(body=PNG, content_type="image/png")

    async def text(request: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/x.png", png)
    app.router.add_get("/page", text)
    with listening(app) as url:
        yield url


def picture(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def seen(model: ScriptedModel, marker: str) -> list[Any]:
    """The parts of the message with the marker, as the model was given them."""
    (message,) = [m for m in model.requests_with(marker)[-1].messages if marker in str(m["content"])]
    return message["content"]


@requirement("images.data-url")
@pytest.mark.parametrize("url", [{"url": DATA_URL, "detail": "low"}, DATA_URL], ids=["object", "bare string"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_data_url_reaches_the_model(
    chat: Chat, model: ScriptedModel, marker: str, url: Any, stream: bool
) -> None:
    answer = await chat.ask([user([text(f"@say {marker}"), picture(url)])], stream=stream)
    assert answer.text == marker
    said, shown = seen(model, marker)
    assert said["text"] == f"@say {marker}"
    assert (shown["type"], shown["image_url"]["url"]) == ("image_url", DATA_URL)


@requirement("images.address")
async def test_a_picture_at_an_allowed_address_reaches_the_model(
    chat: Chat, model: ScriptedModel, marker: str, pictures: str
) -> None:
    await chat.ask([user([picture({"url": f"{pictures}/x.png"}), text(f"@say {marker}")])])
    shown, said = seen(model, marker)
    assert shown["image_url"]["url"] == DATA_URL
    assert said["text"] == f"@say {marker}"


@requirement("images.data-url")
async def test_several_pictures_keep_their_places(chat: Chat, model: ScriptedModel, marker: str, pictures: str) -> None:
    parts = [text("one"), picture(DATA_URL), text("two"), picture(f"{pictures}/x.png"), text(f"@say {marker}")]
    await chat.ask([user(parts)])
    assert [part["type"] for part in seen(model, marker)] == ["text", "image_url", "text", "image_url", "text"]


@requirement("images.data-url")
async def test_pictures_of_the_past_are_seeded(chat: Chat, model: ScriptedModel, marker: str) -> None:
    past = user([text(f"look {marker}"), picture(DATA_URL)])
    await chat.ask([past, assistant("Nice."), user(f"@say {marker}-now")])
    request = model.requests_with(f"{marker}-now")[-1]
    assert [part["type"] for part in request.messages[1]["content"]] == ["text", "image_url"]


@requirement("images.tool-result")
async def test_a_picture_in_a_tool_result_is_taken(chat: Chat, model: ScriptedModel, marker: str) -> None:
    asked = user(f"@call look {{}}\n@then\n@say {marker}")
    first = await chat.ask([asked], tools=[function("look")])
    result = first.calls[0].result([text("a photo"), picture(DATA_URL)])
    assert (await chat.ask([asked, first.message, result], tools=[function("look")])).text == marker
    request = model.requests_with(marker)[-1]
    assert any("a photo" in text for text in request.texts)


async def refused(chat: Chat, model: ScriptedModel, marker: str, url: Any) -> Any:
    with pytest.raises(openai.BadRequestError) as info:
        await chat.ask([user("hello"), user([text(marker), picture(url)])])
    assert model.requests_with(marker) == []
    assert info.value.param == "messages[1].content[1].image_url.url"
    assert info.value.code == "invalid_image_url"
    return info.value


@requirement("images.refused")
@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,####",
        "data:image/png;base64,",
        "data:image/png,raw",
        "data:text/html;base64,PGh0bWw+",
        f"data:image/png;base64,{base64.b64encode(b'<svg onload=alert(1)>').decode()}",
        "data:",
        "",
        "x.png",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x.png",
        "http://user:pass@127.0.0.1/x.png",
    ],
)
async def test_what_is_no_picture_is_refused_with_its_place(
    chat: Chat, model: ScriptedModel, marker: str, url: str
) -> None:
    await refused(chat, model, marker, {"url": url})


@requirement("images.refused")
async def test_a_picture_over_the_limit_is_refused(
    serve: Serve, milo: str, model: ScriptedModel, marker: str, pictures: str
) -> None:
    async with serve(max_image_bytes=len(PNG) - 1, image_allow_hosts=("127.0.0.1",)).client() as client:
        for url in (DATA_URL, f"{pictures}/x.png"):
            await refused(Chat(client, milo), model, marker, url)


@requirement("images.refused")
@pytest.mark.parametrize("path", ["/page", "/nothing-here"])
async def test_an_address_without_a_picture_is_refused(
    chat: Chat, model: ScriptedModel, marker: str, pictures: str, path: str
) -> None:
    await refused(chat, model, marker, pictures + path)


@requirement("images.private")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "2130706433", "10.0.0.1"])
async def test_a_private_address_is_refused_unless_it_is_allowed(
    serve: Serve, milo: str, model: ScriptedModel, marker: str, pictures: str, host: str
) -> None:
    port = pictures.rpartition(":")[2]
    async with serve(image_seconds=3.0).client() as client:
        await refused(Chat(client, milo), model, marker, f"http://{host}:{port}/x.png")


@requirement("images.private")
async def test_the_refusal_does_not_tell_whether_anybody_listens_there(
    serve: Serve, milo: str, model: ScriptedModel, marker: str, pictures: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        async with serve().client() as client:
            chat = Chat(client, milo)
            told = [str((await refused(chat, model, marker, f"{url}/x.png")).body) for url in (pictures, nobody)]
    assert told[0] == told[1]
