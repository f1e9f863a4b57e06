"""All rows that a model is made of: which are trained on and which are held back, stored and encoded once."""

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from suffuse.errors import DataError, RowError
from suffuse.tasks import Row, Task, Tokens, task_from_dict, task_to_dict
from suffuse.training.encoded import EncodedRows
from suffuse.training.prepared import REJECTS, prepared, progress, rejects_to
from suffuse.training.sources import REMOTE, Checks, Placed, Reader, Reject, Source, shown
from suffuse.training.store import RowWriter, StoredRows, StoredWindows, write_windows

SIDES = ("train", "validation", "test")
_TASK = "task.json"


@dataclass(frozen=True)
class Split:
    """Which rows are held back, where there is one file for all.

    Args:
        validation: share of rows that pick the best checkpoint.
        test: share of rows that are never looked at in training; they are written to test.jsonl in the run's folder.
        group_by: a column whose equal values stay on one side, such as the film that a review is about; by default
            the whole row, so that copies of a row stay together.
        fold: which share is held back (cross-validation): where `test` is 0.1, the folds 0 to 9 together test every row
            once; where it is 0 and `validation` is 0.1, they validate every row once.
    """

    validation: float = 0.1
    test: float = 0.1
    group_by: str | None = None
    fold: int = 0

    def side(self, where: str, row: Row) -> str:
        """``train``, ``validation`` or ``test``: always the same for the same group, whatever the order of rows.

        Raises:
            RowError: the row has no column `group_by`.
        """
        if self.group_by is not None and self.group_by not in row:
            raise RowError(
                f"no column {self.group_by!r} to group by; got {', '.join(row)}", code="missing_field", where=where
            )
        group = row[self.group_by] if self.group_by is not None else json.dumps(dict(row), sort_keys=True, default=str)
        hashed = hashlib.sha256(str(group).encode("utf-8", "surrogatepass")).digest()
        place = (int.from_bytes(hashed[:8]) / 2**64 - self.fold * (self.test or self.validation)) % 1
        if place < self.test:
            return "test"
        return "validation" if place < self.test + self.validation else "train"


