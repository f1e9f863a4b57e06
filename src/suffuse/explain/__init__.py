"""Why an answer is what it is: how much each word spoke for it, from the bundle's own gradients, without torch.

| name | what for |
| --- | --- |
| `Explainer` | explain rows by one method |
| `Explanation`, `Explained`, `Word` | what it says |
| `GradientXInput`, `IntegratedGradients`, `SmoothGrad` | the methods |
| `make_method` | a method by its name and settings, for those who are given them as text |
| `METHODS` | their names |
"""

from suffuse.explain.explanation import Explained, Explainer, Explanation
from suffuse.explain.saliency import METHODS, GradientXInput, IntegratedGradients, Method, SmoothGrad, make_method
from suffuse.explain.words import Word

__all__ = [
    "METHODS",
    "Explained",
    "Explainer",
    "Explanation",
    "GradientXInput",
    "IntegratedGradients",
    "Method",
    "SmoothGrad",
    "Word",
    "make_method",
]
