"""One colour scale for scores, wherever they are shown: blue speaks for, orange against, and letters stay readable.

Blue and orange can be told apart by those who cannot tell red from green. On a page the scale has steps, so that the
contrast of each can be computed; the strongest word of a text has the last.
"""

from dataclasses import dataclass

Rgb = tuple[int, int, int]

STEPS = 8
"""Of the scale on each side of 0."""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class Scale:
    """A diverging scale.

    Args:
        ground: the colour of 0, which is that of the paper.
        positive: the colour of the strongest word that speaks for what is explained.
        negative: the same against.
    """

    ground: Rgb
    positive: Rgb
    negative: Rgb

    def colour(self, share: float) -> Rgb:
        """The colour of a score, -1 to 1."""
        full = self.positive if share > 0 else self.negative
        mixed = [round(low + (high - low) * min(1.0, abs(share))) for low, high in zip(self.ground, full, strict=True)]
        return mixed[0], mixed[1], mixed[2]

    def style_sheet(self) -> str:
        """CSS rules for the classes that `step_class` names, one a line."""
        rules = []
        for step in range(-STEPS, STEPS + 1):
            background = self.colour(step / STEPS)
            rules.append(
                f".{step_class(step)} {{ background: {as_hex(background)}; color: {as_hex(letters(background))}; }}"
            )
        return "\n".join(rules)


LIGHT = Scale(WHITE, (8, 104, 172), (217, 95, 2))
DARK = Scale((30, 33, 37), (110, 190, 250), (255, 160, 75))


def step_of(score: float, strongest: float) -> int:
    """The step of a score on a scale that ends with the strongest one, -`STEPS` to `STEPS`."""
    return round(STEPS * score / strongest) if strongest else 0


def step_class(step: int) -> str:
    """A step's class in a style sheet: ``p1`` and further for, ``n1`` and further against, ``z`` for 0."""
    return "z" if step == 0 else f"{'p' if step > 0 else 'n'}{abs(step)}"


def letters(background: Rgb) -> Rgb:
    """Black or white, whichever can be read better; one of them always has a contrast of 4.5 or more."""
    return max(BLACK, WHITE, key=lambda colour: contrast(colour, background))


def contrast(first: Rgb, second: Rgb) -> float:
    """Contrast of two colours, 1 to 21.

    Source: WCAG 2.2, "contrast ratio", https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio.
    """
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def as_hex(colour: Rgb) -> str:
    """A colour as CSS and matplotlib read it."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def _luminance(colour: Rgb) -> float:
    shares = [part / 255 for part in colour]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
