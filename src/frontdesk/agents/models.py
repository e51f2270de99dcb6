"""The language models of agents: `provider/model`, the keys they are asked with, and what can be asked of each.

A key goes only where it belongs. An agent's own is for the provider of its first model; any other comes from
`frontdesk.toml`, else from the provider's own variable in the environment. Whoever gives an agent an address of its own
gives it the key for that address too: no other key is sent there.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.profiles.openai import SAMPLING_PARAMS
from pydantic_ai.settings import ModelSettings

from frontdesk.agents.errors import AgentError
from frontdesk.agents.providers import PROVIDERS, Access, Discreet, Limits, is_openais
from frontdesk.errors import InvalidRequest
from frontdesk.turn import OPTIONS, Format, Options

SILENCE_SECONDS = 300.0
"""The longest silence of a provider, before an answer begins and within it."""
PATIENCE_SECONDS = 60.0
"""The same before an answer begins, where another model stands behind this one."""
RETRIES = 1
"""How often a provider's client tries again by itself, before anything is said: after a connection that was dropped, or
a short 429. A model that has another behind it is not tried again: that one is tried."""


class Account(Protocol):
    """What the operator has set for a provider; empty where nothing is set."""

    @property
    def api_key(self) -> SecretStr: ...
    @property
    def base_url(self) -> str: ...
    @property
    def region(self) -> str: ...


# --- names -------------------------------------------------------------------------------------------------------


def check(spec: str) -> None:
    """Raises AgentError if there is no such provider, no model is named, or the provider's package is not here."""
    named(spec)


def named(spec: str) -> tuple[str, str]:
    """The provider's name and the model's. Raises AgentError, as `check`."""
    shown = repr(spec[:200])
    name, slash, model = spec.partition("/")
    if not slash:
        raise AgentError(without_slash(spec))
    if name not in PROVIDERS:
        near = get_close_matches(name, PROVIDERS, 1)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise AgentError(
            f"There is no provider {name[:100]!r}, as in the model {shown}. {meant}Known are {', '.join(PROVIDERS)}."
            " Any other server with OpenAI's API is 'openai-compatible', with its base_url."
        )
    if not model or not model.isprintable() or " " in model:
        raise AgentError(f"The model {shown} needs a name after the slash, without spaces: '{name}/…'.")
    if name == "openrouter" and "/" not in model:
        raise AgentError(
            f"OpenRouter's models are named with their maker: 'openrouter/openai/gpt-5-mini', not {shown}."
        )
    provider = PROVIDERS[name]
    if not provider.is_installed:
        raise AgentError(
            f"Models of {name!r} need a package that is not here: pip install 'frontdesk[{provider.extra}]'"
        )
    return name, model


def without_slash(spec: str) -> str:
    """What is wrong with a name that has no slash; others write a colon."""
    before, colon, after = spec[:200].partition(":")
    known = next((name for name in (before, before.split("-")[0]) if name in PROVIDERS), "")
    if colon and known:
        return f"Write the model {spec[:200]!r} with a slash: '{known}/{after}'."
    return f"The model {spec[:200]!r} names no provider: write provider/model, such as 'openai/gpt-5-mini'."


# --- making them -------------------------------------------------------------------------------------------------