class Corpus:
    """Rows of a task on three sides.

    Args:
        sources: of each side; without any for validation, that side and test are split off the training rows.
        task: what the rows are for.
        split: how they are split.
        checks: what becomes of bad and repeated rows.
        is_streamed: the training rows are read anew each epoch, and not stored.

    Raises:
        DataError: streamed rows are to be split.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[Source, ...]],
        task: Task,
        split: Split,
        checks: Checks,
        *,
        is_streamed: bool,
    ) -> None:
        self._sources = sources
        self._task = task
        self._split = split
        self._checks = checks
        self._is_streamed = is_streamed
        self._digests: dict[str, dict[str, str]] = {}
        self.train_name = shown(sources["train"])
        if is_streamed and not sources["validation"]:
            raise DataError(f"{self.train_name}: streamed rows are not split; expected a file for data.validation")

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file of rows, by what it is for and its name; not by its folder, which is the machine's."""
        return self._digests_of(SIDES)

    @cached_property
    def task(self) -> Task:
        """The task with what it has learned from the training rows.

        Raises:
            DataError, RowError: a file or a row cannot be used; file and line are named.
        """
        return task_from_dict(json.loads((self._folder / _TASK).read_text("utf-8")))

    @property
    def rejects(self) -> Path:
        """File of the rows that were left out; there is none where all are good."""
        return self._folder / REJECTS

    @property
    def weights(self) -> list[float]:
        """How often rows of each training source are given in an epoch."""
        return [source.weight for source in self._sources["train"]]

    def reader(self, side: str) -> Reader:
        """What reads the rows of a side from its files."""
        return Reader(self._sources[side], self._task, self._checks)

    def rows(self, side: str) -> StoredRows:
        """The rows of ``train``, ``validation`` or ``test``, checked.

        Raises:
            DataError, RowError: as `task`.
        """
        return StoredRows(self._folder / f"{side}.arrow")

    def encoded(self, side: str, tokens: Tokens) -> EncodedRows:
        """The rows of a side, encoded.

        Raises:
            DataError, RowError: as `task`; also, the side has no rows.
        """
        rows, task = self.rows(side), self.task
        if not rows:
            raise DataError(
                f"{self.train_name}: no {side} rows are left; expected some: "
                "change the shares that data.split holds back, or name a file of its own"
            )
        tokenizer = hashlib.sha256(tokens.json.encode()).hexdigest()
        described = {"rows": self._folder.name, "tokenizer": tokenizer, "max_tokens": tokens.max_tokens}

        def fill(folder: Path) -> None:
            with progress(f"encoding {side} rows", len(rows)) as advance:
                write_windows(folder / "windows.arrow", rows, task, tokens, advance)

        folder = prepared(f"windows-{side}", described, fill)
        return EncodedRows(rows, StoredWindows(folder / "windows.arrow"), tokens.pad_token_id)

    @cached_property
    def _folder(self) -> Path:
        sides = SIDES[1:] if self._is_unread else SIDES
        if self._is_unread:
            self.reader("train").files()  # that they are there is better known now than in the training
        digests = self._digests_of(sides)
        described = {
            # A weight changes how often rows are given, not which are stored.
            "sources": {
                side: [dataclasses.asdict(dataclasses.replace(source, weight=1.0)) for source in self._sources[side]]
                for side in sides
            },
            "digests": digests,
            "task": task_to_dict(self._task),
            "split": dataclasses.asdict(self._split),
            "checks": dataclasses.asdict(self._checks),
            "is_streamed": self._is_streamed,
            # What lies elsewhere may have changed unseen.
            "once": uuid.uuid4().hex if REMOTE in digests.values() else "",
        }
        return prepared("rows", described, self._fill)

    @property
    def _is_unread(self) -> bool:
        """Whether training rows are read by the training alone, so that they need have no end."""
        return self._is_streamed and _is_learned(self._task)

    def _digests_of(self, sides: Sequence[str]) -> dict[str, str]:
        for side in sides:
            if side not in self._digests:
                self._digests[side] = self.reader(side).digests()
        return {f"{side}: {name}": digest for side in sides for name, digest in self._digests[side].items()}

    def _fill(self, folder: Path) -> None:
        with ExitStack() as stack:
            writers = {side: stack.enter_context(self._writer(folder / f"{side}.arrow")) for side in SIDES}
            reject = stack.enter_context(rejects_to(folder / REJECTS))
            advance = stack.enter_context(progress("reading rows"))
            task = self._learned(writers, reject, advance)
            for side in ("validation", "test"):
                for placed in self.reader(side).read(reject):
                    writers[side].write(placed)
        with rejects_to(folder / REJECTS) as reject:
            for side in SIDES:
                self._drop_unknown(folder / f"{side}.arrow", task, reject)
        (folder / _TASK).write_text(json.dumps(task_to_dict(task)), "utf-8")

    def _writer(self, path: Path) -> RowWriter:
        # The group besides: whoever measures by group needs it.
        group = (self._split.group_by,) if self._split.group_by else ()
        return RowWriter(path, (*self._task.columns, *group))

    def _learned(self, writers: Mapping[str, RowWriter], reject: Reject, advance: Callable[[int], None]) -> Task:
        """The task, having seen all rows of the training files: a rare label may stand only among those held back."""
        if self._is_unread:
            return self._task
        rows = _Watched(self._stored(writers, reject, advance))
        try:
            task = self._task.learn(rows)
        except RowError as error:
            raise error if error.where else error.at(rows.where) from None
        except DataError as error:  # the reader names its file, the task knows none
            raise error if error is rows.error else DataError(f"{self.train_name}: {error}") from None
        for _ in rows:  # a task that knows all already looks at none
            pass
        return task

    def _stored(
        self, writers: Mapping[str, RowWriter], reject: Reject, advance: Callable[[int], None]
    ) -> Iterator[Placed]:
        for placed in self._learnable(reject):
            if not self._is_streamed:
                writers[self._side(placed)].write(placed)
            advance(1)
            yield placed

    def _learnable(self, reject: Reject) -> Iterator[Placed]:
        for placed in self.reader("train").read(reject):
            error = self._refusal(placed) if self._checks.on_bad_row == "skip" else None
            if error is None:
                yield placed
            else:
                reject(error)

    def _refusal(self, placed: Placed) -> RowError | None:
        try:
            self._side(placed)
            self._task.learn((placed.row,))
        except RowError as error:
            return error.at(placed.where)
        except DataError:  # one row makes no task
            pass
        return None

    def _side(self, placed: Placed) -> str:
        return "train" if self._sources["validation"] else self._split.side(placed.where, placed.row)

    def _drop_unknown(self, path: Path, task: Task, reject: Reject) -> None:
        """Take rows out of a file whose target the task does not know; or stop at the first."""
        unknown: set[int] = set()
        rows = StoredRows(path)
        for index, (_, where, row) in enumerate(rows):
            try:
                task.target(row)
            except RowError as error:
                if self._checks.on_bad_row == "stop":
                    raise error.at(where) from None
                reject(error.at(where))
                unknown.add(index)
        if not unknown:
            return
        kept = path.with_suffix(".kept")
        with self._writer(kept) as writer:
            for index, placed in enumerate(rows):
                if index not in unknown:
                    writer.write(placed)
        kept.rename(path)


class _Watched(Iterator[Row]):
    """Rows on their way to a task that learns: how far they are, and the error that the reading of them ended in."""

    def __init__(self, placed: Iterator[Placed]) -> None:
        self._placed = placed
        self.where = ""
        self.error: DataError | None = None

    def __next__(self) -> Row:
        try:
            _, self.where, row = next(self._placed)
        except DataError as error:
            self.error = error
            raise
        return row


def _is_learned(task: Task) -> bool:
    try:
        return task.learn(()) == task
    except DataError:
        return False
