"""The language models of agents: their names, their keys, what reaches them, and who comes after whom.

What a provider receives is read where it arrives: at a server that speaks like it.
"""

import asyncio
import contextlib
import re
import sys
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Any, get_args

import pytest
from pydantic import SecretStr
from pydantic_ai import Agent
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import AgentRunError, ModelConnectionError, ModelHTTPError
from pydantic_ai.messages import ModelRequest, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from frontdesk.agents.errors import AgentError
from frontdesk.agents.models import build, check, close, held, honours, settings
from frontdesk.agents.providers import PROVIDERS
from frontdesk.config import ProviderName, ProviderSettings
from frontdesk.errors import InvalidRequest
from frontdesk.testing import ScriptedModel
from frontdesk.turn import OPTIONS, Format, Options
from tests.agents.recorder import SAID, Recorder, recorder
from tests.requirements import requirement

KEYS = {
    "openai/gpt-4o": "OPENAI_API_KEY",
    "anthropic/claude-sonnet-4-6": "ANTHROPIC_API_KEY",
    "google/gemini-3-pro": "GOOGLE_API_KEY",
    "xai/grok-4.3": "XAI_API_KEY",
    "groq/openai/gpt-oss-120b": "GROQ_API_KEY",
    "mistral/magistral-medium-latest": "MISTRAL_API_KEY",
    "openrouter/openai/gpt-5": "OPENROUTER_API_KEY",
    "ollama/llama3.2": "OLLAMA_API_KEY",
    "litellm/any": "LITELLM_PROXY_API_KEY",
}
"""A model of each provider that is asked with a key, and the variable for it."""

BEDROCK = "bedrock/amazon.nova-pro-v1:0"
AWS = {"AWS_ACCESS_KEY_ID": "aws-id", "AWS_SECRET_ACCESS_KEY": "aws-secret", "AWS_DEFAULT_REGION": "eu-west-1"}


@pytest.fixture
async def server() -> AsyncGenerator[Recorder]:
    async with recorder() as recording:
        yield recording


@pytest.fixture
async def other() -> AsyncGenerator[Recorder]:
    async with recorder() as recording:
        yield recording


@pytest.fixture(scope="module")
def scripted_server() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


def account(base_url: str = "", api_key: str = "") -> ProviderSettings:
    return ProviderSettings(base_url=base_url, api_key=SecretStr(api_key))


LOOK = ToolDefinition(name="look", description="Looks.", parameters_json_schema={"type": "object", "properties": {}})


NOTHING = Options()


async def ask(model: Model, options: Options = NOTHING) -> ModelResponse:
    """One call of the model, with a tool at hand, as the engine makes it."""
    parameters = ModelRequestParameters(function_tools=[LOOK])
    if options.format:
        parameters = held(parameters, options.format, model)
    wished = settings(options, model)
    if options.must_call:
        wished["tool_choice"] = "required"
    said = [ModelRequest.user_text_prompt("Hi.")]
    return await model_request(model, said, model_settings=wished, model_request_parameters=parameters)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [*KEYS, BEDROCK, "openai-compatible/qwen/qwen3", "scripted/demo"])
