"""Parameters and bodies over the wire: what is carried out, reported or refused, and that a refusal reaches nobody."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import openai
import pytest

from frontdesk.testing import ScriptedModel
from tests.protocols.chat_completions.asking import Chat, assistant, function, heard, user
from tests.protocols.conftest import Serve
from tests.requirements import requirement
from tests.served import Served

IGNORED_HEADER = "x-frontdesk-ignored-params"


async def post(gateway: Served, content: bytes, path: str = "/v1/chat/completions") -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.post(gateway.url + path, content=content, headers={"content-type": "application/json"})


def check_refusal(response: httpx.Response, param: str | None, code: str) -> None:
    """The error envelope of OpenAI's, whole."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    (name, error), *rest = response.json().items()
    assert (name, rest) == ("error", [])
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


@requirement("chat.params.reported")
@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_honoured_is_listed_in_a_header(chat: Chat, stream: bool) -> None:
    asked: dict[str, Any] = {"top_p": 0.5, "stop": ["x"], "seed": 1, "user": "ann", "verbosity": "low"}
    answer = await chat.ask("@say Hello.", stream=stream, **asked)
    assert answer.text == "Hello."
    assert answer.headers[IGNORED_HEADER].split(",") == ["top_p", "seed", "stop", "verbosity"]


@requirement("chat.params.ignored")
async def test_what_needs_no_honouring_is_not_listed(chat: Chat) -> None:
    unknown: Any = {"top_k": 5, "keep_alive": "5m", "reasoning": {"effort": "high"}, "chat_id": "x", "store": True}
    answer = await chat.ask("@say Hello.", **unknown, metadata={"a": "b"}, service_tier="auto")
    assert answer.text == "Hello."
    assert IGNORED_HEADER not in answer.headers


@requirement("chat.params.strict")
async def test_strict_params_refuse_instead(serve: Serve, milo: str, model: ScriptedModel, marker: str) -> None:
    async with serve(strict_params=True).client() as client:
        chat = Chat(client, milo)
        with pytest.raises(openai.BadRequestError) as info:
            await chat.ask(marker, top_p=0)
        assert (info.value.param, info.value.code) == ("top_p", "unsupported_parameter")
        assert model.requests_with(marker) == []
        assert (await chat.ask("@say Hello.", store=True, n=1)).text == "Hello."


@requirement("chat.params.refused", "errors.nothing-sent")
@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_value"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"modalities": ["audio"]}, "modalities", "unsupported_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hello"}, "messages", "invalid_type"),
    ],
)
async def test_a_refused_request_reaches_nobody(
    gateway: Served, milo: str, model: ScriptedModel, marker: str, fields: Any, param: str, code: str
) -> None:
    body = {"model": milo, "messages": [user(marker)], "metadata": {"marker": marker}} | fields
    response = await post(gateway, json.dumps(body).encode())
    assert response.status_code == 400
    check_refusal(response, param, code)
    assert model.requests_with(marker) == []


@requirement("chat.body.malformed")
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"model": "Milo", "messages": [' + b"[" * 50_000])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions/"])
async def test_a_body_that_is_not_json_is_a_400(gateway: Served, body: bytes, path: str) -> None:
    response = await post(gateway, body, path)
    assert response.status_code == 400
    check_refusal(response, None, "invalid_json")


@requirement("chat.body.too-large")
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413(serve: Serve, chunked: bool) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        for _ in range(3):
            yield b" " * 2**20

    gateway = serve(max_body_bytes=2**20)
    async with httpx.AsyncClient() as client:
        url = f"{gateway.base_url}/chat/completions"
        response = await client.post(url, content=pieces() if chunked else b" " * (2**20 + 1))
    assert response.status_code == 413
    check_refusal(response, None, "request_too_large")


@requirement("chat.body.too-large")
async def test_a_body_just_below_the_limit_goes_through(serve: Serve, milo: str) -> None:
    body = json.dumps({"model": milo, "messages": [user("@say Hello.")], "padding": ""}).encode()
    padded = body.replace(b'"padding": ""', b'"padding": "' + b"x" * (2**20 - len(body)) + b'"')
    assert len(padded) == 2**20
    response = await post(serve(max_body_bytes=2**20), padded)
    assert response.json()["choices"][0]["message"]["content"] == "Hello."


@requirement("chat.body.method")
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_another_method_is_a_405(gateway: Served, method: str) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.request(method, f"{gateway.base_url}/chat/completions")
    assert response.status_code == 405
    assert response.headers["content-type"] == "application/json"
    assert response.headers["allow"] == "POST"
    if method != "HEAD":
        check_refusal(response, None, "method_not_allowed")


@requirement("chat.transcript.long")
async def test_a_transcript_of_two_thousand_messages(chat: Chat, model: ScriptedModel, marker: str) -> None:
    past = [message for n in range(1000) for message in (user(f"question {n}"), assistant(f"answer {n}"))]
    answer = await chat.ask([*past, user(f"@say {marker}")])
    assert answer.text == marker
    (request,) = model.requests_with(marker)
    assert [text for _, text in heard(request)] == [message["content"] for message in past] + [f"@say {marker}"]


@requirement("chat.text.exact")
@pytest.mark.parametrize(
    "text",
    [
        'quotes "double" \\ backslash',
        "漢字 👩‍👩‍👧 é e\u0301 שלום",
        "nul \u0000 and \u2028 and \ufeff",
        "<think>x</think> <|im_end|> {{char}} ${x} %s",
        '{"type": "user_message", "message": "x"}',
        "  spaces around \n\n",
    ],
)
async def test_what_the_user_says_reaches_the_model_exactly(
    chat: Chat, model: ScriptedModel, marker: str, text: str
) -> None:
    await chat.ask(f"{text}{marker}\n@say x")
    (request,) = model.requests_with(marker)
    assert heard(request) == [("user", f"{text}{marker}\n@say x")]


@requirement("chat.response-format")
async def test_a_wish_for_json_reaches_the_model(chat: Chat, model: ScriptedModel, marker: str) -> None:
    schema = {"type": "object", "properties": {marker: {"type": "string"}}}
    wish = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await chat.ask("@say {}", response_format=wish)
    (request,) = model.requests_with(marker)
    assert IGNORED_HEADER not in answer.headers
    assert request.body["response_format"]["json_schema"]["schema"] == schema


# --- what real clients were recorded to send ---------------------------------------------------------------------


def open_webui(marker: str, **fields: Any) -> dict[str, Any]:
    """A page chat of Open WebUI 0.12.4: these four fields, and 36 tools of its own."""
    parameters: Any = {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "…"}},
        "required": [],
    }
    tools = [function(f"owui_tool_{number}", parameters) for number in range(36)]
    return {"model": "Milo", "stream": True, "messages": [user(f"@say {marker}")], "tools": tools} | fields


