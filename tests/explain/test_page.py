"""The page shows the text as it was sent, runs nothing of it, and says the same in tables."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.explain.made_explanations import attention_of, bundle_of, explained_as, explanation_of, words_of

from suffuse.errors import InputError, RowError
from suffuse.explain import Explanation
from suffuse.explain.page import Entry, check_path, render

STRANGE = [
    "<script>document.title = 'taken'</script></script><!-- <b>bold</b> &amp; \"quoted\" 'too'",
    "فيلم رائع جدا، مضحك film!",
    "הסרט היה מצחיק",
    "film 👩🏽‍🚀 great 🙂🙂 cafe\u0301 nai\u0308ve",
    "\n  two lines\r\n\tand   a tab \u202e turned\u00a0",
]


class Reader(HTMLParser):
    """What a page holds: the text of each element with class ``text``, tags, attributes, and tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.cells: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._depth = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append((tag, given))
        if given.get("class") == "text":
            self.texts.append("")
            self._depth = 1
        elif tag in ("th", "td"):
            self.cells.append("")
        elif self._depth:
            self._depth += 1

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._depth = max(0, self._depth - 1)

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.texts[-1] += data
        if self.cells:
            self.cells[-1] += data


def page_of(*results: Explanation | RowError, **evaluation: Any) -> str:  # noqa: ANN401 - as in a manifest
    return render([Entry(result) for result in results], bundle_of(evaluation))


@pytest.mark.parametrize("text", STRANGE)
def test_the_text_stands_in_the_page_as_it_was_sent(text: str) -> None:
    assert Reader(page_of(explanation_of(text))).texts == [text]


@pytest.mark.parametrize("text", STRANGE)
def test_nothing_of_a_text_becomes_markup(text: str) -> None:
    explanation = explanation_of(text, attention=(attention_of(text),))

    tags = [tag for tag, _ in Reader(page_of(explanation)).tags]

    assert tags.count("script") == 2
    assert not {"b", "p.x", "img"} & set(tags)


def test_a_script_in_the_data_cannot_end_it() -> None:
    text = "</script><script>alert(1)</script>"

    page = page_of(explanation_of(text, attention=(attention_of(text),)))

    held = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert held
    assert json.loads(held[1])[0]["windows"][0]["tokens"] == ["[CLS]", text, "[SEP]"]


def test_the_browser_is_told_to_run_our_script_alone_and_to_fetch_nothing() -> None:
    page = page_of(explanation_of("a warm film"))

    (policy,) = [given["content"] for tag, given in Reader(page).tags if given.get("http-equiv")]
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    named = page.replace("http://www.w3.org/2000/svg", "")  # a namespace's name, which nobody fetches
    assert not re.findall(r"(?:src|href)=\"(?!#)|url\(|@import|https?:", named)


def test_the_same_explanations_give_the_same_page() -> None:
    explanations = [explanation_of(text, attention=(attention_of(text),)) for text in STRANGE]

    assert page_of(*explanations) == page_of(*explanations)


def test_words_are_coloured_by_their_share_of_the_strongest() -> None:
    page = page_of(explanation_of("a warm film"))  # scores 1, -1 and 3

    assert '<span class="w p3" title="+1.000">a</span> <span class="w n3" title="-1.000">warm</span>' in page
    assert '<span class="w p8" title="+3.000">film</span>' in page


def test_the_words_stand_in_a_table_too() -> None:
    page = page_of(explanation_of("a warm film"))

    cells = [cell.strip() for cell in Reader(page).cells]
    start = cells.index("word")
    assert cells[start : start + 11] == [
        "word", "characters", "good", "a", "0-1", "+1.000", "warm", "2-6", "-1.000", "film", "7-11",
    ]  # fmt: skip
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert tables
    assert all("<caption>" in table and 'scope="col"' in table and 'scope="row"' in table for table in tables)


def test_probabilities_are_bars_and_the_answer_is_marked() -> None:
    page = page_of(explanation_of("a warm film"))

    rows = re.findall(r"<tr( class=\"given\")?><th scope=\"row\"><bdi>(\w+)</bdi>.*?width: ([\d.]+)%", page)
    assert rows == [(' class="given"', "good", "75.00"), ("", "bad", "25.00")]


def test_of_many_labels_the_likeliest_are_shown() -> None:
    scores = {f"label {number}": number / 100 for number in range(20)}

    page = page_of(explanation_of("a warm film", answer={"label": "label 19", "score": 0.19, "scores": scores}))

    assert page.count('class="bar"') == 12
    assert "8 more, each less likely, are not shown." in page
    assert "label 7<" not in page


def test_entities_are_marked_and_each_can_be_chosen() -> None:
    text = "warm film, dull film"
    spans = [("MOOD", 0, 4), ("FILM", 16, 20)]
    entities = [
        {"text": text[start:end], "label": label, "start": start, "end": end, "score": 0.9}
        for label, start, end in spans
    ]
    explained = tuple(explained_as(label, words_of(text), (start, end)) for label, start, end in spans)

    page = page_of(explanation_of(text, answer={"entities": entities}, explained=explained))

    assert Reader(page).texts == [text, text]
    assert (
        page.count('<mark class="current" data-label="MOOD"><span class="w p3" title="+1.000">warm</span></mark>') == 1
    )
    assert page.count('data-label="FILM"') == 2
    assert page.count('type="radio"') == 2
    assert "Answer: <bdi>2 entities</bdi>" in page


