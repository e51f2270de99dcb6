"""The providers of language models, and how a client for each is made.

Clients are told everything, so that none looks into the environment by itself: what it would find there for one
provider is not for another. Packages are imported where they are used.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic_ai.models import Model
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


Make = Callable[[str, Access, ModelSettings], Model]


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


# --- those with OpenAI's API -------------------------------------------------------------------------------------


def openai(model: str, access: Access, limits: ModelSettings) -> Model:
    """OpenAI's own models that reason are asked through the Responses API: in Chat Completions the newer of them refuse
    tools. All others, and any other server, through Chat Completions, which every server has, and which knows all that
    a caller can ask for."""
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel, OpenAIResponsesModelSettings
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=access.base_url, api_key=access.api_key)
    if not access.ambient:
        strip(provider.client)
    profile = cast("OpenAIModelProfile", provider.model_profile(model) or {})
    if is_openais(access.base_url) and profile.get("openai_supports_reasoning"):
        kept_by_us = OpenAIResponsesModelSettings(openai_store=False, **limits)
        return OpenAIResponsesModel(model, provider=provider, settings=kept_by_us)
    return OpenAIChatModel(model, provider=provider, settings=limits)


def is_openais(base_url: str | None) -> bool:
    """Whether this is OpenAI itself, and no server that only speaks like it."""
    return f".{urlsplit(base_url or '').hostname or ''}".endswith(".openai.com")


OLDER_WORDS = OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False)
"""Servers that only speak like OpenAI's all know `max_tokens`; its newer name some of them ignore."""


def speaking_alike(name: str) -> Make:
    """Makes models of a server with OpenAI's API."""

    def make(model: str, access: Access, limits: ModelSettings) -> Model:
        return compatible(name, model, access, limits, OLDER_WORDS)

    return make


def xai(model: str, access: Access, limits: ModelSettings) -> Model:
    """By its API, which is as OpenAI's: its own package is another way to the same models."""

    def profile(name: str) -> ModelProfile:
        schemas = OpenAIModelProfile(json_schema_transformer=OpenAIJsonSchemaTransformer)
        return merge_profile(schemas, grok_model_profile(name))

    return compatible("xai", model, access, limits, profile)


def compatible(
    name: str,
    model: str,
    access: Access,
    limits: ModelSettings,
    profile: ModelProfile | Callable[[str], ModelProfile | None],
) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    key = access.api_key or NO_KEY
    provider = OpenAICompatibleProvider(name, base_url=access.base_url, api_key=key, profile=profile)
    strip(provider.client)
    return OpenAIChatModel(model, provider=provider, settings=limits)


def ollama(model: str, access: Access, limits: ModelSettings) -> Model:
    from pydantic_ai.models.ollama import OllamaModel
    from pydantic_ai.providers.ollama import OllamaProvider

    provider = OllamaProvider(base_url=access.base_url, api_key=access.api_key or NO_KEY)
    strip(provider.client)
    profile = OllamaModel(model, provider=provider).profile  # which depends on where it is
    return OllamaModel(model, provider=provider, settings=limits, profile=merge_profile(profile, OLDER_WORDS))


def openrouter(model: str, access: Access, limits: ModelSettings) -> Model:
    from pydantic_ai.models.openrouter import OpenRouterModel
    from pydantic_ai.providers.openrouter import OpenRouterProvider

    provider = OpenRouterProvider(api_key=access.api_key)
    provider.client.base_url = access.base_url
    strip(provider.client)
    return OpenRouterModel(model, provider=provider, settings=limits)


def scripted(model: str, access: Access, limits: ModelSettings) -> Model:
    from frontdesk.agents.scripted import scripted_model

    return scripted_model(model, limits)


# --- those with their own ----------------------------------------------------------------------------------------


def anthropic(model: str, access: Access, limits: ModelSettings) -> Model:
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    provider = AnthropicProvider(api_key=access.api_key, base_url=access.base_url)
    if not access.ambient:
        strip(provider.client)
    return AnthropicModel(model, provider=provider, settings=limits)


def google(model: str, access: Access, limits: ModelSettings) -> Model:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    provider = GoogleProvider(api_key=access.api_key, base_url=access.base_url)
    return GoogleModel(model, provider=provider, settings=limits)


def groq(model: str, access: Access, limits: ModelSettings) -> Model:
    from pydantic_ai.models.groq import GroqModel
    from pydantic_ai.providers.groq import GroqProvider

    provider = GroqProvider(api_key=access.api_key, base_url=access.base_url)
    if not access.ambient:
        strip(provider.client)
    return GroqModel(model, provider=provider, settings=limits)


def mistral(model: str, access: Access, limits: ModelSettings) -> Model:
    from pydantic_ai.models.mistral import MistralModel
    from pydantic_ai.providers.mistral import MistralProvider

    provider = MistralProvider(api_key=access.api_key, base_url=access.base_url)
    return MistralModel(model, provider=provider, settings=limits)


def bedrock(model: str, access: Access, limits: ModelSettings) -> Model:
    from pydantic_ai.models.bedrock import BedrockConverseModel
    from pydantic_ai.providers.bedrock import BedrockProvider

    from frontdesk.agents.bedrock import client

    heard = {name: value for name, value in limits.items() if name not in BedrockConverseModel.unsupported_settings}
    provider = BedrockProvider(bedrock_client=client(access, limits))
    return BedrockConverseModel(model, provider=provider, settings=cast("ModelSettings", heard))


def strip(client: Any) -> None:
    """Take from a client what it found in the environment, which is for another address: headers, and who pays."""
    client._custom_headers = {}  # of `OPENAI_CUSTOM_HEADERS` and its like
    for name in ("organization", "project", "admin_api_key", "webhook_secret", "webhook_key"):
        if getattr(client, name, None) is not None:
            setattr(client, name, None)


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
    "openai-compatible": Provider(speaking_alike("openai-compatible"), wants_key=False),
    "scripted": Provider(scripted, wants_key=False, wants_address=False),
}
