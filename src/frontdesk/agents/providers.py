"""The providers of language models, and how a client for each is made.

Clients are told everything, so that none looks into the environment by itself: what it would find there for one
provider is not for another. Packages are imported where they are used.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic_ai.models import Model, create_async_http_client, create_async_httpx2_client
from pydantic_ai.profiles import ModelProfile, merge_profile
from pydantic_ai.profiles.grok import grok_model_profile
from pydantic_ai.profiles.openai import OpenAIJsonSchemaTransformer, OpenAIModelProfile
from pydantic_ai.settings import ModelSettings

NO_KEY = "none"
"""For servers that want no key: clients will not do without."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where a provider is, and the key it gets; empty where there is none. `ambient`: what the environment says of this
    provider is meant for this address."""

    base_url: str
    api_key: str = field(repr=False)
    ambient: bool = True
    region: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """`silence_seconds` is the longest within an answer, `patience_seconds` before it begins, all tries together.

    `retries` is how often a client tries again by itself, while nothing is said.
    """

    silence_seconds: float
    patience_seconds: float
    retries: int

    @property
    def settings(self) -> ModelSettings:
        return ModelSettings(timeout=self.silence_seconds, first_event_timeout=self.patience_seconds)


Make = Callable[[str, Access, Limits], Model]


@dataclass(frozen=True, slots=True)
class Provider:
    """`keys` and `address` are its own variables in the environment; `base_url` is where it is unless that is said.

    `credentials`: where no key is set, its client finds others.
    """

    make: Make
    package: str = "openai"
    extra: str = ""  # of ours, which brings the package
    keys: tuple[str, ...] = ()
    address: str = ""
    base_url: str = ""
    wants_key: bool = True
    wants_address: bool = True
    credentials: bool = False

    @property
    def is_installed(self) -> bool:
        try:
            return find_spec(self.package) is not None
        except ModuleNotFoundError:  # what it is a part of is not there
            return False


class Discreet:
    """A client of ours. It sends nothing that the environment adds for another address, and does not sit out a provider
    that wants to be left alone for long: whoever asked is told, and can choose."""


WAIT_SECONDS = 10.0


def client(kind: Any, access: Access, limits: Limits, http_client: Any) -> Any:
    """A client of this kind, of those that OpenAI's package is the model of. A copy is as discreet."""

    class Client(Discreet, kind):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if access.ambient:
                return
            self._custom_headers = {}  # of OPENAI_CUSTOM_HEADERS and its like
            for name in ("organization", "project", "admin_api_key", "webhook_secret", "webhook_key"):
                if getattr(self, name, None) is not None:
                    setattr(self, name, None)

        def _should_retry(self, response: Any) -> bool:
            wait = self._parse_retry_after_header(response.headers)
            worth_it = wait is None or wait <= WAIT_SECONDS
            return worth_it and kind._should_retry(self, response)

    key = access.api_key or NO_KEY
    return Client(api_key=key, base_url=access.base_url, max_retries=limits.retries, http_client=http_client)


# --- those with OpenAI's API -------------------------------------------------------------------------------------


def openai_client(access: Access, limits: Limits) -> Any:
    from openai import AsyncOpenAI

    return client(AsyncOpenAI, access, limits, create_async_httpx2_client())


def openai(model: str, access: Access, limits: Limits) -> Model:
    """OpenAI's own models that reason are asked through the Responses API: in Chat Completions the newer of them refuse
    tools. All others, and any other server, through Chat Completions, which every server has, and which knows all that
    a caller can ask for."""
    from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(openai_client=openai_client(access, limits))
    profile = cast("OpenAIModelProfile", provider.model_profile(model) or {})
    if is_openais(access.base_url) and profile.get("openai_supports_reasoning"):
        kept_by_us = OpenAIResponsesModelSettings(openai_store=False, **limits.settings)
        return OpenAIResponsesModel(model, provider=provider, settings=kept_by_us)
    return chat_model(model, provider, limits, SAYS_WHY)


def chat_model(model: str, provider: Any, limits: Limits, traits: ModelProfile | None = None) -> Model:
    """One that is asked through Chat Completions. `traits` are added to what the provider knows of it."""
    from pydantic_ai.models.openai import OpenAIChatModel

    from frontdesk.agents.alike import mending

    return mending(OpenAIChatModel)(model, provider=provider, settings=limits.settings, profile=traits)


def is_openais(base_url: str | None) -> bool:
    """Whether this is OpenAI itself, and no server that only speaks like it."""
    return f".{urlsplit(base_url or '').hostname or ''}".endswith(".openai.com")


SAYS_WHY = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
"""A server that tells of each answer why it ended: one that merely ends was cut off. Others that speak alike, such as
Ollama, do not always tell."""

OLDER_WORDS = OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False)
"""Servers that only speak like OpenAI's all know `max_tokens`; its newer name some of them ignore."""


def speaking_alike(name: str, traits: ModelProfile | None = SAYS_WHY) -> Make:
    """Makes models of a server with OpenAI's API."""

    def make(model: str, access: Access, limits: Limits) -> Model:
        return compatible(name, model, access, limits, OLDER_WORDS, traits)

    return make


def xai(model: str, access: Access, limits: Limits) -> Model:
    """By its API, which is as OpenAI's: its own package is another way to the same models."""

    def profile(name: str) -> ModelProfile:
        schemas = OpenAIModelProfile(json_schema_transformer=OpenAIJsonSchemaTransformer)
        return merge_profile(schemas, grok_model_profile(name))

    return compatible("xai", model, access, limits, profile, SAYS_WHY)


