"""Words taken out of a text, and how probable what was answered is without them: what faithfulness is measured by.

A word is taken out by putting the baseline's token in the place of each of its own. Positions stay, so that what is
asked of a token (the tag of an entity's word, the start of an answer) can still be asked; cut out, as ERASER has it,
such words would take the question with them. Where both can be done they agree (docs/explanations.md).
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from suffuse.explain.words import Word
from suffuse.runtime import Predictor
from suffuse.tasks import Level, Loss, Row, Target, Window

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """A window whose outputs count for what was answered.

    Args:
        window: as the row was encoded.
        weights: of its logits, (C,) or (N, C).
        word_n: index of the word that each token is of, (N,); -1 for special tokens and white space.
    """

    window: Window
    weights: NDArray[np.float32]
    word_n: NDArray[np.int64]


class Erasable:
    """One thing that was answered about a row, and the words that can be taken out.

    Args:
        predictor: answers; its bundle must hold a graph of gradients, whose baseline is the token in a word's place.
        row: a checked row.
        words: of the row's texts, in the order of fields and text.
        target: what was answered, by weights of the logits of all windows of the row.
    """

    def __init__(self, predictor: Predictor, row: Row, words: Sequence[Word], target: Target) -> None:
        task, tokens = predictor.task, predictor.tokens
        self._predictor = predictor
        self._head = task.head
        self._token_id = int(predictor.bundle.manifest.model["baseline_token_id"])
        fields = [field.name for field in task.fields]
        windows = zip(task.encode([row], tokens), task.located(row, tokens), target.weights, strict=True)
        self._parts = [
            Part(window, weights if weights.ndim == 1 else weights[: len(window)], _words_of(places_n3, fields, words))
            for window, places_n3, weights in windows
            if weights.any()
        ]

    def probabilities(self, is_erased_mw: Mask) -> Array:
        """How probable what was answered is without some of the words.

        Args:
            is_erased_mw: the words to take out, several choices of them, (M, W). Equal choices are computed once.

        Returns:
            (M,). Where several tokens bear on the answer, such as the words of an entity or the start and end of an
            answer, the geometric mean of their probabilities.
        """
        chosen_mw, places_m = np.unique(is_erased_mw, axis=0, return_inverse=True)
        windows = [self._without(part, is_erased_w) for is_erased_w in chosen_mw for part in self._parts]
        logits = [output["logits"] for output in self._predictor.outputs(windows)]
        size = len(self._parts)
        found = [self._probability(logits[first : first + size]) for first in range(0, len(logits), size)]
        return np.array(found)[places_m.reshape(-1)]

    def _without(self, part: Part, is_erased_w: Mask) -> Window:
        inputs = part.window.inputs
        is_erased_n = np.append(is_erased_w, False)[part.word_n]  # the last for tokens of no word, -1
        ids_n = np.where(is_erased_n, self._token_id, inputs["input_ids"])
        return Window(part.window.row, {**inputs, "input_ids": ids_n})

    def _probability(self, logits: Sequence[NDArray[np.float32]]) -> float:
        weights = [part.weights for part in self._parts]
        if self._head.level is Level.ROW:
            # The logits of a row are the mean of those of its windows, whose shares are in the weights.
            logits = [np.sum([share_c.sum() * part_c for share_c, part_c in zip(weights, logits, strict=True)], axis=0)]
            weights = [np.sum(weights, axis=0)]
        logs = [
            (weight * _LOG_PROBABILITIES[self._head.loss](part[: len(weight)].astype(np.float64))).sum()
            for weight, part in zip(weights, logits, strict=True)
        ]
        return float(np.exp(sum(logs) / sum(weight.sum() for weight in weights)))


def _words_of(places_n3: NDArray[np.int64], fields: Sequence[str], words: Sequence[Word]) -> NDArray[np.int64]:
    """Index of the word that each token is of; a token's white space is of none."""
    word_n = np.full(len(places_n3), -1, dtype=np.int64)
    for field, name in enumerate(fields):
        indices = [index for index, word in enumerate(words) if word.field == name]
        ends = [words[index].end for index in indices]
        for token in np.flatnonzero(places_n3[:, 0] == field):
            _, start, end = places_n3[token].tolist()
            place = bisect_right(ends, start)
            if place < len(indices) and words[indices[place]].start < end:
                word_n[token] = indices[place]
    return word_n


def _log_softmax(logits: Array, axis: int) -> Array:
    shifted: Array = logits - logits.max(axis=axis, keepdims=True)
    normalised: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return normalised


_LOG_PROBABILITIES: Mapping[Loss, Callable[[Array], Array]] = {
    Loss.SOFTMAX: lambda logits: _log_softmax(logits, axis=-1),
    Loss.SIGMOID: lambda logits: -np.logaddexp(0.0, -logits),
    Loss.SPAN: lambda logits_nc: _log_softmax(logits_nc, axis=0),
}
"""What a task's loss makes of logits, as the logarithm of probabilities."""
