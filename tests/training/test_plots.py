"""The picture of a training shows what was logged, and nothing of when and where it was drawn."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from suffuse.training.plots import Logged, draw_training

COLUMNS = ("step", "train_loss", "learning_rate", "attention_learning_rate", "val_loss", "val_score")
BETAS = tuple(f"beta_layer{layer}_hop{hop}" for layer in (0, 1) for hop in (2, 3))


def logged(steps: int = 40, betas: tuple[str, ...] = BETAS) -> Logged:
    rows = []
    for step in range(9, steps, 10):
        empty = dict.fromkeys((*COLUMNS, *betas), "")
        rate = 1e-4 * (steps - 1 - step)
        rows.append(
            empty
            | {"step": f"{step}", "train_loss": f"{1 / step}", "learning_rate": f"{rate}"}
            | ({"attention_learning_rate": f"{10 * rate}"} if betas else {})
        )
        beta = dict.fromkeys(betas, f"{step / 1000}")
        rows.append(empty | {"step": f"{step}", "val_loss": f"{2 / step}", "val_score": f"{step % 25 / 25}"} | beta)
    return rows


def texts(path: Path) -> list[str]:
    """What the SVG writes, from the comments that matplotlib puts beside its glyphs."""
    return [text.strip() for text in re.findall(r"<!-- (.*?) -->", path.read_text("utf-8"))]


def test_four_panels_are_labelled_with_their_units(tmp_path: Path) -> None:
    draw_training(logged(), tmp_path / "training.svg", "f1_macro")

    written = texts(tmp_path / "training.svg")
    for title in ("Loss", "Validation score (best ringed)", "Learning rate", "Hop weights by layer"):
        assert written.count(title) == 1
    assert written.count("optimizer step") == 4
    assert {"nats per decision", "f1_macro", "per step (log scale)", "beta, mean over heads", "hop 2", "hop 3"} <= {
        *written
    }


def test_plain_attention_has_three_panels(tmp_path: Path) -> None:
    draw_training(logged(betas=()), tmp_path / "training.svg", "f1")

    written = texts(tmp_path / "training.svg")
    assert written.count("optimizer step") == 3
    assert "hop weights" not in written


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw_training(logged(), tmp_path / name, "f1")

    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text("utf-8")


@pytest.mark.parametrize("rows", [logged(20), [dict.fromkeys((*COLUMNS, *BETAS), "") | {"step": "3"}]])
def test_a_short_training_is_drawn_too(rows: Logged, tmp_path: Path) -> None:
    draw_training(rows, tmp_path / "training.svg", "f1")

    assert ElementTree.parse(tmp_path / "training.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own file


def test_a_long_training_is_drawn_in_as_much_room(tmp_path: Path) -> None:
    draw_training(logged(60_000, ()), tmp_path / "training.svg", "f1")

    assert (tmp_path / "training.svg").stat().st_size < 200_000
