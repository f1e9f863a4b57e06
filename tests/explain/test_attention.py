"""Attention of the bundle's own network: what is handed out belongs to the text, and rollout follows it by the book."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from suffuse.bundle import Bundle
from suffuse.errors import BundleError, RowError
from suffuse.explain import AttentionMaps, AttentionRollout, Explainer, attention_maps, rollout
from suffuse.explain import attention as attention_module
from suffuse.explain.attention import AttentionGraph
from suffuse.explain.gradients import Subject
from suffuse.runtime import Predictor
from suffuse.tasks import Arrays

PredictorOf = Callable[[str, str, int], Predictor]

LONG = " ".join(["the cast is superb and the story moves", "a dull and tired film about nothing"] * 6)
PLAIN = np.array(
    [[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]], [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]]
)


def rollout_by_the_book(attention_lhnn: NDArray[Any]) -> NDArray[np.float64]:
    """Abnar and Zuidema's equation as it stands: the product of all matrices of the layers, the last on the left."""
    layers = [0.5 * layer_hnn.mean(axis=0) + 0.5 * np.eye(layer_hnn.shape[-1]) for layer_hnn in attention_lhnn]
    product: NDArray[np.float64] = np.linalg.multi_dot(layers[::-1]) if len(layers) > 1 else layers[0]
    return product


class TwoTokens:
    """Stands in for the graphs: the second token attends to the first in the one layer, the first to itself."""

    def run(self, graph: str, inputs: Arrays) -> dict[str, Any]:
        assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (1, 2)
        attention = np.array([[[[[1.0, 0.0], [1.0, 0.0]]]]], dtype=np.float32)
        if graph == "predict":
            return {"logits": np.array([[[1.0, 2.0], [3.0, 4.0]]], dtype=np.float32)}
        return {"plain": attention, "diffused": attention}


def maps_of(diffused_hnn: NDArray[np.float64]) -> AttentionMaps:
    """One layer, whose plain attention is the first head of `PLAIN` in both heads."""
    plain = np.stack([PLAIN[0], PLAIN[0]])[None].astype(np.float32)
    places = np.array([[-1, -1, -1], [0, 0, 4], [0, 5, 9]])
    return AttentionMaps(
        ("[CLS]", "warm", "film"),
        places,
        plain,
        diffused_hnn[None].astype(np.float32),
        np.full((1, 2, 1), 0.25, np.float32),
    )


def test_rollout_is_the_product_of_the_layers() -> None:
    attention_lhnn = np.stack([PLAIN, PLAIN[::-1], PLAIN @ PLAIN])

    found_nn = rollout(attention_lhnn)

    np.testing.assert_allclose(found_nn, rollout_by_the_book(attention_lhnn), atol=1e-12)
    np.testing.assert_allclose(found_nn.sum(axis=1), 1.0)


def test_last_states_stand_in_the_rows_of_a_rollout() -> None:
    to_the_first = np.array([[[[1.0, 0.0], [1.0, 0.0]]]])

    assert rollout(to_the_first).tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_what_hops_move_is_the_share_of_attention_that_went_elsewhere() -> None:
    maps = maps_of(np.stack([PLAIN[0], PLAIN[1]]))

    # Head 1 stays. In head 2 the first token moves all, the second a half, the third 0.8.
    assert maps.moved() == pytest.approx(np.array([[0.0, (1 + 0.5 + 0.8) / 3]]))


