"""Which method explains a bundle's answers where none is asked for: the one that was measured to be most faithful."""

from suffuse.bundle import Manifest
from suffuse.explain.saliency import METHODS, IntegratedGradients

EVALUATION = "faithfulness"
"""Key of the manifest's `evaluation` under which `suffuse explain --evaluate` keeps its figures."""


def default_method(manifest: Manifest) -> str:
    """Name of the method that was measured to be best for a bundle; integrated gradients where none was measured."""
    best = str(manifest.evaluation.get(EVALUATION, {}).get("best"))
    return best if best in METHODS else IntegratedGradients.name
