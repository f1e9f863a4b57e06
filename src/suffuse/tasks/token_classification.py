"""Token classification: the entities in a text, found by a tag for each of its words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from suffuse.errors import DataError
from suffuse.tasks.base import Answer, Arrays, Field, Head, Level, Loss, Row, Task, Window, as_windows
from suffuse.tasks.decisions import NOTHING, Decisions
from suffuse.tasks.explained import Target, check_target, token_places
from suffuse.tasks.tagged_rows import ENTITIES, TAGS, TEXT, TOKENS, check_tokens, some, tags_of, text_of, word_spans_of
from suffuse.tasks.tags import OUTSIDE, Entity, best_sequences, complete, entities, is_tag, marks_ends, spell, tag_label
from suffuse.tasks.tokens import Tokens

SCORE_DIGITS = 6
"""Decimals of a score in an answer, as in classification."""
UNLABELLED = -100
"""The target of a token that bears no label; batches are padded with the same, and losses leave it out."""


@dataclass(frozen=True)
class TokenClassification(Task):
    """Find the entities in a text.

    Args:
        tags: in the order of the network's outputs; empty until learned from the training rows. BIO, or BIOES.
        overlap: tokens that neighbouring windows of a long text share; less where it would be half a window.
        max_windows: most windows that a text is read in, so that one request cannot keep a worker from all others; what
            lies beyond is left out, and the answer says so.
    """

    tags: tuple[str, ...] = ()
    overlap: int = 64
    max_windows: int = 64

    name: ClassVar[str] = "token_classification"
    metric: ClassVar[str] = "f1"

    @property
    def fields(self) -> tuple[Field, ...]:
        """``text``; a row may have ``tokens`` instead."""
        return (TEXT,)

    @property
    def target_field(self) -> Field:
        """``tags``; a row may have ``entities`` instead."""
        return TAGS

    @property
    def columns(self) -> tuple[str, ...]:
        """All of ``text``, ``tokens``, ``tags`` and ``entities``."""
        return tuple(field.name for field in (TEXT, TOKENS, TAGS, ENTITIES))

    @property
    def head(self) -> Head:
        """One output a tag, for each token."""
        return Head(len(self.tags), Level.TOKEN, Loss.SOFTMAX, self.tags)

    def check(self, row: object) -> Row:
        """A row with ``text``, with ``tokens``, or with both where the tokens stand in the text; or a bare text.

        Raises:
            RowError: as `Task.check`; also, a token is not text or empty, or does not stand in the text.
        """
        if not isinstance(row, Mapping) or TOKENS.name not in row:
            return super().check(row)
        check_tokens(row)
        return row

    def learn(self, rows: Iterable[Row]) -> "TokenClassification":
        """The task with all tags of the scheme (BIO, or BIOES) for the labels of `rows`, unless tags were given.

        Raises:
            DataError: there are no entities, or the tags that were given are not a scheme's.
            RowError: a row's tags are not.
        """
        if self.tags:
            if OUTSIDE in self.tags and all(map(is_tag, self.tags)):
                return self
            raise DataError(f"the tags are {some(self.tags)}; expected O, and others such as B-PER, I-PER")
        tags = {tag for row in rows for tag in tags_of(row, self.tags)}
        if tags <= {OUTSIDE}:
            raise DataError("the training rows have no entities in the field 'tags' or 'entities'; expected some")
        return replace(self, tags=complete(tags))

    def encode(self, rows: Sequence[Row], tokens: Tokens) -> list[Window]:
        """Windows that overlap, as many as a row needs, at most `max_windows`."""
        kept = self._parts(rows, tokens)
        return as_windows(kept, [_spans(part.offsets, part.sequence_ids) for _, part, _ in kept])

    def target(self, row: Row) -> tuple[Entity, ...]:
        """Start, end and label of the row's entities, in characters of its text.

        Raises:
            RowError: tags are missing, not one a token, not of the scheme, in an illegal order, or not learned.
        """
        spans = word_spans_of(row)
        return tuple(
            Entity(spans[first][0], spans[end - 1][1], label) for first, end, label in entities(tags_of(row, self.tags))
        )

    def targets(self, windows: Sequence[Window], rows: Sequence[Row]) -> list[NDArray[Any]]:
        """For each window the tag of each token (N,): a word's first token bears it, other tokens bear none."""
        indices = {tag: index for index, tag in enumerate(self.tags)}
        ends_marked = marks_ends(self.tags)
        targets: list[NDArray[Any]] = []
        for row, parts in _by_row(windows):
            pieces = self._pieces(parts)
            units = _units(word_spans_of(rows[row]), pieces)
            tags = spell(self.target(rows[row]), units.spans_u2[:, 0].tolist(), ends_marked=ends_marked)
            labels_u = np.array([indices[tag] for tag in tags], dtype=np.int64)
            targets += pieces.spread(units.first_u, labels_u, parts)
        return targets

    def decode(self, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]) -> list[Answer]:
        """``{"entities": [{"text", "label", "start", "end", "score"}]}``; the best tags that the scheme allows.

        A word's scores are those of its first token, in the window that shows most of what stands around it. An
        entity's score is the mean probability of its words' tags. ``truncated`` says that the text was cut.
        """
        found, logits = self._tagged(rows, windows, outputs)
        if not found:
            return []
        log_probabilities_uc = _log_softmax(np.concatenate(logits))
        lengths = [len(units.first_u) for units in found]
        path_u = best_sequences(log_probabilities_uc, lengths, self.tags)
        probability_u = np.exp(log_probabilities_uc[np.arange(len(path_u)), path_u])
        answers = []
        bounds = np.cumsum([0, *lengths]).tolist()
        cut = {window.row for window in windows if window.truncated}
        for index, (units, (low, high)) in enumerate(zip(found, pairwise(bounds), strict=True)):
            tags = [self.tags[tag] for tag in path_u[low:high].tolist()]
            described = _described(text_of(rows[index]), entities(tags), units, probability_u[low:high])
            answers.append({"entities": described, **({"truncated": True} if index in cut else {})})
        return answers

    def explained(
        self, row: Row, answer: Answer, windows: Sequence[Window], outputs: Sequence[Arrays], name: str = ""
    ) -> list[Target]:
        """For each entity, or each of one label, the sum over its words of the logit of the tag that the word got."""
        if name:
            check_target(name, sorted({tag_label(tag) for tag in self.tags} - {""}))
        pieces = self._pieces(windows)
        units = _units(word_spans_of(row), pieces)
        windows_u, positions_u = pieces.chosen(units.first_u)
        starts = units.spans_u2[:, 0].tolist()
        targets = []
        for entity in answer["entities"]:
            if name in ("", entity["label"]):
                span = (entity["start"], entity["end"])
                tags = spell([Entity(*span, entity["label"])], starts, ends_marked=marks_ends(self.tags))
                weights = [np.zeros_like(output["logits"], dtype=np.float32) for output in outputs]
                for unit, tag in enumerate(tags):
                    if tag != OUTSIDE:
                        weights[windows_u[unit]][positions_u[unit], self.tags.index(tag)] = 1.0
                targets.append(Target(entity["label"], weights, span))
        return targets

    def located(self, row: Row, tokens: Tokens) -> list[NDArray[np.int64]]:
        """Places of the tokens of the text."""
        return [token_places(part) for _, part, _ in self._parts([row], tokens)]

    def texts(self, row: Row) -> tuple[str, ...]:
        """The text, or the tokens joined by spaces."""
        return (text_of(row),)

    def tallies(self, answers: Sequence[Answer], targets: Sequence[tuple[Entity, ...]]) -> NDArray[np.float64]:
        """Entities that are right, that were given, that were expected, (R, 3)."""
        tallies = []
        for answer, wanted in zip(answers, targets, strict=True):
            got = {(entity["start"], entity["end"], entity["label"]) for entity in answer["entities"]}
            tallies.append((len(got & {tuple(entity) for entity in wanted}), len(got), len(wanted)))
        return np.array(tallies, dtype=np.float64).reshape(-1, 3)

    def measured(self, totals_bk: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Precision, recall and F1 over all entities; one is right if its start, end and label are as expected."""
        hits_b, given_b, expected_b = totals_bk.T
        return {  # without any there are no hits either
            "precision": hits_b / np.maximum(given_b, 1),
            "recall": hits_b / np.maximum(expected_b, 1),
            "f1": 2 * hits_b / np.maximum(given_b + expected_b, 1),
        }

    def confusions(self, answers: Sequence[Answer], targets: Sequence[tuple[Entity, ...]]) -> list[tuple[str, str]]:
        """Labels of entities with the same start and end; others were missed, or are too many."""
        pairs: list[tuple[str, str]] = []
        for answer, wanted in zip(answers, targets, strict=True):
            given = {(entity["start"], entity["end"]): entity["label"] for entity in answer["entities"]}
            expected = {(entity.first, entity.end): entity.label for entity in wanted}
            pairs += [(label, given.get(span, NOTHING)) for span, label in expected.items()]
            pairs += [(NOTHING, label) for span, label in given.items() if span not in expected]
        return pairs

    def decisions(self, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]) -> Decisions | None:
        """The tag of each word."""
        found, logits = self._tagged(rows, windows, outputs)
        if not sum(len(units.first_u) for units in found):
            return None
        ends_marked = marks_ends(self.tags)
        tags = [
            tag
            for row, units in zip(rows, found, strict=True)
            for tag in spell(self.target(row), units.spans_u2[:, 0].tolist(), ends_marked=ends_marked)
        ]
        indices = {tag: index for index, tag in enumerate(self.tags)}
        return Decisions(
            "the tag of each word",
            np.concatenate(logits),
            np.array([indices[tag] for tag in tags], dtype=np.int64),
            np.repeat(np.arange(len(found)), [len(units.first_u) for units in found]),
        )

    def _tagged(
        self, rows: Sequence[Row], windows: Sequence[Window], outputs: Sequence[Arrays]
    ) -> tuple[list["_Units"], list[NDArray[np.float64]]]:
        """What gets a tag, and its logits (U, C), of each row."""
        found: list[_Units] = []
        logits: list[NDArray[np.float64]] = []
        place = 0
        for index, parts in _by_row(windows):
            pieces = self._pieces(parts)
            found.append(_units(word_spans_of(rows[index]), pieces))
            logits.append(pieces.gathered(found[-1].first_u, outputs[place : place + len(parts)], len(self.tags)))
            place += len(parts)
        return found, logits

    def _parts(self, rows: Sequence[Row], tokens: Tokens) -> list[tuple[int, Encoding, bool]]:
        windows = tokens.windows([text_of(row) for row in rows], overlap=self._overlap(tokens.max_tokens))
        return [
            (row, part, len(parts) > self.max_windows)
            for row, parts in enumerate(windows)
            for part in parts[: self.max_windows]
        ]

    def _overlap(self, limit: int) -> int:
        # Three: two special tokens, and one by which each window goes further.
        return max(0, min(self.overlap, (limit - 3) // 2))

    def _pieces(self, parts: Sequence[Window]) -> "_Pieces":
        positions = [np.flatnonzero(_offsets(part)[:, 0] >= 0) for part in parts]
        # The first of several windows is full, which tells the model's limit.
        step = len(positions[0]) - self._overlap(len(parts[0])) if len(parts) > 1 else 0
        count = step * (len(parts) - 1) + len(positions[-1])
        spans_p2 = np.zeros((count, 2), dtype=np.int64)
        for number, (part, taken) in enumerate(zip(parts, positions, strict=True)):
            spans_p2[number * step : number * step + len(taken)] = _offsets(part)[taken]
        return _Pieces(spans_p2, positions, step)


class _Pieces(NamedTuple):
    """The tokens of a row's text in order, each once, though several windows may show it.

    Args:
        spans_p2: start and end in the text, (P, 2).
        positions: for each window where tokens of the text stand in it.
        step: tokens of the text by which each window begins after the one before.
    """

    spans_p2: NDArray[np.int64]
    positions: list[NDArray[np.int64]]
    step: int

    def chosen(self, first_u: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each token the window in which the nearer end is farthest, and its position there, (U,) each."""
        windows_u = np.zeros(len(first_u), dtype=np.int64)
        positions_u = np.zeros(len(first_u), dtype=np.int64)
        context_u = np.full(len(first_u), -1)
        for number, positions in enumerate(self.positions):
            places_u = first_u - number * self.step
            here_u = np.minimum(places_u, len(positions) - 1 - places_u)  # below zero outside of the window
            better_u = here_u > context_u
            windows_u[better_u] = number
            positions_u[better_u] = positions[places_u[better_u]]
            context_u[better_u] = here_u[better_u]
        return windows_u, positions_u

    def gathered(self, first_u: NDArray[np.int64], outputs: Sequence[Arrays], size: int) -> NDArray[np.float64]:
        """Logits of tokens (U, size), each from its `chosen` window."""
        logits_uc = np.zeros((len(first_u), size))
        windows_u, positions_u = self.chosen(first_u)
        for number, output in enumerate(outputs):
            here_u = windows_u == number
            logits_uc[here_u] = output["logits"][positions_u[here_u]]
        return logits_uc

    def spread(
        self, first_u: NDArray[np.int64], labels_u: NDArray[np.int64], parts: Sequence[Window]
    ) -> list[NDArray[Any]]:
        """For each window its targets (N,), with labels in every window that shows their token."""
        targets: list[NDArray[Any]] = []
        for number, (positions, part) in enumerate(zip(self.positions, parts, strict=True)):
            places_u = first_u - number * self.step
            shown_u = (places_u >= 0) & (places_u < len(positions))
            target_n = np.full(len(part), UNLABELLED, dtype=np.int64)
            target_n[positions[places_u[shown_u]]] = labels_u[shown_u]
            if not shown_u.any():
                target_n[:1] = 0  # the mean loss of a batch without any label is not a number; the first tag is O
            targets.append(target_n)
        return targets


class _Units(NamedTuple):
    """What gets a tag: a word, or words that begin in the same token; a word without a token has none.

    Args:
        first_u: its first token, an index into `_Pieces`, (U,).
        spans_u2: start and end in the text, (U, 2).
    """

    first_u: NDArray[np.int64]
    spans_u2: NDArray[np.int64]


def _units(words: Sequence[tuple[int, int]], pieces: _Pieces) -> _Units:
    words_w2 = np.array(words, dtype=np.int64).reshape(-1, 2)
    count = len(pieces.spans_p2)
    first_w = np.searchsorted(np.maximum.accumulate(pieces.spans_p2[:, 1]), words_w2[:, 0], side="right")
    begins_w = np.append(pieces.spans_p2[:, 0], np.iinfo(np.int64).max)[np.minimum(first_w, count)]
    seen_w = begins_w < words_w2[:, 1]
    words_w2, first_w = words_w2[seen_w], first_w[seen_w]
    index_u = np.flatnonzero(np.diff(first_w, prepend=-1))
    last_u = np.append(index_u, len(first_w))[1:] - 1
    return _Units(first_w[index_u], np.stack([words_w2[index_u, 0], words_w2[last_u, 1]], axis=1))


def _by_row(windows: Sequence[Window]) -> Iterable[tuple[int, list[Window]]]:
    parts: list[Window] = []
    for window in windows:
        if parts and parts[-1].row != window.row:
            yield parts[-1].row, parts
            parts = []
        parts.append(window)
    if parts:
        yield parts[-1].row, parts


def _spans(offsets: Sequence[tuple[int, int]], sequence_ids: Sequence[int | None]) -> NDArray[np.int64]:
    spans_n2 = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    spans_n2[[sequence is None for sequence in sequence_ids]] = -1
    return spans_n2


def _offsets(window: Window) -> NDArray[np.int64]:
    if window.spans is None:
        raise ValueError("a window has no spans; expected one that TokenClassification.encode made")
    return window.spans


def _described(
    text: str, found: Sequence[Entity], units: _Units, probability_u: NDArray[np.float64]
) -> list[dict[str, Any]]:
    described = []
    for first, last, label in found:
        start, end = int(units.spans_u2[first, 0]), int(units.spans_u2[last - 1, 1])
        score = round(float(probability_u[first:last].mean()), SCORE_DIGITS)
        described.append({"text": text[start:end], "label": label, "start": start, "end": end, "score": score})
    return described


def _log_softmax(logits_uc: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted_uc = logits_uc - logits_uc.max(axis=-1, keepdims=True, initial=-np.inf)
    normalised_uc: NDArray[np.float64] = shifted_uc - np.log(np.exp(shifted_uc).sum(axis=-1, keepdims=True))
    return normalised_uc
