"""Where the policy's signals come from: TorchServe's own management API and metrics, or HAProxy's counters before it.

Both say how many requests came, how many wait and which workers there are; only the balancer sees what waits in its own
queue and what it refused. A server that cannot be read, or says what cannot be, is named and left out of the reading.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from suffuse.autoscale.arrival_rate import LONG_S, arrival_rate
from suffuse.autoscale.scrape import (
    ProxyCounters,
    ServerCounters,
    UnreadableError,
    proxy_counters,
    server_counters,
)
from suffuse.errors import ClientError, InputError
from suffuse.serving.management import Management, ModelState

TIMEOUT_S = 2.0
"""Of one question; a management port answers in milliseconds."""

_LONGEST_LOOK_S = 0.25
_SLACK_S = 0.1  # polls are not exactly as far apart as they should be
_T = TypeVar("_T")


@dataclass(frozen=True)
class Endpoint:
    """One TorchServe.

    Args:
        url: of its management port; it is also what the server is called in logs and metrics.
        key_file: its key_file.json; None where it asks for no key.
        metrics_url: of its metrics; None where they are not needed.
    """

    url: str
    key_file: Path | None = None
    metrics_url: str | None = None


@dataclass(frozen=True)
class ServerView:
    """One server at one moment.

    Args:
        server: its management URL.
        ready: workers that take requests.
        asked: workers that it keeps up, started or not.
        bound: its upper bound on them.
        batch_size: requests that a worker takes at once, at most.
        pending: requests in its queue.
        remaining: requests that the queue still takes.
        counters: None where its metrics are not needed.
    """

    server: str
    ready: int
    asked: int
    bound: int
    batch_size: int
    pending: int
    remaining: int
    counters: ServerCounters | None = None


@dataclass(frozen=True)
class Reading:
    """All that could be read at one moment.

    Args:
        at_s: when, in seconds of a clock that does not stop.
        views: the servers that could be read.
        errors: why others could not, by URL; a balancer is one of them.
        arrival_rate_per_s: None where it cannot be told.
        backlog: requests that wait, in the balancer and in the servers.
        in_flight: requests that workers have in hand; None where nobody counts them.
    """

    at_s: float
    views: tuple[ServerView, ...]
    errors: Mapping[str, str] = field(default_factory=dict)
    arrival_rate_per_s: float | None = None
    backlog: float = 0.0
    in_flight: float | None = None

    @property
    def ready(self) -> int:
        """Workers that take requests."""
        return sum(view.ready for view in self.views)

    @property
    def starting(self) -> int:
        """Workers that were asked for and do not take requests yet."""
        return sum(max(0, view.asked - view.ready) for view in self.views)


class Source(Protocol):
    """Reads signals, again and again."""

    def read(self, now_s: float) -> Reading:
        """Ask everybody; what does not answer is in `errors`.

        Args:
            now_s: of a clock that does not stop.
        """


class Probe:
    """One server's management API and metrics, for one model; a context manager.

    Args:
        endpoint: the server.
        model: its name.
        transport: stands in for the network in tests.
    """

    def __init__(self, endpoint: Endpoint, model: str, transport: httpx.BaseTransport | None = None) -> None:
        self.endpoint = endpoint
        self._model = model
        self._management = Management(
            endpoint.url, key_file=endpoint.key_file, timeout_s=TIMEOUT_S, transport=transport
        )
        self._http = httpx.Client(timeout=TIMEOUT_S, transport=transport, trust_env=False)

    def view(self) -> ServerView:
        """How the server stands.

        Raises:
            UnreadableError: it does not answer, or says what cannot be.
        """
        try:
            state = self._management.describe(self._model)
        except (ClientError, OverflowError) as error:  # the latter: JSON's Infinity where a number of workers should be
            raise UnreadableError(str(error)) from error
        _check(state, self._model, self.endpoint.url)
        url = self.endpoint.metrics_url
        return ServerView(
            server=self.endpoint.url,
            ready=state.ready_workers,
            asked=state.min_workers,
            bound=state.max_workers,
            batch_size=state.batch_size,
            pending=state.pending,
            remaining=state.remaining,
            counters=None if url is None else server_counters(self._http, url, self._model),
        )

    def scale(self, workers: int) -> None:
        """Ask for a number of workers and return at once.

        Raises:
            ClientError: the server does not answer, or refuses.
        """
        self._management.scale(self._model, workers)

    def idle_since(self, before: ServerView) -> bool:
        """Whether nothing has come since a view and for as long as a batch takes, so that workers have nothing in hand.

        Args:
            before: of this server, just now.
        """
        if before.counters is None:
            return False
        time.sleep(min(_LONGEST_LOOK_S, 2 * (before.counters.batch_s or 0.0)))
        try:
            after = self.view()
        except UnreadableError:
            return False
        return after.counters is not None and after.pending == 0 and after.counters.arrived == before.counters.arrived

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._management.close()
        self._http.close()


class TorchServeSource:
    """Signals from the servers alone.

    Args:
        probes: the servers, with metrics.
    """

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = probes
        self._rates = {probe.endpoint.url: Rate() for probe in probes}

    def read(self, now_s: float) -> Reading:
        """As `Source.read`."""
        views, errors = _views(self._probes)
        for view in views:
            if view.counters is not None:
                self._rates[view.server].add(now_s, view.counters.arrived)
        return Reading(
            at_s=now_s,
            views=views,
            errors=errors,
            arrival_rate_per_s=sum(self._rates[view.server].per_s for view in views) if views else None,
            backlog=sum(view.pending for view in views),
        )


class BalancerSource:
    """Signals from HAProxy's counters; the servers say which workers there are, and what waits in their own queues.

    Args:
        probes: the servers.
        url: HAProxy's Prometheus exporter.
        model: its proxies are called rest_MODEL and grpc_MODEL.
        transport: stands in for the network in tests.
    """

    def __init__(
        self, probes: Sequence[Probe], url: str, model: str, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._probes = probes
        self._url = url
        self._model = model
        self._http = httpx.Client(timeout=TIMEOUT_S, transport=transport, trust_env=False)
        self._rates: dict[str, Rate] = {}

    def read(self, now_s: float) -> Reading:
        """As `Source.read`."""
        views, errors = _views(self._probes)
        try:
            counters = proxy_counters(self._http, self._url, self._model)
        except UnreadableError as error:
            return Reading(now_s, views, {**errors, self._url: str(error)})
        backlog = counters.queued + sum(view.pending for view in views)
        return Reading(
            at_s=now_s,
            views=views,
            errors=errors,
            arrival_rate_per_s=self._rate(now_s, counters),
            backlog=backlog,
            in_flight=max(0.0, counters.sessions - backlog),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def _rate(self, now_s: float, counters: ProxyCounters) -> float:
        for proxy, arrived in counters.arrived.items():
            self._rates.setdefault(proxy, Rate()).add(now_s, arrived)
        return sum(self._rates[proxy].per_s for proxy in counters.arrived)


class Rate:
    """Events a second, as `arrival_rate` has it, out of a counter that may start anew."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._totals: deque[tuple[float, float]] = deque()

    def add(self, now_s: float, count: float) -> None:
        """The counter stands so; a lower count than before is that of a counter that was at 0 meanwhile."""
        total = self._totals[-1][1] if self._totals else 0.0
        if self._last is not None:
            total += count - self._last if count >= self._last else count
        self._last = count
        self._totals.append((now_s, total))
        while len(self._totals) > 2 and self._totals[1][0] <= now_s - LONG_S + _SLACK_S:
            self._totals.popleft()

    @property
    def per_s(self) -> float:
        """Events a second; 0 before the second count."""
        return arrival_rate(self._within)

    def _within(self, window_s: float) -> float:
        if len(self._totals) < 2:
            return 0.0
        now_s, total = self._totals[-1]
        before = [past for past in self._totals if past[0] <= now_s - window_s + _SLACK_S]
        since_s, since = before[-1] if before else self._totals[0]
        return (total - since) / (now_s - since_s) if now_s > since_s else 0.0


