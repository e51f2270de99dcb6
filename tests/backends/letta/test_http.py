"""The HTTP client, against a server that says exactly what a test wants, byte by byte."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from frontdesk.backends.letta.http import HIGH_WATER_BYTES, Broken, HttpClient, Unreachable

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Counts connections and keeps the requests it was sent."""

    def __init__(self) -> None:
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.asked = asyncio.Event()

    async def request(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        self.asked.set()
        length = next((line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), b"0")
        self.bodies.append(await reader.readexactly(int(length)))


@asynccontextmanager
async def serving(
    play: Callable[[Server], Play], headers: dict[str, str] | None = None
) -> AsyncGenerator[tuple[HttpClient, Server]]:
    state = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        try:
            await play(state)(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base/", headers or {})
    try:
        yield client, state
    finally:
        await client.aclose()
        server.close()


def answering(*answers: bytes, forever: bool = True) -> Callable[[Server], Play]:
    """Answers each request of a connection with the next of these bytes."""

    def play(state: Server) -> Play:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for answer in answers:
                await state.request(reader)
                writer.write(answer)
                await writer.drain()
            if forever:
                await reader.read()

        return serve

    return play


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_connection_is_used_again() -> None:
    async with serving(answering(OK, OK), {"X-Mine": "1"}) as (client, server):
        for _ in range(2):
            with await client.request("POST", "/path?x=1", b"{}") as response:
                assert (response.status, await response.read()) == (200, b"ok")
        assert server.connections == 1
        assert server.heads[0].startswith(b"POST /base/path?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
        assert b"X-Mine: 1\r\n" in server.heads[0]
        assert server.bodies == [b"{}", b"{}"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_connection_that_ends_or_failed_is_not_used_again(answer: bytes) -> None:
    async with serving(answering(answer)) as (client, server):
        for _ in range(2):
            with await client.request("GET", "/") as response:
                assert await response.read() == b"ok"
        assert server.connections == 2


async def test_an_answer_that_is_not_read_cuts_its_connection() -> None:
    async with serving(answering(CHUNKED + b"2\r\nok\r\n")) as (client, server):
        for _ in range(2):
            with await client.request("GET", "/") as response:
                assert await response.next() == b"ok"
        assert server.connections == 2


async def test_a_stream_whose_end_comes_late_serves_again() -> None:
    go = asyncio.Event()

    def play(state: Server) -> Play:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await state.request(reader)
            writer.write(CHUNKED + b"2\r\nok\r\n")
            await go.wait()
            writer.write(b"0\r\n\r\n")
            await state.request(reader)
            writer.write(OK)
            await reader.read()

        return serve

    async with serving(play) as (client, server):
        with await client.request("GET", "/") as response:
            assert await response.next() == b"ok"
            response.drain()
        go.set()
        while not client.idle:  # noqa: ASYNC110
            await asyncio.sleep(0)
        with await client.request("GET", "/") as response:
            assert await response.read() == b"ok"
        assert server.connections == 1


async def test_a_target_that_cannot_be_sent_costs_no_connection() -> None:
    async with serving(answering(OK, OK)) as (client, server):
        with await client.request("GET", "/") as response:
            await response.read()
        with pytest.raises(UnicodeEncodeError):
            await client.request("GET", "/ä")
        assert len(client.idle) == 1
        assert server.connections == 1


async def test_chunks_of_one_read_come_together() -> None:
    async with serving(answering(CHUNKED + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n")) as (client, _):
        with await client.request("GET", "/") as response:
            assert [await response.next(), await response.next()] == [b"abcde", b""]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        CHUNKED + b"2\r\nab\r\n",
        b"HTTP/1.1 20",
        b"hello?\r\n\r\n",
    ],
)
async def test_an_answer_that_breaks_off_is_broken(answer: bytes) -> None:
    async with serving(answering(answer, forever=False)) as (client, _):
        with pytest.raises(Broken), await client.request("GET", "/") as response:
            await response.read()


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\nall of it", forever=False)) as (client, _):
        with await client.request("GET", "/") as response:
            assert await response.read() == b"all of it"


async def test_an_answer_without_a_length_is_broken_when_its_connection_is_reset() -> None:
    def play(state: Server) -> Play:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await state.request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
            await writer.drain()
            await asyncio.sleep(0.05)
            no_lingering = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
            writer.transport.abort()

        return serve

    async with serving(play) as (client, _):
        with await client.request("GET", "/") as response:
            assert await response.next() == b"half of it"
            with pytest.raises(Broken):
                await response.next()


async def test_a_second_answer_nobody_asked_for_is_not_mixed_with_the_first() -> None:
    async with serving(answering(OK + b"HTTP/1.1 503 X\r\nContent-Length: 3\r\n\r\nbad")) as (client, server):
        for _ in range(2):
            with await client.request("GET", "/") as response:
                assert (await response.read(), response.status) == (b"ok", 200)
        assert server.connections == 2


async def test_nobody_there_is_unreachable() -> None:
    async with serving(answering(OK)) as (client, _):
        pass
    with pytest.raises(Unreachable):
        await client.request("GET", "/")


async def test_who_reads_slowly_is_not_flooded() -> None:
    sent = 0
    blocked = asyncio.Event()

    def play(state: Server) -> Play:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await state.request(reader)
            writer.write(CHUNKED)
            piece = b"%x\r\n%s\r\n" % (65536, b"x" * 65536)
            for _ in range(1024):
                writer.write(piece)
                sent += 65536
                try:
                    async with asyncio.timeout(0.3):
                        await writer.drain()
                except TimeoutError:
                    blocked.set()
                    await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()

        return serve

    async with serving(play) as (client, _):
        with await client.request("GET", "/") as response:
            await blocked.wait()
            assert sent < 64 * HIGH_WATER_BYTES
            size = 0
            while data := await response.next():
                size += len(data)
            assert size == 1024 * 65536


async def test_a_waiting_reader_can_be_given_an_error() -> None:
    async with serving(answering(CHUNKED)) as (client, _):
        with await client.request("GET", "/") as response:
            waiting = asyncio.ensure_future(response.next())
            await asyncio.sleep(0)
            response.fail(TimeoutError("enough"))
            with pytest.raises(TimeoutError, match="enough"):
                await waiting


async def test_a_cancelled_request_closes_its_connection() -> None:
    closed = asyncio.Event()

    def play(state: Server) -> Play:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await state.request(reader)
            try:
                await reader.read()
            finally:
                closed.set()

        return serve

    async with serving(play) as (client, server):
        asking = asyncio.ensure_future(client.request("GET", "/"))
        await server.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(closed.wait(), 5)


def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(ValueError, match="line break"):
        HttpClient("http://x", {"Authorization": "Bearer a\r\nX: y"})


@pytest.mark.parametrize("url", ["", "localhost:8283", "ftp://x", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        HttpClient(url, {})


async def test_tls_certificates_are_checked(tmp_path_factory: pytest.TempPathFactory) -> None:
    client = HttpClient("https://127.0.0.1:1", {})
    tls = client.tls
    assert tls is not None
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname
