"""Explanations as figures for papers, by matplotlib: words coloured by score, and attention by layer and head."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextToPath
from numpy.typing import NDArray

from suffuse.errors import InputError
from suffuse.explain.attention import AttentionMaps
from suffuse.explain.colours import LIGHT, STEPS, as_hex, letters
from suffuse.explain.explanation import Explained, Explanation
from suffuse.explain.passage import Part, Stretch, passages

WIDTH_INCHES = 6.3
"""Of the text on a page of A4."""
FONT_POINTS = 9.0
LINE_POINTS = 16.0
_FONT = "DejaVu Sans"
_WIDTH_POINTS = WIDTH_INCHES * 72
_SHADES = [as_hex(LIGHT.colour(step / STEPS)) for step in range(-STEPS, STEPS + 1)]
_PIECES = re.compile(r"\n|[^\S\n]+|\S+")
_MOST_NAMED = 5
"""Letters that an error names."""


def draw_words(explanations: Sequence[Explanation], path: Path) -> None:
    """Write a figure of texts, one under another, each once for each thing that was explained.

    The same explanations give the same bytes.

    Args:
        explanations: of one text or several.
        path: of the file; its suffix says the format.

    Raises:
        InputError: a text has letters that the figure's font lacks, or is written from right to left.
    """
    _check_letters("".join(text for explanation in explanations for text in explanation.texts.values()))
    lines = [line for explanation in explanations for line in _lines(explanation)]
    with rc_context({"svg.hashsalt": "suffuse", "font.size": FONT_POINTS, "font.family": _FONT}):
        height_points = (len(lines) + 2) * LINE_POINTS
        figure = Figure(figsize=(WIDTH_INCHES, height_points / 72))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, _WIDTH_POINTS), ylim=(height_points, 0))
        axes.set_axis_off()
        for number, line in enumerate(lines):
            _draw_line(axes, line, (number + 0.5) * LINE_POINTS)
        _draw_legend(axes, (len(lines) + 1) * LINE_POINTS)
        _save(figure, path)


def draw_attention(maps: AttentionMaps, path: Path) -> None:
    """Write a figure of attention: every head small, and plain and diffused of the one that diffusion moves most.

    Args:
        maps: of one window.
        path: of the file; its suffix says the format.

    Raises:
        InputError: as `draw_words`.
    """
    _check_letters("".join(maps.tokens))
    layers, heads = maps.plain.shape[:2]
    layer, head = divmod(int(maps.moved().argmax()), heads)
    shown = {"plain": maps.plain[layer, head]}
    if maps.beta.shape[-1]:
        shown["diffused"] = maps.diffused[layer, head]
    small = WIDTH_INCHES / (heads + 1)
    with rc_context({"svg.hashsalt": "suffuse", "font.size": FONT_POINTS, "font.family": _FONT}):
        figure = Figure(figsize=(WIDTH_INCHES, 3.4 + small * layers + 0.5), layout="constrained")
        halves = figure.add_gridspec(2, 1, height_ratios=(3.4, small * layers + 0.5))
        top, bottom = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
        top.suptitle(f"layer {layer + 1}, head {head + 1}{_beta_text(maps, layer, head)}", fontsize=FONT_POINTS)
        for axes, (name, weights_nn) in zip(top.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
            _draw_matrix(axes, weights_nn, max(float(np.abs(each).max()) for each in shown.values()))
            axes.set_title(name, fontsize=FONT_POINTS)
            size = min(FONT_POINTS, 150 / len(maps.tokens))
            axes.set_xticks(range(len(maps.tokens)), maps.tokens, rotation=90, fontsize=size)
            axes.set_yticks(range(len(maps.tokens)), maps.tokens, fontsize=size)
        bottom.suptitle("all heads, as the model applies them: layers by row, heads by column", fontsize=FONT_POINTS)
        grid = bottom.subplots(layers, heads, squeeze=False)
        for place, axes in np.ndenumerate(grid):
            weights_nn = maps.diffused[place]
            _draw_matrix(axes, weights_nn, float(np.abs(weights_nn).max()))
            axes.set(xticks=[], yticks=[])
        _save(figure, path)


def _lines(explanation: Explanation) -> Iterator[list[Part]]:
    """Lines of a text for each thing that was explained: what that is, and the text wrapped; then an empty one."""
    for explained in explanation.explained:
        yield [Part(_title(explanation, explained), None, 0)]
        cut = passages(explanation.texts, explained.words, explanation.answer)
        for field, stretches in cut.items():
            lead = [Part(f"{field}: ", None, 0)] if len(cut) > 1 else []
            yield from _wrapped([*lead, *_parts(stretches)])
        yield []


def _title(explanation: Explanation, explained: Explained) -> str:
    span = "" if explained.span is None else f" at {explained.span[0]}-{explained.span[1]}"
    return f"{explained.target}{span}, logit {explained.value:.2f}, {explanation.method}"


def _parts(stretches: Sequence[Stretch]) -> Iterator[Part]:
    """Parts with an entity in brackets, as its label stands behind it."""
    for stretch in stretches:
        if stretch.mark is None:
            yield from stretch.parts
        else:
            yield Part("[", None, 0)
            yield from stretch.parts
            yield Part(f" {stretch.mark.label}]", None, 0)


def _wrapped(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Lines no wider than the figure, broken at white space, and where the text breaks them."""
    line: list[Part] = []
    used = 0.0
    for part in (piece for whole in parts for piece in _pieces(whole)):
        width = 0.0 if part.text == "\n" else _width(part.text)
        if part.text == "\n" or (used + width > _WIDTH_POINTS and line):
            yield line
            line, used = [], 0.0
            if part.text.isspace():
                continue
        line.append(part)
        used += width
    if line:
        yield line


