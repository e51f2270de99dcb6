"""A client that stops reading, without going away."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import urlsplit

from tests.faults import fake as letta
from tests.faults.fake import Visit, fake_letta
from tests.faults.watch import eventually, watched
from tests.requirements import requirement


async def endless(_: Visit) -> AsyncGenerator[bytes, None]:
    """More than all the buffers between hold."""
    yield letta.ping()
    while True:
        yield letta.say("word " * 4000)


@requirement("errors.slow-client")
async def test_a_client_that_reads_no_more_is_as_good_as_gone(tmp_path: Path) -> None:
    asked = {"model": "Milo", "stream": True, "messages": [{"role": "user", "content": "#endless#"}]}
    body = json.dumps(asked).encode()
    with (
        fake_letta(scripts={"endless": endless}) as fake,
        watched(tmp_path, letta_base_url=fake.url, silence_seconds=1.0, keepalive_seconds=0.5) as gateway,
        socket.create_connection((urlsplit(gateway.url).hostname, urlsplit(gateway.url).port)) as client,
    ):
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        await asyncio.to_thread(client.sendall, head + body)
        await eventually(lambda: fake.cancels, lambda: "the run goes on for nobody")
        await gateway.idle()
