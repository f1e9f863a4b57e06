"""A bundle must follow from the run's folder alone, byte for byte, and never be half written."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import suffuse
from suffuse.bundle import Bundle
from suffuse.errors import BundleError, ExportError
from suffuse.export import export, graphs
from suffuse.training.checkpoint import load_checkpoint, read_checkpoint
from suffuse.training.fit import best_checkpoint


def test_bundle_answers_as_it_was_trained(tiny_bundle: Path) -> None:
    model = suffuse.load(tiny_bundle)

    assert [answer["label"] for answer in model(["a warm and funny film", "a dull and tired film"])] == ["good", "bad"]


def test_bundle_holds_no_pickle_and_no_path(tiny_bundle: Path, tiny_run: Path) -> None:
    assert sorted(path.name for path in tiny_bundle.iterdir()) == [
        "card.md",
        "predict.onnx",
        "suffuse.json",
        "tokenizer.json",
        "training.svg",
    ]
    assert str(tiny_run.parent) not in (tiny_bundle / "suffuse.json").read_text("utf-8")


def test_same_checkpoint_gives_the_same_bytes(tiny_bundle: Path, tiny_run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny_run, tmp_path / "elsewhere")

    again = export(moved, tmp_path / "again").path

    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in tiny_bundle.iterdir()}


def test_manifest_says_how_far_onnx_runtime_is_from_torch(tiny_bundle: Path) -> None:
    assert 0 < Bundle.open(tiny_bundle).manifest.graphs["predict"].max_difference <= 1e-5


def test_card_says_what_the_manifest_says(tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / "suffuse.json").read_text("utf-8"))
    card = (tiny_bundle / "card.md").read_text("utf-8")

    low, high = manifest["evaluation"]["intervals"]["f1_macro"]
    assert f"| f1_macro | {manifest['metrics']['f1_macro']:.4f} | {low:.4f} to {high:.4f} |" in card
    assert f"a temperature of {manifest['evaluation']['calibration']['temperature']:g}," in card
    assert "Capital letters are read as small ones." in card
    assert "](training.svg)" in card
    assert "| attention | diffusion over 2 hops |" in card
    assert "| labels | `bad`, `good` |" in card


def test_scores_are_those_of_training_at_the_temperature(tiny_bundle: Path, tiny_run: Path) -> None:
    saved = read_checkpoint(best_checkpoint(tiny_run))
    model = suffuse.load(tiny_bundle)
    temperature = saved["suffuse"]["temperature"]
    text = "a warm and funny film"
    layer = {name: saved["state_dict"][f"network.classifier.{name}"].numpy() for name in ("weight", "bias")}

    scores = model(text)["scores"]

    loaded = load_checkpoint(best_checkpoint(tiny_run)).network.classifier
    assert loaded.weight.detach().numpy() * temperature == pytest.approx(layer["weight"], abs=1e-6)
    logits = model.outputs(model.task.encode([{"text": text}], model.tokens))[0]["logits"] * temperature
    unscaled = np.exp(logits) / np.exp(logits).sum()
    assert temperature != 1.0
    assert abs(scores["good"] - unscaled[1]) > 1e-4


def test_checkpoint_that_lies_by_itself_gives_a_bundle_without_a_picture(tiny_run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "somewhere" / "else"
    alone.mkdir(parents=True)
    shutil.copyfile(best_checkpoint(tiny_run), alone / "one.ckpt")

    bundle = export(alone / "one.ckpt", tmp_path / "bundle")

    assert "training.svg" not in bundle.manifest.files
    assert "](training.svg)" not in (bundle.path / "card.md").read_text("utf-8")


def test_failed_export_leaves_the_old_bundle(
    tiny_bundle: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    monkeypatch.setattr(graphs, "MAX_DIFFERENCE", 0.0)

    with pytest.raises(ExportError):
        export(tiny_run, target)

    assert Bundle.open(target).manifest.suffuse == suffuse.__version__
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    message = f"{tmp_path}: no checkpoint there; expected the folder of a run, as `suffuse fit` leaves it"
    with pytest.raises(BundleError, match=f"^{re.escape(message)}$"):
        export(tmp_path, tmp_path / "bundle")


def test_folder_that_is_no_bundle_is_not_replaced(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", "utf-8")

    message = f"{tmp_path}: exists and is no bundle; expected a new name, or a bundle to replace"
    with pytest.raises(BundleError, match=f"^{re.escape(message)}$"):
        export(tiny_run, tmp_path)

    assert (tmp_path / "thesis.txt").read_text("utf-8") == "years of work"