def _pieces(part: Part) -> Iterator[Part]:
    """A word whole; of what is between words each line break, and each run of blanks or of others."""
    if part.score is not None:
        yield part
        return
    text = part.text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4)
    yield from (Part(piece, None, 0) for piece in _PIECES.findall(text))


def _width(text: str) -> float:
    """In points."""
    width, _, _ = TextToPath().get_text_width_height_descent(text, FontProperties(size=FONT_POINTS), ismath=False)
    return float(width)


def _draw_line(axes: Axes, line: Sequence[Part], middle: float) -> None:
    at = 0.0
    for part in line:
        width = _width(part.text)
        background = LIGHT.colour(part.step / STEPS)
        if part.step:
            box = Rectangle(
                (at, middle - 0.42 * LINE_POINTS), width, 0.84 * LINE_POINTS, color=as_hex(background), lw=0
            )
            axes.add_patch(box)
        axes.text(at, middle, part.text, color=as_hex(letters(background)), va="center_baseline", parse_math=False)
        at += width


def _draw_legend(axes: Axes, middle: float) -> None:
    side = 0.6 * FONT_POINTS
    at = _width("against ")
    axes.text(0, middle, "against", va="center_baseline")
    for shade in _SHADES:
        axes.add_patch(Rectangle((at, middle - side), side, 2 * side, color=shade, lw=0))
        at += side
    frame = Rectangle((at - side * len(_SHADES), middle - side), side * len(_SHADES), 2 * side, fill=False, lw=0.4)
    axes.add_patch(frame)
    axes.text(at + _width(" "), middle, "for what is explained", va="center_baseline")


def _draw_matrix(axes: Axes, weights_nn: NDArray[np.float32], most: float) -> None:
    """Weights by the square root, as on the page, orange below zero."""
    roots_nn = np.sign(weights_nn) * np.sqrt(np.abs(weights_nn) / most)
    axes.imshow(roots_nn, cmap=ListedColormap(_SHADES), norm=TwoSlopeNorm(0, -1, 1), interpolation="nearest")
    axes.spines[:].set_linewidth(0.4)
    axes.tick_params(length=0, pad=2)


def _beta_text(maps: AttentionMaps, layer: int, head: int) -> str:
    return "".join(f", beta {beta:+.2f}" for beta in maps.beta[layer, head].tolist())


def _check_letters(text: str) -> None:
    """Refuse what would be drawn wrongly: an empty box for a letter, or words in the wrong order."""
    if any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text):
        raise InputError(
            "a text is written from right to left, and a figure sets words from left to right; --html shows any text"
        )
    known = get_font(findfont(FontProperties(family=_FONT))).get_charmap()
    missing = sorted({letter for letter in text if ord(letter) not in known and not letter.isspace()})
    if missing:
        names = ", ".join(f"U+{ord(letter):04X}" for letter in missing[:_MOST_NAMED])
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise InputError(f"a figure's font, {_FONT}, lacks {names}{more}; --html shows any text")


def _save(figure: Figure, path: Path) -> None:
    stamps = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(path, dpi=200, metadata=stamps.get(path.suffix.lower()))
