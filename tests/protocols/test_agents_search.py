"""GET /agents?search=: among those which the caller may use."""

from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.servers import row
from tests.faults.fake import fake_letta
from tests.served import Served, served

KEYS: Any = (
    {"name": "ann", "sha256": sha256(b"ann").hexdigest()},
    {"name": "otis-only", "sha256": sha256(b"otis-only").hexdigest(), "agents": ("Otis",)},
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    rows = [row(1, "Milo"), row(2, "Otis"), row(3, "Rain"), row(4, "Snow")]
    for each, description in zip(
        rows, ("A cat.", "A dog.", "Tells the weather.", "The weather in winter."), strict=True
    ):
        each["description"] = description
    folder: Path = tmp_path_factory.mktemp("search")
    aliases = {"wetter": "Rain"}
    with (
        fake_letta(rows=rows) as fake,
        served(folder, letta_base_url=fake.url, keys=KEYS, probe_key="ann", aliases=aliases) as running,
    ):
        yield running


def found(gateway: Served, secret: str = "ann", **query: Any) -> list[str]:
    headers = {"authorization": f"Bearer {secret}"}
    body = httpx.get(f"{gateway.url}/agents", params=query, headers=headers).json()
    return [agent["name"] for agent in body["data"]]


def test_agents_are_found_by_what_they_are_wanted_for(gateway: Served) -> None:
    assert sorted(found(gateway, search="weather")) == ["Rain", "Snow"]
    assert found(gateway, search="winter weather") == ["Snow", "Rain"]
    assert found(gateway, search="winter weather", limit=1) == ["Snow"]
    assert found(gateway, search="zebra") == []
    assert sorted(found(gateway)) == ["Milo", "Otis", "Rain", "Snow"]


def test_a_key_finds_only_the_agents_it_may_use(gateway: Served) -> None:
    assert found(gateway, "otis-only", search="weather") == []
    assert found(gateway, "otis-only", search="dog") == ["Otis"]


@pytest.mark.parametrize(
    "query", [{"search": "x" * 513}, {"search": "weather", "limit": 0}, {"search": "x", "limit": 101}]
)
def test_a_search_has_bounds(gateway: Served, query: dict[str, Any]) -> None:
    answer = httpx.get(f"{gateway.url}/agents", params=query, headers={"authorization": "Bearer ann"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in query