def build(
    specs: Sequence[str | Model],
    *,
    api_key: str = "",
    base_url: str = "",
    providers: Mapping[str, Account] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Model:
    """One model of these: the first, and the others for when it fails. It is for all turns of an agent; `close` it.

    `api_key` and `base_url` are the agent's own, for the provider of the first. Raises AgentError, as `check`, and
    where a key or an address is missing.
    """
    if not specs:
        raise AgentError("An agent needs a model, such as 'openai/gpt-5-mini'.")
    if (api_key or base_url) and not isinstance(specs[0], str):
        raise AgentError(
            "A model object has a key and an address of its own: the agent's api_key and base_url are not for it."
        )
    own = named(specs[0])[0] if isinstance(specs[0], str) else ""
    made: list[Model] = []
    for place, spec in enumerate(specs, 1):
        if isinstance(spec, str):
            name, model = named(spec)
            given = (api_key, base_url) if name == own else ("", "")
            access = access_to(name, spec, *given, (providers or {}).get(name), environment)
            made.append(PROVIDERS[name].make(model, access, limits(last=place == len(specs))))
        else:
            made.append(spec)
    return made[0] if len(made) == 1 else FallbackModel(*made, fallback_on=passes_on)


async def close(model: Model) -> None:
    """Close its connections, for good."""
    async with model:
        pass
    for each in leaves(model):
        client: Any = each.provider.client if each.provider else None
        if isinstance(client, Discreet):
            await cast("Any", client).close()
        elif each.system == "bedrock":
            client.close()


def leaves(model: Model) -> Iterator[Model]:
    """The models which really are asked."""
    match model:
        case FallbackModel():
            for each in model.models:
                yield from leaves(each)
        case WrapperModel():
            yield from leaves(model.wrapped)
        case _:
            yield model


def limits(*, last: bool) -> Limits:
    """How long to wait for a model, and how often to try again; `last` if no other one stands behind it."""
    return Limits(SILENCE_SECONDS, SILENCE_SECONDS if last else PATIENCE_SECONDS, RETRIES if last else 0)


def passes_on(error: Exception) -> bool:
    """Whether another model is worth a try: this one is out of reach, overloaded, broken, or has had enough of us.

    What was asked wrongly is wrong elsewhere too, and a wrong key is to be put right, not to be passed over.
    """
    match error:
        case (
            ModelConnectionError()
            | ModelRequestTimeout()
            | ModelRateLimitError()
            | ModelQuotaExceededError()
            | ModelUnavailableError()
            | ModelServerError()
            | UnexpectedModelBehavior()
        ):
            return True
        case ModelHTTPError():
            return error.status_code in (408, 429) or error.status_code >= 500
        case _:  # an answer that cannot be read has no class of its own
            return type(error) is ModelAPIError


# --- keys and addresses ------------------------------------------------------------------------------------------


def access_to(
    name: str, spec: str, api_key: str, base_url: str, account: Account | None, environment: Mapping[str, str]
) -> Access:
    """`api_key` and `base_url` are the agent's own. Raises AgentError where something is missing."""
    provider, shown = PROVIDERS[name], repr(spec[:200])
    if base_url:
        if not (provider.wants_address or provider.credentials):
            raise AgentError(f"The model {shown} is within this process: leave out the agent's base_url.")
        if provider.wants_key and not api_key.strip():
            raise AgentError(
                f"The model {shown} is at an address of the agent's own, to which no other key is sent: give the agent"
                " an api_key too. If that server wants none, any will do."
            )
        return Access(address(base_url, shown), key(api_key, shown), ambient=False)
    keys = (api_key, account.api_key.get_secret_value() if account else "", *map(environment.get, provider.keys))
    found = first(*keys)
    if provider.wants_key and not found and not provider.credentials:
        raise AgentError(
            f"The model {shown} needs a key: set {provider.keys[0]}, or api_key under [providers.{name}] in"
            " frontdesk.toml, or give the agent an api_key."
        )
    url = first(account.base_url if account else "", environment.get(provider.address), provider.base_url)
    if provider.wants_address and not url:
        variable = f"{provider.address}, or " if provider.address else ""
        raise AgentError(
            f"The model {shown} needs an address: set {variable}base_url under [providers.{name}] in frontdesk.toml, or"
            " give the agent a base_url."
        )
    region = account.region if account else ""
    return Access(address(url, shown) if url else "", key(found, shown), region=region)


def first(*values: str | None) -> str:
    return next((value for value in ((each or "").strip() for each in values) if value), "")


def key(value: str, shown: str) -> str:
    """A key as it can stand in a header."""
    value = value.strip()
    if not (value.isascii() and value.isprintable()):
        raise AgentError(f"The key for the model {shown} has characters that no key has.")
    return value


def address(url: str, shown: str) -> str:
    try:
        parts = urlsplit(url.strip())
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise AgentError(f"The base_url for the model {shown} must be an address such as https://api.example.com/v1.")
    return url.strip()


# --- what a caller can ask of them -------------------------------------------------------------------------------

SETTINGS = {
    "max_output_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "logit_bias": "logit_bias",
    "seed": "seed",
    "stop": "stop_sequences",
    "parallel_tool_calls": "parallel_tool_calls",
}
"""Our words, and Pydantic AI's."""

UNHEARD_BY_OLLAMA = frozenset({"logit_bias", "parallel_tool_calls"})
"""It takes them, and drops them. Source: https://docs.ollama.com/api/openai-compatibility"""


OVERRULING = frozenset(
    {
        "anthropic_effort",
        "anthropic_thinking",
        "bedrock_additional_model_requests_fields",
        "google_thinking_config",
        "groq_reasoning_effort",
        "groq_reasoning_format",
        "openrouter_reasoning",
    }
)
"""Settings of an agent's own which a caller's effort does not change."""


def honours(model: Model, own: ModelSettings | None = None) -> frozenset[str]:
    """Which of `turn.OPTIONS` reach the model's provider; where there are several models, each of them. `own` are the
    agent's settings. `model` is never among them: which one is asked is not the model's to say."""
    return frozenset(OPTIONS).intersection(
        *(heard(each, {**(each.settings or {}), **(own or {})}) for each in leaves(model))
    )


def heard(model: Model, own: Mapping[str, Any]) -> frozenset[str]:
    missed = unheard(model, own)
    found = {ours for ours, theirs in SETTINGS.items() if theirs not in missed}
    found |= {"reasoning_effort"} if reasons(model) and OVERRULING.isdisjoint(own) else set()
    found |= {"verbosity"} if is_verbose(model) else set()
    found |= {"format"} if keeps_format(model) else set()
    found |= {"must_call"} if can_be_forced(model, own) else set()
    return frozenset(found)


def unheard(model: Model, own: Mapping[str, Any]) -> frozenset[str]:
    """Settings that do not reach the provider: it has no word for them, or its models refuse them."""
    profile = traits(model)
    missed = {*model.unsupported_settings, *profile.get("openai_unsupported_model_settings", ())}
    if is_alike(model) and profile.get("openai_supports_reasoning") and thinks(model, own):
        missed |= {*SAMPLING_PARAMS}
    if any(profile.get(f"{maker}_disallows_sampling_settings") for maker in ("anthropic", "bedrock")):
        missed |= {"temperature", "top_p"}
    if model.system == "ollama":
        missed |= UNHEARD_BY_OLLAMA
    return frozenset(missed)


def traits(model: Model) -> Mapping[str, Any]:
    """What Pydantic AI knows of a model: each kind has words of its own."""
    return cast("Mapping[str, Any]", model.profile)


def is_alike(model: Model) -> bool:
    """Whether it is asked with OpenAI's package."""
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

    return isinstance(model, OpenAIChatModel | OpenAIResponsesModel)


def thinks(model: Model, own: Mapping[str, Any]) -> bool:
    """Whether it reasons where a caller says nothing of that."""
    profile = traits(model)
    if profile.get("thinking_always_enabled"):
        return True
    said = own.get("openai_reasoning_effort" if is_alike(model) else "anthropic_thinking", own.get("thinking"))
    if said is None:
        return bool(profile.get("thinking_enabled_by_default"))
    return said not in (False, "none", {"type": "disabled"})


def reasons(model: Model) -> bool:
    """Whether an effort reaches it. Of models behind somebody else's server nobody knows: those are told."""
    profile = traits(model)
    able = bool(profile.get("supports_thinking"))
    match model.system:
        case "groq":
            return bool(profile.get("groq_supports_graded_reasoning_effort"))
        case "mistral":
            return able and not profile.get("thinking_always_enabled")
        case "xai":
            return able
        case _:
            return able or (is_alike(model) and not is_openais(model.base_url))


def is_verbose(model: Model) -> bool:
    if not is_alike(model) or model.system == "ollama":
        return False
    return not is_openais(model.base_url) or (reasons(model) and model.model_name.startswith("gpt-"))


def keeps_format(model: Model) -> bool:
    """Whether it can be held to a JSON schema, and use tools meanwhile."""
    profile = traits(model)
    able = bool(profile.get("supports_json_schema_output"))
    return able and (model.system != "google" or bool(profile.get("google_supports_tool_combination")))


def can_be_forced(model: Model, own: Mapping[str, Any]) -> bool:
    """Whether it can be made to call a tool."""
    able = bool(traits(model).get("supports_forced_tool_choice", True)) and model.system != "ollama"
    return able and (not thinks(model, own) or reasons_when_forced(model))


def settings(options: Options, model: Model) -> ModelSettings:
    """A caller's wishes in Pydantic AI's words: those that `honours` names. `format` is not among them, see `held`, nor
    `must_call`, which is about a step. Raises InvalidRequest for wishes that do not go together."""
    asked = {theirs: getattr(options, ours) for ours, theirs in SETTINGS.items() if getattr(options, ours) is not None}
    if options.stop is not None:
        asked["stop_sequences"] = list(options.stop)
    if options.logit_bias is not None:
        asked["logit_bias"] = dict(options.logit_bias)
    if options.verbosity is not None:
        asked["openai_text_verbosity"] = options.verbosity
    if options.reasoning_effort is not None:
        check_reasoning(options, model)
        asked |= effort(options.reasoning_effort, model)
    return cast("ModelSettings", asked)


def effort(wanted: str, model: Model) -> dict[str, Any]:
    """As it is said where all have a word for it; else by Pydantic AI's, which each model takes as well as it can."""
    if all(is_alike(each) and each.system != "openrouter" for each in leaves(model)):
        return {"openai_reasoning_effort": wanted}
    return {"thinking": False if wanted == "none" else wanted}


def check_reasoning(options: Options, model: Model) -> None:
    """Raises InvalidRequest where the effort keeps the model from doing something else that is wished."""
    if options.reasoning_effort == "none":
        return
    for each in leaves(model):
        profile = traits(each)
        lost = [ours for ours in options.asked if SETTINGS.get(ours) in SAMPLING_PARAMS]
        if lost and is_alike(each) and profile.get("openai_supports_reasoning"):
            raise together(options, lost[0])
        if options.must_call and not reasons_when_forced(each):
            raise together(options, "must_call")


def reasons_when_forced(model: Model) -> bool:
    """Whether it can be made to call a tool while it reasons: Claude's older models cannot."""
    profile = traits(model)
    able = bool(profile.get("supports_forced_tool_choice_with_thinking", True))
    return able and (
        model.system not in ("anthropic", "bedrock") or bool(profile.get(f"{model.system}_supports_adaptive_thinking"))
    )


def together(options: Options, ours: str) -> InvalidRequest:
    name, effort = options.name(ours), options.name("reasoning_effort")
    return InvalidRequest(
        f"While the agent's model reasons, it takes no {name!r}: leave out {name!r}, or {effort!r}.",
        param=name,
        code="unsupported_value",
    )


def held(parameters: ModelRequestParameters, wanted: Format, model: Model) -> ModelRequestParameters:
    """A request of this model whose answer is to have this form."""
    if wanted.schema is None:
        anything = OutputObjectDefinition({"type": "object"})
        return replace(parameters, output_mode="prompted", output_object=anything)
    loose = False if all(is_alike(each) for each in leaves(model)) else None  # others are strict or nothing
    strict = wanted.strict or loose
    shape = OutputObjectDefinition(dict(wanted.schema), name=wanted.name or "answer", strict=strict)
    return replace(parameters, output_mode="native", output_object=shape)
