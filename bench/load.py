"""The load client: many streams or plain requests at once, each checked to be whole, in order, in time and its own.

`python -m bench.load --url http://127.0.0.1:8000 --model bench-000 --concurrency 10 --total 100` prints JSON. It reads
chat chunks and chat replies (`--kind chat`, `plain`) as well as Letta's own events (`--kind letta`), for it looks for
the fake's tokens (`~<marker> <kind><index> <nanoseconds>;`) wherever they stand, and for the end of the stream.
"""

import argparse
import asyncio
import itertools
import math
import os
import re
import sys
import time
from collections import Counter
from typing import cast

import httptools
import msgspec
import uvloop

from bench.http1 import json_request
from bench.shapes import REASONING, TEXT

TOKEN = re.compile(rb"~(\w+) ([rt])(\d{3}) (\d{16})x*;")

FINISHED = {"chat": b'"finish_reason":"', "plain": b"", "letta": b'"stop_reason":"'}  # what must follow the last token


class Job(msgspec.Struct, frozen=True):
    """What is to be done."""

    url: str
    models: list[str]  # names for `chat` and `plain`, agent ids for `letta`
    kind: str = "chat"  # chat: streamed chunks; plain: one reply; letta: the fake itself
    concurrency: int = 10
    total: int = 100
    reasoning: int = 73
    text: int = 50
    warm: int = 0  # so many streams of each connection are not counted in the times
    connects_per_second: float = 500.0
    timeout_seconds: float = 60.0


class Spread(msgspec.Struct, frozen=True):
    """How a measure is spread, in milliseconds."""

    p50: float
    p99: float
    max: float


class Outcome(msgspec.Struct, frozen=True):
    """What came of it. `late` is the time of a token's read less the time of its write upstream."""

    total: int
    right: int
    errors: dict[str, int]
    tokens: int
    chunks: int  # SSE events, each with one token or, where a proxy joins what came together, with several
    wall_seconds: float
    cpu_seconds: float  # the client's own
    first: Spread
    late: Spread
    reply: Spread


