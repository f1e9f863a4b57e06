"""The model card: what a bundle is, for people, in Markdown; every figure in it is one of the manifest's."""

from suffuse.bundle import Manifest


def card(manifest: Manifest) -> str:
    """The text of ``card.md``."""
    task, model = manifest.task, manifest.model
    labels = ", ".join(f"`{label}`" for label in task.get("labels", ()))
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in sorted(manifest.metrics.items()))
    data = "\n".join(
        f"- `{source}`, SHA-256 `{digest}`" for source, digest in sorted(manifest.provenance["data"].items())
    )
    packages = ", ".join(f"{name} {version}" for name, version in sorted(manifest.provenance["packages"].items()))
    graph = manifest.graphs["predict"]
    return f"""# {task["name"].replace("_", " ").capitalize()} with {model["type"]}

| | |
| --- | --- |
| task | {task["name"]} |
| labels | {labels or "-"} |
| pretrained model | `{model["source"]}` ({model["type"]}, {model["parameters"] / 1e6:.1f} M parameters) |
| attention | {_attention(model["num_hops"])} |
| longest input | {manifest.limits.max_tokens} tokens at once; an answer says where text was cut |
| ONNX Runtime against torch | at most {graph.max_difference:g} in logits |

## Measured on the validation rows

| metric | value |
| --- | --- |
{metrics}

## Where it comes from

Trained on:

{data}

Seed {manifest.provenance["seed"]}; suffuse {manifest.suffuse}; {packages}.
"""


def _attention(num_hops: int) -> str:
    return "plain" if num_hops == 1 else f"diffusion over {num_hops} hops"
