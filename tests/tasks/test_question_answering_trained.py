"""Question answering all the way: rows, training, validation, bundle, answers."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import suffuse
from suffuse.export import export
from suffuse.rows import read_rows
from suffuse.training.checkpoint import load_checkpoint
from suffuse.training.fit import best_checkpoint, fit


@dataclass(frozen=True)
class Trained:
    """A run, its bundle and the file of rows that both were measured on."""

    run: Path
    bundle: Path
    validation: Path


def questions(count: int, seed: int) -> list[dict[str, Any]]:
    """Which digit stands in the context? In every third none does; every fourth context is longer than the model."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        words = draw.choices(["film", "friends", "story", "cast", "funny", "tired"], k=70 if number % 4 == 0 else 12)
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        if number % 3:
            place = draw.randrange(len(words))
            words[place] = draw.choice("123456789")
            answers = {"text": [words[place]], "answer_start": [len(" ".join(words[:place])) + bool(place)]}
        rows.append({"question": "the story", "context": " ".join(words), "answers": answers})
    return rows


@pytest.fixture(scope="session")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:

    folder = tmp_path_factory.mktemp("questions")
    files = {side: folder / f"{side}.json" for side in ("train", "validation")}
    for seed, (side, file) in enumerate(files.items()):
        file.write_text(json.dumps(questions(240 if side == "train" else 60, seed)), "utf-8")
    recipe = {
        "run": folder / "run",
        "model.model": tiny_model,
        "model.optimization.learning_rate": 3e-3,
        "data.task": "suffuse.tasks.QuestionAnswering",
        "data.train": files["train"],
        "data.validation": files["validation"],
        "data.loading.tokens_per_batch": 512,
        "trainer.max_epochs": 4,
        "trainer.accelerator": "cpu",
    }
    run = fit([f"--{key}={value}" for key, value in recipe.items()])
    return Trained(run, export(run, folder / "bundle").path, files["validation"])


def test_a_bundle_measures_what_the_validation_measured(trained: Trained) -> None:

    validated = load_checkpoint(best_checkpoint(trained.run)).metrics

    measured = suffuse.load(trained.bundle).evaluate(placed.row for placed in read_rows(trained.validation))

    assert measured == {**validated, "rows": 60}
    assert measured["f1"] > 0.8


def test_the_manifest_holds_the_threshold_that_validation_chose(trained: Trained) -> None:
    task = json.loads((trained.bundle / "suffuse.json").read_text("utf-8"))["task"]

    assert task["name"] == "question_answering"
    assert task["no_answer"] is True
    assert task["no_answer_threshold"] != 0.0


def test_a_bundle_answers_out_of_a_context_longer_than_the_model(trained: Trained) -> None:
    context = "film " * 150 + "7 story " + "funny " * 100

    answer = suffuse.load(trained.bundle)({"question": "the story", "context": context})

    assert (answer["answer"], answer["start"], answer["end"]) == ("7", 750, 751)


def test_a_bad_row_leaves_its_neighbours_answered(trained: Trained) -> None:
    good = {"question": "the story", "context": "film 7 story"}

    answers = suffuse.load(trained.bundle)([good, {"question": "the story"}, good])

    assert [("error" in answer, answer.get("answer")) for answer in answers] == [
        (False, "7"),
        (True, None),
        (False, "7"),
    ]
