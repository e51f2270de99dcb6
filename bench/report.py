"""The answer as markdown: one table, the gates, and the machine."""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import timeit
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bench import shapes
from bench.processes import ROOT
from bench.scenarios import Capacity, Sample

PACKAGES = ("aiohttp", "fastapi", "frontdesk", "httptools", "msgspec", "starlette", "uvicorn", "uvloop")


class Row(msgspec.Struct, frozen=True):
    """A line of the table: one value of one scenario."""

    label: str
    scenario: str
    value: str
    digits: int = 1
    ratio: bool = False  # divide by the floor
    added: bool = False  # subtract direct access
    direct: bool = True  # has a meaning for direct access


ROWS = [
    Row("first token, C=1, p50 ms", "ttft", "first_p50", 2, added=True),
    Row("first token, C=1, p99 ms", "ttft", "first_p99", 2, added=True),
    Row("**CPU µs per event, burst, C=10**", "burst 10", "cpu_us", 2, ratio=True, direct=False),
    Row("chunks per reply of 123 tokens, burst, C=10", "burst 10", "chunks", 1),
    Row("**CPU µs per event, 100 × 50 tok/s**", "100 x 50", "cpu_us", 1, ratio=True, direct=False),
    Row("streams of 50 tok/s one core carries, by that", "100 x 50", "per_core", 0, ratio=True, direct=False),
    Row("lateness p50 ms, 100 × 50 tok/s", "100 x 50", "late_p50", 2, added=True),
    Row("lateness p99 ms, 100 × 50 tok/s", "100 x 50", "late_p99", 2, added=True),
    Row("CPU µs per event, burst, C=1", "burst 1", "cpu_us", 2, ratio=True, direct=False),
    Row("CPU µs per event, burst, C=50", "burst 50", "cpu_us", 2, ratio=True, direct=False),
    Row("CPU µs per event, bursts of 1,234 events, C=10", "burst long", "cpu_us", 2, ratio=True, direct=False),
    Row("events/s unpaced, C=1", "burst 1", "per_second", 0, ratio=True),
    Row("events/s unpaced, C=10", "burst 10", "per_second", 0, ratio=True),
    Row("events/s unpaced, C=50", "burst 50", "per_second", 0, ratio=True),
    Row("plain requests/s, C=10", "plain", "per_second", 0, ratio=True),
    Row("CPU µs per plain request", "plain", "cpu_us", 0, ratio=True, direct=False),
    Row("connections the fake accepted in the first-token runs", "ttft", "connections", 0),
    Row("1,000 × 20 tok/s: CPU µs per event", "large", "cpu_us", 1, ratio=True, direct=False),
    Row("1,000 × 20 tok/s: cores used", "large", "cores", 2, direct=False),
    Row("1,000 × 20 tok/s: open at once", "large", "open", 0),
    Row("1,000 × 20 tok/s: first token p99 ms", "large", "first_p99", 0, added=True),
    Row("1,000 × 20 tok/s: lateness p50 ms", "large", "late_p50", 1, added=True),
    Row("1,000 × 20 tok/s: lateness p99 ms", "large", "late_p99", 1, added=True),
    Row("memory idle, MB", "large", "idle_mb", 0, ratio=True, direct=False),
    Row("memory at the peak of 1,000, MB", "large", "peak_mb", 0, ratio=True, direct=False),
    Row("memory per stream, KB", "large", "stream_kb", 1, direct=False),
    Row("start to first answer, s", "large", "start_s", 2, direct=False),
    Row("*the fake's own CPU µs per event, burst*", "burst 10", "fake_us", 2),
    Row("*the client's own CPU µs per event, burst*", "burst 10", "client_us", 2),
    Row("*the fake's own CPU µs per event, paced*", "100 x 50", "fake_us", 1),
    Row("*the client's own CPU µs per event, paced*", "100 x 50", "client_us", 1),
]


