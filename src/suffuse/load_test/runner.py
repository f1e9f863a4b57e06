"""The child process that makes a load with locust: `python -m gevent.monkey --module suffuse.load_test.runner FOLDER`.

It reads order.json of the folder, and writes results.npz there when all requests are over. Meanwhile it tells on
stdout, in JSON lines, when the load began and, each second, how it goes. The load ends early when stdin is closed, as
when its parent is gone.
"""

import gc
import json
import logging
import random
import sys
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from gevent.event import Event
from gevent.pool import Pool
from gevent.socket import wait_read
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from suffuse.load_test.plan import Order
from suffuse.load_test.senders import REFUSED, prepare_grpc
from suffuse.load_test.users import OK, Asker, ModelUser, Outcome, fire, senders

_EXAMPLES = 3
"""Messages kept of each kind of failure."""

_REPORT_S = 1.0


def main(folder: Path) -> None:
    """Make the load that the folder's order describes."""
    logging.basicConfig(level=logging.ERROR)
    order = Order.read(folder / "order.json")
    connections = order.users or order.most_in_flight
    prepare_grpc(connections)
    load = _Load(order)
    gc.collect()
    gc.freeze()  # the rows stay as they are; to look through them again would hold requests up
    load.run()
    load.write(folder / "results.npz")


class _Records:
    """Columns of what came of each request, flat in memory."""

    def __init__(self) -> None:
        self.due_s, self.sent_s, self.end_s = array("d"), array("d"), array("d")
        self.transport, self.outcome = array("B"), array("H")
        self.transports = ["rest", "grpc"]
        self.outcomes = [OK, REFUSED]
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, outcome: Outcome) -> None:
        self.due_s.append(outcome.due_s)
        self.sent_s.append(outcome.sent_s)
        self.end_s.append(outcome.end_s)
        self.transport.append(self.transports.index(outcome.transport))
        if outcome.kind not in self.outcomes:
            self.outcomes.append(outcome.kind)
        self.outcome.append(self.outcomes.index(outcome.kind))
        self.counts[outcome.kind] += 1
        if outcome.kind != OK:
            examples = self.examples.setdefault(outcome.kind, [])
            if len(examples) < _EXAMPLES and outcome.message not in examples:
                examples.append(outcome.message)


class _Load:
    """A load under way."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._records = _Records()
        self._asker = Asker(order, self._tell)
        self._rest, self._grpc = senders(order.target, order.users or order.most_in_flight)
        classes = self._closed() if order.users else [self._open()]
        self._environment = Environment(user_classes=classes)
        self._stopped = Event()
        self._held_back = 0
        self._start_s = self._cpu_s = self._started_at = 0.0
        self._duration_s = order.duration_s

    def run(self) -> None:
        """Begin, and return when the last request is over."""
        runner = self._environment.create_local_runner()
        gevent.spawn(self._watch_stdin)
        cpu_s = time.process_time()
        self._start_s, self._started_at = time.perf_counter(), time.time()
        _say(started_at=self._started_at)
        reporter = gevent.spawn(self._report)
        users = self._order.users or 1
        runner.start(users, spawn_rate=users)
        if runner.spawning_greenlet is not None:
            runner.spawning_greenlet.join()
        runner.user_greenlets.join()
        self._cpu_s = time.process_time() - cpu_s
        reporter.kill()
        self._say_progress()
        runner.quit()

    def write(self, path: Path) -> None:
        """The columns, in seconds from the start, and what else was seen."""
        records = self._records
        columns: dict[str, Any] = {
            name: np.array(getattr(records, name)) - self._start_s for name in ("due_s", "sent_s", "end_s")
        }
        seen = {
            "started_at": self._started_at,
            "duration_s": self._duration_s,
            "cpu_s": self._cpu_s,
            "held_back": self._held_back,
            "transports": records.transports,
            "outcomes": records.outcomes,
            "examples": records.examples,
        }
        np.savez(
            path,
            transport=np.array(records.transport, dtype=np.uint8),
            outcome=np.array(records.outcome, dtype=np.uint16),
            seen=np.array(json.dumps(seen)),
            **columns,
        )

    def _closed(self) -> list[type[User]]:
        """Users, shared out over the transports."""
        of_grpc = round(self._order.users * self._order.target.share_of_grpc)
        counts = ((self._rest, self._order.users - of_grpc), (self._grpc, of_grpc))
        shared = {"asker": self._asker, "is_over": staticmethod(self._is_over)}
        return [
            type(f"User{sender.name}", (ModelUser,), {**shared, "sender": sender, "fixed_count": count})
            for sender, count in counts
            if sender is not None and count
        ]

    def _open(self) -> type[User]:
        """One user, who sends all arrivals."""
        dispatch = self._dispatch

        class Arrivals(User):
            @task
            def send(self) -> None:
                dispatch()
                raise StopUser

        return Arrivals

    def _dispatch(self) -> None:
        """Send each request when it is due; one that finds too many under way waits, and is counted."""
        pool = Pool(self._order.most_in_flight)
        draw = random.Random(self._order.seed)
        share = self._order.target.share_of_grpc
        for time_s in self._order.times_s:
            due_s = self._start_s + time_s
            self._wait_until(due_s)
            if self._stopped.is_set():
                break
            self._held_back += pool.full()
            sender = self._grpc if self._rest is None or draw.random() < share else self._rest
            pool.spawn(self._asker.ask, sender, due_s)
        pool.join()

    def _wait_until(self, due_s: float) -> None:
        while (pause_s := due_s - time.perf_counter()) > 0 and not self._stopped.wait(pause_s):
            pass  # a timer may be a little early
        if pause_s <= 0:
            gevent.sleep(0)  # one who is late still lets answers in

    def _is_over(self) -> bool:
        return self._stopped.is_set() or time.perf_counter() - self._start_s >= self._order.duration_s

    def _tell(self, outcome: Outcome) -> None:
        self._records.add(outcome)
        fire(self._environment, self._order.target.model, outcome)

    def _watch_stdin(self) -> None:
        wait_read(sys.stdin.fileno())  # nothing is ever written there: it was closed
        self._duration_s = min(self._duration_s, time.perf_counter() - self._start_s)
        self._stopped.set()

    def _report(self) -> None:
        while True:
            gevent.sleep(_REPORT_S)
            self._say_progress()

    def _say_progress(self) -> None:
        counts = self._records.counts
        _say(sent=self._asker.sent, over=counts.total(), ok=counts[OK], refused=counts[REFUSED])


def _say(**what: float) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
