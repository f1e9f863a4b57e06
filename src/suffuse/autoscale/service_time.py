"""How long a worker takes for a batch of requests, as a function of their lengths; the file that `profile` writes.

A worker sorts the rows of a batch by length and cuts them into micro-batches of so many padded tokens. The model has
the same cuts: with padded = rows x longest row,

    seconds = batch + request x requests
              + sum over micro-batches (micro_batch + token x padded + attention x padded x longest)

Its five costs are fitted to measurements, none below 0.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from suffuse.errors import InputError

FORMAT = 1
SPREAD_QUANTILES = 20
"""In how many steps the spread of repeated measurements is kept."""


@dataclass(frozen=True)
class Measurement:
    """One batch, measured several times.

    Args:
        tokens: length of each request.
        seconds: of each repeat.
    """

    tokens: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The median of the repeats."""
        return float(np.median(self.seconds))


@dataclass(frozen=True)
class Limits:
    """How a worker cuts what it is handed.

    Args:
        micro_batch_tokens: padded tokens computed at once.
        max_tokens: the longest input of the model.
        max_windows: most windows that a longer row becomes; what lies beyond is cut off.
    """

    micro_batch_tokens: int
    max_tokens: int
    max_windows: int = 1


@dataclass(frozen=True)
class ServiceTime:
    """Seconds of a worker for a batch.

    Args:
        limits: how the worker cuts.
        batch_s: for each batch.
        request_s: for each request.
        micro_batch_s: for each micro-batch.
        token_s: for each padded token.
        attention_s: for each padded token and token of the longest row beside it.
        spread: quantiles, at equal distances, of measured over usual time; (1,) is no spread.
    """

    limits: Limits
    batch_s: float = 0.0
    request_s: float = 0.0
    micro_batch_s: float = 0.0
    token_s: float = 0.0
    attention_s: float = 0.0
    spread: tuple[float, ...] = (1.0,)

    def seconds(self, tokens: Sequence[int]) -> float:
        """The usual time for requests of these lengths, in seconds."""
        batch, request, *rest = _features(tokens, self.limits)
        costs = (self.micro_batch_s, self.token_s, self.attention_s)
        return self.batch_s * batch + self.request_s * request + sum(a * b for a, b in zip(costs, rest, strict=True))

    def draw(self, tokens: Sequence[int], random: Random) -> float:
        """A time as it may be measured, with the spread."""
        return self.seconds(tokens) * random.choice(self.spread)


@dataclass(frozen=True)
class Profile:
    """What `suffuse profile` found out about a bundle.

    Args:
        bundle: its name.
        threads: of the worker that was measured.
        service: the fitted model.
        lengths: token lengths of the rows that were measured or given, of which generated loads are made.
        error: median of the model's error, over what was measured.
        measurements: what it was fitted to.
    """

    bundle: str
    threads: int
    service: ServiceTime
    lengths: tuple[int, ...]
    error: float
    measurements: tuple[Measurement, ...] = field(repr=False)

    def dump(self) -> str:
        """As JSON, for `open`."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def open(cls, path: str | Path) -> "Profile":
        """Read a file.

        Raises:
            InputError: it cannot be read, or is no profile.
        """
        path = Path(path)
        expected = "expected a file that `suffuse profile BUNDLE --output FILE` wrote"
        try:
            return _profile(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {expected}") from None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"{path}: not a profile ({type(error).__name__}: {error}); {expected}") from None


def fit(measurements: Sequence[Measurement], limits: Limits) -> ServiceTime:
    """The model nearest to measurements, by least squares of the relative error, no cost below 0.

    Five costs have 31 sets of those that are not 0: the best set without a negative cost is the solution.

    Args:
        measurements: of batches that differ in number and lengths.
        limits: as the worker had them.

    Raises:
        InputError: there are none.
    """
    if not measurements:
        raise InputError("no measurements to fit; expected some, of batches that differ in number and lengths")
    medians_s = np.array([one.median_s for one in measurements])
    features = np.array([_features(one.tokens, limits) for one in measurements]) / medians_s[:, None]
    best, best_error = np.zeros(features.shape[1]), np.inf
    for chosen in _subsets(features.shape[1]):
        costs, *_ = np.linalg.lstsq(features[:, chosen], np.ones(len(features)), rcond=None)
        error = float(np.sum((features[:, chosen] @ costs - 1) ** 2))
        if (costs >= 0).all() and error < best_error - 1e-12:
            best, best_error = np.zeros(features.shape[1]), error
            best[list(chosen)] = costs
    ratios = [second / one.median_s for one in measurements for second in one.seconds]
    shares = (np.arange(SPREAD_QUANTILES) + 0.5) / SPREAD_QUANTILES
    batch_s, request_s, micro_batch_s, token_s, attention_s = best.tolist()
    spread = tuple(np.quantile(ratios, shares).tolist())
    return ServiceTime(limits, batch_s, request_s, micro_batch_s, token_s, attention_s, spread)


def median_error(service: ServiceTime, measurements: Sequence[Measurement]) -> float:
    """Median of the model's error over what was measured."""
    errors = [abs(service.seconds(one.tokens) / one.median_s - 1) for one in measurements]
    return float(np.median(errors))


def micro_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[tuple[int, int]]:
    """Rows and longest row of each micro-batch, cut as `suffuse.batching.token_batches` cuts them.

    By hand: a simulation cuts a hundred thousand small batches, for which numpy takes several times as long.
    """
    rows, longest = 0, 0
    for length in sorted(lengths):
        if rows and (rows + 1) * length > max_tokens:
            yield rows, longest
            rows = 0
        rows, longest = rows + 1, length
    if rows:
        yield rows, longest


def _features(tokens: Sequence[int], limits: Limits) -> tuple[float, float, float, float, float]:
    """What each of the five costs is multiplied with."""
    micro, padded, attention = 0, 0, 0
    for rows, longest in micro_batches(list(_windows(tokens, limits)), limits.micro_batch_tokens):
        micro += 1
        padded += rows * longest
        attention += rows * longest * longest
    return 1, len(tokens), micro, padded, attention


def _windows(tokens: Sequence[int], limits: Limits) -> Iterator[int]:
    """Lengths of what the model sees of requests of these lengths."""
    most = limits.max_tokens
    for length in tokens:
        whole, rest = divmod(min(length, most * limits.max_windows), most)
        yield from [most] * whole
        if rest:
            yield rest


def _subsets(size: int) -> Iterator[tuple[int, ...]]:
    for count in range(1, size + 1):
        yield from combinations(range(size), count)


def _profile(content: Any) -> Profile:  # noqa: ANN401 - parsed JSON
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"no format {FORMAT}")
    service = dict(content["service"])
    limits = Limits(**service.pop("limits"))
    if min(limits.micro_batch_tokens, limits.max_tokens, limits.max_windows) < 1:
        raise ValueError("limits below 1")
    spread = tuple(float(ratio) for ratio in service.pop("spread"))
    costs = {name: float(cost) for name, cost in service.items()}
    if not spread or not all(0 <= value < float("inf") for value in (*spread, *costs.values())):
        raise ValueError("a cost or a spread that is below 0, not finite, or missing")
    lengths = tuple(int(length) for length in content["lengths"])
    if not lengths or min(lengths) < 1:
        raise ValueError("lengths below 1, or none")
    return Profile(
        bundle=str(content["bundle"]),
        threads=int(content["threads"]),
        service=ServiceTime(limits, **costs, spread=spread),
        lengths=lengths,
        error=float(content["error"]),
        measurements=tuple(Measurement(tuple(one["tokens"]), tuple(one["seconds"])) for one in content["measurements"]),
    )
