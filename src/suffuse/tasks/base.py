"""What a task is: four verbs and a few facts, shared by training, runtime and server.

``encode`` turns rows into windows, ``targets`` says what the network should have said for them, ``answer`` calls the
graphs for a batch of windows, ``decode`` turns what came back into one answer a row.
"""

import difflib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice, repeat
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from suffuse.errors import InputError, RowError, brief
from suffuse.tasks.decisions import Decisions
from suffuse.tasks.explained import Target
from suffuse.tasks.tokens import Tokens, as_inputs

Row = Mapping[str, Any]
Answer = dict[str, Any]
Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[str, Arrays], Arrays]
"""``run(graph, inputs) -> outputs``; arrays have the batch as their first axis."""

MOST_SHOWN = 12
"""Names in an error message: rows come from strangers, and a message is sent back."""


class Level(Enum):
    """What the network puts out a vector for."""

    ROW = "row"
    TOKEN = "token"  # noqa: S105 - a token of text


class Loss(Enum):
    """What training minimises."""

    SOFTMAX = "softmax"
    """Cross entropy against class indices; one class is right."""
    SIGMOID = "sigmoid"
    """Binary cross entropy against values in [0, 1]; each output stands alone."""
    SPAN = "span"
    """Each output is a choice among the tokens of the window: cross entropy over its positions, padding left out."""


@dataclass(frozen=True)
class Head:
    """The last layer that a task needs.

    Args:
        size: outputs per row or token.
        level: one vector a row (B, size) or one a token (B, N, size).
        loss: what training minimises.
        names: what each output stands for, where classes have names; class weights are given by them.
    """

    size: int
    level: Level
    loss: Loss
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """A field that a row must have, and what it holds, for error messages and documentation."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Window:
    """What the network sees at once: a row, or a part of a long one.

    Args:
        row: index of the row among those encoded together.
        inputs: ``input_ids`` (N,) and others of that length.
        truncated: whether text of the row was left out, in this window and in all others.
        spans: where answers point into a text: start and end of each token in it, in characters, (N, 2); -1 for tokens
            that are not of that text.
    """

    row: int
    inputs: Mapping[str, NDArray[np.int64]]
    truncated: bool = False
    spans: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


def as_windows(
    parts: Sequence[tuple[int, Encoding, bool]], spans: Sequence[NDArray[np.int64]] | None = None
) -> list[Window]:
    """A window for each part of a row.

    Args:
        parts: index of the row, what the network sees of it, and whether text of the row was left out.
        spans: of each part, where answers point into a text.
    """
    all_inputs = as_inputs([encoding for _, encoding, _ in parts])
    return [
        Window(row, inputs, is_cut, span)
        for (row, _, is_cut), inputs, span in zip(parts, all_inputs, spans or repeat(None), strict=False)
    ]


@dataclass(frozen=True)
class Task(ABC):
    """Base of all tasks; subclasses are frozen dataclasses, so that their settings are their JSON."""

    name: ClassVar[str]
    metric: ClassVar[str]
    """The metric that picks the best checkpoint; higher is better."""

    @property
    @abstractmethod
    def fields(self) -> tuple[Field, ...]:
        """The fields that a row must have to be answered."""

    @property
    @abstractmethod
    def target_field(self) -> Field:
        """The field that a row must have besides, to learn from it or to measure against it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All names that the task may read of a row; other columns are not kept for it."""
        return (*(field.name for field in self.fields), self.target_field.name)

    @property
    @abstractmethod
    def head(self) -> Head:
        """The last layer that this task needs."""

    @abstractmethod
    def learn(self, rows: Iterable[Row]) -> "Task":
        """The task with what it takes from the training rows, such as the set of labels.

        Raises:
            DataError: the rows do not make a task.
        """

    @abstractmethod
    def encode(self, rows: Sequence[Row], tokens: Tokens) -> list[Window]:
        """Windows of checked rows, in the order of the rows; every row has at least one."""

    @abstractmethod
    def target(self, row: Row) -> Any:  # noqa: ANN401 - each task has its own kind
        """What the answer to a checked row should be, in a form that `metrics` compares with.

        Raises:
            RowError: the target field is missing or holds what was not learned.
        """

    @abstractmethod
    def targets(self, windows: Sequence[Window], rows: Sequence[Row]) -> list[NDArray[Any]]:
        """For each window the array its outputs are compared with; equal shapes, or padded along the tokens.

        Raises:
            RowError: as `target`.
        """

    def answer(self, inputs: Arrays, run: Run) -> Arrays:
        """Outputs for a padded batch of windows: one call of the graph ``predict``, unless a task says otherwise."""
        return run("predict", inputs)

    @abstractmethod
    def decode(self, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]) -> list[Answer]:
        """One answer a row from the outputs of its windows (without the batch axis), in the order of the rows."""

    @abstractmethod
    def tallies(self, answers: Sequence[Answer], targets: Sequence[Any]) -> NDArray[np.float64]:
        """What each answer, against what `target` gave for its row, adds to the sums that make metrics, (R, K)."""

    @abstractmethod
    def measured(self, totals_bk: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Measures from sums of `tallies`; `metric` is among them.

        Args:
            totals_bk: over all rows, over a part of them, or over resamples, which are measured together, (B, K).

        Returns:
            Values by name, (B,) each.
        """

    def metrics(self, answers: Sequence[Answer], targets: Sequence[Any]) -> dict[str, float]:
        """Measures of answers against what `target` gave for their rows."""
        totals_k = self.tallies(answers, targets).sum(axis=0)
        return {name: float(values_b[0]) for name, values_b in self.measured(totals_k[None]).items()}

    @property
    def most_windows(self) -> int:
        """Most windows that a row is read in; what lies beyond is left out."""
        return int(getattr(self, "max_windows", 1))

    @property
    def slice_metric(self) -> str:
        """The measure that parts of the rows are compared by; not a mean over labels, of which a part may hold few."""
        return self.metric

    def confusions(self, answers: Sequence[Answer], targets: Sequence[Any]) -> list[tuple[str, str]]:  # noqa: ARG002
        """Each label that was expected beside what was answered, `NOTHING` on either side; none for other tasks."""
        return []

    def decisions(
        self,
        rows: Sequence[Row],  # noqa: ARG002 - not every task chooses
        windows: Sequence[Window],  # noqa: ARG002
        outputs: Sequence[Arrays],  # noqa: ARG002
    ) -> Decisions | None:
        """The choices that the scores of answers are probabilities of; none where scores are no probabilities."""
        return None

    def tempered(self, temperature: float) -> "Task":  # noqa: ARG002 - most tasks only compare logits
        """The task that gives the same answers, all but their scores, once all logits are divided by `temperature`."""
        return self

    def calibrate(
        self,
        rows: Sequence[Row],  # noqa: ARG002 - most tasks have nothing to choose
        windows: Sequence[Window],  # noqa: ARG002
        outputs: Sequence[Arrays],  # noqa: ARG002
    ) -> "Task":
        """The task with what it chooses on validation rows and their outputs, such as a threshold; by default itself.

        What it chooses must not change `encode`, `targets` or `head`.
        """
        return self

    def explained(
        self,
        row: Row,  # noqa: ARG002 - what there is to explain, each task knows
        answer: Answer,  # noqa: ARG002
        windows: Sequence[Window],  # noqa: ARG002
        outputs: Sequence[Arrays],  # noqa: ARG002
        name: str = "",  # noqa: ARG002
    ) -> list[Target]:
        """What an answer rests on, each a sum of logits.

        Args:
            row: one checked row.
            answer: as `decode` gave it.
            windows: of that row alone.
            outputs: of the windows.
            name: of the target; by default what was answered.

        Raises:
            RowError: there is no target of that name.
            InputError: answers of this task are not explained.
        """
        raise InputError(
            f"answers of the task {self.name} cannot be explained; expected a task that says what they rest on"
        )

    def located(self, row: Row, tokens: Tokens) -> list[NDArray[np.int64]]:  # noqa: ARG002
        """For each window that `encode` makes of a checked row, what `token_places` says of its tokens, (N, 3).

        Raises:
            InputError: answers of this task are not explained.
        """
        raise InputError(
            f"answers of the task {self.name} cannot be explained; expected a task that says where its tokens stand"
        )

    def texts(self, row: Row) -> tuple[str, ...]:
        """The texts of a checked row that its tokens are of, in the order of `fields`."""
        return tuple(row[field.name] for field in self.fields)

    def check(self, row: object) -> Row:
        """A row that can be encoded.

        Args:
            row: an object with the task's fields, or a bare string where there is only one.

        Raises:
            RowError: not an object; a field is missing, not text, empty, or not valid Unicode.
        """
        if isinstance(row, str) and len(self.fields) == 1:
            row = {self.fields[0].name: row}
        if not isinstance(row, Mapping):
            raise RowError(
                f"the row is {describe(row)}; expected an object with {field_names(self.fields)}", code="invalid_type"
            )
        for field in self.fields:
            check_text(row, field)
        return row