def test_an_answer_is_marked_in_the_context_alone() -> None:
    texts = {"question": "who is superb", "context": "the cast is superb"}
    words = tuple(word for field, text in texts.items() for word in words_of(text, field))
    answer = {"answer": "the cast", "start": 0, "end": 8, "score": 0.8}

    page = page_of(explanation_of("", answer=answer, texts=texts, explained=(explained_as("answer", words, (0, 8)),)))

    assert Reader(page).texts == list(texts.values())
    assert page.count("<mark") == 1
    assert "Answer: <bdi>the cast</bdi>" in page


def test_an_answer_that_says_nothing_shows_its_text() -> None:
    page = page_of(explanation_of("a warm film", answer={"entities": []}, explained=()))

    assert "There is nothing in this answer to explain." in page
    assert Reader(page).texts == ["a warm film"]


def test_windows_cuts_and_what_is_left_out_are_said() -> None:
    answer = {"label": "good", "score": 0.75, "scores": {}, "truncated": True}

    page = page_of(explanation_of("a warm film", answer=answer, windows=3, left_out=2))

    assert "it was read in 3 windows, explained one by one" in page
    assert "The end of the text was cut off, and has no scores." in page
    assert "2 more of the answer are not explained." in page


def test_several_texts_are_one_page_and_a_bad_one_has_its_error() -> None:
    page = page_of(explanation_of("a warm film"), RowError("field 'text' is empty; expected <b>the text</b>"))

    assert page.count('class="entry"') == 2
    assert '<p class="warning">field &#39;text&#39; is empty; expected &lt;b&gt;the text&lt;/b&gt;</p>' in page
    assert '<a href="#text-2">not explained</a>' in page


def test_a_page_without_attention_says_why() -> None:
    page = render([Entry(explanation_of("a film"), "bundle: it has no attention.onnx; make it")], bundle_of())

    assert '<p class="soft">bundle: it has no attention.onnx; make it</p>' in page
    assert '<script type="application/json" id="data">[null]</script>' in page


def test_attention_is_kept_to_a_255th_of_its_range() -> None:
    maps = attention_of("a warm and funny film")

    content = _content(page_of(explanation_of("a warm and funny film", attention=(maps,))))

    (window,) = content["windows"]
    for name in ("plain", "diffused"):
        held = window[name]
        low, high = np.array(held["low"])[:, None], np.array(held["high"])[:, None]
        quantised = np.frombuffer(base64.b64decode(held["bytes"]), np.uint8).reshape(6, -1)
        restored = low + (high - low) * quantised / 255
        given = getattr(maps, name).reshape(6, -1)
        assert np.abs(restored - given).max() <= 0.51 * (high - low).max() / 255 + 1e-5
    assert window["first"] == 3
    assert window["beta"][3] == [-0.9]


def test_one_hop_has_nothing_diffused() -> None:
    content = _content(page_of(explanation_of("a film", attention=(attention_of("a film", num_hops=1),))))

    assert content["windows"][0]["diffused"] is None


def test_more_tokens_than_there_is_room_for_are_cut_and_said() -> None:
    text = " ".join(["film"] * 198)
    maps = attention_of(text, layers=12, heads=12)

    page = page_of(explanation_of(text, attention=(maps,)))

    assert "Of up to 200 tokens in a window the first 102 are shown; the rest has its share too." in page
    assert len(_content(page)["windows"][0]["tokens"]) == 102


def test_windows_beyond_the_fourth_are_left_out_and_said() -> None:
    page = page_of(explanation_of("a film", windows=6, attention=(attention_of("a film"),) * 6))

    assert "Of 6 windows the first 4 are shown." in page
    assert len(_content(page)["windows"]) == 4


def test_faithfulness_is_shown_where_the_bundle_has_it() -> None:
    methods = {
        "gradient": {"comprehensiveness": [0.25, 0.2, 0.3], "aopc_over_occlusion": None, "curve": [0.0, -0.1, 0.1]},
        "integrated": {"comprehensiveness": [0.5, 0.4, 0.6], "aopc_over_occlusion": None, "curve": [0.0, 0.2, 0.3]},
    }
    faithfulness = {"rows": 200, "best": "integrated", "shares": [0.0, 0.5, 1.0], "methods": methods}

    page = page_of(explanation_of("a film"), faithfulness=faithfulness)

    assert '<polyline class="line-1 best" points="0,75.00 50,25.00 100,0.00"/>' in page
    assert '<tr><th scope="row">gradient</th><td>0.000</td><td>-0.100</td><td>0.100</td></tr>' in page

    assert "Measured on 200 rows" in page
    assert page.count('class="measure"') == 1
    assert re.search(r'class="given"><th scope="row">integrated<.*?left: 83.33%', page)
    assert re.search(r'class="dot" style="left: 41.67%"></i></span> 0.250 <span class="soft">\(0.200 to 0.300\)', page)


def test_a_bundle_that_was_not_measured_says_how_to() -> None:
    assert "<code>suffuse explain BUNDLE --evaluate ROWS</code>" in page_of(explanation_of("a film"))


def test_a_folder_and_a_path_in_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path}: is a folder; expected the name of a file to write$"):
        check_path(tmp_path)
    with pytest.raises(
        InputError, match=rf"^{tmp_path}/a/x.html: there is no folder {tmp_path}/a; make it, or name another$"
    ):
        check_path(tmp_path / "a" / "x.html")


def test_a_notebook_shows_the_coloured_text_and_runs_nothing() -> None:
    text = "<script>alert(1)</script> warm"

    shown = replace(explanation_of(text), windows=2)._repr_html_()

    assert "&lt;script&gt;alert(1)&lt;/script&gt;</span> <span" in shown
    assert "<script" not in shown
    assert "read in 2 windows" in shown
    assert ".suffuse .p8 { background: #0868ac; color: #ffffff; }" in shown


def _content(page: str) -> Any:  # noqa: ANN401 - JSON
    held = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert held
    return json.loads(held[1])[0]
