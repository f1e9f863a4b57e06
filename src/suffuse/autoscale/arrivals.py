"""When requests come and how long they are: read from a trace, or drawn."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from suffuse.errors import DataError, InputError, brief

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TIME_COLUMNS = ("timestamp", "time_s", "time")
TOKENS_COLUMNS = ("contexttokens", "tokens")
"""Names, in any case, that are looked for unless a column is named; the first are those of Azure's public traces."""

MOST_REQUESTS = 10_000_000
"""More would take a simulation hours."""


@dataclass(frozen=True)
class Arrivals:
    """Requests in the order they come.

    Args:
        times_s: seconds from the start, ascending, (R,).
        tokens: length of each request, (R,).
        duration_s: how long they come; the last may come earlier.
    """

    times_s: FloatArray
    tokens: IntArray
    duration_s: float

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def rate_per_s(self) -> float:
        """Requests a second, on average."""
        return len(self) / self.duration_s

    def faster(self, factor: float) -> "Arrivals":
        """The same requests with the clock `factor` times as fast; below 1 slower."""
        if not 0 < factor < float("inf"):
            raise InputError(f"the clock is to run {factor:g} times as fast; expected more than 0")
        return Arrivals(self.times_s / factor, self.tokens, self.duration_s / factor)


def read_trace(
    path: str | Path, *, time_column: str = "", tokens_column: str = "", lengths: Sequence[int] = (), seed: int = 0
) -> Arrivals:
    """Arrivals from a CSV file with a header line.

    Args:
        path: of the file.
        time_column: holds seconds or ISO timestamps, ascending; by default one of `TIME_COLUMNS`.
        tokens_column: holds the length of each request; by default one of `TOKENS_COLUMNS`.
        lengths: drawn from where the file has no lengths.
        seed: of that drawing.

    Raises:
        DataError: the file cannot be read, has no such column or no requests; a time is not a time, below 0 or not in
            order; a length is not a whole number above 0. File and line are named.
    """
    path = Path(path)
    times_s: list[float] = []
    tokens: list[int] = []
    for number, (where, time_text, tokens_text) in enumerate(_lines(path, time_column, tokens_column)):
        time_s = _seconds(where, time_text)
        if number and time_s < times_s[-1]:
            raise DataError(
                f"{where}: the time {time_text} comes before the one above it; expected times in ascending order: "
                "sort the file by time"
            )
        times_s.append(time_s)
        if tokens_text is not None:
            tokens.append(_length(where, tokens_text))
    if not times_s:
        raise DataError(f"{path}: no requests; expected a header line and a line for each request")
    times = np.array(times_s) - times_s[0]
    if not tokens and not lengths:
        raise DataError(
            f"{path}: no column of lengths; expected one of {', '.join(TOKENS_COLUMNS)}, or the name of another"
        )
    drawn = np.array(tokens) if tokens else np.random.default_rng(seed).choice(lengths, len(times))
    # A single request has no duration, and a rate is divided by it.
    return Arrivals(times, drawn.astype(np.int64), max(float(times[-1]), 1.0))


def poisson(rate_per_s: float, duration_s: float, lengths: Sequence[int], seed: int = 0) -> Arrivals:
    """Requests that come independently of each other at a constant rate.

    Args:
        rate_per_s: on average.
        duration_s: in seconds.
        lengths: tokens, drawn from with equal chance.
        seed: the same gives the same.
    """
    return _drawn(lambda times_s: np.full(len(times_s), rate_per_s), (rate_per_s,), duration_s, lengths, seed)


def step(low_per_s: float, high_per_s: float, duration_s: float, lengths: Sequence[int], seed: int = 0) -> Arrivals:
    """A third of the time at one rate, a third at another, and back."""

    def rate(times_s: FloatArray) -> FloatArray:
        is_high = (times_s >= duration_s / 3) & (times_s < 2 * duration_s / 3)
        return np.where(is_high, high_per_s, low_per_s)

    return _drawn(rate, (low_per_s, high_per_s), duration_s, lengths, seed)