def endpoints(
    servers: Sequence[str], key_files: Sequence[Path] = (), metrics_urls: Sequence[str] = ()
) -> tuple[Endpoint, ...]:
    """Servers with what belongs to each.

    Args:
        servers: management URLs, each once.
        key_files: one a server, or none.
        metrics_urls: one a server; none: each server's management port + 1, as TorchServe has it.

    Raises:
        InputError: a URL is none or is given twice, or numbers differ.
    """
    if not servers:
        raise InputError("got no server; expected --server with the URL of a management port")
    for url in servers:
        check_url(url)
    if len(set(servers)) < len(servers):
        raise InputError(f"got the servers {', '.join(servers)}; expected each once")
    for name, values in (("key file", key_files), ("metrics URL", metrics_urls)):
        if values and len(values) != len(servers):
            raise InputError(f"got {len(values)} {name}(s) for {len(servers)} server(s); expected one each, or none")
    for url in metrics_urls:
        check_url(url)
    keys: Sequence[Path | None] = key_files or [None] * len(servers)
    return tuple(
        Endpoint(url.rstrip("/"), key, metrics)
        for url, key, metrics in zip(servers, keys, metrics_urls or map(_usual_metrics, servers), strict=True)
    )


def check_url(url: str) -> None:
    """Refuse what is no URL with a port.

    Raises:
        InputError: it is none.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"got the URL {url!r}; expected one such as http://127.0.0.1:8081, with a port")


def _usual_metrics(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{(parts.port or 0) + 1}/metrics"


def _views(probes: Sequence[Probe]) -> tuple[tuple[ServerView, ...], dict[str, str]]:
    """Ask all servers at once, so that one that does not answer does not hold up the others."""
    with ThreadPoolExecutor(max_workers=len(probes)) as pool:
        answers = list(pool.map(_attempt, [probe.view for probe in probes]))
    views = tuple(answer for answer in answers if isinstance(answer, ServerView))
    errors = {
        probe.endpoint.url: str(answer)
        for probe, answer in zip(probes, answers, strict=True)
        if isinstance(answer, UnreadableError)
    }
    return views, errors


def _attempt(ask: Callable[[], _T]) -> _T | UnreadableError:
    try:
        return ask()
    except UnreadableError as error:
        return error


def _check(state: ModelState, model: str, url: str) -> None:
    """Refuse a description that cannot be true.

    Raises:
        UnreadableError: it is of another model, or a number is none, or negative.
    """
    if state.name != model:
        raise UnreadableError(f"{url}: got a description of model {state.name!r}; expected {model!r}")
    least = {"min_workers": 0, "max_workers": 0, "batch_size": 1, "pending": 0, "remaining": 0}
    for name, low in least.items():
        value = getattr(state, name)
        if type(value) is not int or value < low:
            raise UnreadableError(f"{url}: got {name} {value!r} of model {model!r}; expected a whole number from {low}")
