"""Signals must be those that the servers and the balancer mean, and what they cannot mean must never pass as one."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tests.autoscale.fakes import BALANCER, METRICS, SERVER, FakeBalancer, FakeNetwork, FakeServer

from suffuse.autoscale.signals import BalancerSource, Endpoint, Probe, Rate, Reading, TorchServeSource, endpoints
from suffuse.errors import InputError

OTHER = "http://b:8081"


@pytest.fixture
def probes(network: FakeNetwork) -> Iterator[list[Probe]]:
    with ExitStack() as stack:
        hosts = [Endpoint(SERVER, metrics_url=METRICS), Endpoint(OTHER, metrics_url="http://b:8082/metrics")]
        yield [stack.enter_context(Probe(host, "m", network.transport())) for host in hosts]


@pytest.fixture
def alone(probes: list[Probe]) -> TorchServeSource:
    return TorchServeSource(probes[:1])


@pytest.fixture
def balanced(probes: list[Probe], network: FakeNetwork) -> Iterator[BalancerSource]:
    with BalancerSource(probes, BALANCER, "m", network.transport()) as source:
        yield source


def only_error(reading: Reading) -> str:
    (error,) = reading.errors.values()
    return error


def test_servers_tell_workers_backlog_and_rate(probes: list[Probe], server: FakeServer, other: FakeServer) -> None:
    source = TorchServeSource(probes)
    server.ready, server.asked, server.pending = 2, 3, 5
    other.pending = 1
    source.read(10.0)
    server.arrived, other.arrived = 30, 10

    reading = source.read(11.0)

    assert (reading.ready, reading.starting, reading.backlog) == (3, 1, 6)
    assert reading.arrival_rate_per_s == 40
    assert reading.in_flight is None
    assert not reading.errors


def test_other_models_of_the_server_are_not_counted(alone: TorchServeSource, server: FakeServer) -> None:
    server.handler_ms, server.thread_ms = 40, 2

    counters = alone.read(0.0).views[0].counters

    assert counters is not None
    assert (counters.arrived, counters.batch_s) == (0, 0.042)


def test_versions_of_a_model_are_counted_together(alone: TorchServeSource, server: FakeServer) -> None:
    line = 'ts_inference_requests_total{{model_name="m",model_version="{}",hostname="vm",}} {}\n'
    server.metrics = line.format("default", 5) + line.format("1.0", 7)

    counters = alone.read(0.0).views[0].counters

    assert counters is not None
    assert counters.arrived == 12


def test_balancer_tells_rate_backlog_and_requests_in_hand(
    balanced: BalancerSource, balancer: FakeBalancer, server: FakeServer
) -> None:
    balanced.read(0.0)
    balancer.rest, balancer.grpc = 60, 20
    balancer.sessions, balancer.queued, server.pending = 12, 7, 2

    reading = balanced.read(2.0)

    assert reading.arrival_rate_per_s == 40
    assert reading.backlog == 9
    assert reading.in_flight == 3


def test_sudden_rate_is_that_of_the_last_second() -> None:
    rate = Rate()
    for now_s, count in ((0.0, 0), (0.5, 50), (1.0, 100), (1.5, 300), (2.0, 500)):
        rate.add(now_s, count)

    assert rate.per_s == 400


def test_rate_after_a_restart_counts_from_zero() -> None:
    rate = Rate()
    for now_s, count in ((0.0, 1000), (1.0, 1010), (2.0, 4)):
        rate.add(now_s, count)

    assert rate.per_s == 7


def test_rate_over_a_gap_is_its_mean() -> None:
    rate = Rate()
    rate.add(0.0, 0)
    rate.add(10.0, 50)

    assert rate.per_s == 5


def test_first_count_is_no_rate() -> None:
    rate = Rate()
    rate.add(0.0, 5000)

    assert rate.per_s == 0


def test_server_that_is_down_is_named_and_the_other_is_read(probes: list[Probe], server: FakeServer) -> None:
    source = TorchServeSource(probes)
    server.down = True

    reading = source.read(0.0)

    assert [view.server for view in reading.views] == [OTHER]
    assert reading.errors == {SERVER: f"{SERVER}/models/m: no connection (refused); is `suffuse serve` running there?"}


@pytest.mark.parametrize("description", [{}, [], [{"modelName": "m"}], "READY", [None], 7])
def test_description_that_is_none_makes_a_server_unreadable(
    description: object, alone: TorchServeSource, server: FakeServer
) -> None:
    server.description = description

    reading = alone.read(0.0)

    shown = json.dumps(description)
    assert not reading.views
    assert reading.arrival_rate_per_s is None
    assert only_error(reading) == (
        f"{SERVER}/models/m: got '{shown}'; expected the description of a model: is this TorchServe's management port?"
    )


def test_description_of_another_model_is_refused(alone: TorchServeSource, server: FakeServer) -> None:
    server.model = "x"

    assert only_error(alone.read(0.0)) == f"{SERVER}: got a description of model 'x'; expected 'm'"


@pytest.mark.parametrize(
    ("field", "name"), [("asked", "min_workers"), ("pending", "pending"), ("remaining", "remaining")]
)
def test_negative_numbers_are_refused(field: str, name: str, alone: TorchServeSource, server: FakeServer) -> None:
    setattr(server, field, -3)

    assert only_error(alone.read(0.0)) == f"{SERVER}: got {name} -3 of model 'm'; expected a whole number from 0"


def test_reply_that_is_no_json_is_refused(probes: list[Probe], network: FakeNetwork) -> None:
    network.hosts["a"] = lambda _: httpx.Response(200, text="<html>")

    message = f"{SERVER}/models/m: got a reply that is not JSON; is this the management port?"
    assert only_error(TorchServeSource(probes[:1]).read(0.0)) == message


@pytest.mark.parametrize("value", ["-5", "NaN", "+Inf"])
def test_metrics_that_cannot_be_are_refused(value: str, alone: TorchServeSource, server: FakeServer) -> None:
    server.metrics = f'ts_inference_requests_total{{model_name="m",}} {value}\n'

    message = f"{METRICS}: got ts_inference_requests_total {float(value):g}; expected 0 or more"
    assert only_error(alone.read(0.0)) == message


def test_metrics_that_are_no_metrics_are_refused(alone: TorchServeSource, server: FakeServer) -> None:
    server.metrics = "ts_inference_requests_total{model_name= many\n"

    assert only_error(alone.read(0.0)).startswith(f"{METRICS}: got what is no Prometheus text (")


def test_port_without_torchserve_metrics_is_explained(alone: TorchServeSource, server: FakeServer) -> None:
    server.metrics = "# EOF\n"

    assert only_error(alone.read(0.0)) == (
        f"{METRICS}: got no ts_inference_requests_total; expected the metrics port of a TorchServe that has "
        "metrics_mode=prometheus in its config.properties"
    )


def test_metrics_are_not_asked_for_where_they_are_not_needed(network: FakeNetwork, server: FakeServer) -> None:
    server.metrics = "garbage"
    with Probe(Endpoint(SERVER), "m", network.transport()) as probe:
        view = probe.view()

    assert view.counters is None


def test_balancer_without_the_model_is_named_with_what_it_has(balanced: BalancerSource, balancer: FakeBalancer) -> None:
    balancer.model = "x"

    reading = balanced.read(0.0)

    assert len(reading.views) == 2
    assert reading.arrival_rate_per_s is None
    assert only_error(reading) == f"{BALANCER}: got the backends grpc_x, other, rest_x; expected rest_m or grpc_m"


def test_balancer_that_is_down_leaves_the_rate_unknown(balanced: BalancerSource, network: FakeNetwork) -> None:
    network.hosts["h"] = lambda _: httpx.Response(503)

    reading = balanced.read(0.0)

    assert reading.arrival_rate_per_s is None
    assert only_error(reading) == f"{BALANCER}: got status 503; expected Prometheus metrics"


def test_expired_key_is_read_anew(tmp_path: Path, server: FakeServer, network: FakeNetwork) -> None:
    key_file = tmp_path / "key_file.json"
    key = "old"

    def with_key(request: httpx.Request) -> httpx.Response:
        if request.headers.get("authorization") != f"Bearer {key}":
            content = {"code": 400, "type": "InvalidKeyException", "message": "Token Authentication failed."}
            return httpx.Response(400, json=content)
        return server(request)

    network.hosts["a"] = with_key
    key_file.write_text(json.dumps({"management": {"key": "old"}}), "utf-8")
    with Probe(Endpoint(SERVER, key_file), "m", network.transport()) as probe:
        probe.view()
        key = "new"
        key_file.write_text(json.dumps({"management": {"key": "new"}}), "utf-8")

        probe.scale(3)

    assert server.scaled == [3]


def test_metrics_are_looked_for_beside_the_management_port() -> None:
    made = endpoints(["http://a:8081", "http://[::1]:9000/"], [Path("k1"), Path("k2")])

    assert made == (
        Endpoint("http://a:8081", Path("k1"), "http://a:8082/metrics"),
        Endpoint("http://[::1]:9000", Path("k2"), "http://[::1]:9001/metrics"),
    )


@pytest.mark.parametrize(
    ("servers", "keys", "metrics", "message"),
    [
        ([], [], [], "got no server; expected --server with the URL of a management port"),
        (["http://a"], [], [], "got the URL 'http://a'; expected one such as http://127.0.0.1:8081, with a port"),
        (["a:8081"], [], [], "got the URL 'a:8081'; expected one such as http://127.0.0.1:8081, with a port"),
        (["http://a:x"], [], [], "got the URL 'http://a:x'; expected one such as http://127.0.0.1:8081, with a port"),
        ([SERVER, SERVER], [], [], f"got the servers {SERVER}, {SERVER}; expected each once"),
        ([SERVER, OTHER], [Path("k")], [], "got 1 key file(s) for 2 server(s); expected one each, or none"),
        ([SERVER], [], [METRICS] * 2, "got 2 metrics URL(s) for 1 server(s); expected one each, or none"),
    ],
)
def test_servers_that_cannot_be_meant_are_refused(
    servers: list[str], keys: list[Path], metrics: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        endpoints(servers, keys, metrics)
