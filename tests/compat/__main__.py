"""Runs other people's clients against a real gateway, and writes down what came of it.

    python -m tests.compat [NAME…] [--case PREFIX] [--pin]

Without names all of them. Each runs in an environment of its own, which is made once for each set of pins. `behind` is
no client, but what Python agents have behind them.
`--pin` writes the lock files anew instead. Exit 1 if anything fails.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from frontdesk.demo.local_letta import inherited
from frontdesk.observe import logs
from tests.compat import behind
from tests.compat.cases import CASES, SHORTFALLS
from tests.compat.clients import CLIENTS, KIT, Client
from tests.compat.environments import NotInstalled, command, installed, pin
from tests.compat.results import Result, read, show, write
from tests.compat.stage import KEY, Stage, stage

SECONDS = 300.0
out = Console()


class Line(msgspec.Struct):
    """What a script says of a case."""

    case: str
    marker: str
    outcome: str
    why: str


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.compat", description="Other people's clients, against a gateway.")
    names = [*(client.name for client in CLIENTS), "behind"]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--case", default="", metavar="PREFIX", help="only the cases that begin so; nothing is written")
    parser.add_argument("--pin", action="store_true", help="write the lock files anew")
    options = parser.parse_args()
    if unknown := {*options.names} - {*names}:
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    clients = [client for client in CLIENTS if client.name in options.names or not options.names]
    if options.pin:
        for client in clients:
            pin(client)
        return 0
    logs.configure("warning", "console")
    found = run(clients, options.case) if clients else {}
    if not options.case:
        write(read() | found)
    if found:
        show(found, out)
    failed = behind.run(options.case) if "behind" in (options.names or names) else []
    return 1 if failed or any(result.failed for result in found.values()) else 0


def run(clients: Sequence[Client], prefix: str) -> dict[str, Result]:
    folders: dict[str, Path] = {}
    found: dict[str, Result] = {}
    for client in clients:
        out.print(f"{client.name}: environment")
        try:
            folders[client.name] = installed(client)
        except NotInstalled as error:
            out.print(f"[red]{client.name}[/]: {error}", highlight=False)
            found[client.name] = Result(client.versions, {"environment": f"failed: {str(error).splitlines()[0]}"})
    out.print("Letta, a model and a gateway start")
    with tempfile.TemporaryDirectory(prefix="frontdesk-compat-") as place, stage(Path(place)) as ready:
        for client in clients:
            if client.name in folders:
                out.print(f"{client.name}: cases")
                found[client.name] = judged(client, folders[client.name], ready, prefix)
    return found


def judged(client: Client, folder: Path, ready: Stage, prefix: str) -> Result:
    """Run the client's script, and judge with it what came of each case."""
    agent = f"Milo of {client.name}"
    agent_id = ready.agent(agent)
    environment = inherited() | {
        "HOME": str(folder),
        "PYTHONPATH": str(KIT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COMPAT_BASE_URL": ready.gateway.base_url,
        "COMPAT_API_KEY": KEY,
        "COMPAT_MODEL": agent,
        "COMPAT_APIS": ",".join(ready.apis()),
        "COMPAT_ONLY": prefix,
        "COMPAT_VARIANT": client.variant,
    }
    lines, trouble = spoken(command(client, folder), environment, folder)
    outcomes = {line.case: outcome(client, line, ready, agent_id) for line in lines}
    for name, case in CASES.items():
        if name not in outcomes and case.everywhere and name.startswith(prefix):
            outcomes[name] = "failed: the script said nothing of it"
    if any(said.startswith("failed") for said in outcomes.values()):
        out.print(trouble[-6000:], style="dim", highlight=False, markup=False)
    return Result(client.versions, {name: outcomes[name] for name in CASES if name in outcomes})


def spoken(arguments: Sequence[str], environment: dict[str, str], folder: Path) -> tuple[list[Line], str]:
    """What a script says, line by line, and what else it says."""
    try:
        done = subprocess.run(
            arguments, env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS
        )
        output, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        output, errors = late.stdout or b"", late.stderr or b""
    lines = [line for line in output.splitlines() if line.startswith(b'{"case":')]
    return [msgspec.json.decode(line, type=Line) for line in lines], errors.decode(errors="replace")


def outcome(client: Client, line: Line, ready: Stage, agent_id: str) -> str:
    """The script's word, what is seen behind the gateway, and what is known to fall short."""
    kind, why = line.outcome, line.why
    if kind == "passed":
        try:
            CASES[line.case].check(ready, agent_id, line.marker)
        except AssertionError as error:
            kind, why = "failed", f"behind the gateway: {error}"[:1500]
    known = SHORTFALLS.get((client.name, line.case))
    if known and kind == "failed" and known.says in why:
        return f"falls short: {known.why}"
    if known and kind == "passed":
        return "failed: it passes now: take it out of SHORTFALLS"
    return f"{kind}: {why}" if why else kind


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