class Samples:
    """All measurements, to be asked for."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = list(samples)

    def values(self, scenario: str, target: str, value: str) -> list[float]:
        """One value of every round."""
        wanted = [sample for sample in self.samples if (sample.scenario, sample.target) == (scenario, target)]
        return [sample.values[value] for sample in wanted if value in sample.values]

    def ratios(self, scenario: str, target: str, value: str) -> list[float]:
        """To the floor, round by round."""
        pairs = zip(self.values(scenario, target, value), self.values(scenario, "floor", value), strict=False)
        return [own / floor for own, floor in pairs if floor]

    def added(self, scenario: str, target: str, value: str) -> list[float]:
        """Over direct access, round by round."""
        pairs = zip(self.values(scenario, target, value), self.values(scenario, "direct", value), strict=False)
        return [own - direct for own, direct in pairs]

    def errors(self, target: str) -> dict[str, int]:
        """All that was wrong with replies, over all rounds."""
        found: dict[str, int] = {}
        for sample in self.samples:
            for problem, count in sample.errors.items() if sample.target == target else ():
                found[f"{sample.scenario}: {problem}"] = found.get(f"{sample.scenario}: {problem}", 0) + count
        return found


def cell(values: list[float], digits: int = 1, sign: str = "") -> str:
    """`median (min..max)`; an empty list is a dash."""
    if not values:
        return "–"
    middle = f"{statistics.median(values):{sign},.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}..{max(values):,.{digits}f})"


def table(samples: Samples, targets: list[str], capacity: dict[str, Capacity]) -> str:
    """The one table."""
    proxies = [name for name in targets if name != "direct"]
    compared = [name for name in proxies if name != "floor"]
    heads = [*targets, *(f"{name} ÷ floor" for name in compared), *(f"{name} − direct" for name in proxies)]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row in ROWS:
        cells = [
            cell(samples.values(row.scenario, name, row.value) if row.direct or name != "direct" else [], row.digits)
            for name in targets
        ]
        if all(one == "–" for one in cells):
            continue
        cells += [cell(samples.ratios(row.scenario, name, row.value) if row.ratio else [], 2) for name in compared]
        added = [samples.added(row.scenario, name, row.value) if row.added else [] for name in proxies]
        cells += [cell(values, row.digits, "+") for values in added]
        lines.append(f"| {row.label} | {' | '.join(cells)} |")
    if capacity:
        cells = [capacity[name].text for name in targets] + ["–"] * (len(compared) + len(proxies))
        lines.append(f"| streams of 50 tok/s kept in time | {' | '.join(cells)} |")
    return "\n".join(lines)


class Gate(msgspec.Struct, frozen=True):
    """A limit, and what was measured."""

    label: str
    measured: float
    limit: float
    goal: float | None = None
    unit: str = "×"
    at_least: bool = False

    def holds(self, limit: float) -> bool:
        return self.measured >= limit if self.at_least else self.measured <= limit

    @property
    def passed(self) -> bool:
        return self.holds(self.limit)

    @property
    def line(self) -> str:
        sign = "≥" if self.at_least else "≤"
        goal = ""
        if self.goal is not None:
            goal = f"; goal {sign} {self.goal:g}{self.unit}: {'reached' if self.holds(self.goal) else 'not yet'}"
        verdict = "PASS" if self.passed else "FAIL"
        return f"- **{verdict}** {self.label}: {self.measured:.2f}{self.unit} ({sign} {self.limit:g}{self.unit}{goal})"


def gates(samples: Samples, target: str) -> list[Gate]:
    """What the product must keep."""
    made: list[Gate] = []
    if ratios := samples.ratios("burst 10", target, "cpu_us"):
        made.append(Gate("CPU per event in bursts, to the floor", statistics.median(ratios), 2.0, 1.5))
    if ratios := samples.ratios("100 x 50", target, "cpu_us"):
        made.append(Gate("CPU per event paced, to the floor", statistics.median(ratios), 2.4, 1.7))
    if added := samples.added("100 x 50", target, "late_p99"):
        made.append(Gate("added lateness p99, 100 × 50 tok/s", statistics.median(added), 50.0, unit=" ms"))
    made.append(Gate("replies not whole, in order and their own", sum(samples.errors(target).values()), 0.0, unit=""))
    return made


def goals(samples: Samples, target: str) -> list[Gate]:
    """What the product strives for: absolute figures for a quiet 2.5 GHz core, so they are not gated."""
    wanted = [
        ("added first token p50", samples.added("ttft", target, "first_p50"), 0.6, " ms", False),
        ("added first token p99", samples.added("ttft", target, "first_p99"), 3.0, " ms", False),
        ("plain requests per second", samples.values("plain", target, "per_second"), 2000.0, "", True),
        ("CPU per plain request", samples.values("plain", target, "cpu_us"), 450.0, " µs", False),
        ("1,000 × 20 tok/s: CPU per event", samples.values("large", target, "cpu_us"), 50.0, " µs", False),
        ("1,000 × 20 tok/s: first token p99", samples.values("large", target, "first_p99"), 500.0, " ms", False),
        ("1,000 × 20 tok/s: added lateness p99", samples.added("large", target, "late_p99"), 50.0, " ms", False),
        ("memory idle", samples.values("large", target, "idle_mb"), 60.0, " MB", False),
        ("memory with 1,000 streams", samples.values("large", target, "peak_mb"), 110.0, " MB", False),
        ("start to first answer", samples.values("large", target, "start_s"), 0.7, " s", False),
    ]
    return [
        Gate(label, statistics.median(values), limit, unit=unit, at_least=at_least)
        for label, values, limit, unit, at_least in wanted
        if values
    ]


def machine() -> dict[str, str]:
    """What was measured on: names and values, ready for a table."""
    return {
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        "commit": _commit(),
        "load average at the start": ", ".join(f"{one:.1f}" for one in os.getloadavg()),
        "speed: json.loads of one event": f"{_json_us():.1f} µs",
    }


def _cpu_model() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _json_us() -> float:
    """The best of many: says how fast the machine is, so that figures of two machines can be compared."""
    event = shapes.turn(shapes.Config(), 12, None)[1].split(b"data: ")[1]
    timer = timeit.Timer("loads(event)", "from json import loads", globals={"event": event})
    return min(timer.repeat(30, 500)) / 500 * 1e6


def markdown(
    samples: Samples, targets: list[str], capacity: dict[str, Capacity], about: dict[str, str], heading: str
) -> str:
    """The whole answer."""
    parts = [
        heading,
        "\n".join(f"- {name}: {value}" for name, value in about.items()),
        table(samples, targets, capacity),
    ]
    parts += [f"Wrong replies, {name}: {problems}" for name in targets if (problems := samples.errors(name))]
    if capacity:
        stops = [f"{name} at {', '.join(one.problems)}" for name, one in capacity.items() if one.problems]
        parts.append(f"Steps of streams end: {'; '.join(stops) or 'nowhere'}.")
    if "gateway" in targets:
        parts += ["Gates:", "\n".join(gate.line for gate in gates(samples, "gateway"))]
        parts += ["Goals (absolute, for a quiet core):", "\n".join(gate.line for gate in goals(samples, "gateway"))]
    return "\n\n".join(parts) + "\n"
