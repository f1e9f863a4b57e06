"""From a bundle with explain.onnx to an explanation, as a user has it: no torch, and words that the model learned."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from suffuse.explain import Explainer
from suffuse.runtime import load


def test_words_that_a_model_learned_speak_for_its_answer(explainable_bundle: Path) -> None:
    explainer = Explainer(load(explainable_bundle, threads=1))

    for text, label, word in (
        ("a warm and funny film about friends", "good", "funny"),
        ("a dull and tired film about nothing", "bad", "tired"),
    ):
        explanation = explainer(text)
        (explained,) = explanation.explained
        scores = {found.text: found.score for found in explained.words}

        assert explained.target == explanation.answer["label"] == label
        assert scores[word] > 0
        assert scores[word] > scores["film"]
        assert explained.gap is not None
        assert explained.gap <= 0.05


def test_its_answer_is_the_predictors(explainable_bundle: Path) -> None:
    predictor = load(explainable_bundle, threads=1)

    assert Explainer(predictor)("a wooden cast").answer == predictor("a wooden cast")


@pytest.mark.parametrize("method", ["integrated", "gradient", "smooth", "rollout"])
def test_explaining_loads_no_training_half(explainable_bundle: Path, method: str) -> None:
    check = f"""
import json, sys
from suffuse.explain import Explainer, make_method
from suffuse.runtime import load
explanation = Explainer(load({str(explainable_bundle)!r}, 1), make_method({method!r}, {{}}))("a funny film")
loaded = [name for name in ("torch", "lightning", "transformers") if name in sys.modules]
print(json.dumps([loaded, explanation.to_dict()["method"]]))
"""

    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == [[], method]
