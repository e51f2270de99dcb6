"""The user's own model providers, as Python agents know them, and which models those have."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

import httpx

from frontdesk.demo.models import NO_KEY, Provider, some

ANTHROPIC = "https://api.anthropic.com"
LIST_SECONDS = 20.0


class NoModelList(Exception):
    """A provider does not tell its models. The message says who and why."""


@dataclass(frozen=True, slots=True)
class Account:
    """How to reach a provider: as in `[providers.…]`, and how it is asked for its models."""

    base_url: str
    api_key: str = field(repr=False)
    models_url: str
    headers: Mapping[str, str] = field(repr=False)

    @property
    def settings(self) -> dict[str, str]:
        return {"base_url": self.base_url, "api_key": self.api_key}


def accounts(found: Provider, environment: Mapping[str, str] = os.environ) -> dict[str, Account]:
    """By the names they have in `provider/model`. Raises NoModelList if the one package that is needed is not here."""
    known: dict[str, Account] = {}
    if found.base_url:
        known["openai"] = alike(found.base_url, found.api_key)
    if key := found.environment.get("ANTHROPIC_API_KEY"):
        url = (environment.get("ANTHROPIC_BASE_URL") or ANTHROPIC).rstrip("/")
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        if find_spec("anthropic"):
            known["anthropic"] = Account(url, key, f"{url}/v1/models?limit=100", headers)
    if url := found.environment.get("OLLAMA_BASE_URL"):
        key = environment.get("OLLAMA_API_KEY", "").strip() or NO_KEY
        known["ollama"] = alike(url if url.endswith("/v1") else f"{url}/v1", key)
    if not known:
        raise NoModelList("Models of Anthropic need a package that is not here: `pip install 'frontdesk[anthropic]'`.")
    return known


def alike(base_url: str, api_key: str) -> Account:
    """One with OpenAI's API."""
    return Account(base_url, api_key, f"{base_url}/models", {"authorization": f"Bearer {api_key}"})


def handles(known: Mapping[str, Account]) -> list[str]:
    """Every `provider/model` there is. One provider that does not answer is left out; raises NoModelList if all are."""
    found: list[str] = []
    why: list[str] = []
    for name, account in known.items():
        try:
            found += [f"{name}/{model}" for model in listed(account)]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why.append(f"{name} ({reason(error)})")
        except (ValueError, KeyError, TypeError):
            why.append(f"{name} (what it answers is no list of models)")
    if not found and why:
        raise NoModelList(f"No models can be had from {some(why)}.")
    return found


def listed(account: Account) -> list[str]:
    answer = httpx.get(account.models_url, headers=dict(account.headers), timeout=LIST_SECONDS).raise_for_status()
    return [str(model["id"]) for model in answer.json()["data"]]


def reason(error: Exception) -> str:
    """Without what a URL may hold."""
    return f"status {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else type(error).__name__
