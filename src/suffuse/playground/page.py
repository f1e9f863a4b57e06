"""The playground's page: pick models, type or pick a text, ask, and see the answers side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from suffuse.explain import METHODS
from suffuse.playground.cards import EMPTY, card
from suffuse.playground.examples import Example, fitting
from suffuse.playground.models import Model
from suffuse.playground.question import Asked, ask
from suffuse.playground.workers import POLL_S, Workers
from suffuse.tasks import Field

TITLE = "suffuse playground"
NOBODY = "(none)"
"""What is picked where nothing is compared."""
OWN_METHOD = ("(its default)", "")
LINES, LONG_TEXT_LINES = 3, 12


def theme() -> gr.themes.Base:
    """Gradio's own, in the fonts that the reader's machine has: nothing is fetched."""
    return gr.themes.Default(
        primary_hue=gr.themes.colors.blue,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300")


@dataclass(frozen=True)
class Playground:
    """What the page shows.

    Args:
        models: by the names that the page calls them, at least one.
        examples: rows to pick from.
        workers: of the server, where there is one to be watched.
    """

    models: Mapping[str, Model]
    examples: Sequence[Example]
    workers: Workers | None = None

    def page(self) -> gr.Blocks:
        """The page, to be launched."""
        names = list(self.models)
        second = names[1] if len(names) > 1 else NOBODY
        blocks: gr.Blocks = gr.Blocks(title=TITLE, analytics_enabled=False)
        with blocks:
            gr.Markdown(f"# {TITLE}")
            with gr.Row():
                first_box = gr.Dropdown(names, value=names[0], label="Model", filterable=False)
                second_box = gr.Dropdown(
                    [NOBODY, *names], value=second, label="Beside it", filterable=False, visible=len(names) > 1
                )
                method_box = gr.Dropdown([OWN_METHOD, *METHODS], value="", label="Explained by", filterable=False)
            picked = gr.Dropdown([], value=None, label="Example", filterable=False)
            texts = [_text_box(field) for field in self._fields(names)]
            button = gr.Button("Ask", variant="primary")
            with gr.Row(equal_height=False, elem_classes="sf-cards"):
                cards = [_html(EMPTY), _html(EMPTY, visible=second != NOBODY)]
            if self.workers is not None:
                gr.Markdown("## The server now")
                panel = _html(self.workers.panel())
                gr.Timer(POLL_S).tick(self.workers.panel, None, panel, show_progress="hidden", api_visibility="private")
            shown = {"fn": self.shown, "inputs": [first_box, second_box], "outputs": [picked, *texts, *cards]}
            gr.on([blocks.load, first_box.change, second_box.change], **shown, show_progress="hidden")
            picked.input(self.picked, picked, [picked, *texts], show_progress="hidden")
            asking = [first_box, second_box, method_box, *texts]
            gr.on([button.click, *(text.submit for text in texts)], self.asked, asking, cards, show_progress="hidden")
        return blocks

    def _fields(self, names: Sequence[str]) -> tuple[Field, ...]:
        """The fields of some models, each once."""
        fields = {field.name: field for name in names if name != NOBODY for field in self.models[name].fields}
        return tuple(fields.values())

    def shown(self, first: str, second: str) -> list[Any]:
        """What is there to be picked and typed for the models that were picked."""
        fields = self._fields([first, second])
        names = {field.name for field in fields}
        boxes = [gr.update(visible=field.name in names) for field in self._fields(list(self.models))]
        choices = fitting(self.examples, fields)
        return [
            gr.update(choices=choices, value=None, visible=bool(choices)),
            *boxes,
            EMPTY,
            gr.update(value=EMPTY, visible=second != NOBODY),
        ]

    def picked(self, index: int | None) -> list[object]:
        """An example that was picked, and its texts for the boxes."""
        example = {} if index is None else self.examples[index]
        return [index, *(example.get(field.name, "") for field in self._fields(list(self.models)))]

    def asked(self, first: str, second: str, method: str, *texts: str) -> Iterator[list[str]]:
        """The cards as they fill: every answer before the first explanation."""
        fields = self._fields(list(self.models))
        row = dict(zip((field.name for field in fields), texts, strict=True))
        names = [first, *([second] if second != NOBODY else [])]
        asking = [ask(name, self.models[name], row, method) for name in names]
        come: list[Asked | None] = [None] * len(names)
        for _ in range(2):
            for index, steps in enumerate(asking):
                come[index] = next(steps, come[index])
                yield [*("" if asked is None else card(asked) for asked in come), *[""] * (2 - len(come))]


def _html(value: str, *, visible: bool = True) -> gr.HTML:
    return gr.HTML(value, visible=visible, apply_default_css=False)


def _text_box(field: Field) -> gr.Textbox:
    return gr.Textbox(label=field.name, info=field.meaning, lines=LINES, max_lines=LONG_TEXT_LINES, visible=False)
