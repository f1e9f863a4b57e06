"""A signal must be heeded wherever the main thread is, the inside of `Event.wait` included."""

import os
import signal
import threading

import pytest

from suffuse.unix_signals import on_signals

LIMIT_S = 10


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_what_it_calls_may_take_a_lock_that_the_interrupted_thread_holds() -> None:
    lock = threading.Lock()
    taken: list[bool] = []
    acted = threading.Event()

    def act() -> None:
        taken.append(lock.acquire(timeout=LIMIT_S))
        acted.set()

    with on_signals(act):
        with lock:
            send(signal.SIGTERM)
        acted.wait(LIMIT_S)

    assert taken == [True]


def test_every_signal_is_heeded_one_after_the_other() -> None:
    running, most, times = [0], [0], [0]
    begun, go_on = threading.Event(), threading.Event()

    def act() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        begun.set()
        go_on.wait(LIMIT_S)
        times[0] += 1
        running[0] -= 1

    with on_signals(act, (signal.SIGHUP,)):
        send(signal.SIGHUP)
        assert begun.wait(LIMIT_S)
        send(signal.SIGHUP)
        go_on.set()

    assert (most[0], times[0]) == (1, 2)


def test_a_signal_after_one_that_failed_is_heeded(caplog: pytest.LogCaptureFixture) -> None:
    times: list[int] = []

    def act() -> None:
        times.append(len(times))
        if len(times) == 1:
            raise OSError("disk full")

    with on_signals(act, (signal.SIGHUP,)):
        send(signal.SIGHUP)
        send(signal.SIGHUP)

    assert times == [0, 1]
    assert caplog.messages == ["SIGHUP could not be heeded"]


def test_afterwards_the_handlers_are_those_of_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    with on_signals(lambda: None):
        inside = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    assert not set(before) & set(inside)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
