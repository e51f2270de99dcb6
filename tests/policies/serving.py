"""A gateway whose agents are those of `lobby`, and the keys to them."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from frontdesk.testing import ScriptedModel
from tests.served import TLS, Served, served

MASTER, PLAIN, OWNER, ADMIN = "master-key-1", "plain-key-2", "owner-key-3", "admin-key-4"
PREMIUM, TRUSTED, NARROW = "premium-key-5", "trusted-key-6", "narrow-key-7"


def entry(name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}


KEYS = [
    entry("plain", PLAIN),
    entry("owner", OWNER, scopes=["owner"]),
    entry("admin", ADMIN, scopes=["admin", "premium"]),
    entry("premium", PREMIUM, scopes=["premium"]),
    entry("trusted", TRUSTED, scopes=["owner", "premium"], user_scopes=["premium"], trust_user_headers=True),
    entry("narrow", NARROW, agents=["lobby", "vault"]),
]


@contextmanager
def serving(data_dir: Path, model: ScriptedModel, **settings: Any) -> Generator[Served]:
    values: dict[str, Any] = {
        "agents": ("tests.policies.lobby:agents",),
        "providers": {"openai": {"base_url": model.base_url, "api_key": "sk-scripted"}},
        "scopes": ("premium",),
        "api_keys": MASTER,
        "probe_key": MASTER,
        "keys": KEYS,
    }
    with served(data_dir, **values | settings) as running:
        yield running


def ask(there: Served, method: str, path: str, key: str = "", **more: Any) -> httpx.Response:
    headers = ({"authorization": f"Bearer {key}"} if key else {}) | more.pop("headers", {})
    return httpx.request(method, there.url + path, headers=headers, timeout=30, verify=TLS, **more)


def chat(there: Served, key: str, agent: str, text: str = "@say Hello.", **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    body = {"model": agent, "messages": [{"role": "user", "content": text}], **more}
    return ask(there, "POST", "/v1/chat/completions", key, json=body, headers=headers)


def listed(there: Served, key: str = "", **headers: str) -> list[str]:
    answer = ask(there, "GET", "/v1/models", key, headers=headers)
    assert answer.status_code == 200, answer.text
    return sorted(model["id"] for model in answer.json()["data"])


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]
