"""Methods that share out an answer among the tokens that it came from, each a few lines on a graph of the bundle."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from suffuse.bundle import Bundle
from suffuse.errors import InputError
from suffuse.explain.attention import AttentionGraph, rollout
from suffuse.explain.gradients import GradientGraph, Points, Subject
from suffuse.tasks import Run

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
        steps: points at which a gradient was taken; 0 by a method that takes none.
        baseline: the value without text, where the method compares with it.
        gap: by how much the scores miss what they should add up to, value - baseline, as a share of it; where the
            method promises such a sum.
    """

    scores: Sequence[NDArray[np.float64]]
    value: float
    steps: int
    baseline: float | None = None
    gap: float | None = None


Attribute = Callable[[Sequence[Subject]], Attribution]
"""Shares out the sum of what several windows say."""


class Method(Protocol):
    """A way to share out."""

    name: ClassVar[str]

    @property
    def passes(self) -> int:
        """Times that the network is gone through for a window, unless steps are doubled."""

    def within(self, passes: int) -> "Method":
        """The method with as many steps as it has, but no more passes than these, so that its cost is known before."""

    def prepare(self, bundle: Bundle, run: Run) -> Attribute:
        """The method on a bundle's network.

        Args:
            bundle: its bundle.
            run: computes a graph of it.

        Raises:
            BundleError: the bundle lacks the graph that the method computes with.
        """


class GradientMethod(ABC):
    """Base of the methods that compute with gradients."""

    name: ClassVar[str]

    def prepare(self, bundle: Bundle, run: Run) -> Attribute:
        """As `Method.prepare`, on the graph of gradients."""
        return partial(self.attribute, graph=GradientGraph(bundle, run))

    @abstractmethod
    def attribute(self, subjects: Sequence[Subject], graph: GradientGraph) -> Attribution:
        """Share out the sum of what several windows say."""


@dataclass(frozen=True)
class GradientXInput(GradientMethod):
    """The gradient times the embedding: one pass, and no promise of what the scores add up to.

    Source: Shrikumar et al., "Not Just a Black Box" (2016), arXiv 1605.01713.
    """

    name: ClassVar[str] = "gradient"
    passes: ClassVar[int] = 1

    def within(self, passes: int) -> "GradientXInput":  # noqa: ARG002 - one is the least
        """As `Method.within`."""
        return self

    def attribute(self, subjects: Sequence[Subject], graph: GradientGraph) -> Attribution:
        """One gradient a window."""
        slopes = graph.slopes([Points(subject, np.ones(1)) for subject in subjects])
        scores = [(slope.gradient_nd * slope.embeddings_nd).sum(axis=1) for slope in slopes]
        return Attribution(scores, _value(subjects), steps=1)


@dataclass(frozen=True)
class IntegratedGradients(GradientMethod):
    """The mean gradient on the straight way from the baseline to the text, times that way, by the midpoint rule.

    The scores should add up to value - baseline; how far they miss it is the gap. Steps are doubled until it is within
    the tolerance, at most up to `most_steps`.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks" (2017), arXiv 1703.01365.

    Args:
        steps: to begin with.
        tolerance: largest gap that is good enough.
        most_steps: that doubling goes up to.

    Raises:
        InputError: `steps` is not 1 to `MAX_STEPS`, or `tolerance` not above 0.
    """

    steps: int = 16
    tolerance: float = 0.05
    most_steps: int = DOUBLED_UP_TO

    name: ClassVar[str] = "integrated"

    @property
    def passes(self) -> int:
        """As `Method.passes`."""
        return self.steps

    def within(self, passes: int) -> "IntegratedGradients":
        """As `Method.within`; steps are not doubled."""
        steps = max(1, min(self.steps, passes))
        return replace(self, steps=steps, most_steps=steps)

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if not 0 < self.tolerance < math.inf:
            raise InputError(f"tolerance is {self.tolerance:g}; expected a number above 0, such as 0.05")

    def attribute(self, subjects: Sequence[Subject], graph: GradientGraph) -> Attribution:
        """As many gradients a window as it takes."""
        value, baseline = _value(subjects), float(graph.baselines(subjects).sum())
        steps = self.steps
        while True:
            scores = _integrated(subjects, graph, steps)
            gap = _gap(sum(float(scores_n.sum()) for scores_n in scores), value - baseline)
            if gap <= self.tolerance or 2 * steps > self.most_steps:
                return Attribution(scores, value, steps, baseline, gap)
            steps *= 2


