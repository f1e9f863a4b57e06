"""The card says what the manifest knows, section by section, and nothing that it does not."""

from dataclasses import replace

import pytest

from suffuse.bundle import Graph, Limits, Manifest
from suffuse.card import PLOT, card
from suffuse.tasks import Classification, Similarity, Task, task_to_dict

EVALUATION = {
    "rows": 50,
    "intervals": {"f1_macro": [0.4, 0.625]},
    "slices": {
        "length": [{"slice": "1-16 tokens", "rows": 30, "accuracy": 0.5}],
        "label": [{"slice": "bad", "rows": 20, "precision": 0.25, "recall": 0.5, "f1": 1 / 3}],
    },
    "confusion": {"labels": ["bad", "good"], "counts": [[1, 2], [3, 4]]},
    "calibration": {
        "what": "the label of each row",
        "decisions": 50,
        "temperature": 1.25,
        "ece_before": 0.1,
        "ece": 0.05,
        "bins": [[0.75, 0.7, 50]],
    },
    "faithfulness": {
        "rows": 8,
        "best": "integrated",
        "methods": {
            "integrated": {"comprehensiveness": [0.3, 0.2, 0.4], "aopc_over_random": [2.0, 1.5, 2.5], "top": 3},
            "rollout": {"comprehensiveness": [0.1, 0.05, 0.2], "aopc_over_random": None},
        },
    },
    "latency": [{"tokens": 8, "p50_ms": 1.5, "p99_ms": 2.25}],
    "latency_machine": "a processor",
}


def manifest_of(task: Task | None = None, **changes: object) -> Manifest:
    described = Manifest(
        task=task_to_dict(task or Classification(("bad", "good"))),
        model={"type": "bert", "source": "a/model", "parameters": 22_600_000, "num_hops": 2, "lowercases": True},
        graphs={"predict": Graph("predict.onnx", ("input_ids",), ("logits",), 1e-6)},
        limits=Limits(max_tokens=64),
        metrics={"f1_macro": 0.5},
        provenance={"data": {"train: a.csv": "12ab"}, "packages": {"torch": "2.9"}, "seed": 1, "rows": {"train": 450}},
        suffuse="0.1.0",
        files={PLOT: "0"},
        evaluation=EVALUATION,
    )
    return replace(described, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        "# Classification with bert",
        "| labels | `bad`, `good` |",
        "| pretrained model | `a/model` (bert, 22.6 M parameters) |",
        "| attention | diffusion over 2 hops |",
        "- A request is a row with `text` (the text to classify), or a list of at most 256.",
        "## Measured on 50 validation rows",
        "| f1_macro | 0.5000 | 0.4000 to 0.6250 |",
        "| 1-16 tokens | 30 | 0.500 |",
        "| `bad` | 20 | 0.250 | 0.500 | 0.333 |",
        "| `good` | 3 | 4 |",
        "| 0.750 | 0.700 | 50 |",
        "| method | comprehensiveness | aopc over random |",
        "| integrated | 0.300 (0.200 to 0.400) | 2.000 (1.500 to 2.500) |",
        "| rollout | 0.100 (0.050 to 0.200) | - |",
        "One row at a time, one thread, without a server: a processor.",
        "| 8 | 1.50 | 2.25 |",
        f"![Loss, score, learning rates and hop weights over the training]({PLOT})",
        "- `train: a.csv`, SHA-256 `12ab`",
        "Rows: 450 for train.",
        "Seed 1; suffuse 0.1.0; torch 2.9.",
    ],
)
def test_a_line_of_the_card(line: str) -> None:
    assert line in card(manifest_of()).splitlines()


def test_calibration_says_what_was_measured_on_which_rows() -> None:
    assert (
        "Of the label of each row, 50 of them. Logits are divided by a temperature of 1.25, fitted on these rows; it "
        "is in the graphs, and changes scores but no answer. Expected calibration error, the mean distance between "
        "confidence and accuracy over 15 bins: 0.1000 before, 0.0500 after. The latter and the table are cross-fitted: "
        "each half of the rows with the temperature fitted on the other."
    ) in card(manifest_of())


def test_a_manifest_of_an_earlier_version_has_a_card_too() -> None:
    provenance: dict[str, object] = {"data": {}, "packages": {}, "seed": None}
    model = {"type": "bert", "source": "a", "parameters": 1, "num_hops": 1}

    text = card(manifest_of(evaluation={}, provenance=provenance, model=model, files={}))

    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Classification with bert",
        "## Intended use and limits",
        "## Measured on the validation rows",
        "## Where it comes from",
    ]
    assert "| f1_macro | 0.5000 | - |" in text
    assert "| attention | plain |" in text
    assert PLOT not in text


def test_only_a_tokenizer_that_lowercases_is_said_to() -> None:
    told = "Capital letters are read as small ones."

    assert told in card(manifest_of())
    assert told not in card(manifest_of(model={**manifest_of().model, "lowercases": False}))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Classification(("a", "b")), True),
        (Classification(("a", "b"), pair=True), False),
        (Classification(("a", "b"), max_windows=1), False),
        (Similarity(), False),
    ],
)
def test_windows_are_spoken_of_where_there_are_several(task: Task, said: bool) -> None:
    assert ("A longer text is read in up to" in card(manifest_of(task))) is said


@pytest.mark.parametrize(
    ("label", "written"),
    [
        ("a|b", "`a\\|b`"),
        ("a\n| # b", "`a \\| # b`"),
        ("<script>", "`<script>`"),
        ("`a`", "`` `a` ``"),
        ("a``b", "``` a``b ```"),
    ],
)
def test_labels_of_strangers_stay_text(label: str, written: str) -> None:
    text = card(manifest_of(Classification((label, "good"))))

    assert f"| labels | {written}, `good` |" in text.splitlines()
