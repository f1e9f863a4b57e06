"""Scores are those that captum computes on the torch network, for both kinds of model, all tasks, one hop and two."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients, Saliency
from numpy.typing import NDArray
from torch import Tensor

from suffuse.bundle import Bundle
from suffuse.explain import Explainer, GradientXInput, IntegratedGradients, Method, SmoothGrad
from suffuse.explain.gradients import Subject
from suffuse.explain.saliency import Attribute, Attribution, unit_noise
from suffuse.tasks import Run
from suffuse.training import TextNetwork

pytestmark = pytest.mark.filterwarnings("ignore:::captum")


@dataclass
class Watched:
    """A method that keeps what it was asked and what it said."""

    method: Method
    calls: list[tuple[Sequence[Subject], Attribution]] = field(default_factory=list)

    name: ClassVar[str] = "watched"

    @property
    def passes(self) -> int:
        return self.method.passes

    def within(self, passes: int) -> Method:
        return self.method.within(passes)

    def prepare(self, bundle: Bundle, run: Run) -> Attribute:
        attribute = self.method.prepare(bundle, run)

        def watch(subjects: Sequence[Subject]) -> Attribution:
            self.calls.append((subjects, attribute(subjects)))
            return self.calls[-1][1]

        return watch


@dataclass
class Reference:
    """A network as captum takes it: a function of token ids, or of embeddings, whose value is what is explained."""

    network: TextNetwork
    subject: Subject

    @property
    def layer(self) -> Any:  # noqa: ANN401 - as transformers has it
        return self.network.backbone.get_input_embeddings()

    def ids(self, name: str) -> Tensor:
        return torch.from_numpy(self.subject.inputs[name])[None]

    def value(self, ids_bn: Tensor) -> Tensor:
        inputs = {"input_ids": ids_bn, "attention_mask": torch.ones_like(ids_bn)}
        if "token_type_ids" in self.network.input_names:
            inputs["token_type_ids"] = self.ids("token_type_ids").expand_as(ids_bn)
        logits: Tensor = self.network(**inputs)
        weighted: Tensor = (logits * torch.from_numpy(self.subject.weights)).flatten(1).sum(dim=1)
        return weighted

    def value_of_embeddings(self, embeddings_bnd: Tensor) -> Tensor:
        hook = self.layer.register_forward_hook(lambda *_: embeddings_bnd)
        try:
            return self.value(self.ids("input_ids").expand(len(embeddings_bnd), -1))
        finally:
            hook.remove()


def calls_of(case: Any, method: Method) -> list[tuple[Reference, NDArray[np.float64], Attribution]]:  # noqa: ANN401
    """What a method says of all that is explained of a row of one window, and the network for captum."""
    watched = Watched(method)
    Explainer(case.predictor, watched)(case.row)
    assert watched.calls
    return [
        (Reference(case.predictor._session.network, subject), said.scores[0], said)
        for (subject,), said in watched.calls
    ]


def assert_equal(scores_n: NDArray[np.float64], attributions_1nd: Tensor) -> None:
    expected_n = attributions_1nd.sum(dim=-1)[0].detach().numpy()
    assert np.abs(expected_n).max() > 1e-3  # else anything would be equal
    assert np.abs(scores_n - expected_n).max() <= 1e-4 * max(1.0, np.abs(expected_n).max())


def test_integrated_gradients(case: Any) -> None:  # noqa: ANN401 - a class of conftest.py
    calls = calls_of(case, IntegratedGradients(steps=12, tolerance=1e9))

    for reference, scores_n, said in calls:
        captum = LayerIntegratedGradients(reference.value, reference.layer)
        expected_1nd, delta_1 = captum.attribute(
            reference.ids("input_ids"),
            reference.ids("baseline_ids"),
            n_steps=12,
            method="riemann_middle",
            return_convergence_delta=True,
        )
        assert_equal(scores_n, expected_1nd)
        assert said.baseline is not None
        assert said.gap == pytest.approx(abs(float(delta_1)) / abs(said.value - said.baseline), abs=1e-3)


def test_gradient_times_input(case: Any) -> None:  # noqa: ANN401
    for reference, scores_n, said in calls_of(case, GradientXInput()):
        captum = LayerGradientXActivation(reference.value, reference.layer)

        assert_equal(scores_n, captum.attribute(reference.ids("input_ids")))
        assert said.value == pytest.approx(reference.value(reference.ids("input_ids")).item(), abs=1e-4)


def test_smooth_gradients(case: Any) -> None:  # noqa: ANN401
    for reference, scores_n, _ in calls_of(case, SmoothGrad(steps=6, spread=0.2)):
        embeddings_nd = reference.layer(reference.ids("input_ids"))[0].detach()
        noise_pnd = torch.from_numpy(unit_noise(6, *embeddings_nd.shape)) * 0.2 * embeddings_nd.std(correction=0)
        points_pnd = (embeddings_nd + noise_pnd).requires_grad_()
        gradients_pnd = Saliency(reference.value_of_embeddings).attribute(points_pnd, abs=False)

        assert_equal(scores_n, gradients_pnd.mean(dim=0, keepdim=True) * embeddings_nd)
