"""Question answering: the part of a context that answers a question, word for word.

The network gives every token two logits: how likely an answer starts there, how likely one ends there. A context that
is too long is read in windows that overlap, each behind the question. A window without the answer learns to point at
its position 0, where the special token for the whole input stands: Devlin et al., "BERT" (2019), section 4.3.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from tokenizers import Encoding

from suffuse.errors import DataError, InputError
from suffuse.tasks.answered_rows import ANSWERS, CONTEXT, QUESTION, answers_of
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
)
from suffuse.tasks.decisions import ABSENT, Decisions
from suffuse.tasks.explained import Target, check_target, token_places
from suffuse.tasks.squad_metrics import best_threshold, match
from suffuse.tasks.tokens import Tokens

ANSWER, NO_ANSWER = "answer", "no answer"
"""What can be explained."""

KEPT_SPANS = 100
"""Likeliest spans of each window that are looked at further; what an answer's score is measured against."""
SCORE_DIGITS = 6
"""Decimals of a score in an answer, as in classification."""


@dataclass(frozen=True)
class QuestionAnswering(Task):
    """Find the answer to a question in a context.

    Args:
        overlap: tokens that neighbouring windows of a long context have in common, and so the longest answer that no
            border can cut; less where the model reads so little that windows would hardly move on.
        max_windows: most windows that a context is read in, so that one request cannot keep a worker from all others;
            what lies beyond is left out, and the answer says so.
        max_answer_tokens: longest answer.
        n_best: how many answers are listed; those beyond the first as ``alternatives``.
        no_answer: whether a question may be left without an answer; learned from the training rows.
        no_answer_threshold: by how much no answer must be more likely than the best one, in logits, to be given; chosen
            on the validation rows.

    Raises:
        InputError: a number is too small, or `n_best` above `KEPT_SPANS`.
    """

    overlap: int = 128
    max_windows: int = 64
    max_answer_tokens: int = 30
    n_best: int = 1
    no_answer: bool = False
    no_answer_threshold: float = 0.0

    name: ClassVar[str] = "question_answering"
    metric: ClassVar[str] = "f1"

    def __post_init__(self) -> None:
        if self.overlap < 0:
            raise InputError(f"overlap is {self.overlap}; expected at least 0")
        if self.max_windows < 1:
            raise InputError(f"max_windows is {self.max_windows}; expected at least 1")
        if self.max_answer_tokens < 1:
            raise InputError(f"max_answer_tokens is {self.max_answer_tokens}; expected at least 1")
        if not 1 <= self.n_best <= KEPT_SPANS:
            raise InputError(f"n_best is {self.n_best}; expected 1 to {KEPT_SPANS}")

    @property
    def fields(self) -> tuple[Field, ...]:
        """``question`` and ``context``."""
        return (QUESTION, CONTEXT)

    @property
    def target_field(self) -> Field:
        """``answers``, as Hugging Face has them: ``{"text": ["Paris"], "answer_start": [17]}``."""
        return ANSWERS

    @property
    def head(self) -> Head:
        """For every token whether an answer starts and whether one ends there."""
        return Head(2, Level.TOKEN, Loss.SPAN)

    def learn(self, rows: Iterable[Row]) -> "QuestionAnswering":
        """The task with `no_answer` set if some row has none.

        Raises:
            DataError: no row has an answer.
            RowError: as `target`.
        """
        kinds = {bool(answers_of(row)) for row in rows}
        if True not in kinds:
            raise DataError(f"no training row has an answer in the field {ANSWERS.name!r}; expected some")
        return replace(self, no_answer=self.no_answer or False in kinds)

    def encode(self, rows: Sequence[Row], tokens: Tokens) -> list[Window]:
        """Question and context, in as many windows a row as the context fills, at most `max_windows`.

        A question that fills more than half of what the model reads is cut, and its windows are marked so.
        """
        kept = self._parts(rows, tokens) if rows else []
        return as_windows(kept, [_spans(part, rows[index][CONTEXT.name]) for index, part, _ in kept]) if kept else []

    def target(self, row: Row) -> tuple[str, ...]:
        """Texts of the answers, any of which is right; none where there is no answer.

        Raises:
            RowError: they are missing or malformed, or do not stand in the context where they say.
        """
        return tuple(text for text, _ in answers_of(row))

    def targets(self, windows: Sequence[Window], rows: Sequence[Row]) -> list[NDArray[Any]]:
        """For each window the positions (2,) of the first and the last token of the first answer that is all in it.

        (0, 0) where none is. A token that an answer covers only a part of belongs to it.
        """
        targets: list[NDArray[Any]] = []
        for row, group in groupby(windows, lambda window: window.row):
            answers = [(start, start + len(text)) for text, start in answers_of(rows[row])]
            parts = list(group)
            for number, window in enumerate(parts):
                is_first, is_last = number == 0, number == len(parts) - 1
                targets.append(_positions(window, answers, is_first=is_first, is_last=is_last))
        return targets

    def decode(self, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]) -> list[Answer]:
        """``{"answer", "start", "end", "score"}``: characters ``start`` to ``end`` of the context.

        Scores are a softmax over the sums of start and end logits of all spans kept of the row, and of no answer where
        that may be given. No answer is the empty text from 0 to 0, as in transformers. ``alternatives`` are the next
        likeliest spans, where `n_best` asks for them; ``truncated`` says that the question or the context was cut.
        """
        answers = []
        for row, is_truncated, spans in self._spans_of_rows(windows, outputs):
            context = rows[row][CONTEXT.name]
            found = [
                {"answer": context[start:end], "start": start, "end": end, "score": score}
                for start, end, score in spans.listed(self.n_best, with_null=self.no_answer)
            ]
            is_empty = not found or (self.no_answer and spans.difference > self.no_answer_threshold)
            if is_empty:
                found.insert(0, {"answer": "", "start": 0, "end": 0, "score": spans.null_score()})
            answer: Answer = found[0]
            if self.n_best > 1:
                answer["alternatives"] = found[1 : self.n_best]
            answers.append(answer | {"truncated": True} if is_truncated else answer)
        return answers

    def explained(
        self,
        row: Row,  # noqa: ARG002 - the answer tells
        answer: Answer,
        windows: Sequence[Window],
        outputs: Sequence[Arrays],
        name: str = "",
    ) -> list[Target]:
        """The logit of the answer's start plus that of its end; where there is no answer, those of position 0."""
        check_target(name or ANSWER, [ANSWER, NO_ANSWER])
        logits = [output["logits"] for output in outputs]
        weights = [np.zeros_like(logits_n2, dtype=np.float32) for logits_n2 in logits]
        if name == NO_ANSWER or not answer["answer"]:
            weights[int(np.argmin([logits_n2[0].sum() for logits_n2 in logits]))][0] = 1.0
            return [Target(NO_ANSWER, weights)]
        span = (answer["start"], answer["end"])
        number, first, last = _place(windows, logits, *span)
        weights[number][first, 0] = weights[number][last, 1] = 1.0
        return [Target(ANSWER, weights, span)]

    def located(self, row: Row, tokens: Tokens) -> list[NDArray[np.int64]]:
        """Places of the tokens of question and context."""
        return [token_places(part) for _, part, _ in self._parts([row], tokens)]

    def tallies(self, answers: Sequence[Answer], targets: Sequence[tuple[str, ...]]) -> NDArray[np.float64]:
        """Exact match, F1, and 1, (R, 3)."""
        pairs = zip(answers, targets, strict=True)
        return np.array([(*match(answer["answer"], accepted), 1.0) for answer, accepted in pairs]).reshape(-1, 3)

    def measured(self, totals_bk: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Exact match and F1 of words, as shares, by the definition of SQuAD."""
        exact_b, f1_b = (totals_bk[:, :2] / np.maximum(totals_bk[:, 2:], 1)).T
        return {"exact_match": exact_b, "f1": f1_b}

    def confusions(self, answers: Sequence[Answer], targets: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
        """Whether there is an answer, and whether one was given, where rows may be without."""
        if not self.no_answer:
            return []
        pairs = zip(answers, targets, strict=True)
        return [
            (ANSWER if accepted else NO_ANSWER, ANSWER if answer["answer"] else NO_ANSWER) for answer, accepted in pairs
        ]

    def decisions(self, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]) -> Decisions | None:
        """The first and the last token of the answer in each window, or position 0 twice: what training looks at."""
        if not windows:
            return None
        longest = max(map(len, windows))
        logits_w2n = np.full((len(windows), 2, longest), ABSENT)
        for logits_2n, window, output in zip(logits_w2n, windows, outputs, strict=True):
            logits_2n[:, : len(window)] = output["logits"][: len(window)].T
        targets_w2 = np.stack(self.targets(windows, rows))
        rows_d = np.repeat([window.row for window in windows], 2)
        return Decisions(
            "the first and the last token of the answer in each window",
            logits_w2n.reshape(-1, longest),
            targets_w2.ravel(),
            rows_d,
        )

    def tempered(self, temperature: float) -> "QuestionAnswering":
        """The task with the threshold for no answer divided, as logits are."""
        return replace(self, no_answer_threshold=self.no_answer_threshold / temperature)

    def calibrate(
        self, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]
    ) -> "QuestionAnswering":
        """The task with the threshold for no answer that gives these rows the highest F1."""
        if not self.no_answer:
            return self
        measured = []
        for row, _, spans in self._spans_of_rows(windows, outputs):
            if len(spans.starts):  # without a token there is nothing to choose between
                best = rows[row][CONTEXT.name][spans.starts[0] : spans.ends[0]]
                accepted = self.target(rows[row])
                measured.append((spans.difference, match(best, accepted)[1], match("", accepted)[1]))
        return replace(self, no_answer_threshold=best_threshold(*np.array(measured).T)) if measured else self

    def _parts(self, rows: Sequence[Row], tokens: Tokens) -> list[tuple[int, Encoding, bool]]:
        room = tokens.max_tokens - len(tokens.encode([""], [""])[0])
        most = room // 2
        whole = [row[QUESTION.name] for row in rows]
        questions = [
            text if len(encoding) <= most else _shortened(text, most, tokens)
            for text, encoding in zip(whole, tokens.encode(whole), strict=True)
        ]
        # Below half of the room that the longest question leaves: one tokenizer serves all rows.
        overlap = max(0, min(self.overlap, (room - most - 1) // 2))
        contexts = [row[CONTEXT.name] for row in rows]
        return [
            (index, part, questions[index] != whole[index] or len(parts) > self.max_windows)
            for index, parts in enumerate(tokens.windows(questions, contexts, overlap))
            for part in parts[: self.max_windows]
        ]

    def _spans_of_rows(
        self, windows: Sequence[Window], outputs: Sequence[Arrays]
    ) -> Iterator[tuple[int, bool, "_Spans"]]:
        """Index of each row, whether its question was cut, and its likeliest spans."""
        for row, group in groupby(zip(windows, outputs, strict=True), lambda pair: pair[0].row):
            pairs = list(group)
            logits = [np.asarray(output["logits"], dtype=np.float64) for _, output in pairs]
            yield (
                row,
                pairs[0][0].truncated,
                _likeliest([window for window, _ in pairs], logits, self.max_answer_tokens),
            )


@dataclass(frozen=True)
class _Spans:
    """Spans of one row, the likeliest first, no two alike, in characters of its context (S,), and their scores (S,)."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    scores: NDArray[np.float64]
    null: float
    """Score of no answer: the least of all windows', since each window without the answer says that it has none."""

    @property
    def difference(self) -> float:
        """By how much no answer scores above the best span."""
        return float(self.null - self.scores[0])

    def listed(self, most: int, *, with_null: bool) -> list[tuple[int, int, float]]:
        """Start, end and probability of the first spans."""
        weights = np.exp(self.scores - self._highest)
        total = weights.sum() + (np.exp(self.null - self._highest) if with_null else 0.0)
        return [
            (int(start), int(end), round(float(weight / total), SCORE_DIGITS))
            for start, end, weight in zip(self.starts[:most], self.ends[:most], weights, strict=False)
        ]

    def null_score(self) -> float:
        """Probability of no answer."""
        weight = np.exp(self.null - self._highest)
        return round(float(weight / (weight + np.exp(self.scores - self._highest).sum())), SCORE_DIGITS)

    @property
    def _highest(self) -> float:
        return float(max(self.null, self.scores.max(initial=-np.inf)))


def _likeliest(windows: Sequence[Window], logits: Sequence[NDArray[np.float64]], most_tokens: int) -> _Spans:
    """Spans of all windows of a row; what two windows, or two tokens of one character, both offer counts once."""
    found = [_of_window(window, logits_n2, most_tokens) for window, logits_n2 in zip(windows, logits, strict=True)]
    starts, ends, scores = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    order = np.lexsort((ends, starts, -scores))  # of equal scores the earliest, then the shortest
    _, firsts = np.unique(starts[order] << 32 | ends[order], return_index=True)
    kept = order[np.sort(firsts)]
    return _Spans(starts[kept], ends[kept], scores[kept], min(float(logits_n2[0].sum()) for logits_n2 in logits))


def _of_window(
    window: Window, logits_n2: NDArray[np.float64], most_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Starts and ends in characters, and scores, of the `KEPT_SPANS` likeliest spans; more where scores are equal."""
    spans_n2 = _checked_spans(window)
    places = np.flatnonzero(spans_n2[:, 0] >= 0)
    if not len(places):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    most = min(most_tokens, len(places))
    ends_v = np.concatenate([logits_n2[places, 1], np.full(most - 1, -np.inf)])
    # Every start with each of the ends that follow: all spans there are, so that none is missed.
    scores = (logits_n2[places, 0][:, None] + sliding_window_view(ends_v, most)).ravel()
    bound = np.partition(scores, -KEPT_SPANS)[-KEPT_SPANS] if len(scores) > KEPT_SPANS else -np.inf
    kept = np.flatnonzero((scores >= bound) & (scores > -np.inf))
    first = kept // most
    last = first + kept % most
    return spans_n2[places[first], 0], spans_n2[places[last], 1], scores[kept]


def _place(windows: Sequence[Window], logits: Sequence[NDArray[Any]], start: int, end: int) -> tuple[int, int, int]:
    """The window and the positions at which a span of the context scores highest."""
    places = [
        (logits_n2[first, 0] + logits_n2[last, 1], number, first, last)
        for number, (window, logits_n2) in enumerate(zip(windows, logits, strict=True))
        for first in np.flatnonzero(_checked_spans(window)[:, 0] == start).tolist()
        for last in np.flatnonzero(_checked_spans(window)[:, 1] == end).tolist()
        if first <= last
    ]
    return max(places)[1:]


def _positions(
    window: Window, answers: Sequence[tuple[int, int]], *, is_first: bool, is_last: bool
) -> NDArray[np.int64]:
    spans_n2 = _checked_spans(window)
    places = np.flatnonzero(spans_n2[:, 0] >= 0)
    for start, end in answers:
        # A tokenizer may drop characters: before the first window and behind the last there is no other to hold them.
        begins = len(places) and (is_first or spans_n2[places[0], 0] <= start)
        if begins and (is_last or spans_n2[places[-1], 1] >= end):
            inside = places[(spans_n2[places, 0] < end) & (spans_n2[places, 1] > start)]
            if len(inside):
                return np.array([inside[0], inside[-1]], dtype=np.int64)
    return np.zeros(2, dtype=np.int64)


def _checked_spans(window: Window) -> NDArray[np.int64]:
    if window.spans is None:
        raise ValueError("the window has no spans; expected one of QuestionAnswering.encode")
    return window.spans


def _spans(encoding: Encoding, context: str) -> NDArray[np.int64]:
    """Start and end of each context token in characters, without white space around it; -1 for all others, (N, 2)."""
    spans_n2 = np.full((len(encoding), 2), -1, dtype=np.int64)
    for place, (sequence, (start, end)) in enumerate(zip(encoding.sequence_ids, encoding.offsets, strict=True)):
        if sequence == 1 and (text := context[start:end].strip()):
            start = context.index(text, start)  # noqa: PLW2901
            spans_n2[place] = start, start + len(text)
    return spans_n2


def _shortened(question: str, most: int, tokens: Tokens) -> str:
    """The start of a question, cut behind a token so that at most `most` are left."""
    # A part of a text may have more tokens than it had in the whole: once more then, with one less.
    for kept in range(most, 0, -1):
        encoding = tokens.windows([question])[0][0]
        ends = [
            end for sequence, (_, end) in zip(encoding.sequence_ids, encoding.offsets, strict=True) if sequence == 0
        ]
        if len(ends) <= most:
            return question
        question = question[: ends[kept - 1]]
    return ""
