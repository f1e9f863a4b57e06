"""An answer and why: the row answered by the predictor, then each thing it says shared out among the words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffuse.explain.attention import AttentionMaps, attention_maps
from suffuse.explain.gradients import Subject
from suffuse.explain.notebook import compact
from suffuse.explain.saliency import Attribution, IntegratedGradients, Method
from suffuse.explain.words import Word, scored_words
from suffuse.runtime import Predictor
from suffuse.tasks import Answer, Row, Target, Window

MAX_TARGETS = 32
"""Entities of one text that are explained: each costs as much as a label."""
DIGITS = 6
"""Decimals of scores, as in answers."""

_Windows = Sequence[tuple[Window, NDArray[np.int64], NDArray[np.float32]]]


@dataclass(frozen=True)
class Explained:
    """One thing that the answer says, and why.

    Args:
        target: a label, or what else the task calls it.
        span: start and end of what it is about, in characters, where that is a part of a text.
        value: its logit, or sum of logits.
        baseline: the same for no text, where the method compares with it.
        gap: by how much the scores miss value - baseline, as a share of it, where the method promises that sum.
        steps: points at which a gradient was taken; 0 by a method that takes none.
        words: in the order of fields and text.
        other: score of special tokens, and of white space that is a token.
    """

    target: str
    span: tuple[int, int] | None
    value: float
    baseline: float | None
    gap: float | None
    steps: int
    words: tuple[Word, ...]
    other: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, scores rounded, without what there is none of."""
        span = {} if self.span is None else {"start": self.span[0], "end": self.span[1]}
        numbers = {"value": self.value, "baseline": self.baseline, "gap": self.gap}
        return {
            "target": self.target,
            **span,
            **{name: _rounded(number) for name, number in numbers.items() if number is not None},
            "steps": self.steps,
            "words": [{**asdict(word), "score": _rounded(word.score)} for word in self.words],
            "other": _rounded(self.other),
        }


@dataclass(frozen=True)
class Explanation:
    """An answer with what it rests on.

    Args:
        answer: as `Predictor` gives it.
        method: name of the method.
        windows: parts that the text was read in, which were explained one by one, and whose scores were added.
        explained: each label, entity or other thing that was answered; the first `MAX_TARGETS`.
        left_out: how many there are besides.
        texts: of the row as they were sent, by field, which places of words and answers count characters of.
        attention: in each window, where it was asked for (`Explainer.attention`).
    """

    answer: Answer
    method: str
    windows: int
    explained: tuple[Explained, ...]
    left_out: int = 0
    texts: Mapping[str, str] = field(default_factory=dict)
    attention: tuple[AttentionMaps, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, scores rounded."""
        return {
            "answer": self.answer,
            "method": self.method,
            "windows": self.windows,
            "explained": [explained.to_dict() for explained in self.explained],
            **({"left_out": self.left_out} if self.left_out else {}),
            **({"attention": [maps.to_dict() for maps in self.attention]} if self.attention else {}),
        }

    def _repr_html_(self) -> str:
        """What Jupyter shows: the texts with each word coloured by its score."""
        return compact(self)


class Explainer:
    """Explanations of a predictor's answers.

    Args:
        predictor: answers; its bundle must hold the graphs that explanations are computed with.
        method: shares out; by default integrated gradients.

    Raises:
        BundleError: the bundle has no explain.onnx, or for `AttentionRollout` no attention.onnx.
    """

    def __init__(self, predictor: Predictor, method: Method | None = None) -> None:
        self._predictor = predictor
        self._method: Method = method or IntegratedGradients()
        self._attribute = self._method.prepare(predictor.bundle, predictor.run)
        self._baseline_token_id = int(predictor.bundle.manifest.model["baseline_token_id"])

    def __call__(self, row: str | Row, target: str = "", *, most: int | None = None) -> Explanation:
        """Answer a row and explain the answer.

        Args:
            row: as for the predictor.
            target: what to explain, such as a label; by default all that was answered.
            most: things to explain, at most `MAX_TARGETS`, which is the default; the others are counted.

        Raises:
            RowError: the row cannot be answered, or has no such target.
        """
        most = MAX_TARGETS if most is None else min(most, MAX_TARGETS)
        task = self._predictor.task
        checked = task.check(row)
        windows = task.encode([checked], self._predictor.tokens)
        outputs = self._predictor.outputs(windows)
        answer = task.decode([checked], windows, outputs)[0]
        targets = task.explained(checked, answer, windows, outputs, target)
        located = task.located(checked, self._predictor.tokens)
        placed = list(zip(windows, located, (output["logits"] for output in outputs), strict=True))
        explained = tuple(self._explained(checked, placed, target) for target in targets[:most])
        left_out = max(0, len(targets) - most)
        texts = dict(zip((part.name for part in task.fields), task.texts(checked), strict=True))
        return Explanation(answer, self._method.name, len(windows), explained, left_out, texts)

    def attention(self, row: str | Row) -> tuple[AttentionMaps, ...]:
        """The attention in each window of a row, for `Explanation.attention`; as `attention_maps`."""
        return tuple(attention_maps(self._predictor, row))

    def _explained(self, row: Row, placed: _Windows, target: Target) -> Explained:
        # A window whose outputs count nothing needs no gradient.
        parts = [
            (self._subject(window, places_n3, weights, logits), places_n3)
            for (window, places_n3, logits), weights in zip(placed, target.weights, strict=True)
            if weights.any()
        ]
        attribution = self._attribute([subject for subject, _ in parts])
        words, other = self._words(row, np.concatenate([places_n3 for _, places_n3 in parts]), attribution)
        return Explained(
            target.name,
            target.span,
            attribution.value,
            attribution.baseline,
            attribution.gap,
            attribution.steps,
            words,
            other,
        )

    def _subject(
        self,
        window: Window,
        places_n3: NDArray[np.int64],
        weights: NDArray[np.float32],
        logits: NDArray[np.float32],
    ) -> Subject:
        """A window with its baseline: special tokens as they are, padding for all others."""
        ids_n = window.inputs["input_ids"]
        baseline_n = np.where(places_n3[:, 0] < 0, ids_n, self._baseline_token_id)
        value = float((logits.astype(np.float64) * weights).sum())
        return Subject({**window.inputs, "baseline_ids": baseline_n}, _unpadded(weights, len(window)), value)

    def _words(
        self, row: Row, places_n3: NDArray[np.int64], attribution: Attribution
    ) -> tuple[tuple[Word, ...], float]:
        task = self._predictor.task
        scores_n = np.concatenate(attribution.scores)
        words: list[Word] = []
        other = float(scores_n[places_n3[:, 0] < 0].sum())
        for index, (part, text) in enumerate(zip(task.fields, task.texts(row), strict=True)):
            here_n = places_n3[:, 0] == index
            found, blank = scored_words(text, part.name, places_n3[here_n, 1:], scores_n[here_n])
            words += found
            other += blank
        return tuple(words), other


def _unpadded(weights: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Weights (C,), or (N, C) of a window that was computed beside longer ones, for its own N tokens."""
    return weights if weights.ndim == 1 else weights[:length]


def _rounded(score: float) -> float:
    return round(score, DIGITS)
