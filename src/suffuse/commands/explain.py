"""`suffuse explain`: answers with what each word counted."""

import json
import sys
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from suffuse.errors import InputError, RowError

if TYPE_CHECKING:
    from rich.text import Text

    from suffuse.explain import Explained, Explanation

SUMMARY = "answer texts and say what each word counted"
FOR, AGAINST = (8, 104, 172), (217, 95, 2)
"""Blue and orange, which those who cannot tell red from green can tell apart."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("bundle", type=str, help="folder that export --explain wrote")
    parser.add_argument("texts", nargs="+", type=str, help="texts to explain, or rows as JSON objects")
    parser.add_argument("--method", type=str, default="integrated", help="integrated, gradient or smooth")
    parser.add_argument("--target", type=str, default="", help="what to explain, such as a label (default: the answer)")
    parser.add_argument("--steps", type=int, default=None, help="points at which a gradient is taken, to begin with")
    parser.add_argument("--tolerance", type=float, default=None, help="of integrated: largest gap that is good enough")
    parser.add_argument("--json", action="store_true", help="JSON lines, one explanation a row")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime (default: all cores)")


def run(settings: Namespace) -> None:
    """Run the command."""
    from rich.console import Console

    from suffuse.commands.predict import row_of
    from suffuse.explain import Explainer, make_method
    from suffuse.runtime import load
    from suffuse.runtime.predictor import error_answer

    given = {name: settings[name] for name in ("steps", "tolerance") if settings[name] is not None}
    method = make_method(settings.method, given)
    explainer = Explainer(load(settings.bundle, settings.threads or None), method)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    is_faulty = False
    for text in settings.texts:
        try:
            explanation = explainer(row_of(text), settings.target)
        except RowError as error:
            is_faulty = True
            _write_json(error_answer(error))
            continue
        if settings.json:
            _write_json(explanation.to_dict())
        else:
            console.print(rendered(explanation))
    if is_faulty:
        raise InputError("some texts could not be explained; each error stands in its line")


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


def _style(share: float) -> str:
    """From white for 0 to full blue for 1 and full orange for -1, with a letter colour that can be read on it."""
    full = FOR if share > 0 else AGAINST
    red, green, blue = (round(255 + (part - 255) * min(1.0, abs(share))) for part in full)
    return f"{'white' if abs(share) > 0.6 else 'black'} on rgb({red},{green},{blue})"


def _write_json(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
