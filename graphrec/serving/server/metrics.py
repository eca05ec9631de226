"""Metrics for Prometheus."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
METHODS = ("GET", "POST", "HEAD")


class Metrics:
    """What a service counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter("graphrec_requests", "Requests answered.", (*labels, "status"), registry=self.registry)
        self._seconds = Histogram(
            "graphrec_request_seconds",
            "From the request to its answer.",
            labels,
            buckets=SECONDS,
            registry=self.registry,
        )
        self._events = Counter(
            "graphrec_events",
            "Events taken, those sent twice too.",
            ("kind",),
            registry=self.registry,
        )
        self._items = Counter("graphrec_items_joined", "Items that joined.", registry=self.registry)
        self._reloads = Counter("graphrec_reloads", "Runs loaded while serving.", ("outcome",), registry=self.registry)
        self._coverage = Gauge(
            "graphrec_coverage", "Share of all items that were in a list.", ("model",), registry=self.registry
        )
        self._lost = Gauge(
            "graphrec_lists_lost", "Lists that could not be kept for the report.", registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        self._series = lru_cache(512)(self._make_series)  # finding a series by its labels is slower than counting

    def _make_series(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(method, route, status), self._seconds.labels(method, route)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        requests, histogram = self._series(method if method in METHODS else "other", route, status)
        requests.inc()
        histogram.observe(seconds)

    def count_events(self, kinds: list[str]) -> None:
        """Count events that were taken, those known already too."""
        for kind in kinds:
            self._events.labels(kind).inc()

    def count_items(self, new: int) -> None:
        """Count items that joined."""
        self._items.inc(new)

    def count_reload(self, outcome: str) -> None:
        """Count a run that was loaded, or could not be."""
        self._reloads.labels(outcome).inc()

    def text(self, coverage: dict[str, float], lists_lost: int = 0) -> bytes:
        """Return all of it in Prometheus' text format."""
        self._lost.set(lists_lost)
        for model, share in coverage.items():
            self._coverage.labels(model).set(share)
        return generate_latest(self.registry)
