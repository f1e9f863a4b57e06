"""A stack must come up whole or not at all, keep HAProxy and instances running, and tell others where everything is."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from suffuse.balancing.config import BalancerConfig
from suffuse.balancing.record import StackRecord
from suffuse.balancing.stack import Stack, StackConfig
from suffuse.errors import BundleError, InputError, ServerError
from suffuse.serving.settings import Archive, ServerConfig, refuse_taken_ports

EVENTS: list[str] = []


class FakeHAProxy:
    """Notes what is done with it; ends when its `exit_status` is set."""

    last: ClassVar["FakeHAProxy"]

    def __init__(self, config: BalancerConfig, token: str | None) -> None:
        self.config = config
        self.token = token
        self.admin = object()
        self.pid = 0
        self.exit_status: int | None = None
        self.listeners: dict[str, tuple[str, int]] = {}
        FakeHAProxy.last = self

    def check(self) -> None:
        EVENTS.append("check")

    def start(self) -> None:
        self.pid += 100
        self.exit_status = None
        EVENTS.append("haproxy starts")

    def reload(self) -> None:
        EVENTS.append("reload")

    def stop(self, _grace_s: float) -> None:
        EVENTS.append("haproxy stops")


class FakeKeeper(threading.Thread):
    """An instance that is ready at once, unless `broken` names it."""

    broken: ClassVar[set[str]] = set()
    made: ClassVar[dict[str, "FakeKeeper"]] = {}

    def __init__(self, name: str, config: ServerConfig) -> None:
        super().__init__()
        self.made[name] = self
        self.instance = name
        self.config = config
        self.starts = 0
        self.ready = False
        self.loss: str | None = None
        self._ending = threading.Event()

    def run(self) -> None:
        self.ready = self.instance not in self.broken
        self._ending.wait(20.0)
        EVENTS.append(f"{self.instance} ends")

    def refuse_failed_start(self) -> None:
        if self.instance in self.broken:
            raise ServerError(f"instance {self.instance}: port taken")

    def restart_lost_workers(self) -> None:
        self.loss = None
        EVENTS.append(f"{self.instance} restarts its workers")

    def start_again(self) -> None:
        self.loss = None
        EVENTS.append(f"{self.instance} starts again")

    def await_ready(self, _timeout_s: float, *, beyond: int) -> None:
        EVENTS.append(f"{self.instance} is awaited beyond {beyond}")

    def request_stop(self) -> None:
        self._ending.set()


class FakeDrain:
    """Notes what is done with it."""

    busy: ClassVar[bool] = False
    alone: ClassVar[bool] = False

    def __init__(self, _admin: object, models: tuple[str, ...], instance: str) -> None:
        self._instance = f"{instance} of {','.join(models)}"

    def begin(self) -> None:
        if self.alone:
            raise ServerError("no other instance is up")
        EVENTS.append(f"drain {self._instance}")

    def cut(self) -> None:
        EVENTS.append("cut")

    def end(self) -> None:
        EVENTS.append("undrain")

    def await_idle(self, url: str, _timeout_s: float) -> None:
        if self.busy:
            raise ServerError("still has requests")
        EVENTS.append(f"idle at {url}")

    def await_up(self, _timeout_s: float) -> None:
        EVENTS.append("up")


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    EVENTS.clear()
    monkeypatch.setattr(FakeKeeper, "broken", set())
    monkeypatch.setattr("suffuse.balancing.stack.HAProxy", FakeHAProxy)
    monkeypatch.setattr("suffuse.balancing.stack.InstanceKeeper", FakeKeeper)
    monkeypatch.setattr("suffuse.balancing.stack.Drain", FakeDrain)
    monkeypatch.setattr("suffuse.balancing.stack.refuse_taken_ports", lambda _: None)
    monkeypatch.setattr("suffuse.balancing.stack._POLL_S", 0.01)
    monkeypatch.setattr("suffuse.balancing.stack._LOSS_LOOK_S", 0.01)
    for module in ("stack", "instances"):
        monkeypatch.setattr(
            f"suffuse.balancing.{module}.find_archives",
            lambda _: (Archive("m1.mar", "m", "1", 1), Archive("m2.mar", "m", "2", 1), Archive("n.mar", "n", "1", 1)),
        )


@pytest.fixture
def config(tmp_path: Path) -> StackConfig:
    """Two instances, of which no port is opened."""
    return StackConfig(ServerConfig(Path("store")), port=100, first_instance_port=200, state=tmp_path / "s")


@pytest.fixture
def stack(config: StackConfig) -> Iterator[Stack]:
    with Stack(config) as running:
        yield running


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stack_is_ready_when_haproxy_and_all_instances_are(stack: Stack) -> None:
    assert (stack.ready, EVENTS) == (True, ["check", "haproxy starts"])


def test_each_model_is_balanced_once_whatever_its_versions(stack: Stack) -> None:
    balancer = FakeHAProxy.last.config

    assert balancer.models == ("m", "n")
    assert [instance.name for instance in balancer.instances] == list(stack.instances) == ["i1", "i2"]


def test_token_is_made_and_handed_to_haproxy(stack: Stack) -> None:
    assert stack.token_file.read_text("ascii").strip() == FakeHAProxy.last.token


def test_record_tells_where_everything_is_while_the_stack_runs(stack: Stack) -> None:
    record = StackRecord.read(stack.state)
    stack.stop()

    assert record.url == "http://127.0.0.1:100"
    assert record.grpc_url == "grpc://127.0.0.1:100"
    assert record.metrics_url == "http://127.0.0.1:8082/metrics"
    assert record.instances[1].management_url == "http://127.0.0.1:211"
    assert (record.owner_pid, record.haproxy_pid, record.models) == (os.getpid(), 100, ("m", "n"))
    assert record.admin_socket == stack.state / "haproxy" / "admin.sock"
    assert not stack.record_file.exists()


def test_certificate_makes_addresses_secure(config: StackConfig, tmp_path: Path) -> None:
    (tmp_path / "c.pem").touch()

    stack = Stack(StackConfig(config.server, port=9, certificate=tmp_path / "c.pem"))

    assert (stack.url, stack.grpc_url) == ("https://127.0.0.1:9", "grpcs://127.0.0.1:9")


def test_instance_that_fails_its_first_start_ends_all(config: StackConfig) -> None:
    FakeKeeper.broken.add("i2")

    with pytest.raises(ServerError, match=r"^instance i2: port taken$"):
        Stack(config).start()
    assert sorted(EVENTS[-3:]) == ["haproxy stops", "i1 ends", "i2 ends"]


def test_port_in_use_names_the_instance_that_was_to_have_it(
    config: StackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suffuse.balancing.stack.refuse_taken_ports", refuse_taken_ports)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        stack = Stack(replace(config, first_instance_port=port))

        with pytest.raises(
            ServerError, match=rf"^port {port} \(inference of i1\) on 127\.0\.0\.1: Address already in use "
        ):
            stack.start()
    assert EVENTS == ["check"]


def test_haproxy_that_ends_is_started_again_and_recorded(stack: Stack) -> None:
    FakeHAProxy.last.exit_status = -9

    until(lambda: StackRecord.read(stack.state).haproxy_pid == 200)
    assert EVENTS.count("haproxy starts") == 2


def test_haproxy_that_does_not_start_again_is_tried_again(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([ServerError("port taken"), OSError("disk full")])
    start = FakeHAProxy.start

    def fail_twice(self: FakeHAProxy) -> None:
        for failure in failures:
            raise failure
        start(self)

    monkeypatch.setattr(FakeHAProxy, "start", fail_twice)

    FakeHAProxy.last.exit_status = 1

    until(lambda: StackRecord.read(stack.state).haproxy_pid == 200)
    assert list(failures) == []


def test_instance_is_drained_before_it_is_started_again(stack: Stack) -> None:
    EVENTS.clear()

    stack.restart_instance("i2")

    assert EVENTS == [
        "drain i2 of m,n",
        "idle at http://127.0.0.1:211",
        "i2 starts again",
        "i2 is awaited beyond 0",
        "undrain",
        "up",
    ]


def test_instance_whose_requests_do_not_end_is_left_running(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDrain, "busy", True)
    EVENTS.clear()

    with pytest.raises(ServerError, match=r"^still has requests$"):
        stack.restart_instance("i1")
    assert EVENTS == ["drain i1 of m,n", "undrain"]


@pytest.mark.parametrize("busy", [False, True])
def test_instance_that_has_lost_a_worker_is_emptied_and_started_again(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, *, busy: bool
) -> None:
    monkeypatch.setattr(FakeDrain, "busy", busy)
    EVENTS.clear()

    FakeKeeper.made["i2"].loss = "worker 9000"
    until(lambda: "up" in EVENTS)

    idle = [] if busy else ["idle at http://127.0.0.1:211"]
    restarted = ["cut", "i2 starts again", "i2 is awaited beyond 0", "undrain", "up"]
    assert ["drain i2 of m,n", *idle, *restarted] == EVENTS


def test_instance_without_another_one_has_only_its_workers_restarted(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeDrain, "alone", True)
    EVENTS.clear()

    FakeKeeper.made["i1"].loss = "worker 9000"
    until(lambda: bool(EVENTS))

    assert EVENTS == ["i1 restarts its workers"]


def test_unknown_instance_is_refused(stack: Stack) -> None:
    with pytest.raises(InputError, match=r"^instance 'x' is unknown; there are: i1, i2$"):
        stack.restart_instance("x")


def test_haproxy_is_reloaded(stack: Stack) -> None:
    stack.reload()

    assert EVENTS[-1] == "reload"


def test_requests_end_before_instances_do(config: StackConfig) -> None:
    with Stack(config):
        EVENTS.clear()

    assert EVENTS[0] == "haproxy stops"
    assert sorted(EVENTS[1:]) == ["i1 ends", "i2 ends"]


def test_stop_before_the_end_of_the_start_is_no_error(config: StackConfig) -> None:
    stack = Stack(config)
    stack.request_stop()

    with stack:
        assert not stack.ready


def test_second_stack_in_the_same_folder_is_refused(stack: Stack, config: StackConfig) -> None:
    expected = (
        f"state folder {stack.state}: in use by the `suffuse serve` with process id {os.getpid()}; stop that one, or "
        "choose another state folder and other ports"
    )

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        Stack(config).start()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instances": 0}, "instances is 0; expected a whole number from 1"),
        (
            {"certificate": Path("none.pem")},
            "none.pem: no such file; expected a certificate and its private key in one file (PEM)",
        ),
    ],
)
def test_what_makes_no_stack_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        StackConfig(ServerConfig(Path("store")), **changes)


def test_store_without_archives_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    with pytest.raises(BundleError, match=r"got no \.mar file"):
        Stack(StackConfig(ServerConfig(tmp_path)))
