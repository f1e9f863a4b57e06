"""The playground in a real Chromium: asked by keyboard, compared, in light and dark, with nothing fetched from afar."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from suffuse.export import export
from suffuse.serving.archive import archive
from suffuse.serving.server import Server, ServerConfig
from suffuse.training.fit import fit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("gradio", reason="needs the extra playground")

pytestmark = pytest.mark.browser

CHROMIUM = Path("/usr/bin/chromium")
LIMIT_MS = 30_000
TEXT = "a warm and funny film"


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """The system's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs Chromium at {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def plain_bundle(tiny_model: Path, reviews_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without diffusion, K = 1, that has learned little."""
    folder = tmp_path_factory.mktemp("plain")
    recipe = {
        "run": folder / "run",
        "model.model": tiny_model,
        "model.num_hops": 1,
        "model.optimization.learning_rate": 3e-3,
        "data.train": reviews_csv,
        "trainer.max_epochs": 1,
        "trainer.accelerator": "cpu",
    }
    return export(fit([f"--{key}={value}" for key, value in recipe.items()]), folder / "plain", explain=True).path


@contextmanager
def playground(port: int, *arguments: str) -> Iterator[str]:
    """The command in a process of its own; its address."""
    command = [sys.executable, "-m", "suffuse.cli", "playground", *arguments, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url(explainable_bundle: Path, plain_bundle: Path, free_ports: Callable[[int], list[int]]) -> Iterator[str]:
    """A playground of two bundles."""
    with playground(free_ports(1)[0], str(explainable_bundle), str(plain_bundle)) as address:
        yield address


@contextmanager
def opened(browser: "Browser", url: str, scheme: Any = "light") -> "Iterator[Page]":  # noqa: ANN401 - a literal
    """The page; afterwards it must have asked nobody else, and have complained of nothing."""
    complaints: list[str] = []
    requested: set[str | None] = set()
    page = browser.new_page(viewport={"width": 900, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(LIMIT_MS)
    page.on("request", lambda request: requested.add(urlsplit(request.url).hostname))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
    page.goto(url)
    page.get_by_role("button", name="Ask").wait_for()
    yield page
    assert complaints == []
    assert requested <= {"127.0.0.1", None, ""}
    page.close()


def ask(page: "Page", text: str) -> None:
    page.get_by_label("text").fill(text)
    page.get_by_role("button", name="Ask").click()


def test_two_bundles_answer_and_explain_a_typed_text_side_by_side(browser: "Browser", url: str) -> None:
    with opened(browser, url) as page:
        ask(page, TEXT)

        page.get_by_text("explained in").nth(1).wait_for()
        cards = page.locator("section.sf-card")
        assert [card.locator("h3").inner_text() for card in cards.all()] == ["explainable", "plain"]
        for card in cards.all():
            assert card.locator(".sf-answer b").inner_text() in {"good", "bad"}
            assert card.locator(".sf-text").inner_text() == TEXT
            assert card.locator(".sf-text .w").count() == 5


def test_a_page_is_used_by_keyboard_alone(browser: "Browser", url: str) -> None:
    with opened(browser, url) as page:
        box = page.get_by_label("text")
        box.focus()
        page.keyboard.type(TEXT)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent.trim()") == "Ask"
        page.keyboard.press("Enter")

        page.get_by_text("explained in").nth(1).wait_for()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
        page.keyboard.press("Enter")
        assert page.locator("details").first.get_attribute("open") is not None


def test_the_method_is_picked(browser: "Browser", url: str) -> None:
    with opened(browser, url) as page:
        page.get_by_label("Explained by").click()
        page.get_by_role("option", name="rollout").click()
        ask(page, TEXT)

        page.get_by_text("explained in").nth(1).wait_for()
        assert [legend.split()[-1] for legend in page.locator(".sf-legend").all_inner_texts()] == ["rollout"] * 2


def test_on_a_narrow_screen_the_second_model_is_below_the_first(browser: "Browser", url: str) -> None:
    with opened(browser, url) as page:
        page.set_viewport_size({"width": 420, "height": 900})
        ask(page, TEXT)

        page.get_by_text("explained in").nth(1).wait_for()
        first, second = (card.bounding_box() for card in page.locator("section.sf-card").all())
        assert first
        assert second
        assert second["y"] >= first["y"] + first["height"]
        assert first["width"] > 300


def test_an_example_is_picked(browser: "Browser", url: str) -> None:
    with opened(browser, url) as page:
        page.get_by_label("Example").click()
        page.get_by_role("option").first.click()

        page.wait_for_function("document.querySelector('textarea').value !== ''")
        assert page.locator("textarea").first.input_value().startswith("A warm, funny film whose")


def test_a_bad_row_is_explained_and_leaves_the_page_usable(browser: "Browser", url: str) -> None:
    with opened(browser, url) as page:
        ask(page, "  ")

        alert = page.get_by_role("alert").first
        alert.wait_for()
        assert alert.inner_text() == "No answer. field 'text' is empty; expected the text to classify"
        ask(page, TEXT)
        page.get_by_text("explained in").nth(1).wait_for()


def test_markup_in_a_text_is_text(browser: "Browser", url: str) -> None:
    with opened(browser, url) as page:
        ask(page, "<b onmouseover='x'>warm</b><script>document.title = 'gone'</script> film")

        page.get_by_text("explained in").nth(1).wait_for()
        assert page.title() == "suffuse playground"
        assert page.locator(".sf-text script").count() == 0
        assert page.locator(".sf-text").first.inner_text().startswith("<b onmouseover='x'>")


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_letters_stand_out_in_light_and_dark(browser: "Browser", url: str, scheme: str, *, is_dark: bool) -> None:
    with opened(browser, url, scheme) as page:
        ask(page, TEXT)
        page.get_by_text("explained in").nth(1).wait_for()

        style = "getComputedStyle(document.querySelector('section.sf-card'))"
        ground, letters = (
            sum(map(int, _rgb(page.evaluate(f"{style}.{name}")))) for name in ("backgroundColor", "color")
        )
        assert (letters > ground) is is_dark
        assert abs(letters - ground) > 450


def test_workers_of_a_real_server_are_shown_and_its_end_is_said(
    browser: "Browser",
    explainable_bundle: Path,
    on_free_ports: Callable[[ServerConfig], ServerConfig],
    free_ports: Callable[[int], list[int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    store = tmp_path_factory.mktemp("store")
    archive(explainable_bundle, store)
    server = Server(on_free_ports(ServerConfig(store, workers=1, threads=1, state=tmp_path_factory.mktemp("s"))))
    watch = (server.url, "--management", server.management_url, "--key-file", str(server.key_file))
    with server, playground(free_ports(1)[0], *watch) as url:
        page = browser.new_page()
        page.set_default_timeout(LIMIT_MS)
        page.goto(url)
        panel = page.get_by_label("workers of the server")
        panel.get_by_text("1 of 1 ready").wait_for()
        ask(page, TEXT)
        page.locator(".sf-answer b").wait_for()

        server.stop()

        panel.get_by_text("The server does not say how it stands.").wait_for()
        ask(page, TEXT)
        alert = page.get_by_role("alert").first
        alert.wait_for()
        assert alert.inner_text().startswith("No answer. ")
        page.close()


def _rgb(colour: str) -> list[str]:
    return colour[colour.index("(") + 1 : -1].split(",")[:3]
