"""Named entities all the way: columns, training, validation, bundle, answers."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

import suffuse
from suffuse.export import export
from suffuse.rows import read_rows
from suffuse.training.fit import fit


@dataclass(frozen=True)
class Trained:
    """A bundle that tells films and casts, the score it was picked by, and its validation rows."""

    bundle: Path
    score: float
    rows: Path


@pytest.fixture(scope="session")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("entities")
    for name, count, seed in (("train.txt", 160, 0), ("valid.conll", 30, 1)):
        (folder / name).write_text(sentences(count, seed), "utf-8")
    recipe = {
        "run": folder / "run",
        "model.model": tiny_model,
        "model.max_tokens": 16,
        "model.optimization.learning_rate": 1e-2,
        "data.task": "TokenClassification",
        "data.train": folder / "train.txt",
        "data.validation": folder / "valid.conll",
        "data.loading.tokens_per_batch": 256,
        "trainer.max_epochs": 6,
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
    }
    run = fit([f"--{key}={value}" for key, value in recipe.items()])
    bundle = export(run, folder / "bundle")
    return Trained(bundle.path, bundle.manifest.metrics["f1"], folder / "valid.conll")


def sentences(count: int, seed: int) -> str:
    """Sentences in columns, in which a colour of the vocabulary is an entity, together with the noun behind it."""
    chosen = random.Random(seed)
    lines = []
    for _ in range(count):
        for _ in range(chosen.randint(2, 9)):
            match chosen.choice(["film", "cast", "other"]):
                case "film":
                    lines += [f"{chosen.choice(['funny', 'warm'])} B-FILM", "film I-FILM"]
                case "cast":
                    lines += [f"{chosen.choice(['wooden', 'superb'])} B-CAST"]
                case _:
                    lines += [f"{chosen.choice(['the', 'and', 'story', 'moves'])} O"]
        lines.append("")
    return "\n".join(lines) + "\n"


def test_the_bundle_scores_as_the_validation_did(trained: Trained) -> None:
    measured = suffuse.load(trained.bundle).evaluate(row for _, row in read_rows(trained.rows))

    assert measured["f1"] == pytest.approx(trained.score)
    assert measured["rows"] == 30


def test_the_bundle_answers_a_text_longer_than_it_reads_at_once(trained: Trained) -> None:
    text = "the story moves and the superb and the warm film " * 5

    answer = suffuse.load(trained.bundle)(text)

    assert trained.score > 0.9
    starts = [entity["start"] for entity in answer["entities"] if entity["text"] == "warm film"]
    assert starts == [place for place in range(len(text)) if text.startswith("warm film", place)]


def test_the_bundle_takes_words_and_refuses_a_question(trained: Trained) -> None:
    model = suffuse.load(trained.bundle)

    answered_row, refused = model([{"tokens": ["the", "warm", "film"]}, {"question": "Who?", "passage": "the cast"}])

    assert [entity["text"] for entity in answered_row["entities"]] == ["warm film"]
    assert refused["error"]["code"] == "missing_field"
