"""Diffusion inside a transformer: what the training half adds to a pretrained model, with no other part of suffuse.

| name | what for |
| --- | --- |
| `add_diffusion` | make a model attend over K hops |
| `diffusion_parameters` | its hop weights, for an optimizer group of their own |
| `effective_attention` | see the attention matrices that a model in fact applies |
| `attention_matrices`, `AttentionMatrices` | the same beside plain attention and the hop weights |
| `diffusion_attention` | the attention function itself, as transformers calls it |
| `register_attention` | make the name known in a process that unpickles a diffusive model |
| `ATTENTION_NAME` | that name |
"""

from suffuse.diffusion.attention import (
    ATTENTION_NAME,
    AttentionMatrices,
    add_diffusion,
    attention_matrices,
    diffusion_attention,
    diffusion_parameters,
    effective_attention,
    register_attention,
)

__all__ = [
    "ATTENTION_NAME",
    "AttentionMatrices",
    "add_diffusion",
    "attention_matrices",
    "diffusion_attention",
    "diffusion_parameters",
    "effective_attention",
    "register_attention",
]
