"""The server's workers during a load: asked of TorchServe's management API, or of the metrics of who scales them."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from suffuse.errors import ClientError, InputError
from suffuse.serving.management import Management

POLL_S = 1.0

Count = Callable[[], float | None]
"""How many workers there are now; None where nobody says."""


@dataclass(frozen=True)
class Workers:
    """Numbers of ready workers over time.

    Args:
        sources: where they were read.
        times_s: when, in seconds from the load's start.
        counts: at each time one of each source; None where it did not answer.
    """

    sources: tuple[str, ...] = ()
    times_s: tuple[float, ...] = ()
    counts: tuple[tuple[float | None, ...], ...] = ()

    @property
    def totals(self) -> list[float | None]:
        """At each time, of all sources that answered; None where none did."""
        return [
            sum(known) if (known := [one for one in of_sources if one is not None]) else None
            for of_sources in self.counts
        ]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"sources": self.sources, "times_s": self.times_s, "counts": self.counts, "totals": self.totals}


class WorkersWatch(threading.Thread):
    """Reads numbers of workers until it is stopped.

    Args:
        sources: management URLs of TorchServe, or addresses of Prometheus metrics, which end in ``/metrics``.
        model: whose workers.
        key_file: of the management key.

    Raises:
        InputError: a source is no such address, or cannot be read now.
    """

    def __init__(self, sources: Sequence[str], model: str, key_file: Path | str | None = None) -> None:
        super().__init__(name="suffuse-workers", daemon=True)
        self._sources = tuple(sources)
        self._samples: list[tuple[float, tuple[float | None, ...]]] = []
        self._over = threading.Event()
        with ExitStack() as connections:
            self._counts = [_count_at(source, model, key_file, connections) for source in self._sources]
            for source, count in zip(self._sources, self._counts, strict=True):
                if count() is None:
                    raise InputError(
                        f"{source}: no number of workers of model {model!r} can be read there; expected the management "
                        "address of a TorchServe, or metrics of `suffuse autoscale` or HAProxy, which end in /metrics"
                    )
            self._connections = connections.pop_all()

    def run(self) -> None:
        """Read; for `start`."""
        while self._sources and not self._over.is_set():
            self._samples.append((time.time(), tuple(count() for count in self._counts)))
            self._over.wait(POLL_S)

    def stop(self, started_at: float) -> Workers:
        """End it.

        Args:
            started_at: when the load began, in seconds since 1970.
        """
        self._over.set()
        self.join()
        self._connections.close()
        since = [(now - started_at, counts) for now, counts in self._samples]
        return Workers(self._sources, tuple(time_s for time_s, _ in since), tuple(counts for _, counts in since))


def _count_at(source: str, model: str, key_file: Path | str | None, connections: ExitStack) -> Count:
    if urlsplit(source).scheme not in ("http", "https") or not urlsplit(source).hostname:
        raise InputError(f"{source!r} is no address of workers; expected http://HOST:PORT or http://HOST:PORT/metrics")
    if urlsplit(source).path.endswith("/metrics"):
        http = connections.enter_context(httpx.Client(trust_env=False, timeout=2))
        return lambda: _from_metrics(http, source, model)
    management = connections.enter_context(Management(source, key_file=key_file, timeout_s=2))
    return lambda: _from_management(management, model)


def _from_management(management: Management, model: str) -> float | None:
    try:
        return management.describe(model).ready_workers
    except ClientError:
        return None


def _from_metrics(http: httpx.Client, source: str, model: str) -> float | None:
    try:
        reply = http.get(source)
    except httpx.HTTPError:
        return None
    return workers_in(reply.text, model) if reply.is_success else None


def workers_in(metrics: str, model: str) -> float | None:
    """The number of ready workers that Prometheus metrics tell.

    Args:
        metrics: in the text format: those of `suffuse autoscale`, or of HAProxy, whose servers are counted that are up.
        model: whose workers; HAProxy's backend is ``rest_MODEL``.
    """
    with suppress(ValueError):  # no Prometheus text
        for name, label, value in _METRICS:
            wanted = {label: value.format(model)}
            found = [
                sample.value
                for family in text_string_to_metric_families(metrics)
                for sample in family.samples
                if sample.name == name and wanted.items() <= sample.labels.items()
            ]
            if found:
                return sum(found)
    return None


_METRICS = (
    ("suffuse_ready_workers", "model", "{}"),
    ("haproxy_backend_active_servers", "proxy", "rest_{}"),
)
