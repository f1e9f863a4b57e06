"""The hosts of tests of the controller, in memory."""

import pytest
from tests.autoscale.fakes import FakeBalancer, FakeNetwork, FakeServer


@pytest.fixture
def server() -> FakeServer:
    """At http://a:8081, with one worker."""
    return FakeServer()


@pytest.fixture
def other() -> FakeServer:
    """At http://b:8081, with one worker."""
    return FakeServer()


@pytest.fixture
def balancer() -> FakeBalancer:
    """Its exporter is at http://h:8404/metrics."""
    return FakeBalancer()


@pytest.fixture
def network(server: FakeServer, other: FakeServer, balancer: FakeBalancer) -> FakeNetwork:
    """Leads to all of them."""
    return FakeNetwork({"a": server, "b": other, "h": balancer})
