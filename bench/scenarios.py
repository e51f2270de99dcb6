"""What is measured: the scenarios, the targets, and one measurement of one on the other."""

import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager

import msgspec

from bench import shapes
from bench.check import problems
from bench.fake_letta import FakeLetta
from bench.load import Outcome
from bench.processes import Child, PeakMemory, StartError, fetch, python
from bench.shapes import Config

AGENTS = 20
MAX_LATE_MS = 50.0
STEPS = (100, 200, 300, 400, 500, 600, 800, 1000)
TRIES = 2


class Scenario(msgspec.Struct, frozen=True):
    """A load: how the fake speaks, and what the client asks for."""

    name: str
    config: Config
    concurrency: int
    total: int
    plain: bool = False
    warm: int = 0

    @property
    def unit(self) -> int:
        """By how much the CPU time of one stream is divided: its upstream events, or 1 for plain requests."""
        return 1 if self.plain else self.config.events


def scenarios(quick: bool) -> dict[str, list[Scenario]]:
    """The scenarios of every round, by the name that `--only` takes."""
    return {
        "ttft": [Scenario("ttft", Config(pace_ms=2, reasoning=1, text=1), 1, 100 if quick else 400, warm=10)],
        "burst": [
            Scenario("burst 1", Config(), 1, 150 if quick else 300),
            Scenario("burst 10", Config(), 10, 500 if quick else 1000),
            Scenario("burst 50", Config(), 50, 300 if quick else 500),
            Scenario("burst long", Config(reasoning=730, text=500), 10, 50 if quick else 100),
        ],
        "paced": [paced(100, 50)],
        "plain": [Scenario("plain", Config(reasoning=0, text=3), 10, 2000 if quick else 5000, plain=True)],
    }


