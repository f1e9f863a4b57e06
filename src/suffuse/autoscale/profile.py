"""How long a worker takes for a bundle's batches, measured in this process as a server's worker would compute them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from random import Random

from suffuse.autoscale.service_time import Limits, Measurement, Profile, fit, median_error
from suffuse.errors import InputError, RowError
from suffuse.rows import Row, read_rows
from suffuse.runtime import Predictor, Service, load
from suffuse.runtime.predictor import MICRO_BATCH_TOKENS

LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
BATCH_SIZES = (1, 4, 16, 64)
MOST_TOKENS = 4096
"""Of a measured batch: a larger one only repeats its micro-batches, and takes long."""
MOST_ROWS = 512
"""Of a file: enough for its lengths."""
BATCHES_OF_FILE = 4
"""Of each size, drawn from the rows of a file."""
ROUNDS = 7
LONG_ROW = 32
"""Times the longest input of the model that no served row is expected to pass."""

_PROSE = """The river rose in the night and by morning the lower fields were under water. Nobody in the village had
seen it so high since the old bridge was carried away, and those who remembered that year stood on the bank and said
little. A boat went out to the mill at noon; it came back with two children, a dog, and a sack of flour that was still
dry. By the evening the rain had stopped, the wind had turned to the north, and people asked what could be saved."""


@dataclass(frozen=True)
class SizedRow:
    """A row, and how many tokens the model sees of it."""

    row: Row
    tokens: int


def measure(
    bundle: str | Path,
    rows: str = "",
    *,
    threads: int = 1,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
    note: Callable[[str], object] = lambda _: None,
) -> Profile:
    """Measure a bundle; on a machine with other load the times are those of such a machine.

    Every batch runs once to warm up and then once in each round, in random order.

    Args:
        bundle: folder that ``suffuse export`` wrote.
        rows: a file of rows, of which batches are drawn; by default rows of prose, up to the model's longest input.
        threads: of the worker.
        rounds: repeats of each batch; the median counts.
        clock: in seconds.
        note: told how far it is.

    Raises:
        BundleError: the folder is no bundle.
        DataError: the file cannot be read or holds no rows.
        RowError: a row cannot be answered; its place is named.
        InputError: threads or rounds below 1.
    """
    for name, value in (("threads", threads), ("rounds", rounds)):
        if value < 1:
            raise InputError(f"{name} is {value}; expected at least 1")
    predictor = load(bundle, threads)
    limits = Limits(MICRO_BATCH_TOKENS, predictor.bundle.manifest.limits.max_tokens, _most_windows(predictor))
    random = Random(0)
    sized = list(_from_file(predictor, rows)) if rows else list(prose_rows(predictor))
    batches = list(_drawn(sized, random) if rows else _uniform(sized, random))
    measurements = _measured(Service(predictor), batches, rounds, random, clock=clock, note=note)
    fitted = fit(measurements, limits)
    return Profile(
        bundle=Path(bundle).resolve().name,
        threads=threads,
        service=fitted,
        lengths=tuple(one.tokens for one in sized),
        error=median_error(fitted, measurements),
        measurements=measurements,
    )


def prose_rows(predictor: Predictor) -> Iterator[SizedRow]:
    """A row of about each length that the model reads; all of a pair but its last text are short."""
    seen = set()
    for length in LENGTHS:
        if length > predictor.bundle.manifest.limits.max_tokens:
            return
        one = _made_row(predictor, length)
        if one.tokens not in seen:
            seen.add(one.tokens)
            yield one


def _measured(
    service: Service,
    batches: Sequence[Sequence[SizedRow]],
    rounds: int,
    random: Random,
    *,
    clock: Callable[[], float],
    note: Callable[[str], object],
) -> tuple[Measurement, ...]:
    bodies = [[dict(one.row) for one in batch] for batch in batches]
    seconds: list[list[float]] = [[] for _ in batches]
    for number in range(rounds + 1):
        note(f"round {number} of {rounds}, {len(batches)} batches" if number else "warming up")
        for index in random.sample(range(len(batches)), k=len(batches)):
            start_s = clock()
            service.replies(bodies[index])
            if number:
                seconds[index].append(clock() - start_s)
    return tuple(
        Measurement(tuple(one.tokens for one in batch), tuple(taken))
        for batch, taken in zip(batches, seconds, strict=True)
    )


def _sized(predictor: Predictor, row: Row) -> SizedRow:
    windows = predictor.task.encode([row], predictor.bundle.tokens())
    return SizedRow(row, sum(map(len, windows)))


def _from_file(predictor: Predictor, source: str) -> Iterator[SizedRow]:
    for where, row in islice(read_rows(source), MOST_ROWS):
        try:
            yield _sized(predictor, predictor.task.check(row))
        except RowError as error:
            raise error.at(where) from None


def _made_row(predictor: Predictor, length: int) -> SizedRow:
    """The longest row of prose that has at most `length` tokens, and at least one word."""
    low, high = 1, length
    while low < high:
        middle = (low + high + 1) // 2
        if _sized(predictor, _prose(predictor, middle)).tokens <= length:
            low = middle
        else:
            high = middle - 1
    return _sized(predictor, _prose(predictor, low))


def _prose(predictor: Predictor, words: int) -> Row:
    *short, last = predictor.task.fields
    text = " ".join(islice(cycle(_PROSE.split()), words))
    return {**{field.name: "What was saved?" for field in short}, last.name: text}


def _most_windows(predictor: Predictor) -> int:
    """The windows that the task makes of a row far too long for the model; some tasks know no bound."""
    row = _prose(predictor, LONG_ROW * predictor.bundle.manifest.limits.max_tokens)
    return len(predictor.task.encode([row], predictor.bundle.tokens()))


def _uniform(rows: Sequence[SizedRow], random: Random) -> Iterator[list[SizedRow]]:
    """Batches of rows of one length, and for each size one of all lengths."""
    for size in BATCH_SIZES:
        for one in rows:
            if size == 1 or size * one.tokens <= MOST_TOKENS:
                yield [one] * size
        if size > 1:
            yield _within(MOST_TOKENS, random.choices(rows, k=size))


def _drawn(rows: Sequence[SizedRow], random: Random) -> Iterator[list[SizedRow]]:
    for size in BATCH_SIZES:
        for _ in range(BATCHES_OF_FILE):
            yield _within(MOST_TOKENS, random.choices(rows, k=size))


def _within(tokens: int, batch: Sequence[SizedRow]) -> list[SizedRow]:
    """The first rows that have so many tokens together, and at least one."""
    kept: list[SizedRow] = []
    for one in batch:
        if kept and sum(row.tokens for row in kept) + one.tokens > tokens:
            break
        kept.append(one)
    return kept
