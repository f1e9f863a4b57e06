"""`suffuse explain BUNDLE --evaluate ROWS`: figures on stdout and in the bundle, the best method its default."""

import json
import shutil
from pathlib import Path

import pytest

from suffuse.bundle import Bundle
from suffuse.cli import main
from suffuse.commands.faithfulness import sample
from suffuse.errors import RowError
from suffuse.explain import METHODS
from suffuse.rows.files import PlacedRow
from suffuse.tasks import Classification


@pytest.fixture
def bundle(explainable_bundle: Path, tmp_path: Path) -> Path:
    """A bundle with explain.onnx that may be written to."""
    return Path(shutil.copytree(explainable_bundle, tmp_path / "bundle"))


def rows_of(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


GOOD = [{"text": f"a {mood} film about {theme}"} for mood in ("warm", "dull", "funny") for theme in ("friends", "cats")]


def test_figures_are_printed_and_kept_and_the_best_method_explains(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["explain", str(bundle), "--evaluate", str(rows_of(tmp_path, *GOOD)), "--json"])

    figures = json.loads(capsys.readouterr().out)
    kept = Bundle.open(bundle).manifest.evaluation["faithfulness"]
    assert (status, figures["rows"], kept) == (0, len(GOOD), figures)
    assert figures["best"] in METHODS
    assert main(["explain", str(bundle), "a warm film", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == figures["best"]
    assert f"Explanations are by `{figures['best']}`" in (bundle / "card.md").read_text("utf-8")


def test_a_terminal_shows_a_line_for_each_method(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["explain", str(bundle), "--evaluate", str(rows_of(tmp_path, *GOOD)), "--rows", "2"])

    out = capsys.readouterr().out
    best = Bundle.open(bundle).manifest.evaluation["faithfulness"]["best"]
    assert status == 0
    assert f"2 rows; explanations are by {best} from now on" in out
    assert all(f"\n {name} " in out for name in ("integrated", "gradient", "smooth", "occlusion", "random"))


def test_bad_rows_are_left_out_and_counted(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(tmp_path, {"text": " "}, GOOD[0], {"txt": "a film"})

    status = main(["explain", str(bundle), "--evaluate", str(rows), "--json"])

    out, err = capsys.readouterr()
    assert (status, json.loads(out)["rows"]) == (0, 1)
    assert err == (
        "2 bad rows left out; the first: rows.jsonl:1: field 'text' is empty; expected the text to classify\n"
    )


@pytest.mark.parametrize(
    ("lines", "arguments", "message"),
    [
        (
            [{"text": " "}, {"txt": "a"}],
            (),
            "all 2 rows are bad; the first: rows.jsonl:1: field 'text' is empty; expected the text to classify",
        ),
        ([], (), "rows.jsonl: the file holds no rows; expected at least one"),
        (
            [{"text": "film"}],
            (),
            "no row with an answer and two words to put in order; expected at least one: give other rows",
        ),
        (GOOD, ("--rows", "0"), "rows is 0; expected at least 1, such as 200"),
        (GOOD, ("more.jsonl",), "explain --evaluate takes one file of rows; got 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lines: list[object],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    rows = rows_of(tmp_path, *lines)

    status = main(["explain", str(bundle), "--evaluate", str(rows), *arguments])

    assert (status, capsys.readouterr().err) == (2, f"suffuse: {message}\n")
    assert "faithfulness" not in Bundle.open(bundle).manifest.evaluation


def test_a_bundle_without_gradients_is_refused_with_what_to_do(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["explain", str(tiny_bundle), "--evaluate", str(rows_of(tmp_path, *GOOD))])

    message = (
        f"{tiny_bundle}: it has no explain.onnx, which explanations are computed with; "
        f"make it from the run: suffuse export RUN --to {tiny_bundle} --explain"
    )
    assert (status, capsys.readouterr().err) == (2, f"suffuse: {message}\n")


def test_a_sample_is_of_the_whole_file_in_its_order_and_the_same_each_time() -> None:
    placed = [PlacedRow(f"f:{number}", {"text": str(number)}) for number in range(1000)]
    task, bad = Classification(labels=("a", "b")), list[RowError]()

    first, second = (sample(task, placed, 100, bad) for _ in range(2))

    numbers = [int(row["text"]) for row in first]
    assert first == second
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 100
    assert 400 < sum(numbers) / 100 < 600
    assert sample(task, placed[:5], 100, bad) == [row for _, row in placed[:5]]
