"""`suffuse explain`: answers with what each word counted."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from suffuse.errors import BundleError, InputError, RowError

if TYPE_CHECKING:
    from rich.text import Text

    from suffuse.bundle import Bundle
    from suffuse.explain import AttentionMaps, Explained, Explainer, Explanation
    from suffuse.explain.page import Entry
    from suffuse.tasks import Row

SUMMARY = "answer texts and say what each word counted"
PICTURES = ("svg", "png")
MOST_HEADS = 3
"""Named in a terminal, of those where the further hops move the most attention."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("bundle", type=str, help="folder that export --explain wrote")
    parser.add_argument("texts", nargs="+", type=str, help="texts to explain, or rows as JSON objects")
    parser.add_argument(
        "--method", type=str, default="", help="integrated, gradient, smooth or rollout (default: the bundle's best)"
    )
    parser.add_argument(
        "--target",
        type=str,
        action="append",
        default=None,
        help="what to explain, such as a label; may be given again for another (default: the answer)",
    )
    parser.add_argument("--steps", type=int, default=None, help="points at which a gradient is taken, to begin with")
    parser.add_argument("--tolerance", type=float, default=None, help="of integrated: largest gap that is good enough")
    parser.add_argument("--json", action="store_true", help="JSON lines, one explanation a row")
    parser.add_argument("--attention", action="store_true", help="show attention too; in a picture, instead of words")
    parser.add_argument("--html", type=str, default="", help="page to write, with all texts; it needs no network")
    parser.add_argument("--svg", type=str, default="", help="picture to write, for a paper")
    parser.add_argument("--png", type=str, default="", help="the same as pixels")
    parser.add_argument("--evaluate", action="store_true", help="measure all methods on a file of rows, named instead")
    parser.add_argument("--rows", type=int, default=200, help="of --evaluate: how many of the file, taken by chance")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime (default: all cores)")


def run(settings: Namespace) -> None:
    """Run the command."""
    if settings.evaluate:
        from suffuse.commands.faithfulness import measure

        measure(settings)
    else:
        _explain(settings)


def _explain(settings: Namespace) -> None:
    from rich.console import Console

    from suffuse.commands.predict import row_of
    from suffuse.explain import Explainer, default_method, make_method
    from suffuse.explain.page import Entry
    from suffuse.runtime import load
    from suffuse.runtime.predictor import error_answer

    _check_outputs(settings)
    given = {name: settings[name] for name in ("steps", "tolerance") if settings[name] is not None}
    predictor = load(settings.bundle, settings.threads or None)
    method = make_method(settings.method or default_method(predictor.bundle.manifest), given)
    explainer = Explainer(predictor, method)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    entries: list[Entry] = []
    for text in settings.texts:
        row = row_of(text)
        try:
            explanation = _explained_row(explainer, row, settings.target or [""])
            if settings.attention:
                explanation = replace(explanation, attention=explainer.attention(row))
        except RowError as error:
            entries.append(Entry(error))
            _write_json(error_answer(error))
            continue
        entries.append(_entry(explainer, row, explanation) if settings.html else Entry(explanation))
        if settings.json:
            _write_json(explanation.to_dict())
        else:
            console.print(rendered(explanation))
    _write_files(settings, entries, predictor.bundle)
    if any(isinstance(entry.result, RowError) for entry in entries):
        raise InputError("some texts could not be explained; each error stands in its line")


def _check_outputs(settings: Namespace) -> None:
    """Refuse, before long work, files that cannot be written.

    Raises:
        InputError: a path is a folder or in none, a picture has another suffix, or matplotlib is missing.
    """
    from suffuse.explain.page import check_path

    for name in ("html", *PICTURES):
        if settings[name]:
            check_path(Path(settings[name]))
    for name in PICTURES:
        if settings[name] and Path(settings[name]).suffix.lower() != f".{name}":
            raise InputError(f"--{name} is {settings[name]!r}; expected a name that ends in .{name}")
    if any(settings[name] for name in PICTURES):
        if find_spec("matplotlib") is None:
            raise InputError("pictures are drawn by matplotlib, which is missing: pip install 'suffuse[plots]'")
        if settings.attention and len(settings.texts) > 1:
            raise InputError(f"a picture shows the attention of one text; got {len(settings.texts)}")