@dataclass(frozen=True)
class SmoothGrad(GradientMethod):
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

    @property
    def passes(self) -> int:
        """As `Method.passes`: one more than steps."""
        return self.steps + 1

    def within(self, passes: int) -> "SmoothGrad":
        """As `Method.within`."""
        return replace(self, steps=max(1, min(self.steps, passes - 1)))

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if not 0 < self.spread < math.inf:
            raise InputError(f"spread is {self.spread:g}; expected a number above 0, such as 1")

    def attribute(self, subjects: Sequence[Subject], graph: GradientGraph) -> Attribution:
        """One gradient a window at the text itself, for its embeddings, and one a point."""
        plain = graph.slopes([Points(subject, np.ones(1)) for subject in subjects])
        around = [
            Points(subject, np.ones(self.steps), self._noise(slope.embeddings_nd))
            for subject, slope in zip(subjects, plain, strict=True)
        ]
        scores = [(slope.gradient_nd * slope.embeddings_nd).sum(axis=1) for slope in graph.slopes(around)]
        return Attribution(scores, _value(subjects), self.steps)

    def _noise(self, embeddings_nd: NDArray[np.float64]) -> NDArray[np.float32]:
        deviation = np.float32(self.spread * float(embeddings_nd.std()))
        return unit_noise(self.steps, *embeddings_nd.shape) * deviation


@dataclass(frozen=True)
class AttentionRollout:
    """How much of each token reaches what the answer is read from, if attention over all hops were all that mixes them.

    The scores are shares: they add up to one, special tokens included, and do not say for or against. Which label is
    explained makes no difference; for entities and answers it counts where they stand. Where entries of diffused
    attention are below zero, as they may be with a beta below 0, a score may be too.

    Source: Abnar and Zuidema (2020), as `suffuse.explain.attention.rollout`, of diffused attention.
    """

    name: ClassVar[str] = "rollout"
    passes: ClassVar[int] = 1

    def within(self, passes: int) -> "AttentionRollout":  # noqa: ARG002 - one is the least
        """As `Method.within`."""
        return self

    def prepare(self, bundle: Bundle, run: Run) -> Attribute:
        """As `Method.prepare`, on the graph of attention."""
        return partial(self.attribute, graph=AttentionGraph(bundle, run))

    def attribute(self, subjects: Sequence[Subject], graph: AttentionGraph) -> Attribution:
        """One pass of attention a window."""
        scores: list[NDArray[np.float64]] = []
        total = 0.0
        for subject in subjects:
            attention = graph(subject.inputs)
            # How much each token's last state counts: of an answer for the whole row as it was pooled, else by token.
            weights = np.abs(subject.weights.astype(np.float64))
            positions_n = weights.sum() * attention.pooled if weights.ndim == 1 else weights.sum(axis=1)
            scores.append(positions_n @ rollout(attention.diffused))
            total += float(weights.sum())
        return Attribution([scores_n / total for scores_n in scores], _value(subjects), steps=0)


METHODS: Mapping[str, Callable[..., Method]] = {
    method.name: method for method in (IntegratedGradients, GradientXInput, SmoothGrad, AttentionRollout)
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


def _value(subjects: Sequence[Subject]) -> float:
    return sum(subject.value for subject in subjects)


def _integrated(subjects: Sequence[Subject], graph: GradientGraph, steps: int) -> list[NDArray[np.float64]]:
    midpoints_p = (np.arange(steps) + 0.5) / steps
    slopes = graph.slopes([Points(subject, midpoints_p) for subject in subjects])
    return [(slope.gradient_nd * (slope.embeddings_nd - slope.baselines_nd)).sum(axis=1) for slope in slopes]


def _gap(total: float, expected: float) -> float:
    return abs(total - expected) / max(abs(expected), 1e-6)


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"steps is {steps:,}; expected 1 to {MAX_STEPS:,}: 32 are enough for most texts")