def check_text(row: Row, field: Field) -> str:
    """The text in a field of a row.

    Raises:
        RowError: it is missing, not text, empty, or holds what is not text.
    """
    text = check_present(row, field)
    if not isinstance(text, str):
        raise RowError(
            f"field {field.name!r} is {describe(text)}; expected a string: {field.meaning}", code="invalid_type"
        )
    if not text.strip():
        raise RowError(f"field {field.name!r} is empty; expected {field.meaning}", code="empty_text")
    if (nul := text.find("\0")) >= 0:
        raise RowError(
            f"field {field.name!r} holds a NUL character at position {nul}; expected text, not binary data",
            code="invalid_text",
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(
            f"field {field.name!r} holds a lone surrogate (U+{ord(text[error.start]):04X}) at position {error.start}; "
            "expected valid Unicode",
            code="invalid_text",
        ) from None
    return text


def check_present(row: Row, field: Field) -> object:
    """What a field of a row holds.

    Raises:
        RowError: the row has no such field; a misspelt one is named.
    """
    if field.name in row:
        return row[field.name]
    names = [str(name) for name in islice(row, MOST_SHOWN)]
    near = difflib.get_close_matches(field.name, names, n=1)
    got = f"got {', '.join(map(brief, names))}" if names else "the row has no fields"
    hint = f"; did you mean {field.name!r} by {near[0]!r}?" if near else ""
    raise RowError(f"field {field.name!r} is missing: {got}; expected {field.meaning}{hint}", code="missing_field")


def describe(value: object) -> str:
    """A JSON value for error messages: a number as JSON writes it, of what may be long the type alone."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    return names.get(type(value), f"of type {type(value).__name__}")


def field_names(fields: Sequence[Field]) -> str:
    """Names of fields for error messages: ``the field 'text'``, ``the fields 'text', 'text_pair'``."""
    return f"the field{'s' if len(fields) > 1 else ''} {', '.join(repr(field.name) for field in fields)}"
