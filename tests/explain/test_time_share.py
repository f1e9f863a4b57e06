"""Work gets its share of the time over the long run, whatever a piece of it costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffuse.explain.time_share import TimeShare


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def fail_after(self, seconds: float) -> None:
        self.now_s += seconds
        raise ZeroDivisionError


def work(time: TimeShare, clock: Clock, seconds: float) -> None:
    with time.spent():
        clock.now_s += seconds


def test_work_may_begin_at_once() -> None:
    assert TimeShare(0.2, 0.5, Clock()).wait_s() == 0


def test_what_is_saved_up_may_be_used_without_a_pause() -> None:
    clock = Clock()
    time = TimeShare(0.2, 0.5, clock)

    work(time, clock, 0.3)

    assert time.wait_s() == 0


def test_a_debt_is_waited_off() -> None:
    clock = Clock()
    time = TimeShare(0.2, 0.5, clock)

    work(time, clock, 1.0)

    # 0.5 saved up and no more, 1.0 spent: a debt of 0.5 at 0.2 a second.
    assert time.wait_s() == pytest.approx(2.5)
    clock.now_s += 2.5
    assert time.wait_s() == pytest.approx(0, abs=1e-9)


def test_no_more_is_saved_up_than_is_allowed() -> None:
    clock = Clock()
    time = TimeShare(0.2, 0.5, clock)
    clock.now_s += 1000

    work(time, clock, 1.0)

    assert time.wait_s() > 0


def test_work_that_fails_counts() -> None:
    clock = Clock()
    time = TimeShare(0.2, 0.5, clock)

    with pytest.raises(ZeroDivisionError), time.spent():
        clock.fail_after(9.0)

    assert time.wait_s() > 0


@given(st.floats(0.05, 1), st.lists(st.floats(0.001, 2.0), min_size=20, max_size=60))
def test_over_a_long_time_work_takes_its_share_and_no_more(share: float, pieces_s: list[float]) -> None:
    clock = Clock()
    time = TimeShare(share, 0.5, clock)

    for piece_s in pieces_s:
        clock.now_s += time.wait_s() + 1e-9
        assert time.wait_s() == pytest.approx(0, abs=1e-6)
        work(time, clock, piece_s)

    assert sum(pieces_s) <= share * clock.now_s + 0.5 + max(pieces_s)
