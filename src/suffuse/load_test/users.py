"""Those who ask: a user of locust, and what each request of it goes through, whoever decides when it is sent."""

import random
import time
from collections.abc import Callable
from typing import NamedTuple

from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from suffuse.load_test.checks import Checker, RequestFailedError
from suffuse.load_test.plan import Order, Target
from suffuse.load_test.senders import GrpcSender, RestSender, Sender

OK = "ok"


class Outcome(NamedTuple):
    """What came of a request.

    Args:
        due_s, sent_s, end_s: when it was to be sent, was sent, and was over, by `time.perf_counter`.
        transport: ``rest`` or ``grpc``.
        kind: ``ok``, or of the failure.
        message: of the failure.
        length: of the reply in bytes; 0 where there is none.
    """

    due_s: float
    sent_s: float
    end_s: float
    transport: str
    kind: str
    message: str = ""
    length: int = 0


class Asker:
    """Draws a row, sends it, checks the answer, and tells what came of it.

    Args:
        order: rows and seed.
        tell: gets each outcome, when the request is over.

    Attributes:
        sent: requests so far, those under way included.
    """

    def __init__(self, order: Order, tell: Callable[[Outcome], None]) -> None:
        self._bodies = order.bodies
        self._checker = Checker(order.bodies, order.expected, answers_may_change=order.answers_may_change)
        self._random = random.Random(order.seed)
        self._tell = tell
        self.sent = 0

    def ask(self, sender: Sender, due_s: float | None = None) -> None:
        """One request.

        Args:
            sender: sends it.
            due_s: when it was to be sent, by `time.perf_counter`; latency counts from then. By default now.
        """
        self.sent += 1
        index = self._random.randrange(len(self._bodies))
        sent_s = time.perf_counter()
        kind, message, reply = OK, "", b""
        try:
            reply = sender.send(self._bodies[index])
            end_s = time.perf_counter()
            self._checker.check(index, reply)
        except RequestFailedError as error:
            end_s = time.perf_counter() if not reply else end_s
            kind, message = error.kind, str(error)
        self._tell(Outcome(sent_s if due_s is None else due_s, sent_s, end_s, sender.name, kind, message, len(reply)))


def senders(target: Target, connections: int) -> tuple[Sender | None, Sender | None]:
    """For REST and for gRPC; None where nothing goes there."""
    return (
        RestSender(target.rest, target, connections) if target.rest else None,
        GrpcSender(target.grpc, target, connections) if target.grpc else None,
    )


def fire(environment: Environment, model: str, outcome: Outcome) -> None:
    """Tell locust and its listeners of a request."""
    environment.events.request.fire(  # type: ignore[no-untyped-call]
        request_type=outcome.transport,
        name=model,
        response_time=(outcome.end_s - outcome.due_s) * 1000,
        response_length=outcome.length,
        exception=None
        if outcome.kind == OK
        else RequestFailedError(outcome.kind, f"{outcome.kind}: {outcome.message}"),
        context={},
    )


class ModelUser(User):
    """Asks again as soon as it is answered, until `until` says stop; to be subclassed with an asker and a sender."""

    abstract = True
    asker: Asker
    sender: Sender
    is_over: Callable[[], bool] = staticmethod(lambda: False)

    @task
    def ask(self) -> None:
        """One request."""
        if self.is_over():
            raise StopUser
        self.asker.ask(self.sender)