def _explained_row(explainer: "Explainer", row: "str | Row", targets: Sequence[str]) -> "Explanation":
    """One explanation of all targets that are asked for.

    Raises:
        RowError: the row cannot be answered, or has no such target.
    """
    parts = [explainer(row, target) for target in dict.fromkeys(targets)]
    explained = tuple(one for part in parts for one in part.explained)
    return replace(parts[0], explained=explained, left_out=sum(part.left_out for part in parts))


def _entry(explainer: "Explainer", row: "str | Row", explanation: "Explanation") -> "Entry":
    """What the page shows of a row: attention wherever it can be had, and else why not."""
    from suffuse.explain.page import Entry

    if explanation.attention:
        return Entry(explanation)
    try:
        return Entry(replace(explanation, attention=explainer.attention(row)))
    except (BundleError, RowError) as error:
        return Entry(explanation, attention_note=str(error))


def _write_files(settings: Namespace, entries: "Sequence[Entry]", bundle: "Bundle") -> None:
    if settings.html:
        from suffuse.explain.page import render

        # Bytes, so that the line breaks of a text stay as they were sent.
        Path(settings.html).write_bytes(render(entries, bundle).encode("utf-8"))
    explanations = [entry.result for entry in entries if not isinstance(entry.result, RowError)]
    paths = [Path(settings[name]) for name in PICTURES if settings[name]]
    if not paths or not explanations:
        return
    from suffuse.explain.figures import draw_attention, draw_words

    for path in paths:
        if settings.attention:
            draw_attention(explanations[0].attention[0], path)
        else:
            draw_words(explanations, path)


def rendered(explanation: "Explanation") -> "Text":
    """An explanation for a terminal: each word coloured by its score, blue where it speaks for the target."""
    from rich.text import Text

    text = Text()
    for explained in explanation.explained:
        text.append_text(_heading(explained))
        strongest = max((abs(word.score) for word in explained.words), default=0.0) or 1.0
        for word in explained.words:
            text.append(word.text, style=_style(word.score / strongest)).append(f" {word.score:+.2f}  ", style="dim")
        text.append("\n")
    if not explanation.explained:
        text.append(f"nothing to explain in the answer {json.dumps(explanation.answer, ensure_ascii=False)}\n")
    if explanation.windows > 1:
        text.append(f"read in {explanation.windows} windows, explained one by one\n", style="dim")
    if explanation.left_out:
        text.append(f"{explanation.left_out} more of the answer left out\n", style="dim")
    for maps in explanation.attention:
        text.append_text(_attention(maps))
    text.rstrip()
    return text


def _heading(explained: "Explained") -> "Text":
    from rich.text import Text

    place = "" if explained.span is None else f" at {explained.span[0]}-{explained.span[1]}"
    trust = "" if explained.gap is None else f", gap {explained.gap:.1%}"
    steps = f"{explained.steps} step{'' if explained.steps == 1 else 's'}"
    return Text(f"{explained.target}{place}", style="bold").append(
        f"  logit {explained.value:.2f}, {steps}{trust}\n", style="not bold dim"
    )


def _attention(maps: "AttentionMaps") -> "Text":
    """The heads where the further hops move the most attention, or that there is but one hop."""
    from rich.text import Text

    layers, heads = maps.plain.shape[:2]
    text = Text(f"attention of {len(maps.tokens)} tokens in {layers} layers of {heads} heads", style="bold")
    if not maps.beta.shape[-1]:
        return text.append(": one hop, nothing is diffused\n", style="not bold dim")
    text.append("\n")
    moved_lh = maps.moved()
    for place in moved_lh.argsort(axis=None)[::-1][:MOST_HEADS].tolist():
        layer, head = divmod(place, heads)
        beta = ", ".join(f"{beta:+.2f}" for beta in maps.beta[layer, head].tolist())
        share = f"{moved_lh[layer, head]:.1%}"
        text.append(f"layer {layer + 1}, head {head + 1}: beta {beta} moves {share} of it\n", style="dim")
    return text


def _style(share: float) -> str:
    """From white for 0 to full blue for 1 and full orange for -1, with a letter colour that can be read on it."""
    from suffuse.explain.colours import LIGHT, letters

    background = LIGHT.colour(share)
    return f"rgb{letters(background)} on rgb{background}".replace(", ", ",")


def _write_json(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
