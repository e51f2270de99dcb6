"""Cases 12 to 19: streaming."""

import asyncio
import json
import time

import httpx
import pytest

from tests.cases.wire import Desk, error_of
from tests.requirements import requirement

TEXT = "Test streaming response chunk by chunk."


@requirement("python.cases")
async def test_cases_12_to_14_a_stream_is_whole_and_exact(desk: Desk) -> None:
    streamed = await desk.stream(f"@say {TEXT}")
    assert streamed.content_type.startswith("text/event-stream")
    assert all(line.startswith(("data: ", ":")) for line in streamed.lines if line)
    assert {chunk["object"] for chunk in streamed.chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in streamed.chunks}) == 1
    assert all(chunk["choices"][0]["index"] == 0 for chunk in streamed.chunks)
    assert streamed.deltas[0]["role"] == "assistant"
    assert streamed.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert streamed.finish == ["stop"]
    assert streamed.text == TEXT


async def test_case_15_usage_is_one_chunk_at_the_end_and_only_when_asked_for(desk: Desk) -> None:
    without = await desk.stream("@say Hello.")
    assert not any(chunk.get("usage") for chunk in without.chunks)
    streamed = await desk.stream("@say Hello.", stream_options={"include_usage": True})
    (last,) = [chunk for chunk in streamed.chunks if chunk.get("usage")]
    assert last is streamed.chunks[-1]
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"] > 0


async def test_case_16_an_empty_message_is_answered_or_refused_and_nothing_hangs(desk: Desk) -> None:
    answer = await desk.ask([{"role": "user", "content": ""}], stream=True)
    if answer.status_code == 200:
        assert answer.text.rstrip().endswith("data: [DONE]")
    else:
        assert (answer.status_code, error_of(answer)["type"]) == (400, "invalid_request_error")


async def test_case_17_a_client_that_goes_away_ends_the_models_work(desk: Desk) -> None:
    body = {"model": desk.agent, "messages": [desk.said("@say One two three\n@hang")], "stream": True}
    url = f"{desk.url}/v1/chat/completions"
    async with httpx.AsyncClient(timeout=30) as client, client.stream("POST", url, json=body) as answer:
        seen = 0
        async for line in answer.aiter_lines():
            seen += line.startswith("data: ")
            if seen == 3:
                break
    if desk.agent == "clerk":  # Letta looks whether its run was cancelled when the model speaks again
        await asyncio.to_thread(
            desk.model.wait_for,
            lambda requests: any(desk.tag in str(r.messages) and r.outcome == "gone" for r in requests),
            20.0,
        )
    assert (await desk.stream("@say Next.")).text == "Next."


async def test_case_18_three_streams_of_one_agent_do_not_mix(desk: Desk) -> None:
    began = time.monotonic()
    streams = await asyncio.gather(*(desk.stream(f"@say This is number {number}.") for number in range(3)))
    assert [each.text for each in streams] == [f"This is number {number}." for number in range(3)]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("stream", [False, True])
@requirement("python.cases")
async def test_case_19_a_provider_that_fails_at_first_is_a_status(desk: Desk, stream: bool) -> None:
    answer = await desk.ask("@fail 401", stream=stream)
    assert answer.status_code == 502
    assert error_of(answer)["code"] == "provider_authentication"
    assert "sk-scripted" not in answer.text


async def test_case_19_and_later_one_error_in_the_stream(desk: Desk) -> None:
    answer = await desk.ask("@say Well then\n@error the key sk-secret-1 is bad", stream=True)
    assert answer.status_code == 200
    payloads = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    errors = [each for each in payloads if each != "[DONE]" and "error" in json.loads(each)]
    assert len(errors) == 1
    assert "sk-secret-1" not in answer.text
