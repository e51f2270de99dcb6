"""`python -m bench`: the gateway, the floor and direct access, in turns; one table with ratios."""

import argparse
import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import msgspec

from bench import agents, report, scenarios
from bench.fake_letta import FakeLetta
from bench.processes import Child, StartError, free_port, python
from bench.scenarios import AGENTS, Capacity, Sample, Scenario, Target

GATEWAY = f"{shlex.quote(str(Path(sys.executable).parent / 'frontdesk'))} serve --port {{port}}"
SUITES = ("ttft", "burst", "paced", "plain", "large", "agents", "capacity")
QUICK = ("ttft", "burst", "paced", "plain", "large")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer rounds, no search for the capacity")
    parser.add_argument("--only", action="append", choices=SUITES, help="may be given several times")
    parser.add_argument("--rounds", type=int, help="default 5, or 3 when quick")
    parser.add_argument("--floor-only", action="store_true", help="leave the gateway out")
    parser.add_argument("--floor-merges", action="store_true", help="let the floor join tokens that came in one read")
    parser.add_argument("--gateway", default=GATEWAY, help="the command to measure; {port} is filled in")
    parser.add_argument("--model", default="{name}", help="what the gateway calls an agent, such as {name}:stateless")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the gateway")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to a file as well")
    parser.add_argument("--gate", action="store_true", help="exit with 1 if a gate fails")
    return parser.parse_args()


def gateway(options: argparse.Namespace, fake: FakeLetta, folder: str) -> Child:
    """A gateway in front of the fake, in an empty folder, without keys."""
    port = free_port()
    env = {
        "LETTA_BASE_URL": fake.url,
        "FRONTDESK_PORT": str(port),
        "XDG_DATA_HOME": folder,
        "XDG_CONFIG_HOME": folder,
        **dict(pair.split("=", 1) for pair in options.env),
    }
    command = shlex.split(options.gateway.format(port=port))
    return Child("gateway", command, port=port, ready="/health/ready", env=env, cwd=folder)


def targets(options: argparse.Namespace, fake: FakeLetta, folder: str) -> list[Target]:
    """All that is compared; direct access first, for the others are compared with it."""
    floor = python("bench.floor", "--letta", fake.url, *["--merge"] * options.floor_merges)
    found = [scenarios.direct(fake), Target("floor", lambda: Child("floor", floor), scenarios.names())]
    if not options.floor_only:
        models = [options.model.format(name=name) for name in scenarios.names()]
        found.append(Target("gateway", lambda: gateway(options, fake, folder), models))
    return found


def say(text: str) -> None:
    """Progress, apart from the answer."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


class Run:
    """One run of everything that was asked for."""

    def __init__(self, options: argparse.Namespace, fake: FakeLetta, compared: list[Target]) -> None:
        self.fake = fake
        self.targets = compared
        self.quick: bool = options.quick
        self.suites: set[str] = set(options.only or (QUICK if options.quick else SUITES))
        self.rounds: int = options.rounds or (3 if options.quick else 5)
        self.samples: list[Sample] = []
        self.capacity: dict[str, Capacity] = {}

    @contextlib.contextmanager
    def running(self) -> Generator[list[tuple[Target, Child]]]:
        with contextlib.ExitStack() as stack:
            yield [(target, stack.enter_context(scenarios.started(target, self.fake))) for target in self.targets]

    def run(self) -> None:
        wanted = scenarios.scenarios(self.quick)
        listed = [scenario for suite in wanted if suite in self.suites for scenario in wanted[suite]]
        if "large" in self.suites:
            self.run_large(scenarios.large(self.quick), 1 if self.quick else 2)
        if listed or "capacity" in self.suites:
            with self.running() as running:
                for number in range(self.rounds):
                    self.run_round(listed, running, number)
                if "capacity" in self.suites:
                    say("How many streams of 50 tok/s")
                    self.capacity = scenarios.climb(self.fake, running)

    def run_round(self, listed: list[Scenario], running: list[tuple[Target, Child]], number: int) -> None:
        """Every scenario on every target; who is first changes with the round."""
        for scenario in listed:
            say(f"Round {number + 1} of {self.rounds}: {scenario.name}")
            shift = number % len(running)
            for target, child in running[shift:] + running[:shift]:
                self.samples.append(scenarios.measure(self.fake, child, target, scenario, number))

    def run_large(self, scenario: Scenario, rounds: int) -> None:
        for number in range(rounds):
            say(f"Round {number + 1} of {rounds}: 1,000 streams of 20 tok/s")
            for target in self.targets:
                self.samples.append(scenarios.measure_fresh(self.fake, target, scenario, number))


def answer(run: Run, options: argparse.Namespace, about: dict[str, str]) -> bool:
    """Print the answer; says whether all gates hold."""
    samples = report.Samples(run.samples)
    names = [target.name for target in run.targets]
    mode = "quick" if run.quick else "full"
    heading = (
        f"Measured {time.strftime('%Y-%m-%d %H:%M')} with `python -m bench` ({mode}, {run.rounds} rounds, in turns):"
    )
    sys.stdout.write(report.markdown(samples, names, run.capacity, about, heading))
    kept = report.gates(samples, "gateway") if "gateway" in names else []
    if options.json is not None:
        everything = {"machine": about, "samples": run.samples, "capacity": run.capacity, "gates": kept}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(everything)))
    return all(gate.passed for gate in kept)


def main() -> int:
    """Measure, and tell."""
    options = arguments()
    about = report.machine()
    try:
        with tempfile.TemporaryDirectory(prefix="frontdesk-bench-") as folder, FakeLetta(AGENTS) as fake:
            run = Run(options, fake, targets(options, fake, folder))
            run.run()
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    about["load average at the end"] = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    kept = answer(run, options, about) or not options.gate
    if "agents" in run.suites and not options.floor_only:
        sys.stdout.write("\nAgents in Python, and bare from the same Pydantic AI run:\n\n")
        sys.stdout.writelines(agents.table(1 if run.quick else 3))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
