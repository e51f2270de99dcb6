"""Metrics for Prometheus, in a registry of their own. docs/metrics.md says what each of them means.

Nothing a caller makes up becomes a label: methods and routes outside the known ones are `other`, and so are agents
beyond the first `max_agents`. The cost of a turn is a few additions for each batch; the rest is done at its end.

Several processes `share` a folder: each counts in files there, and whichever is asked adds all of them up. This is the
library's own way. Source: https://prometheus.github.io/client_python/multiprocess/
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import (
    MultiProcessCollector,
    mark_process_dead,  # pyright: ignore[reportUnknownVariableType]
)
from prometheus_client.registry import Collector

from frontdesk.errors import GatewayError
from frontdesk.turn import Event, ToolRunFinished, TurnFinished, Usage

Child = TypeVar("Child")
Made = TypeVar("Made", covariant=True)

OTHER = "other"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TURN_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
FIRST_TOKEN_SECONDS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 30, 60)

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The library's name for the shared folder."""
READ_SECONDS = 1.0
"""How often each process writes there what it does not count but read, such as its memory."""


def share(folder: Path, worker: int) -> None:
    """From now on this process counts in files of this folder, where others do too.

    `worker` is its number there. The next process of that number goes on with the counters, so that none is lost and
    there are never more files than workers.
    """
    os.environ[SHARED] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # pyright: ignore[reportUnknownMemberType]


def forget(folder: Path, worker: int) -> None:
    """The worker of this number has ended: what it had running and held is no more. What it counted stays."""
    mark_process_dead(worker, str(folder))


class Family(Generic[Child]):
    """A metric with labels. Finding the child of given labels costs the library 13 µs each time; here it is kept."""

    def __init__(self, metric: "_Labelled[Child]") -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], Child] = {}

    def labels(self, *values: str) -> Child:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child


class _Labelled(Protocol[Made]):
    def labels(self, *values: str) -> Made: ...


