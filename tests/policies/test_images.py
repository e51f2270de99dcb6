"""Pictures by address, and the guard that keeps callers out of our network."""

import asyncio
import base64
import socket
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from frontdesk.errors import InvalidRequest
from frontdesk.policies.auth import ConfigurationError
from frontdesk.policies.egress import is_public
from frontdesk.policies.images import ImageFetcher, decode_data_url
from frontdesk.turn import Image

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 40
GIF = b"GIF89a" + b"\0" * 40
WEBP = b"RIFF\x10\0\0\0WEBPVP8 " + b"\0" * 40
IMAGES = {"image/png": PNG, "image/jpeg": JPEG, "image/gif": GIF, "image/webp": WEBP}
PARAM = "messages[0].content[1].image_url.url"
CLOSED = "The image cannot be fetched: its address is unknown, cannot be reached, or is not public."


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def redirect(location: str, status: int = 302) -> Reply:
    return Reply(status, headers={"Location": location})


@dataclass
class Shelf:
    """A web server on this machine that holds pictures, and remembers who came."""

    port: int = 0
    visits: list[web.Request] = field(default_factory=list[web.Request])
    answers: dict[str, Any] = field(default_factory=dict[str, Any])

    def url(self, path: str = "/cat.png", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.visits.append(request)
        answer = self.answers.get(request.path, PNG)
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="application/octet-stream")
        if isinstance(answer, Reply):
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        return await answer(request)


@asynccontextmanager
async def serving(shelf: Shelf) -> AsyncGenerator[Shelf, None]:
    runner = web.AppRunner(_application(shelf), access_log=None)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    shelf.port = listener.getsockname()[1]
    listeners = [listener, socket.create_server(("::1", shelf.port), family=socket.AF_INET6)]
    for each in listeners:
        await web.SockSite(runner, each).start()
    try:
        yield shelf
    finally:
        await runner.cleanup()


def _application(shelf: Shelf) -> web.Application:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", shelf.serve)
    return application


@pytest.fixture
async def shelf() -> AsyncGenerator[Shelf, None]:
    async with serving(Shelf()) as open_shelf:
        yield open_shelf


@asynccontextmanager
async def fetching(*hosts: str, max_bytes: int = 1000, seconds: float = 5.0) -> AsyncGenerator[ImageFetcher, None]:
    fetcher = ImageFetcher(max_bytes, seconds, hosts)
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


async def refusal(fetcher: ImageFetcher, url: str) -> str:
    with pytest.raises(InvalidRequest) as info:
        await fetcher.fetch(url, PARAM)
    assert (info.value.param, info.value.public_code) == (PARAM, "invalid_image_url")
    return info.value.message


# --- what is fetched ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", IMAGES)
async def test_an_image_comes_with_the_media_type_of_its_bytes(shelf: Shelf, media_type: str) -> None:
    shelf.answers["/a"] = IMAGES[media_type]
    async with fetching("127.0.0.1") as fetcher:
        image = await fetcher.fetch(shelf.url("/a"), PARAM)
    assert image == Image(media_type, IMAGES[media_type])
    assert image.param == PARAM


@pytest.mark.parametrize("host", ["LOCALHOST", "localhost:{port}"])
async def test_an_allowed_host_is_a_name_or_a_name_and_a_port(shelf: Shelf, host: str) -> None:
    async with fetching(host.format(port=shelf.port)) as fetcher:
        assert (await fetcher.fetch(shelf.url(host="LocalHost"), PARAM)).data == PNG
        assert await refusal(fetcher, shelf.url(host="127.0.0.1")) == CLOSED
    async with fetching(f"localhost:{shelf.port + 1}", "example.org") as fetcher:
        assert await refusal(fetcher, shelf.url(host="localhost")) == CLOSED


async def test_an_allowed_ipv6_literal_is_reached(shelf: Shelf) -> None:
    for entry in ("::1", f"[::1]:{shelf.port}"):
        async with fetching(entry) as fetcher:
            assert (await fetcher.fetch(shelf.url(host="[::1]"), PARAM)).data == PNG


@pytest.mark.parametrize("entry", ["", "http://x", "x/y", "a@b", "host:port", "[::1"])
def test_an_allowed_host_that_cannot_be_one_is_refused_at_the_start(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="image_allow_hosts"):
        ImageFetcher(1, 1, [entry])


