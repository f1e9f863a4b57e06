"""What ``suffuse fit`` says about input it cannot use: one line, exit status 2, and the earlier run untouched."""

import json
import shutil
from pathlib import Path

import pytest

from suffuse.cli import main

MODELS = "a Hugging Face name, a folder with config.json and weights, or pkg://package/path"
HELP = "all options: suffuse fit --help"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``model`` in it, so that messages name short paths."""
    shutil.copytree(tiny_model, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*arguments: str) -> int:
    return main(["fit", "--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--run=run", *arguments])


def said_of_rows(content: bytes, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said of a file rows.csv, given that the status is 2 and nothing stands on stdout."""
    Path("rows.csv").write_bytes(content)
    status = fit("--model.model=model", "--data.train=rows.csv", *arguments)
    out, err = capsys.readouterr()
    assert (status, out, Path("run").exists()) == (2, "", False)
    return err


def said_of_model(name: str, capsys: pytest.CaptureFixture[str], rows: Path) -> str:
    status = fit(f"--model.model={name}", f"--data.train={rows}")
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    return err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"text,labl\na,good\n",
            (
                "rows.csv:2: field 'label' is missing: got 'text', 'labl'; expected the label of the row; "
                "did you mean 'label' by 'labl'?"
            ),
        ),
        (b"", "rows.csv: the file holds no rows; expected at least one"),
        (b"text,label\n", "rows.csv: the file holds no rows; expected at least one"),
        (
            b"text,label\na,good\ncaf\xe9,bad\n",
            "rows.csv:3: byte 0xe9 at column 4 is not UTF-8; expected UTF-8 (convert with: iconv -f latin1 -t utf-8)",
        ),
        (
            b"text,label\na,good\nb,good\n",
            "rows.csv: the training rows have 1 different labels in the field 'label' (good); expected at least 2",
        ),
        (
            b"text,label\na,good\n , bad\n",
            "rows.csv:3: field 'text' is empty; expected the text to classify",
        ),
        (
            b"text,label\na,good\nb,\n",
            "rows.csv:3: field 'label' is empty; expected the label of the row",
        ),
    ],
)
def test_bad_rows_are_named_in_one_line(content: bytes, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said_of_rows(content, capsys) == f"suffuse: {message}\n"


def test_label_that_training_does_not_know_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("val.csv").write_text("text,label\na,good\nb,god\n", "utf-8")
    assert said_of_rows(b"text,label\na,good\nb,bad\n", capsys, "--data.validation=val.csv") == (
        "suffuse: val.csv:3: field 'label' is 'god'; expected one of bad, good (learned in training)\n"
    )


def test_too_few_rows_to_hold_some_back_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    split = ("--data.split.validation=0", "--data.split.test=0")
    assert said_of_rows(b"text,label\na,good\nb,bad\n", capsys, *split) == (
        "suffuse: rows.csv: no validation rows are left; expected some: "
        "change the shares that data.split holds back, or name a file of its own\n"
    )


def test_missing_file_of_rows_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    status = fit("--model.model=model", "--data.train=no.csv")
    assert (status, capsys.readouterr().err) == (
        2,
        "suffuse: no.csv: no such file or folder; expected an existing one, relative to the current folder\n",
    )


def test_missing_model_folder_is_named(capsys: pytest.CaptureFixture[str], reviews_csv: Path) -> None:
    said = said_of_model("./missing", capsys, reviews_csv)
    assert said == f"suffuse: model './missing': no such folder; expected {MODELS}\n"


def test_model_folder_without_configuration_is_named(capsys: pytest.CaptureFixture[str], reviews_csv: Path) -> None:
    Path("model/config.json").unlink()
    said = said_of_model("model", capsys, reviews_csv)
    assert said == f"suffuse: model 'model': no config.json in that folder; expected {MODELS}\n"


def test_model_folder_with_a_broken_configuration_is_named(
    capsys: pytest.CaptureFixture[str], reviews_csv: Path
) -> None:
    Path("model/config.json").write_text("{", "utf-8")
    said = said_of_model("model", capsys, reviews_csv)
    assert said.startswith("suffuse: model 'model' cannot be read: ")
    assert said.count("\n") == 1


def test_model_folder_with_broken_weights_is_named(capsys: pytest.CaptureFixture[str], reviews_csv: Path) -> None:
    weights = Path("model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    said = said_of_model("model", capsys, reviews_csv)
    assert said == (
        "suffuse: model 'model' cannot be read: "
        f"Error while deserializing header: invalid header length; expected {MODELS}\n"
    )


def test_misspelt_key_of_a_recipe_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.yaml").write_text(json.dumps({"model": {"model": "model", "num_hop": 2}, "data": {"train": "x.csv"}}))
    status = fit("--config=recipe.yaml")
    assert (status, capsys.readouterr().err) == (
        2,
        f"suffuse: fit: Group 'model' does not accept option 'num_hop'; {HELP}\n",
    )


def test_unknown_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    status = fit("--model.model=model", "--data.train=x.csv", "--speed=2")
    assert (status, capsys.readouterr().err) == (2, f"suffuse: fit: unrecognized arguments: --speed=2; {HELP}\n")


def test_device_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], reviews_csv: Path) -> None:
    status = fit("--model.model=model", f"--data.train={reviews_csv}", "--trainer.devices=0")
    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith("suffuse: fit: the trainer cannot be set up: ")


def test_earlier_run_stays_when_a_new_one_cannot_start(folder: Path, reviews_csv: Path) -> None:
    for name in ("checkpoints/best.ckpt", "metrics.csv", "config.yaml", "test.jsonl"):
        path = folder / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("earlier", "utf-8")
    assert fit("--model.model=model", f"--data.train={reviews_csv}", "--data.split.group_by=film") == 2
    kept = [path.read_text("utf-8") for path in (folder / "run").rglob("*") if path.is_file()]
    assert kept == ["earlier"] * 4


def test_damaged_checkpoint_is_named_before_a_resumed_run_starts(
    folder: Path, reviews_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "run/checkpoints").mkdir(parents=True)
    (folder / "run/checkpoints/last.ckpt").write_bytes(b"PK")
    assert fit("--model.model=model", f"--data.train={reviews_csv}", "--resume") == 2
    assert capsys.readouterr().err.startswith("suffuse: run/checkpoints/last.ckpt: not a usable checkpoint: ")
