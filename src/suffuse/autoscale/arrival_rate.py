"""How many requests come a second: the mean of the last seconds, or, when they suddenly come faster, that of the last.

A short count sees a step at once, but half of the time it tells more than there is: of 60 requests a second, one second
in six has 68 or more. Who asks for workers by the highest of such counts, as a controller that goes up at once and down
late does, pays for workers that nobody needs. So a short count is believed only where chance does not explain it.
"""

from collections.abc import Callable
from math import sqrt

LONG_S = 10.0
SHORT_S = (1.0, 2.0)
DEVIATIONS = 3.0
"""Standard deviations of a Poisson process by which a short count has to pass the long one to be believed."""


def arrival_rate(within: Callable[[float], float]) -> float:
    """Requests a second.

    Args:
        within: the mean over the last seconds, so many as it is given; over what there is, where that is less.
    """
    steady = within(LONG_S)
    recent = {window_s: within(window_s) for window_s in SHORT_S}
    return max([steady, *(rate for window_s, rate in recent.items() if rate > _most_by_chance(steady, window_s))])


def _most_by_chance(rate_per_s: float, window_s: float) -> float:
    """A count as high, as a rate; of a rate near 0 one request is no surprise."""
    return rate_per_s + DEVIATIONS * sqrt(max(rate_per_s, 1 / window_s) / window_s)
