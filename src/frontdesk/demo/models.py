"""Which model answers in the demo: the user's own, as their environment tells, else a scripted one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from frontdesk.demo.local_letta import LettaOptions

OPENAI = "https://api.openai.com/v1"
NO_KEY = "none"  # servers of one's own often want none, but clients will not do without

OURS = "FRONTDESK_DEMO_MODEL"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")

PREFERRED = ("gpt-4.1-mini", "gpt-5-mini", "gpt-4o-mini", "claude-haiku-4-5", "haiku", "gpt-4.1", "gpt-5", "sonnet")
"""Small ones which are good with tools, in the order of choice; parts of their names."""
NO_CHAT = ("embed", "whisper", "tts", "audio", "realtime", "image", "dall-e", "moderation", "rerank", "guard", "vision")


class UnknownModel(Exception):
    """The model that was asked for is not to be had. The message names some that are."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Where models come from: `found` are the variables that say so, `environment` what Letta gets to know of them."""

    found: tuple[str, ...]
    base_url: str | None = None  # OpenAI-compatible; None if there are only others
    api_key: str = field(default=NO_KEY, repr=False)
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @property
    def options(self) -> LettaOptions:
        return LettaOptions(model_base_url=self.base_url, model_api_key=self.api_key, extra_env=self.environment)


def provider(environment: Mapping[str, str] = os.environ) -> Provider | None:
    """The user's provider; None if nothing is set, and a scripted model is needed."""
    names = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "OLLAMA_BASE_URL")
    found = {name: value for name in names if (value := environment.get(name, "").strip())}
    if not found:
        return None
    others = {name: value.rstrip("/") for name, value in found.items() if not name.startswith("OPENAI")}
    openai = len(others) < len(found)
    return Provider(
        tuple(found),
        found.get("OPENAI_BASE_URL", OPENAI).rstrip("/") if openai else None,
        found.get("OPENAI_API_KEY", NO_KEY),
        others | proxies(environment),
    )


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The way out of the user's network, which does not lead to this machine."""
    found = {name: environment[name] for name in PROXIES if environment.get(name)}
    if not found:
        return {}
    local = ",".join(filter(None, (environment.get("NO_PROXY") or environment.get("no_proxy"), "127.0.0.1,localhost")))
    return found | {"NO_PROXY": local, "no_proxy": local}


def choose(handles: Sequence[str], wanted: str = "", now: str = "") -> str:
    """A model of those which Letta has: the one wanted, else the one in use, else a small one, else the first.

    `wanted` may leave out the provider. Raises UnknownModel.
    """
    offered = [handle for handle in handles if not handle.startswith("letta/")]
    if wanted:
        if match := [handle for handle in offered if handle == wanted or handle.endswith(f"/{wanted}")]:
            return match[0]
        raise UnknownModel(f"There is no model {wanted!r} ({OURS}). There are: {some(offered)}.")
    if now in offered:
        return now
    able = [handle for handle in offered if not any(part in handle.lower() for part in NO_CHAT)] or offered
    if not able:
        raise UnknownModel("The provider offers no model.")
    by_name = (handle for part in PREFERRED for handle in able if part in handle.lower())
    return next(by_name, able[0])


def some(handles: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(handles[:most]) or "none"
    return f"{shown} and {len(handles) - most} more" if len(handles) > most else shown