def spread(values: list[int]) -> Spread:
    """Percentiles of nanoseconds, in milliseconds. The p99 of few values is their largest."""
    if not values:
        return Spread(math.nan, math.nan, math.nan)
    values.sort()
    at99 = min(len(values) - 1, math.ceil(len(values) * 0.99) - 1)
    return Spread(values[len(values) // 2] / 1e6, values[at99] / 1e6, values[-1] / 1e6)


class Tally:
    """What all connections count into."""

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self.job = job
        self.loop = loop
        self.left = job.total
        self.open = 0
        self.over = loop.create_future()
        self.right = 0
        self.errors: Counter[str] = Counter()
        self.tokens = 0
        self.chunks = 0
        self.first: list[int] = []
        self.late: list[int] = []
        self.reply: list[int] = []
        self.salt = os.urandom(3).hex()
        self.numbers = itertools.count()

    def next(self) -> tuple[bytes, bytes] | None:
        """The marker and the request of the next stream; None when there are no more."""
        if self.left <= 0:
            return None
        self.left -= 1
        number = next(self.numbers)
        marker = f"m{self.salt}{number:05d}".encode()
        return marker, self.request(marker, self.job.models[number % len(self.job.models)])

    def request(self, marker: bytes, model: str) -> bytes:
        user = {"role": "user", "content": f"Say something slowly, please. #{marker.decode()}#"}
        if self.job.kind == "letta":
            body = msgspec.json.encode({"messages": [user], "stream_tokens": True})
            return json_request(b"POST", f"/v1/agents/{model}/messages/stream".encode(), body)
        body = {"model": model, "messages": [user], "stream": self.job.kind == "chat"}
        return json_request(b"POST", b"/v1/chat/completions", msgspec.json.encode(body))

    def closed(self) -> None:
        self.open -= 1
        if self.open == 0 and not self.over.done():
            self.over.set_result(None)


class Stream:
    """One reply, as far as it has come."""

    __slots__ = ("ended", "finished", "first", "marker", "next", "problem", "sent", "status")

    def __init__(self, marker: bytes, sent: int) -> None:
        self.marker = marker
        self.sent = sent
        self.first = 0
        self.next = {REASONING.encode(): 0, TEXT.encode(): 0}
        self.finished = False
        self.ended = False
        self.problem = ""
        self.status = 0

    def token(self, marker: bytes, kind: bytes, index: int) -> None:
        if marker != self.marker:
            self.problem = "of another stream"
        elif index != self.next[kind] and not self.problem:
            self.problem = "out of order"
        self.next[kind] += 1

    def verdict(self, job: Job) -> str:
        """What is wrong with the reply; empty if nothing."""
        if self.status != 200:
            return f"status {self.status}"
        if self.problem:
            return self.problem
        if list(self.next.values()) != [job.reasoning, job.text]:
            return "incomplete"
        if not self.finished:
            return "without a reason to stop"
        return "" if self.ended or job.kind == "plain" else "without [DONE]"


class Slot(asyncio.Protocol):
    """One connection, running one stream after another."""

    transport: asyncio.Transport

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.parser: httptools.HttpResponseParser | None = None
        self.stream: Stream | None = None
        self.arrived = b""
        self.runs = 0
        self.complete = False
        self.stays = True
        self.began = time.monotonic_ns()  # the first stream's time includes its connecting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.begin(self.began)

    def begin(self, sent: int) -> None:
        following = self.tally.next()
        if following is None:
            self.transport.close()
            return
        marker, request = following
        self.stream = Stream(marker, sent)
        self.arrived = b""
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self.parser is None or self.stream is None:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.stream.problem = "bad HTTP"
            self.transport.abort()
            return
        if self.complete or b";" in self.arrived:
            self.scan(self.stream, now)
        if self.complete:
            self.finish(self.stream, now)

    def scan(self, stream: Stream, now: int) -> None:
        """Take the whole tokens from what has arrived."""
        counted = self.runs >= self.tally.job.warm
        end = 0
        for found in TOKEN.finditer(self.arrived):
            marker, kind, index, written = found.groups()
            stream.token(marker, kind, int(index))
            if counted:
                self.tally.late.append(now - int(written))
            end = found.end()
            self.tally.tokens += 1
        if end and not stream.first:
            stream.first = now
        self.arrived = self.arrived[end:]
        stream.finished = stream.finished or FINISHED[self.tally.job.kind] in self.arrived
        stream.ended = stream.ended or b"[DONE]" in self.arrived

    def finish(self, stream: Stream, now: int) -> None:
        self.stream = None
        self.tell(stream)
        if self.runs >= self.tally.job.warm:
            self.tally.reply.append(now - stream.sent)
            if stream.first:
                self.tally.first.append(stream.first - stream.sent)
        self.runs += 1
        if not self.stays:
            self.transport.close()
            return
        self.begin(time.monotonic_ns())

    def tell(self, stream: Stream, problem: str = "") -> None:
        if problem := problem or stream.verdict(self.tally.job):
            self.tally.errors[problem] += 1
        else:
            self.tally.right += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self.stream is not None:
            self.tell(self.stream, self.stream.problem or "cut")
        self.parser = self.stream = None
        self.tally.closed()

    def on_headers_complete(self) -> None:
        if self.parser is not None and self.stream is not None:
            self.stream.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.arrived += body
        self.tally.chunks += body.count(b"\n\n")

    def on_message_complete(self) -> None:
        self.complete = True
        self.stays = self.parser is not None and self.parser.should_keep_alive()


async def connect(tally: Tally, host: str, port: int, delay: float) -> None:
    """Open one connection in its turn."""
    await asyncio.sleep(delay)
    try:
        await tally.loop.create_connection(lambda: Slot(tally), host, port)
    except OSError as error:
        tally.errors[f"no connection: {type(error).__name__}"] += 1
        tally.closed()


async def run(job: Job) -> Outcome:
    """Do the job, or as much of it as the time allows."""
    tally = Tally(job, asyncio.get_running_loop())
    tally.open = min(job.concurrency, job.total)
    host, _, port = job.url.removeprefix("http://").partition(":")
    began, cpu = time.monotonic(), time.process_time()
    gaps = 1 / job.connects_per_second
    opening = [asyncio.create_task(connect(tally, host, int(port), gaps * n)) for n in range(tally.open)]
    await asyncio.wait([tally.over], timeout=job.timeout_seconds)
    wall, cpu = time.monotonic() - began, time.process_time() - cpu
    for task in opening:
        task.cancel()
    missing = job.total - tally.right - tally.errors.total()
    if missing > 0:
        tally.errors["unfinished"] += missing
    return Outcome(
        job.total,
        tally.right,
        dict(tally.errors),
        tally.tokens,
        tally.chunks,
        wall,
        cpu,
        spread(tally.first),
        spread(tally.late),
        spread(tally.reply),
    )


def main() -> None:
    """Do the job which the command line names, and print its outcome."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Load one target and check its replies.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", action="append", required=True, help="may be given several times")
    parser.add_argument("--kind", choices=("chat", "plain", "letta"), default="chat")
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--total", type=int, default=100)
    parser.add_argument("--reasoning", type=int, default=73, help="tokens expected, as the fake is told to send")
    parser.add_argument("--text", type=int, default=50, help="tokens expected, as the fake is told to send")
    parser.add_argument("--warm", type=int, default=0, help="streams of each connection that are not counted")
    parser.add_argument("--connects-per-second", type=float, default=500.0)
    parser.add_argument("--timeout-seconds", type=float, default=60.0)
    options = vars(parser.parse_args())
    job = msgspec.convert(options | {"models": options.pop("model")}, Job)
    sys.stdout.write(msgspec.json.encode(uvloop.run(run(job))).decode() + "\n")


if __name__ == "__main__":
    main()
