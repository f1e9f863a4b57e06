"""A small steady load that remembers each failure, for tests that do something to a server meanwhile."""

import threading
import time
from collections.abc import Sequence
from typing import Self

import suffuse
from suffuse.errors import SuffuseError

_PAUSE_S = 0.1


class SteadyLoad:
    """Each client asks again a moment after it was answered, in a thread of its own; a context manager.

    Args:
        clients: they are closed at the end.
        model: whom they ask.

    Attributes:
        answered: requests with the right answer.
        failures: what went wrong, in words.
    """

    def __init__(self, clients: Sequence[suffuse.Client], model: str) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._model = model
        self._stop = threading.Event()
        self._clients = clients
        self._threads = [threading.Thread(target=self._ask, args=(client,), daemon=True) for client in clients]

    def await_answers(self, more: int, limit_s: float = 120.0) -> None:
        """Return when so many more requests have been answered."""
        goal, deadline = self.answered + more, time.monotonic() + limit_s
        while self.answered < goal:
            assert time.monotonic() < deadline, f"{self.answered} answers, then none; failures: {self.failures[:5]}"
            time.sleep(0.05)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread, client in zip(self._threads, self._clients, strict=True):
            thread.join()
            client.close()

    def _ask(self, client: suffuse.Client) -> None:
        while not self._stop.wait(_PAUSE_S):
            try:
                answer = client.predict(self._model, "a warm, funny film")
                if answer["label"] != "fresh":
                    self.failures.append(f"wrong answer {answer}")
                self.answered += 1
            except SuffuseError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
