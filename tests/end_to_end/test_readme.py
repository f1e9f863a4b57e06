"""What the README shows must run as it stands there; only places differ."""

import re
from pathlib import Path

import pytest

from suffuse.serving.server import Server

ROOT = Path(__file__).parent.parent.parent


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language, in order."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for name, code in found if name == language]


def replaced(text: str, places: dict[str, object]) -> str:
    """The text with other places, each of which must be in it."""
    for place, other in places.items():
        assert place in text
        text = text.replace(place, str(other))
    return text


def test_first_lines_of_python_answer(
    tiny_bundle: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {
        "bundles/sentiment": tiny_bundle,
        ".suffuse/serve-8080/key_file.json": server.key_file,
        "http://127.0.0.1:8080": server.url,
        '"sentiment"': '"tiny"',
    }

    exec(replaced(blocks("python")[0], places), {})  # noqa: S102 - the README's own

    local, *served = capsys.readouterr().out.splitlines()
    assert local.startswith("{'label': ")
    assert [line.split()[0] in {"bad", "good"} for line in served] == [True, True]


@pytest.mark.filterwarnings("ignore::FutureWarning:lightning")  # remarks of Lightning on torch's insides
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
def test_training_in_python_trains(
    tiny_model: Path, reviews_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = replaced(blocks("python")[1], {"bert-base-uncased": tiny_model, "reviews.csv": reviews_csv})
    settings = "max_epochs=1, accelerator='cpu', logger=False, enable_progress_bar=False, log_every_n_steps=1"

    exec(replaced(code, {"max_epochs=1": settings}), {})  # noqa: S102 - the README's own

    assert list((tmp_path / "checkpoints").glob("*.ckpt"))


def test_every_command_of_the_readme_exists() -> None:
    from suffuse.cli import _COMMANDS

    shown = re.findall(r"^(?:\.venv/bin/)?suffuse (\S+)", "\n".join(blocks("")), re.MULTILINE)

    assert {"fit", "export", "predict", "archive", "serve"} <= set(shown) <= {"fit", *_COMMANDS}
