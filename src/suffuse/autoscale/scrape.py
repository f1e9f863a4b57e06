"""Numbers out of what TorchServe and HAProxy export for Prometheus, and nothing that is not a number."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from suffuse.errors import ServerError

_ARRIVED = "ts_inference_requests_total"
_LATENCY_US = "ts_inference_latency_microseconds"
_QUEUED_US = "ts_queue_latency_microseconds"
_HANDLER_MS = "PredictionTime"
_THREAD_MS = "WorkerThreadTime"
_TORCHSERVE = (_ARRIVED, _LATENCY_US, _QUEUED_US, _HANDLER_MS, _THREAD_MS)

# Counted when a request comes, refused ones too; haproxy_backend_http_requests_total counts it when it ends, which in
# an overload says what was answered and not what came.
_REQUESTS = "haproxy_backend_sessions_total"
_SESSIONS = "haproxy_backend_current_sessions"
_QUEUE = "haproxy_backend_current_queue"
_HAPROXY = (_REQUESTS, _SESSIONS, _QUEUE)

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class UnreadableError(ServerError):
    """Nothing, or no measurements, came from where a server's or a balancer's should be."""


@dataclass(frozen=True)
class ServerCounters:
    """What one TorchServe has counted of one model since it started.

    Args:
        arrived: requests, over REST and gRPC, also those that a full queue refused.
        in_hand_s: seconds that requests over REST spent with a worker, summed; those over gRPC are not in it.
        batch_s: seconds of a worker for the last batch: the handler's, and those of TorchServe's thread beside it;
            None before the first one.
    """

    arrived: float
    in_hand_s: float
    batch_s: float | None


@dataclass(frozen=True)
class ProxyCounters:
    """What HAProxy has counted of one model, over REST and gRPC.

    Args:
        arrived: requests by proxy, also those that it refused.
        sessions: requests under way, waiting or sent.
        queued: those of them that wait in HAProxy.
    """

    arrived: dict[str, float]
    sessions: float
    queued: float


def server_counters(http: httpx.Client, url: str, model: str) -> ServerCounters:
    """Read TorchServe's metrics port.

    Args:
        http: to ask with.
        url: such as ``http://127.0.0.1:8082/metrics``.
        model: its name.

    Raises:
        UnreadableError: there is no such port, or what it says cannot be.
    """
    text = _text(http, url)
    if _ARRIVED not in text:
        raise UnreadableError(
            f"{url}: got no {_ARRIVED}; expected the metrics port of a TorchServe that has "
            "metrics_mode=prometheus in its config.properties"
        )
    samples = _samples(text, _TORCHSERVE, url)
    ours = [sample for sample in samples if model in (sample.labels.get("model_name"), sample.labels.get("ModelName"))]
    handler_ms = [sample.value for sample in ours if sample.name == _HANDLER_MS]
    thread_ms = [sample.value for sample in samples if sample.name == _THREAD_MS]
    return ServerCounters(
        arrived=_total(ours, _ARRIVED),
        in_hand_s=max(0.0, _total(ours, _LATENCY_US) - _total(ours, _QUEUED_US)) / 1e6,
        batch_s=(max(handler_ms) + max(thread_ms, default=0.0)) / 1000 if handler_ms else None,
    )


def proxy_counters(http: httpx.Client, url: str, model: str) -> ProxyCounters:
    """Read HAProxy's Prometheus exporter.

    Args:
        http: to ask with.
        url: such as ``http://127.0.0.1:8404/metrics``.
        model: its name; its proxies are called rest_MODEL and grpc_MODEL.

    Raises:
        UnreadableError: there is no exporter, it knows no such proxies, or what it says cannot be.
    """
    # The lines of all servers would be several times as many; HAProxy takes this, other exporters ignore it.
    text = _text(http, url, {"scope": "backend"})
    samples = _samples(text, _HAPROXY, url)
    names = (f"rest_{model}", f"grpc_{model}")
    ours = [sample for sample in samples if sample.labels.get("proxy") in names]
    if not any(sample.name == _REQUESTS for sample in ours):
        have = ", ".join(sorted({sample.labels.get("proxy", "") for sample in samples})) or "none"
        raise UnreadableError(f"{url}: got the backends {have}; expected {' or '.join(names)}")
    arrived = {sample.labels["proxy"]: sample.value for sample in ours if sample.name == _REQUESTS}
    return ProxyCounters(arrived, sessions=_total(ours, _SESSIONS), queued=_total(ours, _QUEUE))


def _text(http: httpx.Client, url: str, query: Mapping[str, str] | None = None) -> str:
    try:
        reply = http.get(httpx.URL(url).copy_merge_params(query or {}))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnreadableError(f"{url}: no answer ({type(error).__name__}: {error}); expected Prometheus metrics") from (
            error
        )
    if not reply.is_success:
        raise UnreadableError(f"{url}: got status {reply.status_code}; expected Prometheus metrics")
    return reply.text


def _samples(text: str, names: Collection[str], url: str) -> list[Sample]:
    """The samples of these names. Other lines are not parsed, since there are hundreds, twice a second."""
    lines = [line for line in text.splitlines() if (name := _NAME.match(line)) and name[0] in names]
    try:
        families = text_string_to_metric_families("\n".join(lines) + "\n")
        samples = [sample for family in families for sample in family.samples]
    except (ValueError, KeyError, IndexError) as error:
        raise UnreadableError(f"{url}: got what is no Prometheus text ({error})") from error
    for sample in samples:
        if not (isfinite(sample.value) and sample.value >= 0):
            raise UnreadableError(f"{url}: got {sample.name} {sample.value:g}; expected 0 or more")
    return samples


def _total(samples: Iterable[Sample], name: str) -> float:
    return sum(sample.value for sample in samples if sample.name == name)
