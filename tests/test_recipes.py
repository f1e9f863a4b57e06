"""Every recipe runs, on a few rows in the form that its own data have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from suffuse.training.checkpoint import load_checkpoint
from suffuse.training.fit import best_checkpoint, fit

RECIPES = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
NUMBERS = range(24)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def snippets(folder: Path) -> Path:
    lines = [f"film {number},{('fresh', 'rotten')[number % 2]},{number}" for number in NUMBERS]
    return write(folder / "rows.csv", ["text,category,movie_name", *lines])


def separated(folder: Path) -> Path:
    return write(folder / "rows.tsv", ["label\tsentence\tcontent", *(f"{n % 2}\tfilm {n}\tfilm {n}" for n in NUMBERS)])


def labelled_lines(folder: Path) -> Path:
    return write(folder / "rows.txt", [f"{('DESC:manner', 'LOC:city')[n % 2]} What of {n} ?" for n in NUMBERS])


def class_folders(folder: Path) -> Path:
    for number in NUMBERS:
        path = folder / "rows" / ("sport", "tech")[number % 2] / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"film {number}", "utf-8")
    return folder / "rows"


def several_labels(folder: Path) -> Path:
    rows = [{"text": f"film {number}", "labels": [["PER"], ["LOC", "PER"]][number % 2]} for number in NUMBERS]
    return write(folder / "rows.jsonl", [json.dumps(row) for row in rows])


def tagged_words(folder: Path) -> Path:
    return write(folder / "rows.conll", [f"the O\nfilm {('B-PER', 'B-LOC')[number % 2]}\n" for number in NUMBERS])


def squad(folder: Path) -> Path:
    answers = [{"text": "funny", "answer_start": 11}]
    questions = [{"id": str(number), "question": f"what {number}", "answers": answers} for number in NUMBERS]
    paragraph = {"context": "the film a funny one", "qas": questions}
    return write(folder / "rows.json", [json.dumps({"data": [{"title": "a", "paragraphs": [paragraph]}]})])


def scored_pairs(folder: Path) -> Path:
    return write(folder / "rows.csv", ["text,text_pair,score", *(f"film {n},a film,{n % 6}" for n in NUMBERS)])


FORMS: dict[str, Callable[[Path], Path]] = {
    "bbc": class_folders,
    "bbc-lead": class_folders,
    "entities": tagged_words,
    "entities-decoder": tagged_words,
    "name-kinds": several_labels,
    "question-pairs": scored_pairs,
    "questions": squad,
    "sentiment": snippets,
    "similarity": scored_pairs,
    "sst2": separated,
    "sst2-decoder": separated,
    "trec50": labelled_lines,
    "trec6": labelled_lines,
    "trec6-decoder": labelled_lines,
}


def with_path(source: Any, path: Path) -> Any:  # noqa: ANN401 - as a recipe has it
    return {**source, "path": str(path)} if isinstance(source, dict) else str(path)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs_on_a_few_rows(recipe: Path, tiny_model: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(recipe.read_text("utf-8"))
    data, rows = content["data"], FORMS[recipe.stem](tmp_path)
    data |= {side: with_path(data[side], rows) for side in ("train", "validation", "test") if side in data}
    if "validation" not in data:
        data["split"] = {**data.get("split", {}), "validation": 0.3}
    content["model"] |= {"model": str(tiny_model), "max_tokens": 32}
    content["trainer"] |= {"max_epochs": 1, "limit_train_batches": 2, "accelerator": "cpu"}
    (tmp_path / recipe.name).write_text(yaml.safe_dump(content), "utf-8")

    fit([f"--config={tmp_path / recipe.name}", f"--run={tmp_path / 'run'}"])

    trained = load_checkpoint(best_checkpoint(tmp_path / "run"))
    assert set(trained.metrics) >= {trained.task.metric}
