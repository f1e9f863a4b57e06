"""Methods that share out an answer among the tokens that it came from, each a few lines on the graph of gradients."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from suffuse.errors import InputError
from suffuse.explain.gradients import GradientGraph, Subject

MAX_STEPS = 1000
"""What may be asked for: each step costs two to three predictions."""
DOUBLED_UP_TO = 256
"""Steps that integrated gradients go up to by themselves."""


@dataclass(frozen=True)
class Attribution:
    """What each token counts.

    Args:
        scores: for each subject those of its tokens, (N,).
        value: what is explained: the sum over all subjects, in logits.
        steps: points at which a gradient was taken.
        baseline: the value without text, where the method compares with it.
        gap: by how much the scores miss what they should add up to, value - baseline, as a share of it; where the
            method promises such a sum.
    """

    scores: Sequence[NDArray[np.float64]]
    value: float
    steps: int
    baseline: float | None = None
    gap: float | None = None


class Method(Protocol):
    """A way to share out."""

    name: ClassVar[str]

    def attribute(self, subjects: Sequence[Subject], graph: GradientGraph) -> Attribution:
        """Share out the sum of what several windows say."""


@dataclass(frozen=True)
class GradientXInput:
    """The gradient times the embedding: one pass, and no promise of what the scores add up to.

    Source: Shrikumar et al., "Not Just a Black Box" (2016), arXiv 1605.01713.
    """

    name: ClassVar[str] = "gradient"

    def attribute(self, subjects: Sequence[Subject], graph: GradientGraph) -> Attribution:
        """One gradient a window."""
        slopes = [graph.slope(subject, np.ones(1)) for subject in subjects]
        scores = [(slope.gradient_nd * slope.embeddings_nd).sum(axis=1) for slope in slopes]
        return Attribution(scores, float(sum(slope.values_p[0] for slope in slopes)), steps=1)


@dataclass(frozen=True)
class IntegratedGradients:
    """The mean gradient on the straight way from the baseline to the text, times that way, by the midpoint rule.

    The scores should add up to value - baseline; how far they miss it is the gap. Steps are doubled until it is within
    the tolerance, at most up to 256 (`DOUBLED_UP_TO`).

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks" (2017), arXiv 1703.01365.

    Args:
        steps: to begin with.
        tolerance: largest gap that is good enough.

    Raises:
        InputError: `steps` is not 1 to `MAX_STEPS`, or `tolerance` not above 0.
    """

    steps: int = 16
    tolerance: float = 0.05

    name: ClassVar[str] = "integrated"

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if not 0 < self.tolerance < math.inf:
            raise InputError(f"tolerance is {self.tolerance:g}; expected a number above 0, such as 0.05")

    def attribute(self, subjects: Sequence[Subject], graph: GradientGraph) -> Attribution:
        """As many gradients a window as it takes."""
        ends = sum(graph.slope(subject, np.array([1.0, 0.0])).values_p for subject in subjects)
        value, baseline = np.asarray(ends).tolist()
        steps = self.steps
        while True:
            scores = [_integrated(subject, graph, steps) for subject in subjects]
            gap = _gap(sum(float(scores_n.sum()) for scores_n in scores), value - baseline)
            if gap <= self.tolerance or 2 * steps > DOUBLED_UP_TO:
                return Attribution(scores, value, steps, baseline, gap)
            steps *= 2


@dataclass(frozen=True)
class SmoothGrad:
    """The mean gradient at points around the text, times the embedding: less of what changes from point to point.

    Source: Smilkov et al., "SmoothGrad" (2017), arXiv 1706.03825. The noise is the same for each text of a length, so
    that an explanation can be had again.

    Args:
        steps: points.
        spread: standard deviation of the noise, as a share of that of the text's embeddings.

    Raises:
        InputError: `steps` is not 1 to `MAX_STEPS`, or `spread` not above 0.
    """

    steps: int = 32
    spread: float = 1.0

    name: ClassVar[str] = "smooth"

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if not 0 < self.spread < math.inf:
            raise InputError(f"spread is {self.spread:g}; expected a number above 0, such as 1")

    def attribute(self, subjects: Sequence[Subject], graph: GradientGraph) -> Attribution:
        """One gradient a window at the text itself, for what is explained, and one a point."""
        scores, value = [], 0.0
        for subject in subjects:
            plain = graph.slope(subject, np.ones(1))
            deviation = self.spread * float(plain.embeddings_nd.std())
            noise_pnd = unit_noise(self.steps, *plain.embeddings_nd.shape) * np.float32(deviation)
            smooth = graph.slope(subject, np.ones(self.steps), noise_pnd)
            scores.append((smooth.gradient_nd * plain.embeddings_nd).sum(axis=1))
            value += float(plain.values_p[0])
        return Attribution(scores, value, self.steps)


METHODS: Mapping[str, Callable[..., Method]] = {
    method.name: method for method in (IntegratedGradients, GradientXInput, SmoothGrad)
}


def make_method(name: str, settings: Mapping[str, Any]) -> Method:
    """A method with settings, both as a user gives them.

    Raises:
        InputError: there is no such method, it has no such setting, or a setting is out of range.
    """
    if name not in METHODS:
        raise InputError(f"method {name!r} is unknown; expected one of {', '.join(METHODS)}")
    known = [field.name for field in fields(METHODS[name])]  # type: ignore[arg-type]  # each is a dataclass
    for setting in settings:
        if setting not in known:
            expected = f"one of {', '.join(known)}" if known else "none"
            raise InputError(f"method {name} has no setting {setting!r}; expected {expected}")
    return METHODS[name](**settings)


def unit_noise(points: int, length: int, width: int) -> NDArray[np.float32]:
    """Normal noise of deviation 1, the same whenever it is asked for, (P, N, D)."""
    return np.random.default_rng(0).standard_normal((points, length, width), dtype=np.float32)


def _integrated(subject: Subject, graph: GradientGraph, steps: int) -> NDArray[np.float64]:
    slope = graph.slope(subject, (np.arange(steps) + 0.5) / steps)
    scores_n: NDArray[np.float64] = (slope.gradient_nd * (slope.embeddings_nd - slope.baselines_nd)).sum(axis=1)
    return scores_n


def _gap(total: float, expected: float) -> float:
    return abs(total - expected) / max(abs(expected), 1e-6)


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"steps is {steps:,}; expected 1 to {MAX_STEPS:,}: 32 are enough for most texts")
