"""A share of a worker's time: work that must not keep others waiting is begun only while some of it is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TimeShare:
    """Seconds that grow by a share of the time that goes by, and are spent by working (a token bucket of seconds).

    Work is begun while any are left, and may overdraw them: what it cost is known when it is done. The debt is then
    waited off, so that over a long time the work takes its share and no more.

    Args:
        share: of the time, above 0 and at most 1.
        most_s: seconds that are saved up at most, which a worker that had nothing to do begins with.
        clock: seconds that go by.
    """

    def __init__(self, share: float, most_s: float, clock: Callable[[], float]) -> None:
        self._share = share
        self._most_s = self._left_s = most_s
        self._clock = clock
        self._seen_s = clock()

    def wait_s(self) -> float:
        """Seconds until work may begin; 0 for now."""
        self._earn()
        return max(0.0, -self._left_s / self._share)

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Work: what is done inside counts."""
        self._earn()
        start_s = self._seen_s
        try:
            yield
        finally:
            self._earn()
            self._left_s -= self._seen_s - start_s

    def _earn(self) -> None:
        now_s = self._clock()
        self._left_s = min(self._most_s, self._left_s + self._share * (now_s - self._seen_s))
        self._seen_s = now_s
