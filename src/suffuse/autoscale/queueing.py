"""How long requests wait for one of several workers: formulas, so that a policy can ask for a 99th percentile.

Poisson arrivals and exponential service give Erlang's formula exactly. Other times change the mean wait by a factor of
about (ca2 + cs2) / 2, the squared coefficients of variation of the times between arrivals and of the service times
(Allen-Cunneen: A. O. Allen, Probability, Statistics, and Queueing Theory, 2nd ed., 1990; for one worker and Poisson
arrivals it is Pollaczek and Khinchine's formula, and exact). The tail of the wait is taken as exponential with the mean
so changed, which it nearly is where workers are busy (Abate, Choudhury and Whitt, Operations Research 43(5), 1995).
"""

from collections.abc import Iterator
from itertools import count, islice
from math import inf, isinf, log

EXPONENTIAL = 1.0
"""The variability (ca2 + cs2) / 2 of Poisson arrivals and exponential service times."""
CONSTANT = 0.5
"""The same where every request takes equally long."""


def erlang_c(workers: int, load: float) -> float:
    """The share of requests that find all workers busy.

    Args:
        workers: at least 1.
        load: workers that the requests keep busy on average: arrivals a second x seconds of a worker.

    Returns:
        0 to 1; 1 where the load is more than the workers can carry.
    """
    if load >= workers:
        return 1.0
    return next(islice(_waiting_shares(load), workers - 1, None))


def mean_wait_s(workers: int, load: float, service_s: float, variability: float = EXPONENTIAL) -> float:
    """The mean wait for a worker, in seconds; infinite where the load is more than the workers can carry."""
    if load >= workers:
        return inf
    return erlang_c(workers, load) * service_s / (workers - load) * variability


def wait_quantile_s(
    share: float, workers: int, load: float, service_s: float, variability: float = EXPONENTIAL
) -> float:
    """The wait that `share` of the requests, such as 0.99, do not pass, in seconds."""
    if load >= workers:
        return inf
    return _quantile_s(share, erlang_c(workers, load), service_s / (workers - load) * variability)


def workers_for_wait(
    share: float, wait_s: float, load: float, service_s: float, *, most: int, variability: float = EXPONENTIAL
) -> int:
    """The fewest workers with which `share` of the requests wait `wait_s` at most.

    Args:
        share: such as 0.99.
        wait_s: in seconds, more than 0.
        load: as in `erlang_c`.
        service_s: seconds of a worker for one request.
        most: returned where fewer do not suffice.
        variability: (ca2 + cs2) / 2.
    """
    if isinf(load) or load >= most:
        return most
    for workers, waiting in enumerate(islice(_waiting_shares(load), most - 1), start=1):
        if load < workers:
            wait = _quantile_s(share, waiting, service_s / (workers - load) * variability)
            if wait <= wait_s:
                return workers
    return most


def _quantile_s(share: float, waiting: float, mean_of_waiting_s: float) -> float:
    """Of a wait that is 0 for those who need not wait, and exponential for the others."""
    return mean_of_waiting_s * log(waiting / (1 - share)) if waiting > 1 - share else 0.0


def _waiting_shares(load: float) -> Iterator[float]:
    """Erlang's C for 1, 2, 3, ... workers, by the recursion of Erlang's B, which cannot overflow."""
    blocked = 1.0
    for workers in count(1):
        blocked = load * blocked / (workers + load * blocked)
        yield 1.0 if load >= workers else blocked / (1 - load / workers * (1 - blocked))