def compatible(
    name: str,
    model: str,
    access: Access,
    limits: Limits,
    profile: ModelProfile | Callable[[str], ModelProfile | None],
    traits: ModelProfile | None,
) -> Model:
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    discreet = openai_client(replace(access, ambient=False), limits)
    provider = OpenAICompatibleProvider(name, openai_client=discreet, profile=profile)
    return chat_model(model, provider, limits, traits)


def ollama(model: str, access: Access, limits: Limits) -> Model:
    from pydantic_ai.models.ollama import OllamaModel
    from pydantic_ai.providers.ollama import OllamaProvider

    from frontdesk.agents.alike import mending

    provider = OllamaProvider(openai_client=openai_client(replace(access, ambient=False), limits))
    profile = OllamaModel(model, provider=provider).profile  # which depends on where it is
    profile = merge_profile(profile, OLDER_WORDS)
    return mending(OllamaModel)(model, provider=provider, settings=limits.settings, profile=profile)


def openrouter(model: str, access: Access, limits: Limits) -> Model:
    from pydantic_ai.models.openrouter import OpenRouterModel
    from pydantic_ai.providers.openrouter import OpenRouterProvider

    from frontdesk.agents.alike import mending

    provider = OpenRouterProvider(openai_client=openai_client(replace(access, ambient=False), limits))
    return mending(OpenRouterModel)(model, provider=provider, settings=limits.settings, profile=SAYS_WHY)


def scripted(model: str, access: Access, limits: Limits) -> Model:
    from frontdesk.agents.scripted import scripted_model

    return scripted_model(model, access, limits)


# --- those with their own ----------------------------------------------------------------------------------------


def anthropic(model: str, access: Access, limits: Limits) -> Model:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    discreet = client(AsyncAnthropic, access, limits, create_async_httpx2_client())
    return AnthropicModel(model, provider=AnthropicProvider(anthropic_client=discreet), settings=limits.settings)


def groq(model: str, access: Access, limits: Limits) -> Model:
    from groq import AsyncGroq
    from pydantic_ai.models.groq import GroqModel
    from pydantic_ai.providers.groq import GroqProvider

    discreet = client(AsyncGroq, access, limits, create_async_http_client())
    return GroqModel(model, provider=GroqProvider(groq_client=discreet), settings=limits.settings)


def google(model: str, access: Access, limits: Limits) -> Model:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    provider = GoogleProvider(api_key=access.api_key, base_url=access.base_url)
    settings = limits.settings
    settings["max_retries"] = limits.retries
    return GoogleModel(model, provider=provider, settings=settings)


def mistral(model: str, access: Access, limits: Limits) -> Model:
    """Its client never tries again by itself."""
    from pydantic_ai.models.mistral import MistralModel
    from pydantic_ai.providers.mistral import MistralProvider

    provider = MistralProvider(api_key=access.api_key, base_url=access.base_url)
    return MistralModel(model, provider=provider, settings=limits.settings)


def bedrock(model: str, access: Access, limits: Limits) -> Model:
    from pydantic_ai.models.bedrock import BedrockConverseModel
    from pydantic_ai.providers.bedrock import BedrockProvider

    from frontdesk.agents.bedrock import client

    provider = BedrockProvider(bedrock_client=client(access, limits))
    patient = ModelSettings(first_event_timeout=limits.patience_seconds)  # the rest is the client's
    return BedrockConverseModel(model, provider=provider, settings=patient)


PROVIDERS: dict[str, Provider] = {
    "openai": Provider(
        openai, keys=("OPENAI_API_KEY",), address="OPENAI_BASE_URL", base_url="https://api.openai.com/v1"
    ),
    "anthropic": Provider(
        anthropic,
        "anthropic",
        "anthropic",
        keys=("ANTHROPIC_API_KEY",),
        address="ANTHROPIC_BASE_URL",
        base_url="https://api.anthropic.com",
    ),
    "google": Provider(
        google,
        "google.genai",
        "google",
        keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        address="GOOGLE_GEMINI_BASE_URL",
        base_url="https://generativelanguage.googleapis.com",
    ),
    "xai": Provider(xai, keys=("XAI_API_KEY",), base_url="https://api.x.ai/v1"),
    "groq": Provider(
        groq, "groq", "groq", keys=("GROQ_API_KEY",), address="GROQ_BASE_URL", base_url="https://api.groq.com"
    ),
    "mistral": Provider(mistral, "mistralai", "mistral", keys=("MISTRAL_API_KEY",), base_url="https://api.mistral.ai"),
    "bedrock": Provider(
        bedrock, "boto3", "bedrock", keys=("AWS_BEARER_TOKEN_BEDROCK",), wants_address=False, credentials=True
    ),
    "openrouter": Provider(openrouter, keys=("OPENROUTER_API_KEY",), base_url="https://openrouter.ai/api/v1"),
    "ollama": Provider(
        ollama,
        keys=("OLLAMA_API_KEY",),
        address="OLLAMA_BASE_URL",
        base_url="http://localhost:11434/v1",
        wants_key=False,
    ),
    "litellm": Provider(speaking_alike("litellm"), keys=("LITELLM_PROXY_API_KEY",), address="LITELLM_PROXY_API_BASE"),
    "openai-compatible": Provider(speaking_alike("openai-compatible", traits=None), wants_key=False),
    "scripted": Provider(scripted, wants_key=False, wants_address=False),
}
