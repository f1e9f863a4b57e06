"""Each decision as metrics for Prometheus: what was wished, what there is, and why."""

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from suffuse.autoscale.controller import Event
from suffuse.errors import ServerError


class Exporter:
    """The metrics of one model's controller.

    Args:
        model: its name.
        servers: management URLs.
    """

    def __init__(self, model: str, servers: tuple[str, ...]) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self._servers = servers
        self._wished = self._gauge("wished_workers", "Workers that there should be, on all servers together")
        self._ready = self._gauge("ready_workers", "Workers that take requests")
        self._starting = self._gauge("starting_workers", "Workers that were asked for and do not take requests yet")
        self._rate = self._gauge("arrival_rate", "Requests a second, also those that were refused")
        self._service = self._gauge("service_seconds", "Seconds of a worker for one request")
        self._backlog = self._gauge("backlog", "Requests that wait")
        self._decisions = Counter(
            "suffuse_decisions", "Decisions, by their reason", ["model", "reason"], registry=self.registry
        )
        self._up = Gauge(
            "suffuse_server_up", "1 where the server could be read", ["model", "server"], registry=self.registry
        )

    def observe(self, event: Event) -> None:
        """Show a decision; measurements that could not be made keep their last values."""
        signals = event.signals
        self._wished.set(event.wished)
        self._ready.set(signals.ready)
        self._starting.set(signals.starting)
        if signals.readable:
            self._rate.set(signals.arrival_rate_per_s)
            self._service.set(signals.service_s)
            self._backlog.set(signals.backlog)
        self._decisions.labels(self._model, event.reason).inc()
        for server in self._servers:
            self._up.labels(self._model, server).set(server in event.servers)

    @contextlib.contextmanager
    def serve(self, host: str, port: int) -> Iterator[None]:
        """Answer at http://HOST:PORT/metrics.

        Raises:
            ServerError: the port cannot be had.
        """
        try:
            server, thread = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise ServerError(
                f"port {port} (metrics) on {host}: {error.strerror or error}; choose another with --metrics-port"
            ) from error
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"suffuse_{name}", meaning, ["model"], registry=self.registry).labels(self._model)
