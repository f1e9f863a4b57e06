"""The loop must bring servers to what is wished, and do nothing where it cannot know."""

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace

import pytest
from tests.autoscale.fakes import SERVER, FakeNetwork, FakeServer

from suffuse.autoscale.controller import PATIENCE_S, RETRY_S, Controller, Event, Lowering, share_out
from suffuse.autoscale.meter import GivenTime, MeasuredTime, Meter
from suffuse.autoscale.policy import Decision, Memory, Policy, Signals
from suffuse.autoscale.signals import Endpoint, Probe, ServerView, TorchServeSource
from suffuse.errors import ServerError

OTHER = "http://b:8081"
METRICS = {SERVER: "http://a:8082/metrics", OTHER: "http://b:8082/metrics"}
POLICY = Policy(1, 8, goal_p99_s=0.5, spare=0)
VIEW = ServerView("a", ready=1, asked=1, bound=1, batch_size=1, pending=0, remaining=100)


class Wish:
    """A rule that wishes what a test says."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def decide(self, signals: Signals, memory: Memory, now_s: float) -> tuple[Decision, Memory]:  # noqa: ARG002 - of Rule
        return Decision(self.workers, "wish"), memory


class NeverEmpty(AbstractContextManager[None]):
    """What empties a server, and cannot."""

    def __enter__(self) -> None:
        raise ServerError("no other instance is up")

    def __exit__(self, *_: object) -> None:
        """Not reached."""


class Loop:
    """A controller of fake servers, stepped by hand every half second."""

    def __init__(
        self,
        probes: list[Probe],
        rule: Policy | Wish,
        meter: Meter,
        lowering: Lowering = Lowering(),  # noqa: B008 - frozen
    ) -> None:
        self.rule = rule
        self.now_s = 100.0
        scalers = {probe.endpoint.url: probe for probe in probes}
        source = TorchServeSource(probes)
        self.controller = Controller("m", source, meter, rule, scalers, lowering=lowering)

    def step(self, seconds: float = 0.5) -> Event:
        event = self.controller.step(self.now_s)
        for _ in range(int(seconds / 0.5) - 1):
            self.now_s += 0.5
            event = self.controller.step(self.now_s)
        self.now_s += 0.5
        return event


@pytest.fixture
def probes(network: FakeNetwork) -> Iterator[list[Probe]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Probe(Endpoint(*end), "m", network.transport())) for end in endpoints()]


def endpoints() -> Iterator[tuple[str, None, str]]:
    for server, metrics in METRICS.items():
        yield server, None, metrics


@pytest.fixture
def one(probes: list[Probe]) -> Loop:
    return Loop(probes[:1], Wish(1), GivenTime(0.04))


@pytest.fixture
def two(probes: list[Probe]) -> Loop:
    return Loop(probes, Wish(4), GivenTime(0.04))


def wish(loop: Loop, workers: int) -> None:
    assert isinstance(loop.rule, Wish)
    loop.rule.workers = workers


def test_load_brings_workers_at_once(probes: list[Probe], server: FakeServer) -> None:
    loop = Loop(probes[:1], POLICY, GivenTime(0.04))
    loop.step()
    server.arrived = 30

    event = loop.step()

    assert (event.wished, event.reason) == (4, "load")  # 60 a second x 0.04 s / 0.7
    assert server.scaled == [4]


def test_load_that_ends_takes_them_away_step_by_step(probes: list[Probe], server: FakeServer) -> None:
    server.ready = server.asked = 4
    loop = Loop(probes[:1], POLICY, GivenTime(0.04))

    loop.step(60)

    assert server.scaled == [3, 2, 1]


def test_server_is_asked_once(one: Loop, server: FakeServer) -> None:
    wish(one, 3)

    one.step(5)

    assert server.scaled == [3]


def test_workers_that_start_are_told_from_ready_ones(one: Loop) -> None:
    wish(one, 3)
    one.step()

    event = one.step()

    assert (event.signals.ready, event.signals.starting) == (1, 2)
    assert event.servers == {SERVER: (1, 3)}


def test_server_that_restarted_with_another_number_is_set_again(one: Loop, server: FakeServer) -> None:
    wish(one, 3)
    one.step(5)
    server.down = True
    one.step(5)
    server.down, server.asked, server.ready, server.arrived = False, 1, 1, 0

    one.step()

    assert server.scaled == [3, 3]


def test_controller_that_restarts_goes_on_with_what_it_finds(probes: list[Probe], server: FakeServer) -> None:
    server.ready = server.asked = 4
    loop = Loop(probes[:1], POLICY, MeasuredTime())

    event = loop.step()

    assert (event.wished, event.reason) == (4, "cooling")
    assert not server.scaled


def test_controller_that_restarts_amid_silence_keeps_what_it_finds_later(
    probes: list[Probe], server: FakeServer
) -> None:
    server.ready = server.asked = 4
    server.down = True
    loop = Loop(probes[:1], POLICY, GivenTime(0.04))
    loop.step(3)
    server.down = False

    event = loop.step()

    assert event.wished == 4
    assert not server.scaled


def test_nothing_is_decided_while_requests_come_and_nobody_knows_how_long_they_take(
    probes: list[Probe], server: FakeServer
) -> None:
    loop = Loop(probes[:1], POLICY, MeasuredTime())
    server.pending = 50

    event = loop.step(5)

    assert event.reason == "unreadable"
    assert not server.scaled


@pytest.mark.parametrize("garbage", [{"model": "x"}, {"pending": -9}, {"description": []}, {"metrics": "<html>"}])
def test_server_that_lies_is_never_scaled(garbage: dict[str, object], one: Loop, server: FakeServer) -> None:
    one.step()
    wish(one, 5)
    for name, value in garbage.items():
        setattr(server, name, value)

    event = one.step(20)

    assert not event.signals.readable
    assert list(event.errors) == [SERVER]
    assert not server.scaled


def test_workers_are_shared_out_among_servers(two: Loop, server: FakeServer, other: FakeServer) -> None:
    wish(two, 5)

    two.step(3)

    assert (server.scaled, other.scaled) == ([3], [2])


def test_server_that_is_down_is_waited_for_then_left_out(two: Loop, server: FakeServer, other: FakeServer) -> None:
    two.step()
    server.ready, other.ready = 2, 2
    server.down = True

    waiting = two.step(PATIENCE_S - 0.5)
    scaled_while_waiting = list(other.scaled)
    two.step()

    assert not waiting.signals.readable
    assert scaled_while_waiting == [2]
    assert other.scaled == [2, 4]


def test_server_that_comes_back_is_filled_before_the_other_is_emptied(
    two: Loop, server: FakeServer, other: FakeServer
) -> None:
    server.down = True
    other.ready = other.asked = 4
    two.step(5)
    server.down = False

    two.step(5)
    before_it_is_ready = list(other.scaled)
    server.ready = 2
    two.step()

    assert server.scaled == [2]
    assert before_it_is_ready == []
    assert other.scaled == [2]


def test_workers_that_start_are_left_to_start(one: Loop, server: FakeServer) -> None:
    server.ready, server.asked = 1, 4
    wish(one, 2)
    one.step(20)
    while_they_start = list(server.scaled)
    server.ready = 3

    one.step()

    assert while_they_start == []
    assert server.scaled == [2]


def test_full_queue_gets_workers_but_never_loses_any(one: Loop, server: FakeServer) -> None:
    server.ready = server.asked = 2
    server.pending, server.remaining = 100, 0
    wish(one, 1)
    one.step(20)
    assert not server.scaled

    wish(one, 3)
    one.step()

    assert server.scaled == [3]


def test_worker_goes_in_a_moment_without_requests(probes: list[Probe], server: FakeServer) -> None:
    server.ready = server.asked = 2
    server.pending = 1
    loop = Loop(probes[:1], Wish(1), GivenTime(0.04), Lowering(quiet_wait_s=60))
    loop.step(5)
    while_requests_wait = list(server.scaled)
    server.pending = 0

    loop.step()

    assert while_requests_wait == []
    assert server.scaled == [1]


def test_worker_goes_after_a_while_even_if_requests_never_pause(probes: list[Probe], server: FakeServer) -> None:
    server.ready = server.asked = 2
    server.pending = 1
    loop = Loop(probes[:1], Wish(1), GivenTime(0.04), Lowering(quiet_wait_s=10))

    loop.step(10)
    within_the_wait = list(server.scaled)
    loop.step()

    assert within_the_wait == []
    assert server.scaled == [1]


def test_server_is_emptied_to_lose_workers_and_not_to_get_some(probes: list[Probe], server: FakeServer) -> None:
    emptied = []

    @contextmanager
    def empty(url: str) -> Iterator[None]:
        scaled = list(server.scaled)
        yield
        emptied.append((url, scaled, list(server.scaled)))

    loop = Loop(probes[:1], Wish(3), GivenTime(0.04), Lowering(emptied=empty))
    loop.step()
    server.ready = 3
    wish(loop, 1)

    loop.step()

    assert emptied == [(SERVER, [3], [3, 1])]


def test_server_that_cannot_be_emptied_keeps_its_workers_and_is_named(probes: list[Probe], server: FakeServer) -> None:
    server.ready = server.asked = 2
    loop = Loop(probes[:1], Wish(1), GivenTime(0.04), Lowering(emptied=lambda _: NeverEmpty()))

    event = loop.step()

    assert event.errors == {SERVER: "no other instance is up"}
    assert server.scaled == []


def test_server_that_refuses_is_named_and_asked_again_later(one: Loop, server: FakeServer) -> None:
    server.refuses = True
    wish(one, 2)

    refused = one.step()
    one.step(RETRY_S - 0.5)
    server.refuses = False
    one.step()

    assert refused.errors == {SERVER: f"{SERVER}/models/m: Deque full (status 500)"}
    assert server.scaled == [2]


def test_observers_are_told_of_every_step_until_the_loop_is_stopped(probes: list[Probe]) -> None:
    stop = threading.Event()
    seen: list[Event] = []

    def observe(event: Event) -> None:
        seen.append(event)
        if len(seen) == 2:
            stop.set()

    scalers = {probe.endpoint.url: probe for probe in probes}
    Controller("m", TorchServeSource(probes), GivenTime(0.04), Wish(2), scalers, [observe]).run(stop)

    assert [event.wished for event in seen] == [2, 2]


def test_decision_becomes_a_line_of_json(one: Loop, server: FakeServer) -> None:
    server.pending = 3

    content = json.loads(one.step().as_json())

    assert content.pop("time").endswith("+00:00")
    assert content == {
        "model": "m",
        "wished": 1,
        "ready": 1,
        "starting": 0,
        "reason": "wish",
        "signals": {"arrival_rate_per_s": 0.0, "service_s": 0.04, "backlog": 3, "in_flight": 0.0},
        "servers": {SERVER: {"ready": 1, "asked": 1}},
        "errors": {},
    }


def test_what_is_not_known_is_null_in_json(one: Loop, server: FakeServer) -> None:
    server.down = True

    signals = json.loads(one.step().as_json())["signals"]

    assert set(signals.values()) == {None}


@pytest.mark.parametrize(
    ("workers", "asked", "shares"),
    [
        (4, (1, 1), (2, 2)),
        (5, (1, 3), (2, 3)),
        (5, (3, 1), (3, 2)),
        (1, (1, 1), (1, 1)),
        (7, (0, 0, 0), (3, 2, 2)),
        (3, (3,), (3,)),
        (3, (), ()),
    ],
)
def test_shares_are_even_with_few_changes(workers: int, asked: tuple[int, ...], shares: tuple[int, ...]) -> None:
    views = [replace(VIEW, server=str(place), asked=count) for place, count in enumerate(asked)]

    found = share_out(workers, views)

    assert tuple(found[view.server] for view in views) == shares