def swing(low_per_s: float, high_per_s: float, duration_s: float, lengths: Sequence[int], seed: int = 0) -> Arrivals:
    """A day in `duration_s` seconds: from the low rate up to the high one and back, as a cosine."""

    def rate(times_s: FloatArray) -> FloatArray:
        return low_per_s + (high_per_s - low_per_s) * (1 - np.cos(2 * np.pi * times_s / duration_s)) / 2

    return _drawn(rate, (low_per_s, high_per_s), duration_s, lengths, seed)


def _drawn(
    rate: Callable[[FloatArray], FloatArray],
    bounds_per_s: Sequence[float],
    duration_s: float,
    lengths: Sequence[int],
    seed: int,
) -> Arrivals:
    """A Poisson process of changing rate, by thinning one of the peak rate (Lewis and Shedler, 1979)."""
    for bound_per_s in bounds_per_s:
        if not 0 <= bound_per_s < float("inf"):
            raise InputError(f"the rate is {bound_per_s:g} requests a second; expected 0 or more")
    if not 0 < duration_s < float("inf"):
        raise InputError(f"the duration is {duration_s:g} s; expected more than 0")
    peak_per_s = max(bounds_per_s)
    if peak_per_s * duration_s > MOST_REQUESTS:
        raise InputError(
            f"{peak_per_s:g} requests a second for {duration_s:g} s are too many to simulate; "
            f"expected at most {MOST_REQUESTS:,} requests: take a shorter duration"
        )
    random = np.random.default_rng(seed)
    times_s = np.sort(random.uniform(0, duration_s, random.poisson(peak_per_s * duration_s)))
    times_s = times_s[random.uniform(0, peak_per_s, len(times_s)) < rate(times_s)]
    if not len(times_s):
        raise InputError(f"no request came in {duration_s:g} s; expected a higher rate or a longer duration")
    return Arrivals(times_s, random.choice(np.asarray(lengths, dtype=np.int64), len(times_s)), duration_s)


def _lines(path: Path, time_column: str, tokens_column: str) -> Iterator[tuple[str, str, str | None]]:
    """Place, time and length of each request, as text; the length is None where the file has none."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or ())
            time_name = _column(path, names, time_column, TIME_COLUMNS)
            if time_name is None:
                raise DataError(
                    f"{path}: no column of times among {_shown(names)}; expected one of {', '.join(TIME_COLUMNS)}, "
                    "or the name of another"
                )
            tokens_name = _column(path, names, tokens_column, TOKENS_COLUMNS)
            for row in reader:
                where = f"{path}:{reader.line_num}"
                yield where, _cell(row, time_name), None if tokens_name is None else _cell(row, tokens_name)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a CSV file of arrivals") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; expected a CSV file of arrivals") from None
    except csv.Error as error:
        raise DataError(f"{path}: not CSV ({error}); expected a CSV file of arrivals") from None


def _column(path: Path, names: Sequence[str], wanted: str, usual: Sequence[str]) -> str | None:
    if wanted and wanted not in names:
        raise DataError(f"{path}: no column {wanted!r}; expected one of {_shown(names)}")
    by_name = {name.strip().lower(): name for name in names}
    return wanted or next((by_name[name] for name in usual if name in by_name), None)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(brief, names)) or "none: the file is empty"


def _cell(row: Mapping[str, str | None], name: str) -> str:
    return (row[name] or "").strip()


def _seconds(where: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            seconds = float("nan")
        else:
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not isfinite(seconds):
        raise DataError(
            f"{where}: the time is {brief(text)}; expected seconds, or an ISO timestamp such as 2023-11-16 18:15:46.7"
        )
    if seconds < 0:
        raise DataError(f"{where}: the time is {brief(text)}; expected 0 or more")
    return seconds


def _length(where: str, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise DataError(f"{where}: the length is {brief(text)}; expected a whole number of tokens, at least 1")
    return int(text)
