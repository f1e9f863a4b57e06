"""`suffuse profile` writes what `suffuse plan` reads."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from suffuse.autoscale.service_time import Profile
from suffuse.commands import profile


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
