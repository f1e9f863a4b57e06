"""Prometheus must see what was decided, under the names that dashboards, alerts and Kubernetes use."""

import re
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from math import nan

import httpx
import pytest
from prometheus_client import generate_latest

from suffuse.autoscale.controller import Event
from suffuse.autoscale.exporter import Exporter
from suffuse.autoscale.policy import Signals
from suffuse.errors import ServerError

A, B = "http://a:8081", "http://b:8081"
EVENT = Event(
    datetime(2026, 1, 2, tzinfo=UTC), "m", 4, "load", Signals(50.0, 0.04, 7, 2, 2, 1), {A: (2, 3)}, {B: "no answer"}
)


def shown(exporter: Exporter) -> str:
    return generate_latest(exporter.registry).decode()


def test_decision_becomes_metrics() -> None:
    exporter = Exporter("m", (A, B))

    exporter.observe(EVENT)

    lines = shown(exporter).splitlines()
    for line in (
        'suffuse_wished_workers{model="m"} 4.0',
        'suffuse_ready_workers{model="m"} 2.0',
        'suffuse_starting_workers{model="m"} 1.0',
        'suffuse_arrival_rate{model="m"} 50.0',
        'suffuse_service_seconds{model="m"} 0.04',
        'suffuse_backlog{model="m"} 7.0',
        'suffuse_decisions_total{model="m",reason="load"} 1.0',
        f'suffuse_server_up{{model="m",server="{A}"}} 1.0',
        f'suffuse_server_up{{model="m",server="{B}"}} 0.0',
    ):
        assert line in lines


def test_measurements_that_could_not_be_made_keep_their_last_values() -> None:
    exporter = Exporter("m", (A, B))
    exporter.observe(EVENT)

    exporter.observe(replace(EVENT, reason="unreadable", signals=Signals(nan, nan, nan, nan, 2, 1)))

    assert 'suffuse_backlog{model="m"} 7.0' in shown(exporter)
    assert 'suffuse_decisions_total{model="m",reason="unreadable"} 1.0' in shown(exporter)


def test_metrics_are_served_while_they_should_be(free_ports: Callable[[int], list[int]]) -> None:
    exporter = Exporter("m", (A,))
    exporter.observe(EVENT)
    (port,) = free_ports(1)

    with exporter.serve("127.0.0.1", port):
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text

    assert 'suffuse_wished_workers{model="m"} 4.0' in text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)


def test_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        message = f"port {port} (metrics) on 127.0.0.1: Address already in use; choose another with --metrics-port"

        with pytest.raises(ServerError, match=f"^{re.escape(message)}$"), Exporter("m", ()).serve("127.0.0.1", port):
            pass