class Metrics:
    def __init__(self, max_agents: int = 200) -> None:
        self._max_agents = max_agents
        self._agents: set[tuple[str, str]] = set()
        self._budgets: set[str] = set()
        self._folder = os.environ.get(SHARED)
        self.registry = registry = CollectorRegistry()
        if self._folder:
            every_second(ProcessMetrics(registry).read)
        else:
            ProcessCollector(registry=registry)
        self._requests = Family(
            Counter(
                "frontdesk_requests_total",
                "HTTP requests answered.",
                ["method", "route", "status"],
                registry=registry,
            )
        )
        self._request_seconds = Family(
            Histogram(
                "frontdesk_request_duration_seconds",
                "Time from a request's arrival to the end of its answer.",
                ["method", "route"],
                buckets=REQUEST_SECONDS,
                registry=registry,
            )
        )
        self._errors = Family(
            Counter(
                "frontdesk_errors_total", "Errors told to callers, by their public code.", ["code"], registry=registry
            )
        )
        self._tasks = Family(
            Counter(
                "frontdesk_background_tasks_total",
                "Background tasks of chat clients answered, by kind and by how.",
                ["kind", "policy"],
                registry=registry,
            )
        )
        self._repeats = Family(
            Counter(
                "frontdesk_repeated_requests_total",
                "Requests that repeated another: they joined its turn, or were given its answer again.",
                ["how"],
                registry=registry,
            )
        )
        self._spent = Family(
            Counter(
                "frontdesk_budget_spent_total",
                "What was charged to budgets, in their unit: US dollars, or tokens.",
                ["budget", "unit"],
                registry=registry,
            )
        )
        self._backend_calls = Family(
            Counter(
                "frontdesk_backend_calls_total",
                "Calls to a backend, by operation and outcome (ok, error).",
                ["backend", "operation", "outcome"],
                registry=registry,
            )
        )
        self._backend_seconds = Family(
            Histogram(
                "frontdesk_backend_call_duration_seconds",
                "How long calls to a backend took.",
                ["backend", "operation"],
                buckets=REQUEST_SECONDS,
                registry=registry,
            )
        )
        self._waiting = Gauge(
            "frontdesk_waiting_turns",
            "Turns that wait for a free place.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._turns = TurnMetrics(registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. `route` is the path's template; empty where none matched."""
        method = method if method in METHODS else OTHER
        route = route or OTHER
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def turn(self, backend: str, agent: str) -> "TurnMeter":
        """Begin to measure a turn. `agent` is the name by which the operator knows it, never the caller's words."""
        return TurnMeter(self._turns, backend, self._agent(backend, agent))

    def background_task(self, kind: str, policy: str) -> None:
        self._tasks.labels(kind, policy).inc()

    def repeat(self, how: str) -> None:
        """Count a request that was no turn of its own: `joined` or `replayed`."""
        self._repeats.labels(how).inc()

    def spent(self, budget: str, unit: str, amount: Decimal) -> None:
        """Count what was charged to a budget. The operator, or the author of an agent, has named it."""
        self._spent.labels(self._budget(budget), unit).inc(float(amount))

    def error(self, code: str) -> None:
        self._errors.labels(code).inc()

    def backend_call(self, backend: str, operation: str, seconds: float, ok: bool) -> None:
        """Count a call to a backend. `operation` is a name of ours, not a path."""
        self._backend_calls.labels(backend, operation, "ok" if ok else "error").inc()
        self._backend_seconds.labels(backend, operation).observe(seconds)

    def waiting(self, read: Callable[[], float]) -> None:
        """Where to read how many turns wait for a place."""
        if self._folder:
            every_second(lambda: self._waiting.set(read()))
        else:
            self._waiting.set_function(read)

    def render(self) -> tuple[bytes, str]:
        """The page, and its content type."""
        collector = MultiProcessCollector(None, self._folder) if self._folder else self.registry
        return generate_latest(_Shown(collector)), CONTENT_TYPE_LATEST

    def _budget(self, name: str) -> str:
        """As for agents, which may each have their own."""
        if name not in self._budgets:
            if len(self._budgets) >= self._max_agents:
                return OTHER
            self._budgets.add(name)
        return name

    def _agent(self, backend: str, agent: str) -> str:
        if (backend, agent) in self._agents:
            return agent
        if len(self._agents) >= self._max_agents:
            return OTHER
        self._agents.add((backend, agent))
        return agent


class TurnMetrics:
    """What is known of turns."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["backend", "agent"]
        self.active = Family(
            Gauge(
                "frontdesk_active_turns",
                "Turns running now.",
                ["backend"],
                registry=registry,
                multiprocess_mode="livesum",
            )
        )
        self.total = Family(
            Counter(
                "frontdesk_turns_total",
                "Turns ended, by finish reason, error code, or cancelled.",
                [*labels, "outcome"],
                registry=registry,
            )
        )
        self.seconds = Family(
            Histogram(
                "frontdesk_turn_duration_seconds",
                "How long turns ran.",
                labels,
                buckets=TURN_SECONDS,
                registry=registry,
            )
        )
        self.first_token_seconds = Family(
            Histogram(
                "frontdesk_time_to_first_token_seconds",
                "Time from a turn's start to the first thing its agent said, thought or did.",
                labels,
                buckets=FIRST_TOKEN_SECONDS,
                registry=registry,
            )
        )
        self.events = Family(
            Counter(
                "frontdesk_events_total",
                "Events that agents sent, mostly fragments of text.",
                labels,
                registry=registry,
            )
        )
        self.tokens = Family(
            Counter(
                "frontdesk_tokens_total",
                "Tokens by kind: input, output; cached is a part of input, reasoning of output.",
                [*labels, "kind"],
                registry=registry,
            )
        )


class TurnMeter:
    """Watches one turn. Flushes once, at its end."""

    __slots__ = ("_agent", "_backend", "_began", "_ended", "_events", "_finished", "_first", "_metrics")

    def __init__(self, metrics: TurnMetrics, backend: str, agent: str) -> None:
        self._metrics = metrics
        self._backend = backend
        self._agent = agent
        self._events = 0
        self._first: float | None = None
        self._finished: TurnFinished | None = None
        self._ended = False
        self._began = time.perf_counter()
        metrics.active.labels(backend).inc()

    def batch(self, events: Sequence[Event]) -> None:
        """Count what one read brought. TurnFinished, if there, is its last event."""
        if not events:
            return
        self._events += len(events)
        if self._first is None and not isinstance(events[0], ToolRunFinished | TurnFinished):
            self._first = time.perf_counter()
        last = events[-1]
        if type(last) is TurnFinished:
            self._finished = last

    def end(self, error: BaseException | None) -> None:
        """The turn is over. Only the first call counts."""
        if self._ended:
            return
        self._ended = True
        metrics, labels = self._metrics, (self._backend, self._agent)
        metrics.active.labels(self._backend).dec()
        metrics.total.labels(*labels, self._outcome(error)).inc()
        metrics.seconds.labels(*labels).observe(time.perf_counter() - self._began)
        metrics.events.labels(*labels).inc(self._events)
        if self._first is not None:
            metrics.first_token_seconds.labels(*labels).observe(self._first - self._began)
        if self._finished:
            self._count_tokens(self._finished.usage)

    def _count_tokens(self, usage: Usage) -> None:
        counts = {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cached": usage.cached_tokens,
            "reasoning": usage.reasoning_tokens,
        }
        for kind, count in counts.items():
            if count > 0:
                self._metrics.tokens.labels(self._backend, self._agent, kind).inc(count)

    def _outcome(self, error: BaseException | None) -> str:
        """A turn that was finished before its reader went away was not cancelled."""
        match error:
            case GatewayError():
                return error.public_code
            case None | asyncio.CancelledError() | GeneratorExit():
                return self._finished.stop_reason.value if self._finished else "cancelled"
            case _:
                return GatewayError.code


class ProcessMetrics:
    """What the library tells of one process, for several: added up, but for the start, which is the newest one's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._source = ProcessCollector(registry=None)
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._counted: dict[str, float] = {}
        for metric in self._source.collect():
            name, about = metric.name, metric.documentation
            if metric.type == "counter":
                self._counters[name] = Counter(name, about, registry=registry)
            else:
                mode = "livemax" if name == "process_start_time_seconds" else "livesum"
                self._gauges[name] = Gauge(name, about, registry=registry, multiprocess_mode=mode)

    def read(self) -> None:
        for metric in self._source.collect():
            name, value = metric.name, metric.samples[0].value
            if metric.type == "counter":  # it goes on where the process before it ended
                self._counters[name].inc(value - self._counted.get(name, 0.0))
                self._counted[name] = value
            else:
                self._gauges[name].set(value)


def every_second(act: Callable[[], None]) -> None:
    """Do this now and every second, as long as the process lives: other processes cannot ask this one."""

    def go() -> None:
        while True:
            with suppress(RuntimeError):  # what it counts may change meanwhile
                act()
            time.sleep(READ_SECONDS)

    threading.Thread(target=go, name="metrics", daemon=True).start()


class _Shown:
    """A page without the `_created` series, which double it and which nobody asks for."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        for metric in self._collector.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
