"""Words are taken out by the baseline's token, and what was answered is as probable as the answer itself says."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from suffuse.explain import Explainer, GradientXInput, Word
from suffuse.explain.erasure import Erasable
from suffuse.runtime import Predictor
from suffuse.tasks import Arrays, Row, Window

PredictorOf = Callable[[str, str, int], Predictor]

LONG = " ".join(["the cast is superb and the story moves", "a dull and tired film about nothing"] * 6)


def erasable_of(predictor: Predictor, row: Row | str) -> tuple[Erasable, tuple[Word, ...], Any]:
    """What is answered about a row first, its words, and the answer."""
    checked = predictor.task.check(row)
    explanation = Explainer(predictor, GradientXInput())(checked)
    windows = predictor.task.encode([checked], predictor.tokens)
    outputs = predictor.outputs(windows)
    (target, *_) = predictor.task.explained(checked, explanation.answer, windows, outputs)
    words = explanation.explained[0].words
    return Erasable(predictor, checked, words, target), words, explanation.answer


def whole(words: tuple[Word, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.zeros((1, len(words)), dtype=bool)


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
@pytest.mark.parametrize("text", ["a warm and funny film", LONG])
def test_a_whole_text_is_as_probable_as_its_answer_says(
    predictor_of: PredictorOf, architecture: str, text: str
) -> None:
    erasable, words, answer = erasable_of(predictor_of(architecture, "labels", 2), text)

    assert erasable.probabilities(whole(words)) == pytest.approx([answer["score"]], abs=1e-5)


def test_each_of_several_labels_has_its_own_probability(predictor_of: PredictorOf) -> None:
    erasable, words, answer = erasable_of(predictor_of("bert", "several", 1), "the cast is superb")

    assert erasable.probabilities(whole(words)) == pytest.approx([answer["scores"]["bad"]], abs=1e-5)


def test_the_probability_of_a_likeness_is_its_place_on_the_scale(predictor_of: PredictorOf) -> None:
    row = {"text": "the cast is wooden", "text_pair": "a tired, clumsy film"}
    erasable, words, answer = erasable_of(predictor_of("bert", "alike", 1), row)

    assert erasable.probabilities(whole(words)) == pytest.approx([answer["score"] / 5], abs=1e-5)


def test_an_answer_out_of_a_text_is_the_mean_of_its_start_and_end(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("bert", "answers", 2)
    row = {"question": "who is superb", "context": "the cast is superb and the story moves"}
    erasable, words, _ = erasable_of(predictor, row)
    (window,) = predictor.task.encode([row], predictor.tokens)
    (outputs,) = predictor.outputs([window])
    answer = predictor(row)

    shares_n2 = np.exp(outputs["logits"]) / np.exp(outputs["logits"]).sum(axis=0)
    assert window.spans is not None
    first = window.spans[:, 0].tolist().index(answer["start"])
    last = window.spans[:, 1].tolist().index(answer["end"])
    assert erasable.probabilities(whole(words)) == pytest.approx(
        [np.sqrt(shares_n2[first, 0] * shares_n2[last, 1])], rel=1e-4
    )


def test_an_entity_is_the_mean_of_its_words(predictor_of: PredictorOf) -> None:
    erasable, words, _ = erasable_of(predictor_of("bert", "entities", 1), "funny, clever and moving from start to end")

    (probability,) = erasable.probabilities(whole(words)).tolist()
    assert 0 < probability < 1


def test_a_word_that_is_taken_out_is_the_baselines_token(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("bert", "labels", 2)
    erasable, words, answer = erasable_of(predictor, "a warm and funny film")
    label = predictor.task.head.names.index(answer["label"])
    (window,) = predictor.task.encode([{"text": "a warm and funny film"}], predictor.tokens)
    ids_n = window.inputs["input_ids"].copy()
    ids_n[1 + 3] = predictor.bundle.manifest.model["baseline_token_id"]  # funny, behind the first special token
    inputs = {**window.inputs, "attention_mask": np.ones_like(ids_n), "input_ids": ids_n}
    logits_c = predictor.run("predict", {name: array[None] for name, array in inputs.items()})["logits"][0]

    is_funny = np.array([[word.text == "funny" for word in words]])

    expected = np.exp(logits_c[label]) / np.exp(logits_c).sum()
    assert erasable.probabilities(is_funny) == pytest.approx([expected], rel=1e-4)


def test_equal_choices_of_words_are_computed_once(predictor_of: PredictorOf, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = predictor_of("bert", "labels", 2)
    erasable, words, _ = erasable_of(predictor, "a warm and funny film")
    counts: list[int] = []
    compute = predictor.outputs

    def counted(windows: Sequence[Window]) -> list[Arrays]:
        counts.append(len(windows))
        return compute(windows)

    monkeypatch.setattr(predictor, "outputs", counted)
    choices = np.array([[False] * 5, [True] * 5, [False] * 5, [True, False, False, False, False]])

    found = erasable.probabilities(choices[:, : len(words)])

    assert counts == [3]
    assert found[0] == found[2]
    assert len(set(found.tolist())) == 3


def test_a_word_of_several_windows_is_taken_out_of_each(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("gpt2", "entities", 2)
    erasable, words, _ = erasable_of(predictor, LONG)

    found = [part.word_n[part.word_n >= 0] for part in erasable._parts]

    assert all(np.all(np.diff(word_n) >= 0) for word_n in found)
    assert {int(index) for word_n in found for index in word_n} <= set(range(len(words)))
