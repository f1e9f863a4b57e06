"""The model card: what a bundle is, for people, in Markdown; every figure in it is one of the manifest's.

Source of the sections: Mitchell et al., "Model Cards for Model Reporting" (2019), arXiv 1810.03993.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from suffuse.tasks import task_from_dict

PLOT = "training.svg"
"""The picture of the training, where a bundle has one."""


class Described(Protocol):
    """What the card reads of a manifest, whose fields these are; `suffuse.bundle.Manifest` is one."""

    @property
    def task(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def model(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def graphs(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def limits(self) -> Any: ...  # noqa: ANN401, D102
    @property
    def metrics(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def provenance(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def files(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def evaluation(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def suffuse(self) -> str: ...  # noqa: D102


def card(manifest: Described) -> str:
    """The text of ``card.md``; a section is left out where the manifest knows nothing for it."""
    evaluation = manifest.evaluation
    sections = (
        _title(manifest),
        _use(manifest),
        _measured(manifest),
        _slices(evaluation.get("slices", {})),
        _confusion(evaluation.get("confusion", {})),
        _calibration(evaluation.get("calibration", {})),
        _faithfulness(evaluation.get("faithfulness", {})),
        _latency(evaluation.get("latency", []), evaluation.get("latency_machine", "")),
        _training(manifest),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _title(manifest: Described) -> str:
    task, model = manifest.task, manifest.model
    labels = ", ".join(map(_code, task.get("labels", ()) or task.get("tags", ())))
    facts = [
        ("task", task["name"].replace("_", " ")),
        ("labels", labels or "-"),
        (
            "pretrained model",
            f"{_code(model['source'])} ({model['type']}, {model['parameters'] / 1e6:.1f} M parameters)",
        ),
        ("attention", "plain" if model["num_hops"] == 1 else f"diffusion over {model['num_hops']} hops"),
        (
            "ONNX Runtime against torch",
            f"at most {manifest.graphs['predict'].max_difference:g} in logits (a share of the largest, where above 1)",
        ),
    ]
    return f"# {task['name'].replace('_', ' ').capitalize()} with {model['type']}\n\n{_table(('', ''), facts)}"


def _use(manifest: Described) -> str:
    task, limits = task_from_dict(manifest.task), manifest.limits
    fields = ", ".join(f"`{field.name}` ({field.meaning})" for field in task.fields)
    lines = [
        f"A request is a row with {fields}, or a list of at most {limits.max_rows}.",
        f"The model reads {limits.max_tokens} tokens at once."
        + (f" A longer text is read in up to {task.most_windows} windows." if task.most_windows > 1 else "")
        + ' What lies beyond is left out, and the answer says `"truncated": true`.',
        "It answers every row, however unlike those it was trained on: measure it on your own with `suffuse evaluate`.",
        "Languages: not recorded; those of the training rows, as far as the pretrained model knows them."
        + (" Capital letters are read as small ones." if manifest.model.get("lowercases") else ""),
        "Nobody has looked for bias: the slices below are by length and label, and say nothing of groups of people.",
    ]
    return "## Intended use and limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _measured(manifest: Described) -> str:
    rows, intervals = manifest.evaluation.get("rows"), manifest.evaluation.get("intervals", {})
    lines = [
        (name, f"{value:.4f}", " to ".join(f"{bound:.4f}" for bound in intervals.get(name, ())) or "-")
        for name, value in sorted(manifest.metrics.items())
    ]
    about = "On them the best checkpoint was chosen, which favours it."
    if intervals:
        about += " Intervals: percentiles of a bootstrap over rows; they do not know of other seeds or other data."
    title = f"## Measured on {rows} validation rows" if rows else "## Measured on the validation rows"
    return f"{title}\n\n{about}\n\n{_table(('metric', 'value', '95 % interval'), lines)}"


def _slices(slices: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    heads = {"length": ("By length of the row", "rows"), "label": ("By label", "expected")}
    parts = []
    for kind, (title, counted) in heads.items():
        if found := slices.get(kind):
            names = [name for name in found[0] if name not in ("slice", "rows")]
            show = _code if kind == "label" else str
            lines = [(show(one["slice"]), str(one["rows"]), *(f"{one[name]:.3f}" for name in names)) for one in found]
            parts.append(f"### {title}\n\n{_table((kind, counted, *names), lines)}")
    return "\n\n".join(parts)


def _confusion(confusion: Mapping[str, Any]) -> str:
    if not confusion:
        return ""
    labels = [_code(label) for label in confusion["labels"]]
    lines = [(label, *map(str, counts)) for label, counts in zip(labels, confusion["counts"], strict=True)]
    return (
        f"### Confusion\n\nExpected labels by line, answered ones by column.\n\n{_table(('expected', *labels), lines)}"
    )


def _calibration(calibration: Mapping[str, Any]) -> str:
    if not calibration:
        return ""
    about = (
        f"Of {calibration['what']}, {calibration['decisions']} of them. Logits are divided by a temperature of "
        f"{calibration['temperature']:g}, fitted on these rows; it is in the graphs, and changes scores but no answer. "
        f"Expected calibration error, the mean distance between confidence and accuracy over 15 bins: "
        f"{calibration['ece_before']:.4f} before, {calibration['ece']:.4f} after. The latter and the table are "
        "cross-fitted: each half of the rows with the temperature fitted on the other."
    )
    lines = [
        (f"{confidence:.3f}", f"{accuracy:.3f}", str(count)) for confidence, accuracy, count in calibration["bins"]
    ]
    return f"## Calibration\n\n{about}\n\n{_table(('mean confidence', 'accuracy', 'decisions'), lines)}"


def _faithfulness(faithfulness: Mapping[str, Any]) -> str:
    if not faithfulness:
        return ""
    methods = faithfulness["methods"]
    names = list(dict.fromkeys(name for one in methods.values() for name, value in one.items() if _is_interval(value)))
    lines = [
        (method, *(_with_interval(one[name]) if _is_interval(one.get(name)) else "-" for name in names))
        for method, one in methods.items()
    ]
    about = (
        f"Of explanations, on {faithfulness['rows']} rows, with 95 % intervals. Comprehensiveness is what the answer "
        "loses without the words that count most, sufficiency what it loses with those alone (lower is better); see "
        f"docs/explanations.md. Explanations are by `{faithfulness['best']}` unless another method is asked for."
    )
    return f"## Faithfulness\n\n{about}\n\n{_table(('method', *(name.replace('_', ' ') for name in names)), lines)}"


def _latency(latency: Sequence[Mapping[str, Any]], machine: str) -> str:
    if not latency:
        return ""
    lines = [(str(one["tokens"]), f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}") for one in latency]
    about = f"One row at a time, one thread, without a server: {machine or 'machine not recorded'}."
    return f"## Latency by length\n\n{about}\n\n{_table(('tokens', 'p50 in ms', 'p99 in ms'), lines)}"


def _training(manifest: Described) -> str:
    provenance = manifest.provenance
    picture = f"![Loss, score, learning rates and hop weights over the training]({PLOT})\n\n"
    data = "\n".join(f"- {_code(source)}, SHA-256 `{digest}`" for source, digest in sorted(provenance["data"].items()))
    counts = ", ".join(f"{count} for {side}" for side, count in sorted(provenance.get("rows", {}).items()))
    packages = ", ".join(f"{name} {version}" for name, version in sorted(provenance["packages"].items()))
    return (
        f"## Where it comes from\n\n{picture if PLOT in manifest.files else ''}Trained on:\n\n{data}\n\n"
        + (f"Rows: {counts}.\n\n" if counts else "")
        + f"Seed {provenance['seed']}; suffuse {manifest.suffuse}; {packages}."
    )


def _is_interval(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3


def _with_interval(value: Sequence[float]) -> str:
    mean, low, high = value
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(_line(cells) for cells in _with_rule(head, lines))


def _with_rule(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    yield head
    yield ["---"] * len(head)
    yield from lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |  |", "| | |")


def _code(text: str) -> str:
    """A text of strangers in Markdown, so that nothing in it is read as markup, within a table too."""
    flat = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", flat)), default=0))
    return f"{fence} {flat} {fence}" if "`" in flat else f"`{flat}`"
