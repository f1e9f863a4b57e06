"""Whether a new version of a model may take over from the old one: judged from answers and counters, without I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from suffuse.errors import InputError

SCORE_TOLERANCE = 0.1
"""How far apart two scores may be where an answer is a score alone; another training moves them all a little."""

_TAIL_PAIRS = 500  # a 99th percentile of fewer is one or two accidents
_CERTAIN = 2.33  # standard deviations: what chance alone exceeds once in a hundred times


@dataclass(frozen=True)
class Limits:
    """What a new version may do worse than the old one.

    Args:
        errors: share of requests that fail, beyond the old version's share.
        latency: its latency, as a multiple of the old version's.
        disagreement: share of rows that it answers otherwise.
        requests: as many, or rows, there must be before a verdict, except at the very end.

    Raises:
        InputError: a limit makes no sense.
    """

    errors: float = 0.01
    latency: float = 2.0
    disagreement: float = 0.1
    requests: int = 30

    def __post_init__(self) -> None:
        for name in ("errors", "latency", "disagreement"):
            if not getattr(self, name) >= 0:
                raise InputError(f"limit {name} is {getattr(self, name):g}; expected a number from 0")
        if self.requests < 1:
            raise InputError(f"limit requests is {self.requests}; expected a whole number from 1")


@dataclass(frozen=True)
class Reply:
    """What one version said to one row.

    Args:
        answer: the parsed JSON; None where there was an error.
        error: what went wrong, empty where nothing did.
        seconds: how long it took.
    """

    answer: Any
    error: str
    seconds: float


@dataclass(frozen=True)
class Pair:
    """What both versions said to the same row."""

    old: Reply
    new: Reply

    @property
    def failed(self) -> bool:
        """Whether only the new version could not answer."""
        return bool(self.new.error) and not self.old.error

    @property
    def differs(self) -> bool:
        """Whether one answers what the other does not, or they say different things; a failure is not counted twice."""
        if self.old.error or self.new.error:
            return self.old.error != self.new.error and not self.failed
        return not agree(self.old.answer, self.new.answer)


@dataclass(frozen=True)
class Traffic:
    """What one version did for clients in some time.

    Args:
        requests: sent to it.
        failed: those that it refused, broke off or answered with an error, also where another server then answered.
        answered: those whose time is known.
        seconds: how long those took it, all together, without their wait in its queue.
    """

    requests: int = 0
    failed: int = 0
    answered: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.requests + other.requests,
            self.failed + other.failed,
            self.answered + other.answered,
            self.seconds + other.seconds,
        )

    def since(self, before: "Traffic") -> "Traffic":
        """The growth of counters; one that is smaller than before belongs to a process that started anew."""
        return Traffic(
            int(_growth(before.requests, self.requests)),
            int(_growth(before.failed, self.failed)),
            int(_growth(before.answered, self.answered)),
            _growth(before.seconds, self.seconds),
        )

    @property
    def failed_share(self) -> float:
        """Failed requests for each one sent; 0 where there were none."""
        return self.failed / self.requests if self.requests else 0.0

    @property
    def mean_s(self) -> float:
        """Seconds of a request; 0 where none is known."""
        return self.seconds / self.answered if self.answered else 0.0


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Args:
        breaches: the limits that were broken, each with its figures, in words.
        figures: everything measured, for a summary.
    """

    breaches: tuple[str, ...]
    figures: dict[str, float | int | None]


def judge_pairs(pairs: Sequence[Pair], limits: Limits) -> Verdict:
    """Compare both versions on the same rows.

    The latency is that of the median, and of the 99th percentile too from 500 rows on.

    Args:
        pairs: at least one.
        limits: what to allow.
    """
    total = len(pairs)
    failed = sum(pair.failed for pair in pairs)
    different = sum(pair.differs for pair in pairs)
    times = [(pair.old.seconds, pair.new.seconds) for pair in pairs if not (pair.old.error or pair.new.error)]
    ratios = {"median": _ratio_at(times, 0.5) if len(times) >= limits.requests else None}
    ratios["p99"] = _ratio_at(times, 0.99) if len(times) >= _TAIL_PAIRS else None
    breaches = []
    if not times and not failed:
        breaches.append(f"neither version answers any of the {total} rows; the first: {pairs[0].old.error}")
    if failed / total > limits.errors:
        error = next(pair.new.error for pair in pairs if pair.failed)
        breaches.append(f"{_of(failed, total)} rows failed, limit {limits.errors:.1%}; the first: {error}")
    if different / total > limits.disagreement:
        breaches.append(f"{_of(different, total)} rows are answered otherwise, limit {limits.disagreement:.1%}")
    for name, ratio in ratios.items():
        if ratio is not None and ratio > limits.latency:
            breaches.append(f"the {name} latency is {ratio:.2f} times the old one, limit {limits.latency:g}")
    figures = {
        "rows": total,
        "failed": failed,
        "different": different,
        "latency_ratio_median": _rounded(ratios["median"]),
        "latency_ratio_p99": _rounded(ratios["p99"]),
    }
    return Verdict(tuple(breaches), figures)


