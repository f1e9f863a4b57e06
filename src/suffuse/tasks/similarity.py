"""Sentence similarity: how alike two texts are in meaning, as a number on the scale of the data."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from suffuse.errors import InputError, RowError, brief
from suffuse.tasks.base import (
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
from suffuse.tasks.explained import Target, check_target, token_places
from suffuse.tasks.tokens import Tokens

TEXT = Field("text", "the first text of the pair")
TEXT_PAIR = Field("text_pair", "the text to compare it with")

_ROUNDING = 1e-12
"""Share of a sum of squares below which what is left of it is rounding."""
SCORE = "score"
SCORE_DIGITS = 6
"""Decimals of a score in an answer: finer than float32 differs between machines."""


@dataclass(frozen=True)
class Similarity(Task):
    """Say how alike two texts are.

    Both are read together, so that exchanging them may change the score a little.

    Args:
        low: score of texts that have nothing in common.
        high: score of texts that mean the same.

    Raises:
        InputError: `low` is not below `high`, or one of them is not finite.
    """

    low: float = 0.0
    high: float = 5.0

    name: ClassVar[str] = "similarity"
    metric: ClassVar[str] = "spearman"

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"low is {self.low:g} and high is {self.high:g}; expected low below high, both finite")

    @property
    def fields(self) -> tuple[Field, ...]:
        """``text`` and ``text_pair``."""
        return (TEXT, TEXT_PAIR)

    @property
    def target_field(self) -> Field:
        """``score``."""
        return Field("score", f"a number from {self.low:g} (nothing in common) to {self.high:g} (the same meaning)")

    @property
    def head(self) -> Head:
        """One output, whose sigmoid is the place on the scale."""
        return Head(1, Level.ROW, Loss.SIGMOID)

    def learn(self, rows: Iterable[Row]) -> "Similarity":  # noqa: ARG002 - the scale is a setting
        """The task itself."""
        return self

    def encode(self, rows: Sequence[Row], tokens: Tokens) -> list[Window]:
        """One window a row, both texts in it; the longer one is cut first at the model's limit."""
        encodings = tokens.encode(*_pair(rows))
        return as_windows([(index, encoding, bool(encoding.overflowing)) for index, encoding in enumerate(encodings)])

    def target(self, row: Row) -> float:
        """The row's score, also where it is a string, as in CSV."""
        field = self.target_field
        value = check_present(row, field)
        shown = brief(value) if isinstance(value, str) else describe(value)
        try:
            score = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # the errors are caught
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if math.isnan(score):
            raise RowError(f"field {field.name!r} is {shown}; expected {field.meaning}", code="invalid_type")
        if not self.low <= score <= self.high:
            raise RowError(
                f"field {field.name!r} is {shown}; expected {field.meaning}; "
                "set the task's low and high where the data have another scale",
                code="out_of_range",
            )
        return score

    def targets(self, windows: Sequence[Window], rows: Sequence[Row]) -> list[NDArray[Any]]:
        """For each window its score as a share of the scale, (1,)."""
        scale = self.high - self.low
        return [np.array([(self.target(rows[window.row]) - self.low) / scale], dtype=np.float32) for window in windows]

    def decode(self, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]) -> list[Answer]:  # noqa: ARG002
        """``{"score"}`` on the scale of the data; ``truncated`` where a text was cut."""
        answers: list[Answer] = []
        for window, output in zip(windows, outputs, strict=True):
            # The sigmoid by tanh, which does not overflow.
            share = 0.5 * (1.0 + math.tanh(0.5 * float(output["logits"][0])))
            answer: Answer = {"score": round(self.low + (self.high - self.low) * share, SCORE_DIGITS)}
            answers.append(answer | {"truncated": True} if window.truncated else answer)
        return answers

    def explained(
        self,
        row: Row,  # noqa: ARG002 - there is one output
        answer: Answer,  # noqa: ARG002
        windows: Sequence[Window],  # noqa: ARG002
        outputs: Sequence[Arrays],
        name: str = "",
    ) -> list[Target]:
        """The one logit, as ``score``."""
        check_target(name or SCORE, [SCORE])
        return [Target(SCORE, [np.ones_like(output["logits"], dtype=np.float32) for output in outputs])]

    def located(self, row: Row, tokens: Tokens) -> list[NDArray[np.int64]]:
        """Places of the tokens of both texts."""
        return [token_places(encoding) for encoding in tokens.located(*_pair([row]))]

    def tallies(self, answers: Sequence[Answer], targets: Sequence[float]) -> NDArray[np.float64]:
        """Moments of ranks and of values, (R, 12); ranks are those among all answers, also where fewer are summed."""
        given, expected = np.array([answer["score"] for answer in answers]), np.array(targets, dtype=np.float64)
        return np.concatenate([_moments(_ranks(given), _ranks(expected)), _moments(given, expected)], axis=1)

    def measured(self, totals_bk: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Correlation of ranks (Spearman) and of values (Pearson); 0 where all answers, or all targets, are equal."""
        return {"spearman": _correlation(totals_bk[:, :6]), "pearson": _correlation(totals_bk[:, 6:])}


def _pair(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    return [row[TEXT.name] for row in rows], [row[TEXT_PAIR.name] for row in rows]


def _moments(first_r: NDArray[np.float64], second_r: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each row adds to the sums that a correlation is made of, (R, 6)."""
    x_r, y_r = _standard(first_r), _standard(second_r)
    return np.stack([np.ones_like(x_r), x_r, y_r, x_r * x_r, y_r * y_r, x_r * y_r], axis=1)


def _standard(values_r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Around 0 and within -1 and 1: correlations stay as they are, and sums of squares lose no digits."""
    if not len(values_r) or (values_r == values_r[0]).all():
        return np.zeros_like(values_r)
    centred_r = values_r - values_r.mean()
    standard_r: NDArray[np.float64] = centred_r / np.abs(centred_r).max()
    return standard_r


def _correlation(sums_b6: NDArray[np.float64]) -> NDArray[np.float64]:
    n, x, y, xx, yy, xy = sums_b6.T
    n = np.maximum(n, 1)
    spread_x, spread_y = xx - x * x / n, yy - y * y / n
    differs = (spread_x > _ROUNDING * xx) & (spread_y > _ROUNDING * yy)
    product = np.sqrt(np.where(differs, spread_x * spread_y, 1.0))
    return np.where(differs, np.clip((xy - x * y / n) / product, -1.0, 1.0), 0.0)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[places]
