"""`python -m bench.agents`: agents written in Python, served by the gateway, and bare from the same Pydantic AI run."""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from bench.load import Outcome
from bench.processes import ROOT, Child, StartError, free_port, python

FRONTDESK = str(Path(sys.executable).parent / "frontdesk")
COLUMNS = (
    "case",
    "bare, CPU per chunk",
    "gateway, `:stateless`",
    "ratio",
    "kept conversations",
    "first token bare, p50 / p99 ms",
    "`:stateless`",
    "kept",
    "p99 lateness, ms",
    "right",
)
GATE_CPU = 1.15
GATE_FIRST_MS = 2.0


class Case(msgspec.Struct, frozen=True):
    """How the model speaks, and how many listen at once."""

    name: str
    tokens: int
    pace_ms: float
    concurrency: int
    total: int
    warm: int = 0


CASES = (
    Case("one at a time, first token", 2, 2, 1, 200, warm=20),
    Case("50 × 20 tok/s", 60, 50, 50, 100, warm=1),
    Case("20 × 50 tok/s, long", 900, 20, 20, 20),
    Case("bursts of 200", 200, 0, 10, 100, warm=1),
    Case("1,000 × 1 tok/s", 10, 1000, 1000, 1000),
)


class Measured(msgspec.Struct, frozen=True):
    """CPU in microseconds of the server's per chunk, times in milliseconds."""

    cpu_us: float
    first_p50: float
    first_p99: float
    late_p99: float
    right: int
    total: int


def measured(start: Callable[[Case, str], Child], case: Case, model: str) -> Measured:
    """One run of a case on a server just started."""
    with tempfile.TemporaryDirectory() as folder, start(case, folder) as child:
        load_of(child.url, model, Case("warm", case.tokens, 0, 4, 4), kind="chat")
        own = child.cpu_seconds()
        outcome: Outcome = load_of(child.url, model, case, kind="chat")
        own = child.cpu_seconds() - own
    per_chunk = own / (case.total * case.tokens) * 1e6
    late = outcome.late.p99
    return Measured(per_chunk, outcome.first.p50, outcome.first.p99, late, outcome.right, outcome.total)


def load_of(url: str, model: str, case: Case, kind: str) -> Outcome:
    """The load client, in a process of its own."""
    options = {
        "url": url,
        "kind": kind,
        "concurrency": case.concurrency,
        "total": case.total,
        "reasoning": 0,
        "text": case.tokens,
        "warm": case.warm,
        "model": model,
    }
    command = python("bench.load", *(f"--{name}={value}" for name, value in options.items()))
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise StartError(f"The load client failed:\n{done.stderr.decode()}")
    return msgspec.json.decode(done.stdout, type=Outcome)


def environment(case: Case, folder: str) -> dict[str, str]:
    return {
        "BENCH_TOKENS": str(case.tokens),
        "BENCH_PACE_MS": str(case.pace_ms),
        "XDG_DATA_HOME": folder,
        "XDG_CONFIG_HOME": folder,
        "PYTHONPATH": str(ROOT),
    }


def bare(case: Case, folder: str) -> Child:
    port = free_port()
    command = python("bench.bare", f"--port={port}")
    return Child("bare", command, port=port, ready="/health/ready", env=environment(case, folder))


def gateway(case: Case, folder: str) -> Child:
    port = free_port()
    command = [FRONTDESK, "serve", "--agents", "bench.talker:agent", "--port", str(port)]
    env = environment(case, folder) | {"FRONTDESK_LOG_LEVEL": "info"}
    return Child("gateway", command, port=port, ready="/health/ready", env=env, cwd=folder)


def row(case: Case, rounds: int) -> str:
    pairs = [(measured(bare, case, "talker"), measured(gateway, case, "talker:stateless")) for _ in range(rounds)]
    kept = [measured(gateway, case, "talker") for _ in range(1)]
    ratio = statistics.median(ours.cpu_us / base.cpu_us for base, ours in pairs)
    base, ours = (middle([pair[side] for pair in pairs]) for side in (0, 1))
    right = f"{min(each.right for _, each in pairs)} of {case.total}"
    return (
        f"| {case.name} | {base.cpu_us:.0f} µs | {ours.cpu_us:.0f} µs | **{ratio:.2f}×** | {kept[0].cpu_us:.0f} µs"
        f" | {base.first_p50:.1f} / {base.first_p99:.1f} | {ours.first_p50:.1f} / {ours.first_p99:.1f}"
        f" | {kept[0].first_p50:.1f} / {kept[0].first_p99:.1f} | {base.late_p99:.0f} → {ours.late_p99:.0f} | {right} |"
    )


def middle(each: list[Measured]) -> Measured:
    return sorted(each, key=lambda one: one.cpu_us)[len(each) // 2]


def table(rounds: int, only: Sequence[str] = ()) -> Iterator[str]:
    """The lines of the table, as they are measured."""
    yield f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    for case in CASES:
        if not only or any(part in case.name for part in only):
            yield f"{row(case, rounds)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.agents", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="a part of a case's name; may be given repeatedly")
    options = parser.parse_args()
    for line in table(options.rounds, options.only):
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
