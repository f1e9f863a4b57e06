"""`suffuse profile` writes what `suffuse plan` reads."""

import shutil
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from suffuse.autoscale import latency
from suffuse.autoscale.service_time import Profile
from suffuse.bundle import Bundle
from suffuse.commands import profile
from suffuse.errors import InputError


def run(*arguments: str) -> None:
    parser = ArgumentParser()
    profile.add_arguments(parser)
    profile.run(parser.parse_args(list(arguments)))


def test_profile_goes_to_a_file_that_is_named_on_stdout(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "profile.json"

    run(str(tiny_bundle), "--output", str(output))

    captured = capsys.readouterr()
    assert captured.out == f"{output}\n"
    assert captured.err.startswith("one request of ")
    assert Profile.open(output).bundle == tiny_bundle.name


def test_profile_goes_to_stdout_unless_a_file_is_named(
    tiny_bundle: Path, reviews_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(str(tiny_bundle), "--rows", str(reviews_csv), "--threads", "1")

    path = tmp_path / "profile.json"
    path.write_text(capsys.readouterr().out, "utf-8")
    assert len(Profile.open(path).lengths) == 60


def test_latency_goes_into_the_card(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "LEAST_REPEATS", 3)
    monkeypatch.setattr(latency, "MOST_REPEATS", 3)
    copy = shutil.copytree(tiny_bundle, tmp_path / "tiny")

    run(str(copy), "--card")

    captured = capsys.readouterr()
    assert captured.out == f"{copy / 'card.md'}\n"
    measured = Bundle.open(copy).manifest.evaluation["latency"]
    assert [f"{one['tokens']:>5} tokens: " for one in measured] == [line[:14] for line in captured.err.splitlines()]
    assert f"| {measured[0]['tokens']} | {measured[0]['p50_ms']:.2f} |" in (copy / "card.md").read_text("utf-8")


@pytest.mark.parametrize("option", [("--rows", "a.csv"), ("--output", "a.json"), ("--threads", "2")])
def test_the_card_is_measured_without_other_options(tiny_bundle: Path, option: tuple[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        run(str(tiny_bundle), "--card", *option)

    assert str(caught.value) == (
        "--card is given beside --rows, --output or --threads; expected it alone: the card's latency is that of "
        "made-up rows on one thread, and goes into the bundle"
    )