async def test_nothing_of_ours_goes_along_with_the_request(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    shelf.answers["/first"] = Reply(302, headers={"Location": "/second", "Set-Cookie": "seen=1"})
    async with fetching("127.0.0.1") as fetcher:
        await fetcher.fetch(shelf.url("/first"), PARAM)
    second = shelf.visits[-1].headers
    assert second["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization", "Referer"} & set(second)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "0.0.0.0",
        "0",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[fe80::1%25lo]",
    ],
)
async def test_no_notation_of_this_machine_is_connected_to(shelf: Shelf, host: str) -> None:
    async with fetching() as fetcher:
        message = await refusal(fetcher, shelf.url(host=host))
    assert message in (CLOSED, "The image's address cannot be read.")
    assert not shelf.visits


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "169.254.169.254", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]", "[2002:a00:1::]", "nowhere.invalid"],
)
async def test_every_address_that_is_not_reached_gets_the_same_answer_at_once(host: str) -> None:
    async with fetching() as fetcher:
        assert await refusal(fetcher, f"http://{host}/") == CLOSED


async def test_a_name_that_turns_private_between_two_look_ups_is_not_connected_to(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the address is judged as it is connected to, so no earlier look-up can vouch for it."""
    asked: list[str] = []

    def answer(host: str, port: int, *_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    async with fetching() as fetcher:
        assert await refusal(fetcher, shelf.url(host="rebind.example")) == CLOSED
    assert asked == ["rebind.example"]
    assert not shelf.visits


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/cat.png", "http://0x7f000001:{port}/", "//127.0.0.1:{port}/"]
)
async def test_a_redirect_is_judged_like_any_address(shelf: Shelf, target: str) -> None:
    shelf.answers["/away"] = redirect(target.format(port=shelf.port))
    async with fetching("localhost") as fetcher:
        assert await refusal(fetcher, shelf.url("/away", host="localhost")) == CLOSED
    assert len(shelf.visits) == 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.org/a", "gopher://127.0.0.1:70/_x"])
async def test_a_redirect_to_another_scheme_is_refused(shelf: Shelf, target: str) -> None:
    shelf.answers["/away"] = redirect(target)
    async with fetching("127.0.0.1") as fetcher:
        assert "must begin with https://" in await refusal(fetcher, shelf.url("/away"))


async def test_three_redirects_are_followed_and_not_four(shelf: Shelf) -> None:
    for status, step in ((301, 1), (303, 2), (307, 3), (308, 4)):
        shelf.answers[f"/{step}"] = redirect(f"{step + 1}", status)
    async with fetching("127.0.0.1") as fetcher:
        assert (await fetcher.fetch(shelf.url("/2"), PARAM)).data == PNG
        assert "more than 3 times" in await refusal(fetcher, shelf.url("/1"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cat.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://example.org/cat.png",
        "http://",
        "http:///a",
        "data:,x",
    ],
)
async def test_only_web_addresses_are_fetched(url: str) -> None:
    async with fetching() as fetcher:
        assert "must begin with https://" in await refusal(fetcher, url)


@pytest.mark.parametrize("url", ["http://[::1/", "http://a:b/", "http://a:99999/"])
async def test_an_address_that_cannot_be_read_is_refused(url: str) -> None:
    async with fetching() as fetcher:
        assert "cannot be read" in await refusal(fetcher, url)


@pytest.mark.parametrize("userinfo", ["me:secret@", "me@", ":secret@", "example.org@"])
async def test_user_names_and_passwords_are_refused(shelf: Shelf, userinfo: str) -> None:
    async with fetching("127.0.0.1") as fetcher:
        message = await refusal(fetcher, f"http://{userinfo}127.0.0.1:{shelf.port}/")
    assert "user name or password" in message
    assert not shelf.visits


@pytest.mark.parametrize(
    "body", [b"", b"\x89PNG", b"<html>" * 10, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"RIFF1234WAVE"]
)
async def test_what_is_not_an_image_is_refused_whatever_its_server_calls_it(shelf: Shelf, body: bytes) -> None:
    shelf.answers["/cat.png"] = Reply(body=body, headers={"Content-Type": "image/png"})
    async with fetching("127.0.0.1") as fetcher:
        assert "formats PNG, JPEG, GIF and WebP" in await refusal(fetcher, shelf.url())


@pytest.mark.parametrize("status", [204, 304, 403, 404, 500])
async def test_a_servers_refusal_is_passed_on(shelf: Shelf, status: int) -> None:
    shelf.answers["/cat.png"] = Reply(status)
    async with fetching("127.0.0.1") as fetcher:
        assert f"status {status}" in await refusal(fetcher, shelf.url())


async def test_an_image_of_just_the_size_passes_and_one_byte_more_does_not(shelf: Shelf) -> None:
    shelf.answers |= {"/fits": PNG.ljust(1000), "/not": PNG.ljust(1001)}
    async with fetching("127.0.0.1", max_bytes=1000) as fetcher:
        assert len((await fetcher.fetch(shelf.url("/fits"), PARAM)).data) == 1000
        assert "larger than 1000 bytes" in await refusal(fetcher, shelf.url("/not"))


async def test_an_endless_image_is_cut_off(shelf: Shelf) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(PNG)
        while True:
            await response.write(b"\0" * 2**16)
            sent += 2**16

    shelf.answers["/cat.png"] = endless
    async with fetching("127.0.0.1", max_bytes=10**5) as fetcher:
        assert "larger than" in await refusal(fetcher, shelf.url())
    assert sent < 2 * 10**7


async def test_something_else_is_not_read_to_its_end(shelf: Shelf) -> None:
    left = asyncio.Event()

    async def page(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"<html>" * 10)
        await left.wait()
        return response

    shelf.answers["/cat.png"] = page
    async with fetching("127.0.0.1") as fetcher:
        began = time.perf_counter()
        assert "formats" in await refusal(fetcher, shelf.url())
    assert time.perf_counter() - began < 5
    left.set()


async def test_compressed_answers_are_refused_unopened(shelf: Shelf) -> None:
    shelf.answers["/cat.png"] = Reply(body=b"\x1f\x8b" + b"\0" * 50, headers={"Content-Encoding": "gzip"})
    async with fetching("127.0.0.1") as fetcher:
        assert "compressed" in await refusal(fetcher, shelf.url())


async def test_a_server_that_drips_is_left_when_the_time_is_over(shelf: Shelf) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in PNG:
            await response.write(bytes([byte]))
            await asyncio.sleep(0.1)
        return response

    shelf.answers["/cat.png"] = drip
    async with fetching("127.0.0.1", seconds=0.2) as fetcher:
        began = time.perf_counter()
        assert "within 0.2 seconds" in await refusal(fetcher, shelf.url())
    assert time.perf_counter() - began < len(PNG) * 0.1 / 2, "it was not read to its end"


async def test_a_server_that_does_not_speak_http_is_like_one_that_is_not_there() -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK redis\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with fetching("127.0.0.1") as fetcher:
        assert await refusal(fetcher, f"http://127.0.0.1:{port}/") == CLOSED
        assert await refusal(fetcher, f"https://127.0.0.1:{port}/") == CLOSED
        server.close()
        await server.wait_closed()
        assert await refusal(fetcher, f"http://127.0.0.1:{port}/") == CLOSED


async def test_a_fetcher_closes_twice_and_without_use() -> None:
    fetcher = ImageFetcher(1, 1)
    await fetcher.aclose()
    await fetcher.aclose()


# --- which addresses are public ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "168.63.129.16",
        "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1",
        "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
        "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1",
        "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:a00:1::1",
        "2001:db8::1", "2002:a00:1::", "2002:7f00:1::", "2002:a9fe:a9fe::1", "3fff::1", "4000::1", "5f00::1",
        "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_of_the_open_internet_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450:4001::1",
     "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"],
)  # fmt: skip
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert is_public(address)


# --- data URLs ---------------------------------------------------------------------------------------------------


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("media_type", IMAGES)
def test_a_data_url_is_decoded(media_type: str) -> None:
    image = decode_data_url(data_url(IMAGES[media_type], media_type), PARAM)
    assert image == Image(media_type, IMAGES[media_type])
    assert image.param == PARAM


def test_the_bytes_of_a_data_url_say_what_it_is() -> None:
    assert decode_data_url(data_url(JPEG, "image/png"), PARAM).media_type == "image/jpeg"
    assert decode_data_url(data_url(JPEG, "image/jpg"), PARAM).media_type == "image/jpeg"


def test_small_liberties_of_data_urls_are_forgiven() -> None:
    payload = base64.b64encode(PNG[:-1]).decode()
    assert payload.endswith("=")
    for written in (payload.rstrip("="), payload.replace("=", "%3D"), f"{payload[:20]}\r\n {payload[20:]}"):
        assert decode_data_url(f"DATA:Image/PNG;name=cat;Base64,{written}", PARAM).data == PNG[:-1]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("data:image/png;base64", "must look like"),
        ("data:image/png,abc", "must look like"),
        ("http://example.org/;base64,", "must look like"),
        (data_url(PNG, "text/html"), "formats PNG"),
        (data_url(PNG, "image/svg+xml"), "formats PNG"),
        (data_url(PNG, ""), "formats PNG"),
        (data_url(b"<svg/>"), "formats PNG"),
        (data_url(b""), "formats PNG"),
        ("data:image/png;base64,iVBOR*", "cannot be decoded"),
        ("data:image/png;base64,iVBORw0KGgoé", "cannot be decoded"),
        ("data:image/png;base64,iVBOR", "cannot be decoded"),
        (data_url(PNG.ljust(101)), "larger than 100 bytes"),
    ],
)
def test_a_data_url_that_holds_no_image_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence) as info:
        decode_data_url(url, PARAM, max_bytes=100)
    assert (info.value.param, info.value.public_code) == (PARAM, "invalid_image_url")
