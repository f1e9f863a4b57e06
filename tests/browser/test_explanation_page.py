"""The page of explanations in a real Chromium: keyboard, themes, and nothing of a text that runs."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.explain.made_explanations import attention_of, bundle_of, explained_as, explanation_of, words_of

from suffuse.explain.colours import Rgb, contrast
from suffuse.explain.page import Entry, render

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TEXT = "a warm and funny film that never drags"
HOSTILE = "<script>document.title='taken'</script> <img src=x onerror=document.title='taken'> </script>"
HEBREW = "הסרט היה מצחיק מאוד"

# Each element with letters of its own: its colours, the first background that is not transparent, as numbers.
COLOURS = """() => [...document.querySelectorAll("main *")].flatMap((node) => {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  if (!own || !node.checkVisibility() || node.closest("svg, noscript")) return [];
  const rgb = (colour) => colour.match(/[0-9.]+/g).map(Number);
  let ground = node;
  while (ground && (rgb(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
  return [{ text: node.textContent.slice(0, 30), ink: rgb(getComputedStyle(node).color).slice(0, 3),
    ground: rgb(getComputedStyle(ground ?? document.body).backgroundColor).slice(0, 3) }];
})"""

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a label of two targets, a hostile text, a text from right to left, and entities without attention."""
    words = words_of(TEXT)
    two = (explained_as("good", words), explained_as("bad", words))
    entity = {"text": "funny", "label": "MOOD", "start": 11, "end": 16, "score": 0.9}
    explanations = [
        explanation_of(TEXT, explained=two, attention=(attention_of(TEXT), attention_of("a second window"))),
        *(explanation_of(text, attention=(attention_of(text),)) for text in (HOSTILE, HEBREW)),
        explanation_of(TEXT, answer={"entities": [entity]}, explained=(explained_as("MOOD", words, (11, 16)),)),
    ]
    intervals = {"comprehensiveness": [0.5, 0.4, 0.6], "curve": [0.0, 0.2, 0.3]}
    faithfulness = {"rows": 20, "best": "gradient", "shares": [0.0, 0.5, 1.0], "methods": {"gradient": intervals}}
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(render([Entry(one) for one in explanations], bundle_of({"faithfulness": faithfulness})).encode())
    return path


@pytest.fixture
def open_page(browser: Any, page_file: Path) -> Iterator[Open]:  # noqa: ANN401 - playwright's types are optional
    """Opens the page in a fresh context; afterwards nothing may have been fetched or complained of."""
    contexts, troubles = [], []

    def opened(**settings: Any) -> Any:  # noqa: ANN401
        context = browser.new_context(**({"viewport": {"width": 1100, "height": 900}} | settings))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", lambda request: troubles.append(request.url) if request.url != page_file.as_uri() else None)
        page.goto(page_file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


def test_a_script_in_a_text_is_shown_and_does_not_run(open_page: Open) -> None:
    page = open_page()

    assert page.title() == "reviews: answers explained"
    assert page.locator("#text-2 .text").inner_text() == HOSTILE
    assert page.locator("#text-2 .text img, #text-2 .text script").count() == 0


def test_a_script_that_is_put_in_later_does_not_run_either(open_page: Open, browser: Any, page_file: Path) -> None:  # noqa: ANN401
    context = browser.new_context()
    page = context.new_page()
    page.goto(page_file.as_uri())

    page.evaluate("""() => { const script = document.createElement("script");
      script.textContent = "document.title = 'taken'"; document.body.append(script); }""")

    assert page.title() == "reviews: answers explained"
    context.close()


def test_one_target_is_shown_and_the_keyboard_changes_it(open_page: Open) -> None:
    page = open_page()
    panels = page.locator("#text-1 .panel")
    assert [panels.nth(index).is_visible() for index in range(2)] == [True, False]

    page.locator("#text-1 .targets input").first.focus()
    page.keyboard.press("ArrowRight")

    assert [panels.nth(index).is_visible() for index in range(2)] == [False, True]


def test_arrow_keys_read_words_with_their_scores(open_page: Open) -> None:
    page = open_page()
    page.locator("#text-1 .panel:visible .text").focus()

    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")

    assert page.locator("#text-1 .panel:visible .readout").inner_text() == "warm -1.000"
    assert page.locator("#text-1 .w.here").inner_text() == "warm"


def test_in_hebrew_the_arrow_to_the_left_goes_ahead(open_page: Open) -> None:
    page = open_page()
    page.locator("#text-3 .text").focus()

    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")

    assert page.locator("#text-3 .w.here").inner_text() == HEBREW.split()[1]


def test_arrow_keys_move_the_focus_and_the_arcs_among_tokens(open_page: Open) -> None:
    page = open_page()
    flow = page.locator("#text-1 .flow").first
    flow.locator("[aria-selected=true]").focus()
    arcs = "node => node.querySelector('svg').innerHTML"
    before = flow.evaluate(arcs)

    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")

    assert page.evaluate("document.activeElement.textContent") == "warm"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert flow.evaluate(arcs) not in ("", before)
    assert "“warm” attends to plain “" in page.locator("#text-1 .said").inner_text()
    chosen = page.locator("#text-1 .flow [aria-selected=true]")
    assert chosen.all_inner_texts() == ["warm", "warm"]  # in plain and in diffused attention alike


def test_arrow_keys_choose_a_head(open_page: Open) -> None:
    page = open_page()
    chosen = page.locator("#text-1 .heads [aria-checked=true]")
    assert chosen.get_attribute("aria-label") == "layer 2, head 1, beta -0.900"
    chosen.focus()

    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")

    assert chosen.get_attribute("aria-label") == "layer 1, head 2, beta 0.100"
    assert page.evaluate("document.activeElement.getAttribute('aria-checked')") == "true"
    page.locator("#text-1 summary", has_text="This head as a table").click()
    assert "layer 1, head 2: the 3 tokens" in page.locator("#text-1 .drawn caption").inner_text()


def test_tab_reaches_everything_once(open_page: Open) -> None:
    page = open_page()
    seen: list[str] = []

    for _ in range(80):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "(document.activeElement.closest('.entry')?.id ?? '') + ' ' + (document.activeElement.className"
            " || document.activeElement.getAttribute('role') || document.activeElement.tagName)"
        )
        if name == " BODY":
            break
        seen.append(name)

    first = [name.removeprefix("text-1 ") for name in seen if name.startswith("text-1 ")]
    assert first[:6] == ["INPUT", "text", "SUMMARY", "window", "radio", "token"]
    assert first.count("token") == 2


def test_the_pointer_reads_a_cell_of_the_matrix(open_page: Open) -> None:
    page = open_page()
    matrix = page.locator("#text-1 .matrix").first
    matrix.scroll_into_view_if_needed()
    box = matrix.bounding_box()

    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] - 2)

    assert "from “[SEP]” to “[SEP]”, plain 0." in page.locator("#text-1 .said").inner_text()


def test_another_window_can_be_chosen(open_page: Open) -> None:
    page = open_page()

    page.locator("#text-1 select").select_option(index=1)

    assert page.locator("#text-1 .flow").first.inner_text().split() == ["[CLS]", "a", "second", "window", "[SEP]"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_have_contrast_in_both_themes(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")

    found = page.evaluate(COLOURS)

    assert len(found) > 100
    weak = [one for one in found if contrast(_rgb(one["ink"]), _rgb(one["ground"])) < 4.5]
    assert weak == []


def test_dark_is_dark_and_paper_is_light(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"

    page.emulate_media(media="print")

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('.text .p8, .text .n8')).backgroundColor") in (
        "rgb(8, 104, 172)",
        "rgb(217, 95, 2)",
    )


def test_a_phone_scrolls_down_alone(open_page: Open) -> None:
    page = open_page(viewport={"width": 360, "height": 740})
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")

    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_a_script_texts_probabilities_and_tables_are_there(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)

    assert page.locator("#text-1 .panel .text").all_inner_texts() == [TEXT, TEXT]
    assert page.locator("#text-1 .bars .given").inner_text().split() == ["good", "75.0", "%"]
    page.locator("#text-1 .scores summary").click()
    assert page.locator("#text-1 .scores table").is_visible()
    assert page.locator("#text-1 .beta").is_visible()


def test_a_text_keeps_its_direction(open_page: Open) -> None:
    page = open_page()

    assert page.evaluate("getComputedStyle(document.querySelector('#text-3 .text')).direction") == "rtl"
    assert page.evaluate("getComputedStyle(document.querySelector('#text-3 .flow')).direction") == "rtl"
    assert page.evaluate("getComputedStyle(document.querySelector('#text-1 .text')).direction") == "ltr"


def _rgb(parts: list[float]) -> Rgb:
    red, green, blue = map(round, parts)
    return red, green, blue
