"""Explanations as one HTML file that needs no network, no notebook and no mouse."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from suffuse.bundle import Bundle
from suffuse.errors import InputError, RowError
from suffuse.explain.colours import DARK, LIGHT, STEPS
from suffuse.explain.explanation import Explained, Explanation
from suffuse.explain.page_attention import ShownAttention, shown_attention
from suffuse.explain.page_faithfulness import measured
from suffuse.explain.passage import as_html, passages
from suffuse.explain.words import Word
from suffuse.tasks import Answer

MOST_BARS = 12
"""Probabilities shown of one answer, the highest."""
_PARTS = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """A text on the page.

    Args:
        result: its explanation, or why there is none.
        attention_note: why no attention is shown, where none was computed.
    """

    result: Explanation | RowError
    attention_note: str = ""


@dataclass(frozen=True)
class Bar:
    """A probability; `is_answer` where it is that of what was answered."""

    label: str
    text: str
    score: float
    is_answer: bool


@dataclass(frozen=True)
class Panel:
    """One thing that was answered: its texts by field as HTML, and the same scores for a table."""

    explained: Explained
    texts: Mapping[str, Markup]


@dataclass(frozen=True)
class TableRow:
    """A word and its score for each target."""

    word: Word
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Section:
    """All that the page shows of one text."""

    heading: str
    explanation: Explanation
    panels: tuple[Panel, ...]
    bars: tuple[Bar, ...]
    bars_left_out: int
    rows: tuple[TableRow, ...]
    attention: ShownAttention | None
    attention_note: str


def render(entries: Sequence[Entry], bundle: Bundle) -> str:
    """The page; the same explanations give the same bytes.

    Args:
        entries: one for each text, in order.
        bundle: what answered.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_PARTS / "page.html.j2").read_text("utf-8"))
    sections = [_section(entry) for entry in entries]
    script = (_PARTS / "page.js").read_text("utf-8")
    return template.render(
        name=bundle.name,
        manifest=bundle.manifest,
        sections=sections,
        data=[_content(section) for section in sections],
        measured=measured(bundle.manifest.evaluation.get("faithfulness", {})),
        steps=STEPS,
        style=Markup(_style()),  # noqa: S704 - our own, as is the script
        script=Markup(script),  # noqa: S704
        script_digest=b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def check_path(path: Path) -> None:
    """Refuse, before long work, a path that cannot be written.

    Raises:
        InputError: it is a folder, or in a folder that does not exist.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it, or name another")


def _style() -> str:
    """The style sheet, the scale in both themes; on paper it is the light one."""
    rules = (_PARTS / "page.css").read_text("utf-8")
    dark = f"@media screen and (prefers-color-scheme: dark) {{\n{DARK.style_sheet()}\n}}\n"
    return f"{rules}{LIGHT.style_sheet()}\n{dark}"


def _section(entry: Entry) -> Section | RowError:
    if isinstance(entry.result, RowError):
        return entry.result
    explanation = entry.result
    panels = tuple(_panel(explanation, explained) for explained in explanation.explained)
    if not panels:  # the text is shown all the same
        panels = (_panel(explanation, Explained("", None, 0.0, None, None, 0, (), 0.0)),)
    bars = _bars(explanation.answer)
    shown = sorted(sorted(bars, key=lambda bar: -bar.score)[:MOST_BARS], key=bars.index)
    return Section(
        heading=_heading(explanation.answer),
        explanation=explanation,
        panels=panels,
        bars=tuple(shown),
        bars_left_out=len(bars) - len(shown),
        rows=_table(explanation.explained),
        attention=shown_attention(explanation.attention) if explanation.attention else None,
        attention_note=entry.attention_note,
    )


def _content(section: Section | RowError) -> dict[str, Any] | None:
    """What the page's script draws of a text."""
    return section.attention.content if isinstance(section, Section) and section.attention else None


def _panel(explanation: Explanation, explained: Explained) -> Panel:
    cut = passages(explanation.texts, explained.words, explanation.answer)
    # as_html escapes all of the text.
    texts = {field: Markup(as_html(stretches, explained.span)) for field, stretches in cut.items()}  # noqa: S704
    return Panel(explained, texts)


def _table(explained: Sequence[Explained]) -> tuple[TableRow, ...]:
    """Words of all targets: where windows are cut differently for each, a word may be missing for one."""
    scores: dict[tuple[str, int, int], list[float]] = {}
    words: dict[tuple[str, int, int], Word] = {}
    for index, part in enumerate(explained):
        for word in part.words:
            key = (word.field, word.start, word.end)
            words.setdefault(key, word)
            scores.setdefault(key, [0.0] * len(explained))[index] = word.score
    fields = list(dict.fromkeys(word.field for word in words.values()))
    keys = sorted(words, key=lambda key: (fields.index(key[0]), key[1]))
    return tuple(TableRow(words[key], tuple(scores[key])) for key in keys)


def _bars(answer: Answer) -> list[Bar]:
    """What of an answer is a probability, whatever the task: scores of labels, of entities, of the answer itself."""
    if "scores" in answer:
        given = answer.get("labels", [answer.get("label")])
        return [Bar(label, "", score, label in given) for label, score in answer["scores"].items()]
    if "entities" in answer:
        return [Bar(entity["label"], entity["text"], entity["score"], True) for entity in answer["entities"]]
    if "answer" in answer:
        found = [answer, *answer.get("alternatives", ())]
        return [Bar(one["answer"] or "no answer", "", one["score"], one is answer) for one in found]
    return []  # a similarity is on a scale of its own


def _heading(answer: Mapping[str, Any]) -> str:
    if "label" in answer:
        return str(answer["label"])
    if "labels" in answer:
        return ", ".join(answer["labels"]) or "no label"
    if "entities" in answer:
        count = len(answer["entities"])
        return f"{count or 'no'} entit{'y' if count == 1 else 'ies'}"
    if "answer" in answer:
        return answer["answer"] or "no answer"
    return f"score {answer['score']:g}"
