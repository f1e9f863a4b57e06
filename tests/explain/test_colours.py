"""Every step of the scale can be read, in both themes, and told from its opposite by those who are colour-blind."""

import re

import pytest

from suffuse.explain.colours import DARK, LIGHT, STEPS, Rgb, Scale, contrast, letters, step_class, step_of

AA = 4.5
"""Least contrast of text, WCAG 2.2, level AA."""
# Machado et al. 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency", severity 1.
BLIND_TO = {
    "red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}


@pytest.mark.parametrize("scale", [LIGHT, DARK], ids=["light", "dark"])
def test_letters_can_be_read_on_every_step(scale: Scale) -> None:
    backgrounds = [scale.colour(step / STEPS) for step in range(-STEPS, STEPS + 1)]

    assert min(contrast(letters(background), background) for background in backgrounds) >= AA


@pytest.mark.parametrize("matrix", BLIND_TO.values(), ids=BLIND_TO)
@pytest.mark.parametrize("scale", [LIGHT, DARK], ids=["light", "dark"])
def test_for_and_against_differ_for_every_sight(
    scale: Scale, matrix: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
) -> None:
    def seen(colour: Rgb) -> list[float]:
        return [sum(weight * part for weight, part in zip(row, colour, strict=True)) for row in matrix]

    for step in range(3, STEPS + 1):
        positive, negative = seen(scale.colour(step / STEPS)), seen(scale.colour(-step / STEPS))
        assert max(abs(one - other) for one, other in zip(positive, negative, strict=True)) > 35


@pytest.mark.parametrize(
    ("score", "strongest", "name"),
    [(0.0, 2.0, "z"), (2.0, 2.0, "p8"), (-2.0, 2.0, "n8"), (0.5, 2.0, "p2"), (-0.01, 2.0, "z"), (0.0, 0.0, "z")],
)
def test_a_score_has_the_step_of_its_share(score: float, strongest: float, name: str) -> None:
    assert step_class(step_of(score, strongest)) == name


def test_a_scale_goes_evenly_from_paper_to_full() -> None:
    assert [LIGHT.colour(share) for share in (0, 1, -1, -0.5, 2)] == [
        (255, 255, 255),
        (8, 104, 172),
        (217, 95, 2),
        (236, 175, 128),
        (8, 104, 172),
    ]


def test_contrast_is_that_of_wcag() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


def test_the_style_sheet_has_every_step() -> None:
    rules = re.findall(r"^\.(\w+) \{ background: #\w{6}; color: #\w{6}; \}$", DARK.style_sheet(), re.MULTILINE)

    assert rules == [*(f"n{step}" for step in range(8, 0, -1)), "z", *(f"p{step}" for step in range(1, 9))]