def test_a_model_is_named_by_its_provider_and_its_name(spec: str) -> None:
    check(spec)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "names no provider: write provider/model"),
        ("gpt-5-mini", "names no provider: write provider/model"),
        ("openai:gpt-5", "'openai/gpt-5'"),
        ("openai-chat:gpt-5", "'openai/gpt-5'"),
        ("google-gla:gemini-3-pro", "'google/gemini-3-pro'"),
        ("opnai/gpt-5", "Did you mean 'openai'?"),
        ("OpenAI/gpt-5", "There is no provider 'OpenAI'"),
        ("/gpt-5", "There is no provider ''"),
        ("deepseek/deepseek-chat", "is 'openai-compatible', with its base_url"),
        ("openai/", "needs a name after the slash"),
        ("openai/gpt 5", "without spaces"),
        ("openai/gpt-5\r\nx: y", "without spaces"),
        ("openrouter/gpt-5", "'openrouter/openai/gpt-5-mini'"),
        ("x" * 100_000, "names no provider"),
        ("x/" * 100_000, "There is no provider 'x'"),
    ],
)
@requirement("python.models.names")
def test_what_is_no_model_is_refused_with_what_to_write(spec: str, says: str) -> None:
    with pytest.raises(AgentError, match=re.escape(says)) as info:
        check(spec)
    assert len(str(info.value)) < 900


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        ("anthropic/claude-sonnet-4-6", "anthropic", "anthropic"),
        ("google/gemini-3-pro", "google.genai", "google"),
        ("google/gemini-3-pro", "google", "google"),
        ("groq/llama", "groq", "groq"),
        ("mistral/mistral-large-latest", "mistralai", "mistral"),
        (BEDROCK, "boto3", "bedrock"),
    ],
)
def test_a_package_that_is_not_here_is_named(
    spec: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "google.genai", raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # as Python notes what cannot be imported
    with pytest.raises(AgentError, match=re.escape(f"pip install 'frontdesk[{extra}]'")):
        check(spec)


def test_a_scripted_model_has_no_address() -> None:
    with pytest.raises(AgentError, match="within this process"):
        build(["scripted/demo"], base_url="http://127.0.0.1:9")


def test_every_provider_can_be_set_up() -> None:
    assert {*get_args(ProviderName)} == {*PROVIDERS} - {"scripted"}


def test_an_agent_without_a_model_is_refused() -> None:
    with pytest.raises(AgentError, match="An agent needs a model"):
        build([])


# --- keys and addresses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "variable"), [*KEYS.items()])
async def test_a_key_is_the_agents_else_the_files_else_the_environments(
    spec: str, variable: str, server: Recorder
) -> None:
    name = spec.partition("/")[0]
    environment = {variable: "key-of-the-environment"}
    for agents, files, expected in (
        ("key-of-the-agent", "key-of-the-file", "key-of-the-agent"),
        ("", "key-of-the-file", "key-of-the-file"),
        ("", "", "key-of-the-environment"),
    ):
        providers = {name: account(server.url, files)}
        model = build([spec], api_key=agents, providers=providers, environment=environment)
        assert (await ask(model)).text == SAID
        await close(model)
        sent = [value for key, value in server.last.headers.items() if key in ("Authorization", "x-goog-api-key")]
        assert [value.removeprefix("Bearer ") for value in sent] == [expected]


@pytest.mark.parametrize("spec", [*KEYS, "openai-compatible/any", BEDROCK])
@requirement("python.models.keys")
async def test_a_provider_is_sent_its_own_key_and_nothing_of_others(
    spec: str, server: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither keys, nor what the environment tells a client to send along: that is for the provider's own address."""
    name = spec.partition("/")[0]
    for each in {*KEYS.values()} | {"OPENAI_ADMIN_KEY", "ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY"}:
        monkeypatch.setenv(each, f"secret-{each}")
    for each in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(each, f"secret-{each}")
    for maker in ("OPENAI", "ANTHROPIC", "GROQ"):
        monkeypatch.setenv(f"{maker}_CUSTOM_HEADERS", f"x-of-{maker.lower()}: secret-{maker}")
    for each in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GROQ_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.setenv(each, "http://127.0.0.1:9/")
    for each, value in AWS.items():
        monkeypatch.setenv(each, value)
    model = build([spec], providers={name: account(server.url)})
    await ask(model)
    await close(model)
    found = {*re.findall(r"secret-[A-Z_]+|aws-secret", server.last.text)}
    own = {
        "openai": {"secret-OPENAI_API_KEY", "secret-OPENAI_ORG_ID", "secret-OPENAI_PROJECT_ID", "secret-OPENAI"},
        "anthropic": {"secret-ANTHROPIC_API_KEY", "secret-ANTHROPIC"},
        "groq": {"secret-GROQ_API_KEY", "secret-GROQ"},
    }
    assert found == own.get(name, {f"secret-{KEYS[spec]}"} if spec in KEYS else set[str]())


@pytest.mark.parametrize("spec", [*KEYS, "openai-compatible/any"])
async def test_an_address_of_the_agents_own_gets_the_agents_key_and_nothing_else(
    spec: str, server: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = spec.partition("/")[0]
    for each in (*KEYS.values(), "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(each, f"secret-{each}")
    for maker in ("OPENAI", "ANTHROPIC", "GROQ"):
        monkeypatch.setenv(f"{maker}_CUSTOM_HEADERS", f"x-of-{maker.lower()}: secret-{maker}")
    providers = {name: account("http://127.0.0.1:9", "secret-of-the-file")}
    if PROVIDERS[name].wants_key:
        with pytest.raises(AgentError, match="no other key is sent: give the agent an api_key too"):
            build([spec], base_url=server.url, providers=providers)
    model = build([spec], base_url=server.url, api_key="key-of-the-agent", providers=providers)
    await ask(model)
    await close(model)
    assert "key-of-the-agent" in server.last.text
    assert "secret" not in server.last.text


@pytest.mark.parametrize(("spec", "variable"), [each for each in KEYS.items() if not each[0].startswith("ollama")])
@requirement("python.models.names")
def test_a_missing_key_is_told_at_once_with_the_variable_for_it(spec: str, variable: str) -> None:
    name = spec.partition("/")[0]
    with pytest.raises(AgentError) as info:
        build([spec], environment={each: "another" for each in KEYS.values() if each != variable})
    assert variable in str(info.value)
    assert f"[providers.{name}]" in str(info.value)


async def test_servers_of_ones_own_need_no_key(server: Recorder) -> None:
    for spec in ("ollama/llama3.2", "openai-compatible/any"):
        model = build([spec], base_url=f"{server.url}/v1", environment={"OPENAI_API_KEY": "secret"})
        assert (await ask(model)).text == SAID
        assert server.last.path == "/v1/chat/completions"
        assert server.last.headers["Authorization"] == "Bearer none"
        await close(model)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("litellm/any", "LITELLM_PROXY_API_BASE, or base_url under [providers.litellm]"),
        ("openai-compatible/any", "set base_url under [providers.openai-compatible]"),
    ],
)
def test_a_missing_address_is_told_at_once(spec: str, says: str) -> None:
    with pytest.raises(AgentError, match=re.escape(says)):
        build([spec], api_key="any", environment={"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9", "file:///etc/passwd", "http://", "http://x:99999/", "https://[::1", " "]
)
def test_an_address_is_one(url: str) -> None:
    with pytest.raises(AgentError, match="must be an address such as"):
        build(["openai-compatible/any"], base_url=url)


@pytest.mark.parametrize("key", ["s\u00e9cret", "secret\nx: y", "secret\0"])
def test_a_key_that_is_none_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(AgentError) as info:
        build(["openai/gpt-4o"], api_key=key)
    assert "cret" not in str(info.value)


def test_a_key_with_a_line_end_from_a_file_is_taken() -> None:
    model = build(["openai/gpt-4o"], environment={"OPENAI_API_KEY": "key\n"})
    assert isinstance(model, OpenAIChatModel)
    assert model.client.api_key == "key"


async def test_the_environment_moves_openai_alone(server: Recorder) -> None:
    environment = {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": f"{server.url}/v1"}
    model = build(["openai/gpt-4o"], environment=environment)
    await ask(model)
    await close(model)
    assert server.last.path == "/v1/chat/completions"
    xai = build(["xai/grok-4.3"], environment=environment | {"XAI_API_KEY": "key"})
    assert xai.base_url == "https://api.x.ai/v1/"


@pytest.mark.parametrize("spec", [*KEYS])
@requirement("python.models.keys")
async def test_a_redirect_takes_no_key_elsewhere(spec: str, server: Recorder, other: Recorder) -> None:
    server.elsewhere = other.url
    model = build([spec], base_url=server.url, api_key="key-of-the-agent")
    with contextlib.suppress(AgentRunError):
        await ask(model)
    await close(model)
    assert server.seen
    assert not [seen for seen in other.seen if "key-of-the-agent" in seen.text]


async def test_bedrock_is_asked_with_aws_credentials_of_the_environment(
    server: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    model = build([BEDROCK], providers={"bedrock": account(server.url)})
    assert (await ask(model)).text == SAID
    await close(model)
    assert "Credential=aws-id/" in server.last.headers["Authorization"]
    assert "/eu-west-1/bedrock/" in server.last.headers["Authorization"]


def test_bedrock_without_credentials_or_region_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in (*AWS, "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AgentError, match="AWS_BEARER_TOKEN_BEDROCK"):
        build([BEDROCK])
    with pytest.raises(AgentError, match="AWS_DEFAULT_REGION"):
        build([BEDROCK], api_key="key")
    with pytest.raises(AgentError, match="https"):
        build([BEDROCK], api_key="key", base_url="http://127.0.0.1:9", providers={})
    with pytest.raises(AgentError, match="no other key is sent"):
        build([BEDROCK], base_url="https://127.0.0.1:9")
    in_a_region = ProviderSettings(api_key=SecretStr("key"), region="eu-west-1")
    assert "eu-west-1" in str(build([BEDROCK], providers={"bedrock": in_a_region}).base_url)


@requirement("python.secrets")
def test_keys_are_not_shown_with_a_model() -> None:
    model = build([*KEYS], environment={**dict.fromkeys(KEYS.values(), "secret"), "LITELLM_PROXY_API_BASE": "http://x"})
    assert "secret" not in repr(model)


# --- what reaches the provider -----------------------------------------------------------------------------------

ANSWER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STRICT = Format({**ANSWER, "additionalProperties": False}, "answer", strict=True, enforced=True)

WISHES: dict[str, Any] = {
    "max_output_tokens": 77,
    "temperature": 0.25,
    "top_p": 0.5,
    "frequency_penalty": 0.125,
    "presence_penalty": 0.75,
    "logit_bias": {"5": 3},
    "seed": 11,
    "stop": ("END",),
    "reasoning_effort": "low",
    "verbosity": "low",
    "format": STRICT,
    "parallel_tool_calls": False,
    "must_call": True,
}
EVERYTHING = {*WISHES}


def test_every_option_is_tried_here() -> None:
    assert {*OPTIONS} - EVERYTHING == {"model"}


MISSING: dict[str, set[str]] = {
    "openai/scripted": set(),
    "openai-compatible/any": set(),
    "litellm/any": set(),
    "scripted/any": set(),
    "ollama/llama3.2": {"logit_bias", "verbosity", "parallel_tool_calls", "must_call"},
    "xai/grok-4.3": set(),
    "xai/grok-4": {"reasoning_effort"},
    "openrouter/anthropic/claude-sonnet-4.5": set(),
    "openrouter/openai/gpt-5": {"temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias"},
    "anthropic/claude-sonnet-4-6": {"frequency_penalty", "presence_penalty", "logit_bias", "seed", "verbosity"},
    "anthropic/claude-opus-5": {
        *("temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "seed", "verbosity")
    },
    "google/gemini-3-pro": {"logit_bias", "verbosity", "parallel_tool_calls"},
    "google/gemini-2.5-pro": {"logit_bias", "verbosity", "parallel_tool_calls", "format"},
    "groq/openai/gpt-oss-120b": {"verbosity"},
    "groq/llama-3.3-70b-versatile": {"verbosity", "reasoning_effort", "format"},
    "mistral/mistral-large-latest": {"logit_bias", "verbosity", "reasoning_effort", "format"},
    "mistral/magistral-medium-latest": {"logit_bias", "verbosity", "format"},
    BEDROCK: {
        *("frequency_penalty", "presence_penalty", "logit_bias", "seed", "verbosity"),
        *("reasoning_effort", "format", "parallel_tool_calls"),
    },
}
"""What does not reach a model of each kind."""


def reachable(spec: str, server: Recorder, monkeypatch: pytest.MonkeyPatch) -> Model:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    if spec == BEDROCK:  # with a key it would want TLS
        return build([spec], providers={"bedrock": account(server.url)})
    if spec == "scripted/any":
        return build([spec])
    return build([spec], api_key="key", base_url=server.url)


@pytest.mark.parametrize("spec", [*MISSING])
def test_what_reaches_a_model_is_known(spec: str, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert honours(reachable(spec, server, monkeypatch)) == EVERYTHING - MISSING[spec]


@pytest.mark.parametrize("spec", [each for each in MISSING if not each.startswith("scripted")])
@requirement("python.settings")
async def test_what_is_said_to_reach_a_model_does(spec: str, server: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wish that is honoured changes what is sent, as it is meant; and no warning tells that it was dropped."""
    model = reachable(spec, server, monkeypatch)
    await ask(model)
    plain = server.last.body
    for name in EVERYTHING - MISSING[spec]:
        await ask(model, Options(**{name: WISHES[name]}))
        changed = {key: value for key, value in server.last.body.items() if plain.get(key) != value}
        assert changed, f"{name} was dropped"
        value = WISHES[name]
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert str(value) in str(changed), name
    await close(model)


@pytest.mark.parametrize("spec", [each for each in MISSING if each.split("/")[0] not in ("scripted", "ollama", "xai")])
async def test_what_is_said_not_to_reach_a_model_does_not(
    spec: str, server: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be reported for nothing."""
    model = reachable(spec, server, monkeypatch)
    await ask(model)
    plain = server.last.body
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in MISSING[spec] - {"format"}:  # of which Pydantic AI says aloud that it cannot be had
            await ask(model, Options(**{name: WISHES[name]}))
            assert server.last.body == plain, name
    await close(model)


async def test_all_that_can_be_asked_for_reaches_a_chat_model_on_a_stream(scripted_server: ScriptedModel) -> None:
    model = build(["openai/scripted"], base_url=scripted_server.base_url, api_key="key")
    options = Options(**{name: value for name, value in WISHES.items() if name not in ("format", "must_call")})
    async with Agent(model).run_stream("@say Fine.", model_settings=settings(options, model)) as stream:
        assert await stream.get_output() == "Fine."
    await close(model)
    body = scripted_server.requests[-1].body
    assert {
        key: value for key, value in body.items() if key not in ("messages", "model", "stream", "stream_options")
    } == {
        "max_completion_tokens": 77,
        "temperature": 0.25,
        "top_p": 0.5,
        "frequency_penalty": 0.125,
        "presence_penalty": 0.75,
        "logit_bias": {"5": 3},
        "seed": 11,
        "stop": ["END"],
        "reasoning_effort": "low",
        "verbosity": "low",
    }


async def test_servers_that_only_speak_like_openais_are_told_the_limit_in_the_older_word(server: Recorder) -> None:
    for spec in ("ollama/llama3.2", "litellm/any", "openai-compatible/any"):
        model = build([spec], base_url=server.url, api_key="key")
        await ask(model, Options(max_output_tokens=77))
        assert (server.last.body["max_tokens"], "max_completion_tokens" in server.last.body) == (77, False)
        await close(model)


async def test_a_schema_goes_as_it_is_and_any_object_is_asked_for_in_words_too(server: Recorder) -> None:
    model = build(["openai/scripted"], base_url=server.url, api_key="key")
    loose = {"type": "object", "properties": {"city": {"type": "string", "pattern": "^[A-Z]"}}}
    await ask(model, Options(format=Format(loose, "weather")))
    sent = server.last.body["response_format"]["json_schema"]
    assert (sent["name"], sent["schema"], sent["strict"]) == ("weather", loose, False)
    await ask(model, Options(format=STRICT))
    assert server.last.body["response_format"]["json_schema"]["strict"] is True
    await ask(model, Options(format=Format()))
    assert server.last.body["response_format"] == {"type": "json_object"}
    assert "JSON" in str(server.last.body["messages"][0])
    await close(model)


OPENAI = {"OPENAI_API_KEY": "key"}
UNSAMPLED = {"frequency_penalty", "presence_penalty", "logit_bias"}  # for which Responses has no words
SAMPLED = {"temperature", "top_p", *UNSAMPLED}


@pytest.mark.parametrize(
    ("name", "kind", "missing"),
    [
        ("gpt-4o", OpenAIChatModel, {"reasoning_effort", "verbosity"}),
        ("gpt-4.1-mini", OpenAIChatModel, {"reasoning_effort", "verbosity"}),
        ("gpt-5-mini", OpenAIResponsesModel, SAMPLED | {"seed", "stop"}),
        ("o3", OpenAIResponsesModel, SAMPLED | {"seed", "stop", "verbosity"}),
        ("gpt-5.1", OpenAIResponsesModel, UNSAMPLED | {"seed", "stop"}),
    ],
)
def test_openais_own_models_that_reason_are_asked_through_responses(
    name: str, kind: type[Model], missing: set[str]
) -> None:
    model = build([f"openai/{name}"], environment=OPENAI)
    assert isinstance(model, kind)
    assert honours(model) == EVERYTHING - missing


async def test_what_is_said_to_reach_a_model_through_responses_does(server: Recorder) -> None:
    model = OpenAIResponsesModel("gpt-5.1", provider=OpenAIProvider(base_url=server.url, api_key="key"))
    await ask(model)
    plain = server.last.body
    for name in honours(model):
        await ask(model, Options(**{name: WISHES[name]}))
        assert {key: value for key, value in server.last.body.items() if plain.get(key) != value}, name
    await close(model)


async def test_nothing_of_a_conversation_is_kept_at_openai() -> None:
    model = build(["openai/gpt-5-mini"], environment=OPENAI)
    assert (model.settings or {}).get("openai_store") is False


@pytest.mark.parametrize(
    ("spec", "options", "param"),
    [
        ("openai/gpt-5.1", Options(temperature=0.5, reasoning_effort="high"), "temperature"),
        ("openai/gpt-5.1", Options(top_p=0.5, reasoning_effort="low", names={"top_p": "p"}), "p"),
        (
            "anthropic/claude-haiku-4-5",
            Options(must_call=True, reasoning_effort="low", names={"must_call": "tool_choice"}),
            "tool_choice",
        ),
    ],
)
def test_wishes_that_do_not_go_together_are_refused(spec: str, options: Options, param: str) -> None:
    model = build([spec], environment=OPENAI | {"ANTHROPIC_API_KEY": "key"})
    with pytest.raises(InvalidRequest) as info:
        settings(options, model)
    assert info.value.param == param


def test_without_reasoning_they_do() -> None:
    model = build(["openai/gpt-5.1"], environment=OPENAI)
    asked: Mapping[str, Any] = settings(Options(temperature=0.5, reasoning_effort="none"), model)
    assert asked == {"temperature": 0.5, "openai_reasoning_effort": "none"}


@pytest.mark.parametrize(
    ("spec", "own", "missing"),
    [
        ("openai/gpt-5.1", {"thinking": "high"}, {*SAMPLED, "seed", "stop"}),
        ("openai/gpt-5.1", {"openai_reasoning_effort": "low"}, {*SAMPLED, "seed", "stop"}),
        ("openai/gpt-5.1", {"thinking": False}, {*UNSAMPLED, "seed", "stop"}),
        (
            "anthropic/claude-haiku-4-5",
            {"anthropic_thinking": {"type": "enabled", "budget_tokens": 1024}},
            {*MISSING["anthropic/claude-sonnet-4-6"], "must_call", "reasoning_effort"},
        ),
    ],
)
def test_what_the_agent_itself_has_set_stands_in_the_way_of_some(
    spec: str, own: ModelSettings, missing: set[str]
) -> None:
    model = build([spec], environment=OPENAI | {"ANTHROPIC_API_KEY": "key"})
    assert honours(model, own) == EVERYTHING - missing


def test_of_several_models_what_reaches_each_is_honoured() -> None:
    environment = dict.fromkeys(KEYS.values(), "key")
    chain = build(["groq/llama-3.3-70b-versatile", "anthropic/claude-opus-5"], environment=environment)
    missing = MISSING["groq/llama-3.3-70b-versatile"] | MISSING["anthropic/claude-opus-5"]
    assert honours(chain) == EVERYTHING - missing
    assert honours(WrapperModel(chain)) == honours(chain)


async def test_an_effort_reaches_each_of_several_models_in_its_own_word(server: Recorder, other: Recorder) -> None:
    server.status = 503
    chain = build(
        ["openai-compatible/any", "anthropic/claude-opus-5"],
        base_url=server.url,
        providers={"anthropic": account(other.url, "key")},
    )
    await ask(chain, Options(reasoning_effort="low"))
    await close(chain)
    assert other.last.body["output_config"] == {"effort": "low"}


def test_of_a_model_of_ones_own_nothing_false_is_claimed() -> None:
    model = FunctionModel(lambda messages, info: ModelResponse([]))
    assert honours(model) == EVERYTHING - {"reasoning_effort", "verbosity"}


# --- one after another -------------------------------------------------------------------------------------------


def chain_of(first: str, second: str) -> Model:
    """Two models at two servers."""
    return build(
        ["openai/scripted", "openai-compatible/scripted"],
        base_url=first,
        api_key="key-of-the-first",
        providers={"openai-compatible": account(second, "key-of-the-second")},
    )


async def streamed(model: Model, said: str, model_settings: ModelSettings | None = None) -> str:
    async with Agent(model).run_stream(said, model_settings=model_settings) as stream:
        return "".join([piece async for piece in stream.stream_text(delta=True, debounce_by=None)])


async def plain(model: Model, said: str) -> str:
    return (await Agent(model).run(said)).output


@pytest.mark.parametrize("run", [plain, streamed])
@pytest.mark.parametrize(
    "trouble",
    [
        "@fail 429",
        "@fail 429 retry-after=1",
        "@fail 429 insufficient_quota",
        "@fail 500",
        "@fail 503",
        "@break",
        "@error",
    ],
)
@requirement("python.models.fallback")
async def test_another_model_answers_where_the_first_fails_before_it_says_anything(
    trouble: str, run: Callable[[Model, str], Awaitable[str]], server: Recorder, scripted_server: ScriptedModel
) -> None:
    """Each is asked once: none is tried again while another one is there."""
    marker = f"{run.__name__} after {trouble}"
    chain = chain_of(scripted_server.base_url, server.url)
    assert await run(chain, f"{marker}\n{trouble}") == SAID
    (asked,) = scripted_server.requests_with(marker)
    assert asked.headers["authorization"] == "Bearer key-of-the-first"
    assert [seen.headers["Authorization"] for seen in server.seen] == ["Bearer key-of-the-second"]
    await close(chain)


async def test_a_model_that_is_silent_is_left_for_another(server: Recorder, scripted_server: ScriptedModel) -> None:
    chain = chain_of(scripted_server.base_url, server.url)
    assert await streamed(chain, "@hang", {"first_event_timeout": 0.2}) == SAID
    await close(chain)


async def test_a_model_that_is_not_there_is_left_for_another(server: Recorder) -> None:
    chain = chain_of("http://127.0.0.1:9/v1", server.url)
    assert (await ask(chain)).text == SAID
    await close(chain)


@pytest.mark.parametrize(
    "trouble", ["@fail 400", "@fail 401", "@fail 403", "@fail 404", "@fail 400 context_length_exceeded"]
)
async def test_what_was_asked_wrongly_or_with_a_wrong_key_is_asked_of_nobody_else(
    trouble: str, server: Recorder, scripted_server: ScriptedModel
) -> None:
    chain = chain_of(scripted_server.base_url, server.url)
    with pytest.raises(ModelHTTPError):
        await Agent(chain).run(trouble)
    assert not server.seen
    await close(chain)


@requirement("python.models.fallback")
async def test_what_has_been_said_is_not_said_again_by_another(
    server: Recorder, scripted_server: ScriptedModel
) -> None:
    chain = chain_of(scripted_server.base_url, server.url)
    with pytest.raises(ModelConnectionError):
        await streamed(chain, "@pace 0.001\n@long 40\n@break")
    assert not server.seen
    await close(chain)


async def test_one_model_alone_is_tried_once_more(scripted_server: ScriptedModel) -> None:
    model = build(["openai/scripted"], base_url=scripted_server.base_url, api_key="key")
    assert await streamed(model, "once more\n@fail-times 1 500\n@say Here.") == "Here."
    with pytest.raises(ModelHTTPError):
        await streamed(model, "twice more\n@fail-times 2 500\n@say Here.")
    assert len(scripted_server.requests_with("twice more")) == 2
    await close(model)


def test_models_of_ones_own_stand_in_a_chain() -> None:
    own = TestModel()
    chain = build(["scripted/first", own])
    assert isinstance(chain, FallbackModel)
    assert chain.models[1] is own
    assert build([own]) is own
    with pytest.raises(AgentError, match="has a key and an address of its own"):
        build([own], api_key="key")


# --- scripted, in this process -----------------------------------------------------------------------------------


async def test_the_scripted_model_plays_the_same_scripts_without_a_server(scripted_server: ScriptedModel) -> None:
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"sunny in {city}"

    script = '@think hm\n@call weather {"city": "Rome"}\n@call weather {"city": "Paris"}\n@then\n@table\n@usage 9 8 7 6'
    over_a_socket = build(["openai/scripted"], base_url=scripted_server.base_url, api_key="key")
    told: list[list[str]] = []
    for model in (over_a_socket, build(["scripted/scripted"])):
        run = await Agent(model, tools=[weather]).run(script)
        told.append([*(str(message.parts) for message in run.new_messages()), str(run.usage)])
        await close(model)
    over, within = (
        [re.sub(r"call_\w+|datetime\([^)]*\)|'(openai|scripted)'", "", text) for text in texts] for texts in told
    )
    assert within == over


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("@fail 429 should-retry=false", "429"),
        ("@break", "Connection error"),
        ("@say Hello\n@break", "Connection error"),
        ("@say Hello\n@error Oh no.", "Oh no."),
        ("@fail 400 context_length_exceeded", "maximum context length"),
    ],
)
async def test_it_fails_as_it_is_told(script: str, says: str) -> None:
    model = build(["scripted/demo"])
    for run in (streamed(model, script), Agent(model).run(script)):
        with pytest.raises((ModelHTTPError, ModelConnectionError), match=says):
            await run


async def test_it_can_be_left_in_the_middle() -> None:
    model = build(["scripted/demo"])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await streamed(model, "@say Hello\n@hang")
    assert await streamed(model, "@say Still here.") == "Still here."


# --- one model for many turns ------------------------------------------------------------------------------------


async def test_many_turns_share_a_model(scripted_server: ScriptedModel) -> None:
    model = build(["openai/scripted"], base_url=scripted_server.base_url, api_key="key")
    answers = await asyncio.gather(*(streamed(model, f"@say I am {number}.") for number in range(50)))
    assert answers == [f"I am {number}." for number in range(50)]
    await close(model)


async def test_closing_a_model_closes_its_connections(server: Recorder) -> None:
    for spec in ("openai/scripted", "anthropic/claude-sonnet-4-6", "groq/llama-3.3-70b-versatile"):
        model = build([spec], base_url=server.url, api_key="key")
        await ask(model)
        client: Any = model.provider and model.provider.client
        assert not client.is_closed()
        await close(model)
        assert client.is_closed()
        await close(model)


async def test_a_model_of_ones_own_is_closed_too_and_can_be_used_again(server: Recorder) -> None:
    own = OpenAIChatModel("scripted", provider=OpenAIProvider(base_url=server.url, api_key="key"))
    for _ in range(2):
        async with own:
            await ask(own)
        await close(own)
        assert own.client.is_closed()
