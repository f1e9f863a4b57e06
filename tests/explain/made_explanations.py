"""Explanations made by hand, for tests of what shows them: no network computes here."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from suffuse.bundle import Bundle
from suffuse.explain import AttentionMaps, Explained, Explanation, Word

LABELS = {"good": 0.75, "bad": 0.25}


def words_of(text: str, field: str = "text") -> tuple[Word, ...]:
    """The words between blanks, with scores that alternate in sign and grow."""
    words, place = [], 0
    for number, part in enumerate(text.split()):
        start = text.index(part, place)
        place = start + len(part)
        words.append(Word(part, start, place, (number + 1) * (-0.5) ** (number % 2), field))
    return tuple(words)


def explained_as(target: str, words: tuple[Word, ...], span: tuple[int, int] | None = None) -> Explained:
    return Explained(target, span, 2.5, 0.5, 0.0123, 16, words, 0.25)


def explanation_of(text: str, **changes: Any) -> Explanation:  # noqa: ANN401 - of each field its own type
    """Of a label, unless changed."""
    settings: dict[str, Any] = {
        "answer": {"label": "good", "score": 0.75, "scores": LABELS},
        "method": "integrated",
        "windows": 1,
        "explained": (explained_as("good", words_of(text)),),
        "texts": {"text": text},
    }
    return Explanation(**(settings | changes))


def attention_of(text: str, num_hops: int = 2, layers: int = 2, heads: int = 3) -> AttentionMaps:
    """Random attention among the words of a text; the second layer's first head moves the most."""
    tokens = ("[CLS]", *text.split(), "[SEP]")
    size = len(tokens)
    rng = np.random.default_rng(0)
    plain = rng.dirichlet(np.ones(size), (layers, heads, size)).astype(np.float32)
    beta = np.full((layers, heads, num_hops - 1), 0.1, np.float32)
    beta[1, 0] = -0.9
    diffused, power = plain.copy(), plain
    for hop in range(num_hops - 1):
        diffused = diffused + beta[..., hop, None, None] * (plain @ power - power)
        power = plain @ power
    return AttentionMaps(tokens, np.full((size, 3), -1), plain, diffused, beta)


def bundle_of(evaluation: dict[str, Any] | None = None) -> Bundle:
    """What of a bundle a page shows."""
    manifest = SimpleNamespace(
        model={"type": "bert", "parameters": 12345, "num_hops": 2}, suffuse="0.1.0", evaluation=evaluation or {}
    )
    return cast("Bundle", SimpleNamespace(name="reviews", manifest=manifest))
