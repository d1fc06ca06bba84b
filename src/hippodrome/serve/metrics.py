"""What a server counts, for Prometheus: its own registry, so that two servers in a process count apart."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hippodrome.generate.engine import Engine

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics")
STEPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class _Engine(Collector):
    """The engine's own counts, read when someone asks."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def collect(self) -> Iterable[Metric]:
        """The metrics as of now."""
        load = self.engine.load()
        for name, value, text in (
            ("writing", load.writing, "Answers that are being written."),
            ("reading", load.reading, "Answers whose prompts are being read."),
            ("waiting", load.waiting, "Answers that wait in the queue."),
            ("state_bytes", load.state_bytes, "Memory of the states of answers being written."),
            ("cache_bytes", load.cache_bytes, "Memory of states kept for prompts that begin alike."),
        ):
            yield GaugeMetricFamily(f"hippodrome_{name}", text, value)
        for name, value, text in (
            ("prompt_tokens", load.read, "Tokens of prompts that were read."),
            ("cached_tokens", load.cached, "Tokens of prompts whose state was at hand."),
            ("completion_tokens", load.written, "Tokens written."),
            ("rounds", load.rounds, "Tokens of the whole batch."),
        ):
            yield CounterMetricFamily(f"hippodrome_{name}", text, value)


class Metrics:
    """Counts of one server."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Engine(engine))
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "hippodrome_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.first_token = Histogram(
            "hippodrome_first_token_seconds",
            "From a request to the first text of its answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.next_token = Histogram(
            "hippodrome_next_token_seconds",
            "An answer's time after its first token, for each token.",
            buckets=STEPS,
            registry=self.registry,
        )
        self.whole = Histogram(
            "hippodrome_request_seconds",
            "From a request to the end of its answer.",
            buckets=SECONDS,
            registry=self.registry,
        )

    def count(self, path: str, status: int) -> None:
        """An answer. 499 is one whose client went away before it; paths that are no routes count as one."""
        self.requests.labels(path if path in ROUTES else "other", str(status)).inc()

    def text(self) -> bytes:
        """In the format that Prometheus reads."""
        return generate_latest(self.registry)
