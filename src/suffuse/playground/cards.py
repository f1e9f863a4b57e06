"""What came back from a model as HTML: answer, probabilities, coloured words and times, or what went wrong."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from suffuse.explain.colours import DARK, LIGHT, Scale
from suffuse.explain.passage import as_html, passages
from suffuse.explain.words import Word
from suffuse.playground.question import Asked
from suffuse.tasks import Answer

MOST_SCORES = 8
"""Labels that are shown with their probabilities, the likeliest first."""
EMPTY = '<p class="sf-empty">Type a text or pick an example, then ask.</p>'


def style_sheet() -> str:
    """CSS of the cards and of the workers' panel, light and dark."""
    own = (resources.files(__package__) / "page.css").read_text("utf-8")
    return "\n".join([own, _scoped(LIGHT, ".sf"), _scoped(DARK, ".dark .sf")])


def card(asked: Asked) -> str:
    """All that is known of a question, as one part of the page."""
    parts = [f"<h3>{escape(asked.model)}</h3>"]
    if asked.answer is not None:
        parts += [*_answer(asked.answer), *_scores(asked.answer)]
    if asked.explanation is not None:
        parts += _explanation(asked.explanation, asked.texts)
    if asked.is_pending:
        parts.append('<p class="sf-note">explaining …</p>')
    if asked.problem:
        heading = "No answer" if asked.answer is None else "No explanation"
        parts.append(f'<p class="sf-problem" role="alert"><b>{heading}.</b> {escape(asked.problem)}</p>')
    parts.append(_times(asked))
    return (
        f'<section class="sf sf-card" aria-live="polite" aria-label="{escape(asked.model)}">{"".join(parts)}</section>'
    )


def _answer(answer: Answer) -> Iterator[str]:
    """What the answer says, whichever of the shapes of answers it has."""
    if "label" in answer:
        yield _headline(answer["label"], answer["score"])
    elif "labels" in answer:
        yield _headline(", ".join(answer["labels"]) or "no label")
    elif "answer" in answer:
        yield _headline(answer["answer"] or "no answer", answer["score"])
    elif "entities" in answer:
        yield _entities(answer["entities"])
    elif "translation" in answer:
        yield _headline(answer["translation"])
    else:
        yield _headline(f"{answer['score']:.2f}")
    if answer.get("truncated"):
        yield '<p class="sf-note">The text is longer than the model reads; its end was left out.</p>'


def _headline(text: str, score: float | None = None) -> str:
    share = "" if score is None else f' <span class="sf-share">{score:.1%}</span>'
    return f'<p class="sf-answer" dir="auto"><b>{escape(text)}</b>{share}</p>'


def _entities(entities: Sequence[Mapping[str, Any]]) -> str:
    if not entities:
        return _headline("no entities")
    rows = "".join(
        f'<tr><td dir="auto">{escape(entity["text"])}</td><td>{escape(entity["label"])}</td>'
        f"<td>{entity['score']:.1%}</td></tr>"
        for entity in entities
    )
    return f'<table class="sf-rows"><tr><th>entity</th><th>kind</th><th>probability</th></tr>{rows}</table>'


def _scores(answer: Answer) -> Iterator[str]:
    scores = sorted(answer.get("scores", {}).items(), key=lambda item: -item[1])
    if not scores:
        return
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td class="sf-bar"><i style="width:{100 * score:.1f}%"></i></td>'
        f"<td>{score:.1%}</td></tr>"
        for label, score in scores[:MOST_SCORES]
    )
    yield f'<table class="sf-scores" aria-label="probabilities">{rows}</table>'
    if len(scores) > MOST_SCORES:
        yield f'<p class="sf-note">and {len(scores) - MOST_SCORES} labels that are less likely</p>'


def _explanation(explanation: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    explained = explanation["explained"]
    if not explained:
        yield '<p class="sf-note">There is nothing to explain in this answer.</p>'
    for part in explained:
        yield _explained(part, explanation, texts)
    if explained:
        yield (
            '<p class="sf-note sf-legend"><span class="p6">speaks for it</span> <span class="z">counts nothing</span> '
            f'<span class="n6">speaks against</span> by {escape(explanation["method"])}</p>'
        )
    if explanation["windows"] > 1:
        yield f'<p class="sf-note">Read in {explanation["windows"]} windows, explained one by one.</p>'
    if explanation.get("left_out"):
        yield f'<p class="sf-note">{explanation["left_out"]} more of the answer left out.</p>'


def _explained(part: Mapping[str, Any], explanation: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    words = [Word(**word) for word in part["words"]]
    span = (part["start"], part["end"]) if "start" in part else None
    lines = [
        f'<p class="sf-text" dir="auto">{as_html(stretches, span)}</p>'
        for stretches in passages(texts, words, explanation["answer"]).values()
    ]
    gap = f", gap {part['gap']:.1%}" if "gap" in part else ""
    rows = "".join(f'<tr><td dir="auto">{escape(word.text)}</td><td>{word.score:+.3f}</td></tr>' for word in words)
    return (
        f"<h4>Why {escape(part['target'])}</h4>{''.join(lines)}<details><summary>scores of the words</summary>"
        f'<p class="sf-note">logit {part["value"]:.2f}{gap}</p><table class="sf-rows">{rows}</table></details>'
    )


def _times(asked: Asked) -> str:
    times = []
    if asked.answer is not None:
        times.append(f"answered in {_milliseconds(asked.answer_ms)}")
    if asked.explanation is not None:
        times.append(f"explained in {_milliseconds(asked.explanation_ms)}")
    return f'<p class="sf-times">{", ".join(times)}</p>' if times else ""


def _milliseconds(time_ms: float) -> str:
    """With a decimal only where it tells something."""
    return f"{time_ms:.1f} ms" if time_ms < 100 else f"{time_ms:,.0f} ms"


def _scoped(scale: Scale, scope: str) -> str:
    return "\n".join(f"{scope} {rule}" for rule in scale.style_sheet().splitlines())
