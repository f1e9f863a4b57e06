"""Why an answer is what it is: how much each word spoke for it, from the bundle's own gradients, without torch.

| name | what for |
| --- | --- |
| `Explainer` | explain rows by one method |
| `Explanation`, `Explained`, `Word` | what it says |
| `GradientXInput`, `IntegratedGradients`, `SmoothGrad` | the methods |
| `AttentionRollout` | a method that computes with attention |
| `attention_maps`, `AttentionMaps`, `rollout` | what attends to what, by layer and head |
| `make_method` | a method by its name and settings, for those who are given them as text |
| `METHODS` | their names |
| `default_method` | the name of the one that a bundle was found to be best explained by |
"""

from suffuse.explain.attention import AttentionMaps, attention_maps, rollout
from suffuse.explain.choice import default_method
from suffuse.explain.explanation import Explained, Explainer, Explanation
from suffuse.explain.saliency import (
    METHODS,
    AttentionRollout,
    GradientXInput,
    IntegratedGradients,
    Method,
    SmoothGrad,
    make_method,
)
from suffuse.explain.words import Word

__all__ = [
    "METHODS",
    "AttentionMaps",
    "AttentionRollout",
    "Explained",
    "Explainer",
    "Explanation",
    "GradientXInput",
    "IntegratedGradients",
    "Method",
    "SmoothGrad",
    "Word",
    "attention_maps",
    "default_method",
    "make_method",
    "rollout",
]