def test_attention_of_every_task_is_that_of_its_tokens(case: Any) -> None:  # noqa: ANN401 - a class of conftest.py
    (maps,) = attention_maps(case.predictor, case.row)

    count = len(maps.tokens)
    assert maps.places.shape == (count, 3)
    assert maps.plain.shape == maps.diffused.shape == (2, 4, count, count)
    for attention in (maps.plain, maps.diffused, maps.rollout(), maps.plain_rollout()):
        np.testing.assert_allclose(attention.sum(axis=-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(maps.rollout(), rollout_by_the_book(maps.diffused), atol=1e-6)
    np.testing.assert_allclose(maps.plain_rollout(), rollout_by_the_book(maps.plain), atol=1e-6)
    num_hops = maps.beta.shape[2] + 1
    assert maps.beta.shape[:2] == (2, 4)
    assert (maps.moved().max() > 1e-3) == (num_hops > 1)
    assert np.array_equal(maps.plain, maps.diffused) == (num_hops == 1)
    texts = case.predictor.task.texts(case.row)
    of_texts = [
        (token, texts[text][start:end].strip())
        for token, (text, start, end) in zip(maps.tokens, maps.places, strict=True)
        if text >= 0
    ]
    assert all(token == (part or "␣") for token, part in of_texts)
    assert "".join(part for _, part in of_texts) == "".join("".join(texts).split())


def test_special_tokens_go_by_their_names(predictor_of: PredictorOf) -> None:
    (maps,) = attention_maps(predictor_of("bert", "pairs", 2), {"text": "a warm film", "text_pair": "the story"})

    assert maps.tokens == ("[CLS]", "a", "warm", "film", "[SEP]", "the", "story", "[SEP]")
    assert maps.places[0].tolist() == maps.places[-1].tolist() == [-1, -1, -1]
    assert maps.places[-2].tolist() == [1, 4, 9]


def test_a_token_of_white_space_alone_can_be_seen(predictor_of: PredictorOf) -> None:
    (maps,) = attention_maps(predictor_of("gpt2", "labels", 1), "a\n\nfilm")

    assert maps.tokens[:3] == ("a", "␣", "␣")


def test_a_token_is_shown_as_text_whatever_stands_in_it(predictor_of: PredictorOf) -> None:
    (maps,) = attention_maps(predictor_of("bert", "labels", 1), "[CLS] <b>film</b>")

    assert "<" in maps.tokens
    assert (maps.places[1:-1, 0] == 0).sum() >= 8


@pytest.mark.parametrize(("architecture", "expected"), [("bert", "mean"), ("gpt2", "last")])
def test_it_says_what_the_answer_is_read_from(predictor_of: PredictorOf, architecture: str, expected: str) -> None:
    (maps,) = attention_maps(predictor_of(architecture, "labels", 2), "a warm film")
    (by_token,) = attention_maps(predictor_of(architecture, "entities", 2), "a warm film")

    count = len(maps.tokens)
    weights_n = np.full(count, 1 / count) if expected == "mean" else np.eye(count)[-1]
    np.testing.assert_allclose(maps.pooled, weights_n, atol=1e-6)  # type: ignore[arg-type]  # it is there
    assert by_token.pooled is None


def test_each_window_of_a_long_text_has_its_own(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("bert", "labels", 2)

    all_maps = Explainer(predictor).attention(LONG)

    assert [len(maps.tokens) for maps in all_maps] == [
        len(window) for window in predictor.task.encode([{"text": LONG}], predictor.tokens)
    ]
    assert len(all_maps) > 1
    assert all_maps[1].places[1, 1] >= all_maps[0].places[-2, 2]


def test_a_text_of_too_many_tokens_is_refused(predictor_of: PredictorOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_module, "MAX_TOKENS", 5)
    predictor = predictor_of("bert", "labels", 1)
    message = (
        "the row has 6 tokens; expected at most 5 to show attention among, which grows with their square: "
        "give a shorter text"
    )

    assert len(attention_maps(predictor, "the cast is")[0].tokens) == 5
    with pytest.raises(RowError, match=f"^{re.escape(message)}$") as caught:
        attention_maps(predictor, "the cast is superb")

    assert caught.value.code == "too_long"


def test_a_row_that_cannot_be_answered_is_refused(predictor_of: PredictorOf) -> None:
    with pytest.raises(RowError, match=r"^field 'text' is empty; expected the text to classify$"):
        attention_maps(predictor_of("bert", "labels", 1), " ")


def test_a_bundle_without_attention_is_refused_with_what_makes_it() -> None:
    bundle = SimpleNamespace(path="bundles/b", manifest=SimpleNamespace(graphs={"predict": None, "explain": None}))
    message = (
        "bundles/b: it has no attention.onnx, which attention is computed with; "
        "make it from the run: suffuse export RUN --to bundles/b --explain"
    )

    for use in (AttentionGraph, AttentionRollout().prepare):
        with pytest.raises(BundleError, match=f"^{re.escape(message)}$"):
            use(cast("Bundle", bundle), TwoTokens().run)


def test_it_is_json_of_rounded_numbers(predictor_of: PredictorOf) -> None:
    (maps,) = attention_maps(predictor_of("bert", "labels", 2), "a funny film")

    content = maps.to_dict(digits=3)

    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert list(content) == [
        "tokens", "places", "plain", "diffused", "beta", "moved", "plain_rollout", "rollout", "pooled",
    ]  # fmt: skip
    assert content["diffused"] == np.round(maps.diffused.astype(np.float64), 3).tolist()
    assert max(len(str(number)) for number in np.ravel(content["plain"])) <= len("0.123")


def test_an_explanation_holds_it_where_it_was_asked_for(predictor_of: PredictorOf) -> None:
    explainer = Explainer(predictor_of("bert", "labels", 2), AttentionRollout())
    explanation = explainer("a funny film")

    with_attention = replace(explanation, attention=explainer.attention("a funny film"))

    assert "attention" not in explanation.to_dict()
    assert with_attention.to_dict()["attention"] == [with_attention.attention[0].to_dict()]


def test_rollout_scores_are_shares_of_what_was_pooled(predictor_of: PredictorOf) -> None:
    for architecture in ("bert", "gpt2"):
        predictor = predictor_of(architecture, "labels", 2)
        (maps,) = attention_maps(predictor, "the cast is superb")
        assert maps.pooled is not None
        expected_n = maps.pooled @ maps.rollout()

        explanation = Explainer(predictor, AttentionRollout())("the cast is superb")

        (part,) = explanation.explained
        assert explanation.method == "rollout"
        assert (part.baseline, part.gap, part.steps) == (None, None, 0)
        is_word_n = np.array(
            [place[0] >= 0 and name != "␣" for place, name in zip(maps.places, maps.tokens, strict=True)]
        )
        assert part.other == pytest.approx(expected_n[~is_word_n].sum(), abs=1e-6)
        for word in part.words:
            here_n = is_word_n & (maps.places[:, 1] < word.end) & (maps.places[:, 2] > word.start)
            assert word.score == pytest.approx(expected_n[here_n].sum(), abs=1e-6)


def test_rollout_explains_every_task_with_scores_that_add_up_to_one(case: Any) -> None:  # noqa: ANN401
    by_attention = Explainer(case.predictor, AttentionRollout())(case.row)
    by_gradients = Explainer(case.predictor)(case.row)

    assert by_attention.answer == case.predictor(case.row)
    for part, other in zip(by_attention.explained, by_gradients.explained, strict=True):
        assert sum(word.score for word in part.words) + part.other == pytest.approx(1.0, abs=1e-5)
        assert (part.target, part.span) == (other.target, other.span)
        assert part.value == pytest.approx(other.value, abs=1e-4)


def test_rollout_of_a_token_starts_where_the_answer_stands() -> None:
    bundle = SimpleNamespace(path="b", manifest=SimpleNamespace(graphs={"attention": None}, model={"beta": [[[]]]}))
    graph = AttentionGraph(cast("Bundle", bundle), TwoTokens().run)
    inputs = {"input_ids": np.array([1, 2])}
    first, second = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32), np.array([[0.0, 0.0], [0.0, 3.0]], np.float32)

    of_first = AttentionRollout().attribute([Subject(inputs, first, 1.0)], graph)
    of_second = AttentionRollout().attribute([Subject(inputs, second, 12.0)], graph)
    of_both = AttentionRollout().attribute([Subject(inputs, first, 1.0), Subject(inputs, second, 12.0)], graph)

    assert (of_first.scores[0].tolist(), of_first.value) == ([1.0, 0.0], 1.0)
    assert (of_second.scores[0].tolist(), of_second.value) == ([0.5, 0.5], 12.0)
    assert [scores_n.tolist() for scores_n in of_both.scores] == [[0.25, 0.0], [0.375, 0.375]]
    assert (graph.beta_lhk.shape, of_both.steps) == ((1, 1, 0), 0)


def test_rollout_of_a_long_text_needs_no_maps(predictor_of: PredictorOf) -> None:
    text = " ".join([LONG] * 3)

    explanation = Explainer(predictor_of("bert", "labels", 2), AttentionRollout())(text)

    (part,) = explanation.explained
    assert len(part.words) > attention_module.MAX_TOKENS
    assert explanation.windows > 2
    assert sum(word.score for word in part.words) + part.other == pytest.approx(1.0, abs=1e-5)
