"""The last run's outcomes, kept in the repository, and the tables made from them."""

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.compat.cases import CASES
from tests.compat.clients import CLIENTS

RESULTS = Path(__file__).with_name("results.json")


class Result(msgspec.Struct):
    """What came of a client's cases, by name: `passed`, or the outcome and why."""

    versions: dict[str, str]
    cases: dict[str, str]

    @property
    def failed(self) -> bool:
        return self.count("failed") > 0

    def count(self, outcome: str) -> int:
        return sum(parted(said)[0] == outcome for said in self.cases.values())


def parted(said: str) -> tuple[str, str]:
    """An outcome, and why."""
    outcome, _, why = said.partition(": ")
    return outcome, why


def read() -> dict[str, Result]:
    if not RESULTS.exists():
        return {}
    return msgspec.json.decode(RESULTS.read_bytes(), type=dict[str, Result])


def write(results: dict[str, Result]) -> None:
    """In the order of the clients, so that a run of some changes only theirs."""
    ordered = {client.name: results[client.name] for client in CLIENTS if client.name in results}
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n")


def show(results: dict[str, Result], out: Console) -> None:
    """A table for people, and under it what did not pass and why."""
    outcomes = ("passed", "failed", "falls short", "not applicable", "not there yet")
    table = Table("client", "versions", *outcomes)
    for client in CLIENTS:
        if result := results.get(client.name):
            versions = "\n".join(f"{name} {version}" for name, version in result.versions.items())
            table.add_row(client.title, versions, *(str(result.count(each) or "–") for each in outcomes))
    out.print(table)
    for client in CLIENTS:
        for name, said in results[client.name].cases.items() if client.name in results else ():
            if said.startswith(("failed", "falls short")):
                out.print(f"{client.name} {name} {said}", highlight=False, markup=False)


# --- the page ----------------------------------------------------------------------------------------------------

APIS = {"chat": "Chat Completions", "responses": "Responses"}
SIGNS = {"passed": "yes", "failed": "**no**", "falls short": "no", "not applicable": "–", "not there yet": "not yet"}


def page() -> str:
    """The generated part of docs/clients.md: a table for each protocol, and the reasons of what is missing."""
    results = read()
    clients = [client for client in CLIENTS if client.name in results]
    rows = ["| client | checked with |", "|---|---|"]
    for client in clients:
        versions = ", ".join(f"`{name}` {version}" for name, version in results[client.name].versions.items())
        rows.append(f"| {client.title} | {versions} |")
    return "\n\n".join(["\n".join(rows), *(protocol(api, title, results) for api, title in APIS.items())])


def protocol(api: str, title: str, results: dict[str, Result]) -> str:
    clients = [client for client in CLIENTS if client.name in results and speaks(results[client.name], api)]
    notes: dict[str, int] = {}
    rows = [f"| | {' | '.join(client.title for client in clients)} |", f"|---|{'---|' * len(clients)}"]
    for name, case in CASES.items():
        if name.startswith(f"{api}."):
            cells = [cell(results[client.name].cases.get(name, "not applicable"), notes) for client in clients]
            rows.append(f"| {case.title} | {' | '.join(cells)} |")
    reasons = [f"{number}. {why}" for why, number in notes.items()]
    return "\n".join([f"### {title}", "", *rows, *(["", *reasons] if reasons else [])])


def speaks(result: Result, api: str) -> bool:
    """Whether the client has this protocol at all."""
    kinds = [parted(said)[0] for name, said in result.cases.items() if name.startswith(f"{api}.")]
    return any(kind != "not applicable" for kind in kinds)


def cell(said: str, notes: dict[str, int]) -> str:
    """The outcome, with the number of its reason."""
    outcome, why = parted(said)
    if not why:
        return SIGNS[outcome]
    return f"{SIGNS[outcome]} ({notes.setdefault(why, len(notes) + 1)})"