def judge_traffic(old: Traffic, new: Traffic, limits: Limits, *, least: int) -> Verdict:
    """Compare what both versions did for clients.

    Failures count where they are beyond the limit and beyond what chance gives: a client that sends nonsense meets now
    the one version and now the other.

    Args:
        old: the old version's share of the traffic.
        new: the new one's.
        limits: what to allow.
        least: requests that there must be before failures are judged.
    """
    excess = new.failed_share - old.failed_share
    breaches = []
    if new.requests >= max(1, least) and excess > max(limits.errors, _CERTAIN * _deviation(old, new)):
        breaches.append(
            f"{_of(new.failed, new.requests)} requests failed, of the old version {_of(old.failed, old.requests)}, "
            f"limit {limits.errors:.1%} more"
        )
    enough = min(old.answered, new.answered) >= limits.requests and old.seconds > 0
    ratio = new.mean_s / old.mean_s if enough else None
    if ratio is not None and ratio > limits.latency:
        breaches.append(
            f"the mean latency is {ratio:.2f} times the old one ({new.mean_s * 1000:.1f} and "
            f"{old.mean_s * 1000:.1f} ms), limit {limits.latency:g}"
        )
    figures = {
        "requests": new.requests,
        "failed": new.failed,
        "share": _rounded(new.requests / (new.requests + old.requests) if new.requests else 0.0),
        "latency_ratio_mean": _rounded(ratio),
    }
    return Verdict(tuple(breaches), figures)


def is_too_little(new: Traffic, limits: Limits) -> bool:
    """Whether some answers of the new version were timed, but too few to judge its latency by."""
    return 0 < new.answered < limits.requests


def agree(old: object, new: object) -> bool:
    """Whether two answers say the same.

    Texts, labels, positions and keys have to be equal. Scores are not compared beside a text, since another training
    moves them all; where an answer is scores alone, each may be `SCORE_TOLERANCE` off.
    """
    old_scores, new_scores = _scores(old), _scores(new)
    if _without_scores(old) != _without_scores(new) or len(old_scores) != len(new_scores):
        return False
    if _has_text(old):
        return True
    return all(abs(a - b) <= SCORE_TOLERANCE for a, b in zip(old_scores, new_scores, strict=True))


def _growth(before: float, after: float) -> float:
    return after - before if after >= before else after


def _deviation(old: Traffic, new: Traffic) -> float:
    """The standard deviation of the difference of two shares, if both versions failed alike."""
    if not (old.requests and new.requests):
        return 0.0
    share = (old.failed + new.failed) / (old.requests + new.requests)
    return math.sqrt(max(0.0, share * (1 - share)) * (1 / old.requests + 1 / new.requests))


def _ratio_at(times: Sequence[tuple[float, float]], share: float) -> float | None:
    """The new version's latency at a quantile for one second of the old one's."""
    old, new = (sorted(side) for side in zip(*times, strict=True))
    place = math.ceil(share * len(old)) - 1
    return new[place] / old[place] if old[place] > 0 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.1%})" if whole else "0 of 0"


def _without_scores(answer: object) -> object:
    if isinstance(answer, dict):
        return {key: _without_scores(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [_without_scores(value) for value in answer]
    return None if isinstance(answer, float) else answer


def _scores(answer: object) -> list[float]:
    """The scores of an answer, in the order of their keys."""
    if isinstance(answer, dict):
        return [score for key in sorted(answer) for score in _scores(answer[key])]
    if isinstance(answer, list):
        return [score for value in answer for score in _scores(value)]
    return [answer] if isinstance(answer, float) else []


def _has_text(answer: object) -> bool:
    if isinstance(answer, dict):
        return any(_has_text(value) for value in answer.values())
    if isinstance(answer, list):
        return any(_has_text(value) for value in answer)
    return isinstance(answer, str)
