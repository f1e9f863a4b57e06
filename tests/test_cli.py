"""The command line: results on stdout, the rest on stderr, exit 0, 1 or 2, and one line where something is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from suffuse.cli import main


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """A command in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "suffuse.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_predict_answers_each_text_in_a_line(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["predict", str(tiny_bundle), "a warm and funny film", "a dull and tired film"])

    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0
    assert [answer["label"] for answer in answers] == ["good", "bad"]


def test_predict_answers_good_texts_beside_a_bad_one(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["predict", str(tiny_bundle), "a warm and funny film", " "])

    out, err = capsys.readouterr()
    good, bad = map(json.loads, out.splitlines())
    assert (status, good["label"], bad["error"]["code"]) == (2, "good", "empty_text")
    assert err == "suffuse: some texts could not be answered; each error stands in its line\n"


def test_predict_takes_rows_as_json_and_a_text_that_only_looks_like_one(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["predict", str(tiny_bundle), '{"text": "a warm and funny film"}', "{a dull and tired film}"])

    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0
    assert [answer["label"] for answer in answers] == ["good", "bad"]


def test_predict_answers_a_file_into_a_file(tiny_bundle: Path, reviews_csv: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"

    done = run("predict", tiny_bundle, "--input", reviews_csv, "--output", output)

    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"60 rows \(0 bad\) in [\d.]+ s, \d+ rows/s\n", done.stderr)
    assert len(output.read_text("utf-8").splitlines()) == 60


@pytest.mark.parametrize(("extra", "got"), [((), "neither"), (("a", "--input", "rows.csv"), "both")])
def test_predict_takes_texts_or_a_file(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], extra: tuple[str, ...], got: str
) -> None:
    assert main(["predict", str(tiny_bundle), *extra]) == 2
    assert capsys.readouterr().err == f"suffuse: predict takes either texts or --input FILE; got {got}\n"


def test_evaluate_prints_metrics_as_json(
    tiny_bundle: Path, reviews_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tiny_bundle), str(reviews_csv)]) == 0

    metrics = json.loads(capsys.readouterr().out)
    assert metrics["rows"] == 60
    assert metrics["accuracy"] > 0.9


def test_evaluate_names_the_row_whose_label_was_not_learned(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na film,good\nanother film,god\n", "utf-8")

    assert main(["evaluate", str(tiny_bundle), str(tmp_path / "rows.csv")]) == 2
    assert capsys.readouterr().err == (
        "suffuse: rows.csv:3: field 'label' is 'god'; expected one of bad, good (learned in training)\n"
    )


def test_archive_prints_the_path_of_what_it_made(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["archive", str(tiny_bundle), "--to", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'tiny.mar'}\n"


def test_altered_bundle_is_refused_in_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    for file in tiny_bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")

    done = run("predict", tmp_path, "a film")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"suffuse: {tmp_path / 'tokenizer.json'}: altered or truncated (SHA-256 ")
    assert done.stderr.count("\n") == 1


def test_full_disk_is_a_failure_in_one_line(tiny_bundle: Path, reviews_csv: Path) -> None:
    command = [sys.executable, "-m", "suffuse.cli", "predict", str(tiny_bundle), "--input", str(reviews_csv)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "suffuse: [Errno 28] No space left on device"


def test_reader_that_has_enough_is_no_error(tiny_bundle: Path, reviews_csv: Path) -> None:
    command = [sys.executable, "-m", "suffuse.cli", "predict", str(tiny_bundle), "--input", str(reviews_csv)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()

    assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("suffuse.export", ["export", "runs/none"], "train"),
        ("matplotlib", ["plan", "--profile", "none.json", "--slo-p99", "100", "--plot", "plan.svg"], "plots"),
    ],
)
def test_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str, arguments: list[str], extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "suffuse.autoscale.plot", raising=False)

    assert main(arguments) == 1
    assert f"install what this command needs: pip install 'suffuse[{extra}]'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nosuch"], [], ["serve", "--port", "many"], ["archive"]])
def test_wrong_arguments_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)

    assert exited.value.code == 2
    assert "error: " in capsys.readouterr().err
