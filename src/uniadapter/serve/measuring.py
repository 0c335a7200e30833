"""What `/metrics` tells, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from uniadapter.serve.service import Service

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counts of one server.

    Args:
        service: whose batches and files are told.
    """

    def __init__(self, service: Service) -> None:
        self._service, self._registry = service, CollectorRegistry()
        self._requests = Counter(
            "uniadapter_requests", "Requests by path and status.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "uniadapter_request_seconds", "Seconds of a request.", ["path"], buckets=_SECONDS, registry=self._registry
        )
        self._waiting = Gauge("uniadapter_waiting", "Requests that wait for a batch.", registry=self._registry)
        self._batch = Gauge(
            "uniadapter_batch_size", "Mean requests of a batch, of the last 1,000.", registry=self._registry
        )
        self._files = Gauge("uniadapter_files", "Pictures and videos that can be found.", registry=self._registry)

    def count(self, path: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            path: of the route, without what stands for its parameters.
            status: of HTTP.
            seconds: that it took.
        """
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All of it."""
        sizes = self._service.batcher.sizes
        self._waiting.set(self._service.batcher.waiting)
        self._batch.set(sum(sizes) / len(sizes) if sizes else 0)
        self._files.set(len(self._service.items))
        return generate_latest(self._registry)
