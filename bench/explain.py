"""What an explanation costs beside an answer, and beside captum on torch, and how faithful it is.

The sentiment model (K=2, 6 layers of width 384) explains texts of 18, 64 and 241 tokens on one thread: the bundle by
`Explainer`, and the network in torch by captum, with as many steps. An explanation comes with its answer; what it costs
by itself is the difference from an answer alone. A round runs each variant once, in random order; a ratio is taken
within a round, in processor time, so that neither other load nor drift favours one.
Reported are the median of the ratios and its 95 % bootstrap interval. Memory is the largest resident size of a process
that explains, over that of one that answers. Faithfulness is that of `suffuse explain --evaluate`, on rows held out.

    python bench/explain.py [--bundle FOLDER] [--rows N]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from torch import Tensor

from claims import ROOT, Claim, Goal, commit, machine, median_claim, resampled_claim, write
from suffuse.commands.faithfulness import sample
from suffuse.explain import Explainer, GradientXInput, IntegratedGradients
from suffuse.explain.erasure import Erasable, Mask, Part
from suffuse.explain.evaluation import evaluate
from suffuse.explain.faithfulness import measured
from suffuse.export import export
from suffuse.rows import read_rows
from suffuse.runtime import Predictor, load
from suffuse.tasks import Window
from suffuse.training.checkpoint import load_checkpoint

RUN = ROOT / "runs" / "sentiment"
ROWS = RUN / "test.jsonl"
COMMAND = "python bench/explain.py"
LENGTHS = (18, 64, 241)
STEPS = 16
ROUNDS = 15
GOALS = {"gradient x input": 3.0, "integrated gradients, 16 steps": 35.0}

Variants = Mapping[str, Callable[[], object]]


def main() -> None:
    """Measure cost, memory and faithfulness; write the claims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path, help="exported from runs/sentiment with --explain; by default it is now")
    parser.add_argument("--rows", type=int, default=100, help="that faithfulness is measured on")
    given = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        bundle = given.bundle or export(RUN, Path(folder) / "sentiment", log, explain=True).path
        predictor = load(bundle, threads=1)
        claims = [claim for length in LENGTHS for claim in costs(predictor, length)]
        claims.append(memory(bundle, text_of(predictor, LENGTHS[-1])))
        claims += faithfulness(predictor, given.rows)
        claims += ways_to_remove(predictor, given.rows)
    write("explain", claims)


def costs(predictor: Predictor, length: int) -> list[Claim]:
    """What explaining a text of so many tokens costs."""
    text = text_of(predictor, length)
    seconds = timed({"answer": lambda: predictor(text), **ours(predictor, text), **captums(predictor, text)})
    for name, times in seconds.items():
        log(f"{length} tokens, {name}: {1000 * np.median(times):.1f} ms")
    claims = []
    answer, unit = np.array(seconds["answer"]), "ratio of processor time"
    for name, bound in GOALS.items():
        both, what = np.array(seconds[name]), f"{name}, K=2 MiniLM, a text of {length} tokens"
        ratios = {
            "explanation over answer": ((both - answer) / answer, Goal(bound, True)),
            "explanation with its answer over answer": (both / answer, None),
            "explanation over captum on torch": ((both - answer) / seconds[f"captum, {name}"], None),
        }
        claims += [
            median_claim(f"{text}: {what}", ratio, unit, COMMAND, goal) for text, (ratio, goal) in ratios.items()
        ]
    return claims


def ours(predictor: Predictor, text: str) -> Variants:
    """Explanations from the bundle."""
    methods = (GradientXInput(), IntegratedGradients(steps=STEPS, tolerance=1e9))  # whatever the gap: no more steps
    explainers = [Explainer(predictor, method) for method in methods]
    return {
        name: lambda explainer=explainer: explainer(text)  # type: ignore[misc]
        for name, explainer in zip(GOALS, explainers, strict=True)
    }


def captums(predictor: Predictor, text: str) -> Variants:
    """The same by captum, of the network in torch; its answer is not counted."""
    network = load_checkpoint(RUN / "checkpoints" / "best.ckpt").network.eval()
    (window,) = predictor.task.encode([{"text": text}], predictor.tokens)
    ids_bn = torch.from_numpy(window.inputs["input_ids"])[None]
    baseline_bn = ids_bn.clone()
    baseline_bn[:, 1:-1] = predictor.bundle.manifest.model["baseline_token_id"]
    label = predictor.task.head.names.index(predictor(text)["label"])

    def value(batch_bn: Tensor) -> Tensor:
        logits: Tensor = network(batch_bn, torch.ones_like(batch_bn), torch.zeros_like(batch_bn))
        return logits[:, label]

    layer = network.backbone.get_input_embeddings()
    gradient, integrated = LayerGradientXActivation(value, layer), LayerIntegratedGradients(value, layer)
    calls: Sequence[Callable[[], object]] = (
        lambda: gradient.attribute(ids_bn),
        lambda: integrated.attribute(ids_bn, baseline_bn, n_steps=STEPS, method="riemann_middle"),
    )
    return {f"captum, {name}": call for name, call in zip(GOALS, calls, strict=True)}


