"""A rate must be steady under chance, and follow a step at once."""

from collections.abc import Callable, Sequence

import pytest

from suffuse.autoscale.arrival_rate import LONG_S, arrival_rate


def counted(came_s: Sequence[float], now_s: float) -> Callable[[float], float]:
    """Means over the last seconds of requests that came then."""
    return lambda window_s: sum(now_s - window_s < time_s <= now_s for time_s in came_s) / window_s


def evenly(rate_per_s: int, since_s: float, until_s: float) -> list[float]:
    return [since_s + (number + 1) / rate_per_s for number in range(round(rate_per_s * (until_s - since_s)))]


def test_constant_rate_is_itself() -> None:
    assert arrival_rate(counted(evenly(60, 0, 20), 20.0)) == 60


def test_second_as_full_as_chance_makes_it_changes_nothing() -> None:
    came_s = evenly(60, 0, 19) + evenly(75, 19, 20)

    assert arrival_rate(counted(came_s, 20.0)) == pytest.approx(61.5)


def test_step_is_seen_within_its_first_second() -> None:
    came_s = evenly(5, 0, 20) + evenly(50, 20, 20.5)

    assert arrival_rate(counted(came_s, 20.5)) > 25


def test_step_is_seen_whole_after_a_second() -> None:
    came_s = evenly(5, 0, 20) + evenly(50, 20, 21)

    assert arrival_rate(counted(came_s, 21.0)) == 50


def test_lone_request_is_no_step() -> None:
    assert arrival_rate(counted([20.0], 20.0)) == 1 / LONG_S


def test_lower_rate_is_believed_slowly() -> None:
    came_s = evenly(50, 0, 20) + evenly(5, 20, 25)

    assert arrival_rate(counted(came_s, 25.0)) == pytest.approx(27.5)