OWUI_HEADERS = {
    "X-OpenWebUI-User-Id": "8a0c3f6e-3f0e-4f5e-9a3c-0d6b0f2f7b11",
    "X-OpenWebUI-User-Name": "Ada%20L",
    "X-OpenWebUI-User-Email": "ada@example.org",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "1f3c1f7e-93a5-4d0e-8c80-6b1f1d1f9a55",
}


@requirement("clients.open-webui")
async def test_open_webui_talks_and_runs_its_own_tools(chat: Chat, model: ScriptedModel, marker: str) -> None:
    tools = open_webui(marker)["tools"]
    asked = user(f"@call owui_tool_35 {{}}\n@then\n@say {marker}")
    first = await chat.ask([asked], stream=True, tools=tools, headers=OWUI_HEADERS)
    assert first.finish == "tool_calls"
    said = [asked, first.message | {"content": ""}, first.calls[0].result("found it")]
    second = await chat.ask(said, stream=True, tools=tools, headers=OWUI_HEADERS)
    assert second.text == marker
    request = model.requests_with(marker)[-1]
    assert [name for name in request.tool_names if name.startswith("owui_")] == [f"owui_tool_{n}" for n in range(36)]
    later = [*said, second.message, user("@say Later.")]
    assert (await chat.ask(later, stream=True, tools=tools, headers=OWUI_HEADERS)).text == "Later."


@requirement("clients.open-webui")
async def test_open_webuis_title_task(chat: Chat, marker: str) -> None:
    task = user(f"### Task:\nGenerate a title.\n<chat_history>{marker}</chat_history>\n" + '@say {"title": "Tea"}')
    answer = await chat.ask([task], max_tokens=1000, headers=OWUI_HEADERS)
    assert json.loads(answer.text) == {"title": "Tea"}


ROO_TOOLS = [
    function(
        f"roo_tool_{number}" if number < 18 else f"mcp--server--tool_{number}",
        {
            "type": "object",
            "properties": {f"p{n}": {"type": ["string", "null"], "description": "d" * 150} for n in range(10)},
            "required": [f"p{n}" for n in range(10)],
            "additionalProperties": False,
        },
        strict=number < 18,
    )
    for number in range(21)
]
ROO: dict[str, Any] = {
    "temperature": 0,
    "stream_options": {"include_usage": True},
    "tools": ROO_TOOLS,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}
ROO_HEADERS = {
    "HTTP-Referer": "https://github.com/RooVetGit/Roo-Cline",
    "X-Title": "Roo Code",
    "User-Agent": "RooCode/3.52",
}


def roo_user(text: str, environment: str) -> dict[str, Any]:
    return user(
        [
            {
                "type": "text",
                "text": f"<user_message>\n{text}\n</user_message>",
                "cache_control": {"type": "ephemeral"},
            },
            {"type": "text", "text": f"<environment_details>\n{environment}\n</environment_details>"},
        ]
    )


@requirement("clients.roo-code")
async def test_roo_code_works_with_its_tools(chat: Chat, model: ScriptedModel, marker: str) -> None:
    prompt = {"role": "system", "content": "You are Roo. " + "rules " * 17_000}
    script = f"@call roo_tool_3 {{}}\n@call mcp--server--tool_20 {{}}\n@@{marker}"
    said = [prompt, roo_user(script, "12:00")]
    first = await chat.ask(said, stream=True, headers=ROO_HEADERS, **ROO)
    assert [call.name for call in first.calls] == ["roo_tool_3", "mcp--server--tool_20"]
    assert first.finish == "tool_calls"
    assert first.usage
    assert first.headers[IGNORED_HEADER] == "tools.strict"
    said += [first.message | {"content": ""}, *(call.result(f"{call.name} ran") for call in first.calls)]
    said += [roo_user(f"@say {marker}-done", "12:01")]
    second = await chat.ask(said, stream=True, headers=ROO_HEADERS, **ROO)
    assert (second.text, second.identity) == (f"{marker}-done", "lineage")
    request = model.requests_with(f"{marker}-done")[-1]
    assert [role for role, _ in heard(request)] == ["user", "assistant", "tool", "tool", "user"]
    assert len([name for name in request.tool_names if name.startswith(("roo_", "mcp--"))]) == 21
    assert request.texts[0].endswith("\n\n" + prompt["content"])