def timed(variants: Variants) -> dict[str, list[float]]:
    """Processor seconds of each variant in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's remarks
        for call in variants.values():
            call()
        for _ in range(ROUNDS):
            for name in random.sample(list(variants), k=len(variants)):
                start_s = time.process_time()
                variants[name]()
                seconds[name].append(time.process_time() - start_s)
    return seconds


def text_of(predictor: Predictor, length: int) -> str:
    """Words of the test rows that are exactly so many tokens."""
    words = " ".join(row["text"] for _, row in read_rows(ROWS)).split()
    for start in range(len(words)):
        for end in range(start + 1, start + length):
            text = " ".join(words[start:end])
            (encoding,) = predictor.tokens.encode([text])
            if len(encoding.ids) == length:
                return text
            if len(encoding.ids) > length or encoding.overflowing:
                break
    raise SystemExit(f"{ROWS}: no run of words is {length} tokens; expected a file of texts")


def memory(bundle: Path, text: str) -> Claim:
    """How much more memory a process holds that explains, over one that answers."""
    program = (
        "import json, sys\nfrom suffuse.runtime import load\nfrom suffuse.explain import Explainer\n"
        "bundle, text, explains = json.loads(sys.argv[1])\npredictor = load(bundle, 1)\npredictor(text)\n"
        "if explains: Explainer(predictor)(text)\nprint(open('/proc/self/status').read())\n"
    )
    sizes: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(3):
        for explains, found in sizes.items():
            arguments = json.dumps([str(bundle), text, explains])
            done = subprocess.run(
                [sys.executable, "-c", program, arguments], capture_output=True, text=True, check=True
            )
            # Not getrusage, whose maximum a child has from the process that it was forked from.
            kilobytes = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM")).split()[1]
            found.append(int(kilobytes) / 1024)
    added = np.subtract(sizes[True], sizes[False])
    return median_claim("memory that explaining adds to a process that answers", added, "MB", COMMAND)


def faithfulness(predictor: Predictor, size: int) -> list[Claim]:
    """Comprehensiveness of each method, and its area over that of random order."""
    log(f"faithfulness on {size} rows")
    rows = sample(predictor.task, read_rows(ROWS), size, [])
    figures = evaluate(predictor, rows).to_dict()
    claims = []
    for method, found in figures["methods"].items():
        where = f"{method}, {figures['rows']} test rows"
        claims.append(reported(f"comprehensiveness: {where}", found["comprehensiveness"], "drop of probability"))
        if found["aopc_over_random"] and method != "random":
            claims.append(
                reported(
                    f"area of the perturbation curve over random order: {where}", found["aopc_over_random"], "ratio"
                )
            )
    return claims


class CutOut(Erasable):
    """As ERASER takes words out: their tokens are left out, and those behind them move up."""

    def _without(self, part: Part, is_erased_w: Mask) -> Window:
        is_left_n = ~np.append(is_erased_w, False)[part.word_n]
        return Window(part.window.row, {name: array[is_left_n] for name, array in part.window.inputs.items()})


def ways_to_remove(predictor: Predictor, size: int) -> list[Claim]:
    """Whether words are replaced by the baseline's token or cut out: what integrated gradients score by either."""
    explainer = Explainer(predictor, IntegratedGradients())
    scores: dict[str, list[float]] = {"replaced": [], "cut out": []}
    moved: dict[str, list[float]] = {"replaced": [], "cut out": []}
    for row in sample(predictor.task, read_rows(ROWS), size, []):
        explanation = explainer(row)
        words = explanation.explained[0].words
        windows = predictor.task.encode([row], predictor.tokens)
        (target,) = predictor.task.explained(row, explanation.answer, windows, predictor.outputs(windows))
        order = {"integrated": np.array([word.score for word in words])}
        fifth_w = np.random.default_rng(0).permutation(len(words)) < np.ceil(len(words) / 5)
        masks = np.stack([np.zeros_like(fifth_w), fifth_w])
        for way, erasable in zip(scores, (Erasable, CutOut), strict=True):
            erased = erasable(predictor, row, words, target)
            scores[way].append(measured(erased, order)["integrated"].comprehensiveness)
            moved[way].append(abs(float(np.diff(erased.probabilities(masks))[0])))
    where = f"words {{}}, {len(scores['replaced'])} test rows"
    return [
        mean_claim(f"{what}: {where.format(way)}", values[way])
        for what, values in (
            ("comprehensiveness of integrated gradients", scores),
            ("change of probability without any fifth of the words", moved),
        )
        for way in scores
    ]


def mean_claim(claim: str, values: Sequence[float]) -> Claim:
    """A mean over rows with its bootstrap interval."""
    resampled = np.random.default_rng(0).choice(values, size=(2000, len(values))).mean(axis=1)
    return resampled_claim(claim, float(np.mean(values)), resampled, "difference of probability", COMMAND)


def reported(claim: str, interval: Sequence[Any], unit: str) -> Claim:
    """A figure that has its interval already."""
    value, low, high = interval
    return Claim(claim, "reported", value, low, high, unit, True, COMMAND, commit(), machine())


def log(message: str) -> None:
    """Say what is being done."""
    print(message, file=sys.stderr)


if __name__ == "__main__":
    main()