def paced(streams: int, tokens_per_second: int) -> Scenario:
    """So many streams at once, one each per connection, at the given speed."""
    name = f"{streams} x {tokens_per_second}"
    return Scenario(name, Config(pace_ms=1000 // tokens_per_second), streams, streams)


def large(quick: bool) -> Scenario:
    """1,000 streams of 20 tokens per second; shorter ones when it has to be quick."""
    config = Config(pace_ms=50, reasoning=45, text=25) if quick else Config(pace_ms=50)
    return Scenario("large", config, 1000, 1000)


class Target(msgspec.Struct, frozen=True):
    """What is put under load, and how to start another of it."""

    name: str
    start: Callable[[], Child]
    models: list[str]

    @property
    def direct(self) -> bool:
        return self.name == "direct"

    def kind(self, scenario: Scenario) -> str:
        if self.direct:
            return "letta"
        return "plain" if scenario.plain else "chat"


class Sample(msgspec.Struct, frozen=True):
    """One measurement. Times in milliseconds unless their name says otherwise."""

    scenario: str
    target: str
    round: int
    values: dict[str, float]
    errors: dict[str, int]


def load(url: str, target: Target, scenario: Scenario) -> Outcome:
    """Run the load client in a process of its own."""
    options = {
        "url": url,
        "kind": target.kind(scenario),
        "concurrency": scenario.concurrency,
        "total": scenario.total,
        "reasoning": scenario.config.reasoning,
        "text": scenario.config.text,
        "warm": scenario.warm,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    arguments += [f"--model={model}" for model in target.models]
    done = subprocess.run(python("bench.load", *arguments), capture_output=True, check=False)
    if done.returncode:
        raise StartError(f"The load client failed:\n{done.stderr.decode()}")
    return msgspec.json.decode(done.stdout, type=Outcome)


def measure(fake: FakeLetta, child: Child, target: Target, scenario: Scenario, number: int) -> Sample:
    """Load a running target, and count its CPU time."""
    fake.configure(**msgspec.structs.asdict(scenario.config))
    own, upstream = child.cpu_seconds(), fake.cpu_seconds()
    outcome = load(child.url, target, scenario)
    own, upstream = child.cpu_seconds() - own, fake.cpu_seconds() - upstream
    units = scenario.total * scenario.unit
    stats = fake.stats()
    values = {
        "cpu_us": own / units * 1e6,
        "fake_us": upstream / units * 1e6,
        "client_us": outcome.cpu_seconds / units * 1e6,
        "per_core": units / own * scenario.config.pace_ms / 1000,
        "cores": own / outcome.wall_seconds,
        "per_second": units * outcome.right / outcome.total / outcome.wall_seconds,
        "first_p50": outcome.first.p50,
        "first_p99": outcome.first.p99,
        "late_p50": outcome.late.p50,
        "late_p99": outcome.late.p99,
        "chunks": outcome.chunks / max(1, outcome.right),
        "open": stats.peak_streams,
        "connections": stats.connections,
    }
    return Sample(scenario.name, target.name, number, values, outcome.errors)


def measure_fresh(fake: FakeLetta, target: Target, scenario: Scenario, number: int) -> Sample:
    """Load a target that has just been started, and watch its memory."""
    with started(target, fake) as child:
        idle = child.rss_mb()
        with PeakMemory(child) as memory:
            sample = measure(fake, child, target, scenario, number)
        per_stream = (memory.mb - idle) * 1024 / max(1.0, sample.values["open"])
        memories = {"idle_mb": idle, "peak_mb": memory.mb, "stream_kb": per_stream, "start_s": child.start_seconds}
        return msgspec.structs.replace(sample, values=sample.values | memories)


@contextmanager
def started(target: Target, fake: FakeLetta) -> Generator[Child]:
    """A target that runs and has answered once, correctly. Direct access is the fake itself."""
    if target.direct:
        yield fake
        return
    with target.start() as child:
        fake.configure(**msgspec.structs.asdict(Config(reasoning=3, text=3)))
        body = {"model": target.models[0], "stream": True, "messages": [{"role": "user", "content": "Hello. #check#"}]}
        try:
            reply = fetch(f"{child.url}/v1/chat/completions", msgspec.json.encode(body))
        except OSError as error:
            raise StartError(f"{target.name} does not answer: {error}\n{child.log()}") from error
        if found := problems(reply, reasoning=3, text=3):
            raise StartError(f"{target.name} does not answer as it should: {'; '.join(found)}\n{reply.decode()}")
        yield child


class Capacity(msgspec.Struct):
    """How many streams of 50 tokens per second a target keeps in time, and what was wrong with the steps after that."""

    streams: int = 0
    problems: list[str] = []

    def note(self, streams: int, problem: str) -> None:
        if problem:
            self.problems.append(problem)
        else:
            self.streams, self.problems = streams, []

    @property
    def ended(self) -> bool:
        return len(self.problems) == 2

    @property
    def text(self) -> str:
        return f"{self.streams}" if self.problems else f"at least {self.streams}"


def climb(fake: FakeLetta, running: list[tuple[Target, Child]]) -> dict[str, Capacity]:
    """Put ever more streams on each target, until it fails two steps in a row, or direct access fails one."""
    reached = {target.name: Capacity() for target, _ in running}
    for streams in STEPS:
        scenario = paced(streams, 50)
        base = 0.0
        for target, child in running:
            capacity = reached[target.name]
            if capacity.ended:
                continue
            problem, late = _in_time(fake, child, target, scenario, base)
            base = late if target.direct else base
            capacity.note(streams, problem)
        if any(target.direct and reached[target.name].problems for target, _ in running):
            break
    return reached


def _in_time(fake: FakeLetta, child: Child, target: Target, scenario: Scenario, base: float) -> tuple[str, float]:
    """What is wrong, empty if nothing, and the lateness. A step may fail once: neighbours are noisy."""
    problem, late = "", 0.0
    for _ in range(TRIES):
        sample = measure(fake, child, target, scenario, 0)
        late = sample.values["late_p99"]
        if sample.errors:
            problem = f"{scenario.concurrency}: {sample.errors}"
        elif late - base > MAX_LATE_MS:
            problem = f"{scenario.concurrency}: p99 {late - base:.0f} ms late"
        else:
            return "", late
    return problem, late


def direct(fake: FakeLetta) -> Target:
    """Access to the fake without anything between."""
    return Target("direct", lambda: fake, [shapes.agent_id(number) for number in range(AGENTS)])


def names() -> list[str]:
    """The models a proxy is asked for."""
    return [shapes.agent_name(number) for number in range(AGENTS)]
