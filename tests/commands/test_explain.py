"""`suffuse explain` shows words coloured, or JSON, and refuses in one line."""

import json
from pathlib import Path

import pytest
from rich.style import Style

from suffuse.cli import main
from suffuse.commands.explain import rendered
from suffuse.explain import Explained, Explanation, Word


def explanation_of(**changes: object) -> Explanation:
    words = (
        Word("a", 0, 1, 0.0, "text"),
        Word("warm", 2, 6, 2.0, "text"),
        Word("dull", 7, 11, -1.0, "text"),
    )
    explained = Explained("good", None, 3.25, 0.5, 0.0123, 16, words, 0.0)
    settings = {"answer": {"label": "good"}, "method": "integrated", "windows": 1, "explained": (explained,), **changes}
    return Explanation(**settings)  # type: ignore[arg-type]


def test_words_are_shown_with_their_scores() -> None:
    text = rendered(explanation_of())

    assert text.plain == "good  logit 3.25, 16 steps, gap 1.2%\na +0.00  warm +2.00  dull -1.00"


def test_words_for_are_blue_and_words_against_orange() -> None:
    text = rendered(explanation_of())
    styles = {text.plain[span.start : span.end]: Style.parse(str(span.style)) for span in text.spans}

    assert styles["a"].bgcolor == Style.parse("on rgb(255,255,255)").bgcolor
    assert styles["warm"].bgcolor == Style.parse("on rgb(8,104,172)").bgcolor
    assert styles["dull"].bgcolor == Style.parse("on rgb(236,175,128)").bgcolor


def test_windows_and_what_was_left_out_are_said() -> None:
    lines = rendered(explanation_of(windows=3, left_out=2)).plain.splitlines()

    assert lines[-2:] == ["read in 3 windows, explained one by one", "2 more of the answer left out"]


def test_an_answer_that_says_nothing_is_shown() -> None:
    text = rendered(explanation_of(answer={"entities": []}, explained=()))

    assert text.plain == 'nothing to explain in the answer {"entities": []}'


def test_json_has_one_explanation_a_line(explainable_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(
        ["explain", str(explainable_bundle), "a warm film", '{"text": "a dull film"}', "--json", "--method", "gradient"]
    )

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0
    assert [(line["method"], [part["steps"] for part in line["explained"]]) for line in lines] == [
        ("gradient", [1])
    ] * 2
    assert [word["text"] for word in lines[1]["explained"][0]["words"]] == ["a", "dull", "film"]


def test_the_answer_is_explained_on_a_terminal(explainable_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["explain", str(explainable_bundle), "a warm and funny film", "--steps", "4"])

    out = capsys.readouterr().out
    assert status == 0
    assert out.startswith("good  logit ")
    assert "funny +" in out


def test_a_text_that_cannot_be_explained_leaves_its_neighbours(
    explainable_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["explain", str(explainable_bundle), " ", "a dull and tired film", "--json"])

    out, err = capsys.readouterr()
    bad, good = map(json.loads, out.splitlines())
    assert (status, bad["error"]["code"], good["answer"]["label"]) == (2, "empty_text", "bad")
    assert err == "suffuse: some texts could not be explained; each error stands in its line\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "10000"), "steps is 10,000; expected 1 to 1,000: 32 are enough for most texts"),
        (("--method", "gradient", "--steps", "3"), "method gradient has no setting 'steps'; expected none"),
        (("--method", "lime"), "method 'lime' is unknown; expected one of integrated, gradient, smooth"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    explainable_bundle: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    status = main(["explain", str(explainable_bundle), "a warm film", *arguments])

    assert (status, capsys.readouterr().err) == (2, f"suffuse: {message}\n")


def test_a_bundle_that_cannot_explain_is_refused_with_what_to_do(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["explain", str(tiny_bundle), "a warm film"])

    message = (
        f"{tiny_bundle}: it has no explain.onnx, which explanations are computed with; "
        f"make it from the run: suffuse export RUN --to {tiny_bundle} --explain"
    )
    assert (status, capsys.readouterr().err) == (2, f"suffuse: {message}\n")
