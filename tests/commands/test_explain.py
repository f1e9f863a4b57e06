"""`suffuse explain` shows words coloured, or JSON, and refuses in one line."""

import json
import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from rich.style import Style
from tests.explain.made_explanations import attention_of

from suffuse.cli import main
from suffuse.commands.explain import rendered
from suffuse.errors import BundleError
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


def test_several_targets_are_explained_together(explainable_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = ["--target", "good", "--target", "bad", "--target", "good"]

    status = main(["explain", str(explainable_bundle), "a warm film", *targets, "--json", "--method", "gradient"])

    content = json.loads(capsys.readouterr().out)
    assert (status, [part["target"] for part in content["explained"]]) == (0, ["good", "bad"])


def test_attention_is_summed_up_on_a_terminal() -> None:
    lines = rendered(explanation_of(attention=(attention_of("a warm film"),))).plain.splitlines()

    assert lines[2] == "attention of 5 tokens in 2 layers of 3 heads"
    assert re.fullmatch(r"layer 2, head 1: beta -0\.90 moves \d\d\.\d% of it", lines[3])
    assert len(lines) == 6


def test_one_hop_is_said_on_a_terminal() -> None:
    lines = rendered(explanation_of(attention=(attention_of("a warm film", num_hops=1),))).plain.splitlines()

    assert lines[2:] == ["attention of 5 tokens in 2 layers of 3 heads: one hop, nothing is diffused"]


def test_one_page_has_all_texts_with_their_attention(
    explainable_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.html"

    status = main(["explain", str(explainable_bundle), "a warm film", " ", "a dull film", "--html", str(path)])

    page = path.read_text("utf-8")
    assert status == 2  # for the empty one, which has its error on the page too
    assert page.count('class="entry"') == 3
    assert page.count('"plain":') == 2
    assert page.count("is empty") == 1
    assert capsys.readouterr().out.count("logit") == 2


def test_a_page_says_how_to_get_attention_that_a_bundle_lacks(
    explainable_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = f"{explainable_bundle}: it has no attention.onnx"
    monkeypatch.setattr("suffuse.explain.explanation.attention_maps", Mock(side_effect=BundleError(message)))

    status = main(["explain", str(explainable_bundle), "a warm film", "--html", str(tmp_path / "page.html")])

    assert status == 0
    assert f'<p class="soft">{message}</p>' in (tmp_path / "page.html").read_text("utf-8")


def test_pictures_are_written(explainable_bundle: Path, tmp_path: Path) -> None:
    words, heads = tmp_path / "words.svg", tmp_path / "heads.png"

    assert main(["explain", str(explainable_bundle), "a warm film", "--svg", str(words)]) == 0
    assert main(["explain", str(explainable_bundle), "a warm film", "--attention", "--png", str(heads)]) == 0

    assert "<!-- warm -->" in words.read_text("utf-8")
    assert heads.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--html", "{folder}"), "{folder}: is a folder; expected the name of a file to write"),
        (("--html", "{folder}/a/x.html"), "{folder}/a/x.html: there is no folder {folder}/a; make it, or name another"),
        (("--svg", "{folder}/a/x.svg"), "{folder}/a/x.svg: there is no folder {folder}/a; make it, or name another"),
        (("--png", "{folder}/x.svg"), "--png is '{folder}/x.svg'; expected a name that ends in .png"),
        (("more", "--attention", "--svg", "{folder}/x.svg"), "a picture shows the attention of one text; got 2"),
    ],
)
def test_files_that_cannot_be_written_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    given = [argument.format(folder=tmp_path) for argument in arguments]

    status = main(["explain", "no bundle", "a warm film", *given])

    assert (status, capsys.readouterr().err) == (2, f"suffuse: {message.format(folder=tmp_path)}\n")


def test_pictures_without_matplotlib_name_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suffuse.commands.explain.find_spec", lambda _: None)

    status = main(["explain", "no bundle", "a warm film", "--svg", str(tmp_path / "x.svg")])

    message = "suffuse: pictures are drawn by matplotlib, which is missing: pip install 'suffuse[plots]'\n"
    assert (status, capsys.readouterr().err) == (2, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "10000"), "steps is 10,000; expected 1 to 1,000: 32 are enough for most texts"),
        (("--method", "gradient", "--steps", "3"), "method gradient has no setting 'steps'; expected none"),
        (("--method", "lime"), "method 'lime' is unknown; expected one of integrated, gradient, smooth, rollout"),
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
