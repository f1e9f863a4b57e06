"""An instance must be taken out only where another one is left, and be idle before anything is done to it."""

import re
from pathlib import Path

import httpx
import pytest

from suffuse.balancing.admin import AdminSocket
from suffuse.balancing.drain import Drain, emptied
from suffuse.balancing.record import InstanceRecord, StackRecord
from suffuse.errors import ServerError
from suffuse.serving.management import Management

URL = "http://127.0.0.1:1"


class FakeAdmin(AdminSocket):
    """HAProxy with two instances of one model; `sessions` of i1 end one by one as they are looked at."""

    def __init__(self) -> None:
        super().__init__(Path("none"))
        self.status = {"i1": "UP", "i2": "UP"}
        self.sessions = 0
        self.commands: list[str] = []

    def command(self, text: str) -> str:
        if text != "show stat":
            self.commands.append(text)
            return ""
        rows = ["# pxname,svname,status,scur"]
        for backend in ("rest_m", "grpc_m"):
            rows += [f"{backend},{name},{status},{self.sessions}" for name, status in self.status.items()]
            rows.append(f"{backend},BACKEND,UP,0")
        self.sessions = max(0, self.sessions - 1)
        return "\n".join(rows)


@pytest.fixture
def admin() -> FakeAdmin:
    return FakeAdmin()


@pytest.fixture
def drain(admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> Drain:
    monkeypatch.setattr("suffuse.balancing.drain._POLL_S", 0.0)
    return Drain(admin, ("m",), "i1")


@pytest.fixture
def pending(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What TorchServe says is in its queue, asked again and again; then it does not answer any more."""
    answers: list[int] = []

    def reply(request: httpx.Request) -> httpx.Response:
        if not answers:
            raise httpx.ConnectError("refused")
        model = {"modelName": "m", "modelVersion": "1", "minWorkers": 1, "maxWorkers": 1, "batchSize": 1}
        queue = {"remainingCapacity": 9, "pendingRequests": answers.pop(0)}
        return httpx.Response(200, json=[{**model, "maxBatchDelay": 1, "workers": [], "jobQueueStatus": queue}])

    def connect(url: str, **_: object) -> Management:
        return Management(url, transport=httpx.MockTransport(reply))

    monkeypatch.setattr("suffuse.balancing.drain.Management", connect)
    return answers


def test_instance_is_drained_and_put_back_in_both_backends(drain: Drain, admin: FakeAdmin) -> None:
    drain.begin()
    drain.end()

    assert admin.commands == [
        f"set server {backend}_m/i1 state {state}" for state in ("drain", "ready") for backend in ("rest", "grpc")
    ]


def test_requests_of_an_instance_are_sent_elsewhere_in_both_backends(drain: Drain, admin: FakeAdmin) -> None:
    drain.cut()

    assert admin.commands == [f"set server {backend}_m/i1 state maint" for backend in ("rest", "grpc")]


@pytest.mark.parametrize("status", ["DOWN", "DRAIN", "MAINT", "no check"])
def test_only_instance_that_is_up_is_left_alone(drain: Drain, admin: FakeAdmin, status: str) -> None:
    admin.status["i2"] = status
    expected = "instance i1 cannot be drained: no other instance of model 'm' is up; wait until one is"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        drain.begin()
    assert admin.commands == []


def test_instance_is_idle_when_its_requests_and_its_queue_have_ended(
    drain: Drain, admin: FakeAdmin, pending: list[int]
) -> None:
    admin.sessions = 3
    pending += [2, 1, 0, 7]

    drain.await_idle(URL, 20.0)

    assert (admin.sessions, pending) == (0, [7])


def test_instance_that_does_not_answer_has_no_queue_to_wait_for(
    drain: Drain, admin: FakeAdmin, pending: list[int]
) -> None:
    admin.sessions = 2

    drain.await_idle(URL, 20.0)

    assert (admin.sessions, pending) == (0, [])


def test_requests_that_do_not_end_are_told(drain: Drain, admin: FakeAdmin, pending: list[int]) -> None:
    admin.sessions = 1000

    with pytest.raises(ServerError, match=r"^instance i1 still has \d+ requests after 0 s of draining$"):
        drain.await_idle(URL, 0.0)


def test_instance_is_up_when_both_backends_say_so(drain: Drain, admin: FakeAdmin) -> None:
    drain.await_up(20.0)
    admin.status["i1"] = "DOWN 1/2"

    with pytest.raises(ServerError, match=r"^instance i1 is not up in the balancer after 0 s$"):
        drain.await_up(0.0)


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, admin: FakeAdmin) -> StackRecord:
    monkeypatch.setattr("suffuse.balancing.drain.AdminSocket", lambda _: admin)
    monkeypatch.setattr("suffuse.balancing.drain._POLL_S", 0.0)
    instances = (InstanceRecord("i0", "", "", "http://127.0.0.1:2", None), InstanceRecord("i1", "", "", URL, None))
    return StackRecord("", "", None, None, instances, Path("none"), "", Path("none"), ("m",), 1, 2)


def test_instance_loses_workers_while_it_is_drained(record: StackRecord, admin: FakeAdmin, pending: list[int]) -> None:
    admin.sessions = 2
    pending += [1, 0, 0]

    with emptied(record, URL):
        meanwhile = (list(admin.commands), admin.sessions, list(pending))

    drained, ready = (
        [f"set server {backend}_m/i1 state {state}" for backend in ("rest", "grpc")] for state in ("drain", "ready")
    )
    assert meanwhile == (drained, 0, [0])
    assert admin.commands == [*drained, *ready]


def test_instance_that_cannot_be_emptied_is_put_back(
    record: StackRecord, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch, pending: list[int]
) -> None:
    monkeypatch.setattr("suffuse.balancing.drain._EMPTY_LIMIT_S", 0.0)
    admin.sessions = 1000
    refused = pytest.raises(ServerError, match=r"^instance i1 still has \d+ requests after 0 s of draining$")

    with refused, emptied(record, URL):
        pytest.fail("it was taken for empty")
    assert admin.commands[-1] == "set server grpc_m/i1 state ready"
