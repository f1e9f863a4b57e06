"""Classification: one label a row, or several, of a text or of a pair of texts.

A text that is too long for the model is read in several windows, each of which learns the label of the row. In an
answer their logits are averaged, weighted by the number of their tokens: a network that averages its tokens before a
linear layer thus answers as if it had averaged those of the whole text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from suffuse.errors import DataError, InputError, RowError, brief
from suffuse.tasks.base import (
    MOST_SHOWN,
    Answer,
    Arrays,
    Field,
    Head,
    Level,
    Loss,
    Row,
    Task,
    Window,
    as_windows,
    check_present,
    describe,
)
from suffuse.tasks.decisions import NOTHING, Decisions, yes_or_no
from suffuse.tasks.explained import Target, check_target, token_places
from suffuse.tasks.metrics import Sets, exact_match, f1_scores, set_tallies
from suffuse.tasks.tokens import Tokens

TEXT = Field("text", "the text to classify")
TEXT_PAIR = Field("text_pair", "the second text of the pair")
LABEL = Field("label", "the label of the row")
LABELS = Field("labels", "a list of labels, or a string that separates them by commas")

SCORE_DIGITS = 6
"""Decimals of a score in an answer: finer than float32 differs between machines, and half the bytes."""


@dataclass(frozen=True)
class Classification(Task):
    """Give a text one label, or all that fit.

    Args:
        labels: in the order of the network's outputs; empty until learned from the training rows.
        pair: rows have ``text`` and ``text_pair``.
        multi_label: rows have ``labels``, any number of them, and each label is decided by itself.
        threshold: score from which a label is given, with `multi_label`.
        max_windows: most windows that a long text is read in; what lies beyond is left out, and the answer says so.

    Raises:
        InputError: `max_windows` is less than 1.
    """

    labels: tuple[str, ...] = ()
    pair: bool = False
    multi_label: bool = False
    threshold: float = 0.5
    max_windows: int = 16

    name: ClassVar[str] = "classification"
    metric: ClassVar[str] = "f1_macro"

    def __post_init__(self) -> None:
        if self.max_windows < 1:
            raise InputError(f"max_windows is {self.max_windows}; expected at least 1")

    @property
    def fields(self) -> tuple[Field, ...]:
        """``text``, and ``text_pair`` for pairs."""
        return (TEXT, TEXT_PAIR) if self.pair else (TEXT,)

    @property
    def target_field(self) -> Field:
        """``label``, or ``labels`` with several a row."""
        return LABELS if self.multi_label else LABEL

    @property
    def head(self) -> Head:
        """One output a label."""
        return Head(len(self.labels), Level.ROW, Loss.SIGMOID if self.multi_label else Loss.SOFTMAX, self.labels)

    def learn(self, rows: Iterable[Row]) -> "Classification":
        """The task with the labels of `rows`, sorted, unless they were given."""
        if self.labels:
            return self
        labels = sorted({label for row in rows for label in self._given(row)})
        least = 1 if self.multi_label else 2
        if len(labels) < least:
            raise DataError(
                f"the training rows have {len(labels)} different labels in the field {self.target_field.name!r}"
                f"{' (' + ', '.join(labels) + ')' if labels else ''}; expected at least {least}"
            )
        return replace(self, labels=tuple(labels))

    def encode(self, rows: Sequence[Row], tokens: Tokens) -> list[Window]:
        """As many windows a row as its text fills, at most `max_windows`; a pair is one window, cut at the limit."""
        return as_windows(self._parts(tokens.encode(*self._texts(rows))))

    def target(self, row: Row) -> tuple[int, ...]:
        """Indices of the row's labels."""
        given = self._given(row)
        for label in given:
            if label not in self.labels:
                raise RowError(
                    f"field {self.target_field.name!r} is {brief(label)}; "
                    f"expected {'some' if self.multi_label else 'one'} of {_some(self.labels)} (learned in training)",
                    code="unknown_label",
                )
        return tuple(map(self.labels.index, given))

    def targets(self, windows: Sequence[Window], rows: Sequence[Row]) -> list[NDArray[Any]]:
        """For each window the index of its label (), or with several labels a 0 or 1 for each (C,)."""
        known: dict[str, tuple[int, ...]] = {}

        def indices(row: Row) -> tuple[int, ...]:
            """As `target`; a label that was checked before is looked up, so that all take a third of the time."""
            given = row.get(self.target_field.name)
            if not isinstance(given, str):
                return self.target(row)
            if given not in known:
                known[given] = self.target(row)
            return known[given]

        chosen_w = [indices(rows[window.row]) for window in windows]
        if not self.multi_label:
            return list(np.array(chosen_w, dtype=np.int64).reshape(-1))
        targets_wc = np.zeros((len(windows), len(self.labels)), dtype=np.float32)
        for target_c, chosen in zip(targets_wc, chosen_w, strict=True):
            target_c[list(chosen)] = 1.0
        return list(targets_wc)

    def decode(self, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]) -> list[Answer]:  # noqa: ARG002
        """``{"label", "score", "scores"}``, or ``{"labels", "scores"}`` with several; ``truncated`` where it was."""
        if not windows:
            return []
        firsts, logits_rc = _pooled(windows, outputs)
        scores_rc = _sigmoid(logits_rc) if self.multi_label else _softmax(logits_rc)
        answers = []
        for first, scores_c in zip(firsts, scores_rc, strict=True):
            scores = {
                label: round(float(score), SCORE_DIGITS) for label, score in zip(self.labels, scores_c, strict=True)
            }
            answer: Answer = {"scores": scores}
            if self.multi_label:
                answer = {"labels": [label for label in self.labels if scores[label] >= self.threshold], **answer}
            else:
                label = self.labels[int(scores_c.argmax())]
                answer = {"label": label, "score": scores[label], **answer}
            answers.append(answer | {"truncated": True} if windows[first].truncated else answer)
        return answers

    def explained(
        self,
        row: Row,  # noqa: ARG002 - the answer tells
        answer: Answer,
        windows: Sequence[Window],
        outputs: Sequence[Arrays],
        name: str = "",
    ) -> list[Target]:
        """The logit of the label that was given, of each where several were, of the likeliest where none was.

        A long text's logit is the mean of its windows', as in the answer.
        """
        if name:
            check_target(name, self.labels)
        likeliest = max(self.labels, key=answer["scores"].__getitem__)
        names = [name] if name else answer.get("labels", [answer.get("label")]) or [likeliest]
        tokens = sum(map(len, windows))
        targets = []
        for label in names:
            weights = [np.zeros_like(output["logits"], dtype=np.float32) for output in outputs]
            for window, weights_c in zip(windows, weights, strict=True):
                weights_c[self.labels.index(label)] = len(window) / tokens
            targets.append(Target(label, weights))
        return targets

    def located(self, row: Row, tokens: Tokens) -> list[NDArray[np.int64]]:
        """Places of the tokens of the text, or of both."""
        return [token_places(part) for _, part, _ in self._parts(tokens.located(*self._texts([row])))]

    def tallies(self, answers: Sequence[Answer], targets: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
        """As `set_tallies`."""
        given = [[self.labels.index(label) for label in self._answered(answer)] for answer in answers]
        return set_tallies(self._sets(given), self._sets(targets))

    def measured(self, totals_bk: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Accuracy and F1 (macro and micro), or with several labels exact match and F1."""
        return {"exact_match" if self.multi_label else "accuracy": exact_match(totals_bk), **f1_scores(totals_bk)}

    @property
    def most_windows(self) -> int:
        """One for a pair, else `max_windows`."""
        return 1 if self.pair else self.max_windows

    @property
    def slice_metric(self) -> str:
        """Accuracy, or with several labels F1 over all decisions."""
        return "f1_micro" if self.multi_label else "accuracy"

    def confusions(self, answers: Sequence[Answer], targets: Sequence[tuple[int, ...]]) -> list[tuple[str, str]]:
        """The label of each row and the one given; of several those in both sets, those missed, those too many."""
        pairs: list[tuple[str, str]] = []
        for answer, indices in zip(answers, targets, strict=True):
            given, expected = self._answered(answer), [self.labels[index] for index in indices]
            if self.multi_label:
                pairs += [(label, label if label in given else NOTHING) for label in expected]
                pairs += [(NOTHING, label) for label in given if label not in expected]
            else:
                pairs.append((expected[0], given[0]))
        return pairs

    def decisions(self, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]) -> Decisions | None:
        """The label of each row, or with several each label of each row, given or not."""
        if not windows:
            return None
        targets = [self.target(row) for row in rows]
        _, logits_rc = _pooled(windows, outputs)
        if self.multi_label:
            return yes_or_no("each label of each row", logits_rc, self._sets(targets))
        return Decisions(
            "the label of each row", logits_rc, np.array(targets, dtype=np.int64).ravel(), np.arange(len(rows))
        )

    def tempered(self, temperature: float) -> "Classification":
        """The task with the threshold at the score that the same logit now has."""
        if not 0.0 < self.threshold < 1.0:
            return self
        odds = (self.threshold / (1.0 - self.threshold)) ** (1.0 / temperature)
        return replace(self, threshold=odds / (1.0 + odds))

    def _answered(self, answer: Answer) -> list[str]:
        labels: list[str] = answer["labels"] if self.multi_label else [answer["label"]]
        return labels

    def _sets(self, indices: Sequence[Sequence[int]]) -> Sets:
        sets = np.zeros((len(indices), len(self.labels)), dtype=bool)
        for row, chosen in zip(sets, indices, strict=True):
            row[list(chosen)] = True
        return sets

    def _texts(self, rows: Sequence[Row]) -> tuple[list[str], list[str] | None]:
        return [row[TEXT.name] for row in rows], [row[TEXT_PAIR.name] for row in rows] if self.pair else None

    def _parts(self, encodings: Sequence[Encoding]) -> list[tuple[int, Encoding, bool]]:
        most = self.most_windows
        parts: list[tuple[int, Encoding, bool]] = []
        for index, encoding in enumerate(encodings):
            # Where one text was cut, what overflows is the rest of it, in windows as long as the first.
            rest = encoding.overflowing
            parts += [(index, part, len(rest) >= most) for part in (encoding, *rest[: most - 1])]
        return parts

    def _given(self, row: Row) -> list[str]:
        field = self.target_field
        value = check_present(row, field)
        if not self.multi_label:
            label = _label(value, field)
            if not label:
                raise RowError(f"field {field.name!r} is empty; expected {field.meaning}", code="empty_text")
            return [label]
        labels = value.split(",") if isinstance(value, str) else value
        if not isinstance(labels, list | tuple):
            raise RowError(f"field {field.name!r} is {describe(value)}; expected {field.meaning}", code="invalid_type")
        return [name for label in labels if (name := _label(label, field))]


def _pooled(windows: Sequence[Window], outputs: Sequence[Arrays]) -> tuple[list[int], NDArray[np.float64]]:
    """The first window of each row, and the mean of the row's logits (R, C), weighted by the windows' tokens."""
    logits_wc = np.stack([output["logits"] for output in outputs]).astype(np.float64)
    rows_w = np.array([window.row for window in windows])
    firsts_r = np.flatnonzero(np.diff(rows_w, prepend=-1))
    lengths_w = np.array([len(window) for window in windows], dtype=np.float64)
    totals_r = np.add.reduceat(lengths_w, firsts_r)
    # A share is exactly 1 where a row has one window, whose logits it leaves as they are.
    shares_w = lengths_w / np.repeat(totals_r, np.diff(firsts_r, append=len(windows)))
    pooled_rc: NDArray[np.float64] = np.add.reduceat(logits_wc * shares_w[:, None], firsts_r, axis=0)
    return firsts_r.tolist(), pooled_rc


def _label(value: object, field: Field) -> str:
    if not isinstance(value, str | int):
        raise RowError(f"field {field.name!r} holds {describe(value)}; expected {field.meaning}", code="invalid_type")
    return str(value).strip()


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - MOST_SHOWN} more" if len(labels) > MOST_SHOWN else ""
    return ", ".join(labels[:MOST_SHOWN]) + more


def _softmax(logits_rc: NDArray[np.float64]) -> NDArray[np.float64]:
    exponents_rc = np.exp(logits_rc - logits_rc.max(axis=-1, keepdims=True))
    normalised_rc: NDArray[np.float64] = exponents_rc / exponents_rc.sum(axis=-1, keepdims=True)
    return normalised_rc


def _sigmoid(logits_rc: NDArray[np.float64]) -> NDArray[np.float64]:
    # By tanh, which does not overflow for logits far below zero.
    halves_rc: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * logits_rc))
    return halves_rc
