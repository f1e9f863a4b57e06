"""How good the recipes are: each trained with diffusion attention and with plain attention, from the same seeds.

A model is measured as it is served: exported to ONNX, asked by `suffuse.load`. What it answered is kept beside its run,
in runs/quality, and taken from there; so this may be stopped, and goes on where it was. Intervals are by bootstrap over
the rows that are measured on, and say nothing of other seeds. The data of SST-2 and SQuAD, and the pairs
of scripts/question_pairs.py, are looked for in data/.

    python bench/quality.py [--jobs N] [NAME ...]
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import suffuse
from claims import ROOT, Claim, Goal, earlier, resampled_claim, write
from suffuse.export import export
from suffuse.rows import read_rows
from suffuse.tasks import Answer, Task, task_from_dict, task_to_dict
from suffuse.training.fit import data_of

sys.path.append(str(ROOT / "scripts"))
import baseline

RUNS = ROOT / "runs" / "quality"
BUNDLES = ROOT / "bundles" / "quality"
RESAMPLES = 500


@dataclass(frozen=True)
class Experiment:
    """A recipe, and what it should reach.

    Args:
        name: of the recipe in configs/.
        what: is measured, for people.
        metric: of the task.
        goal: that the mean over seeds should reach, with diffusion attention; None: the figure is reported.
        test: file to measure on; by default the rows that the run held back.
        columns: field -> column of `test`.
        seeds: three where a run takes minutes, one where it takes longer.
        is_folded: whether each seed holds back another share of the rows (cross-validation); all are then measured
            together. Seeds and the recipe's share have to make a whole.
        has_baseline: whether TF-IDF and logistic regression can be asked the same.
        hops: of the attention: diffusion, and plain beside it where a run does not take hours.
    """

    name: str
    what: str
    metric: str
    goal: float | None = None
    test: str | None = None
    columns: dict[str, str] | None = None
    seeds: tuple[int, ...] = (1,)
    is_folded: bool = False
    has_baseline: bool = False
    hops: tuple[int, ...] = (2, 1)


EXPERIMENTS = (
    Experiment(
        "sst2", "SST-2 dev", "accuracy", 0.905, "data/sst2/dev.tsv", {"text": "content"}, (1, 2, 3), has_baseline=True
    ),
    Experiment(
        "sst2-decoder",
        "SST-2 dev by SmolLM2-135M, all of it trained",
        "accuracy",
        0.905,
        "data/sst2/dev.tsv",
        {"text": "content"},
        hops=(2,),
    ),
    Experiment("trec6", "TREC-6, held-back tenth", "accuracy", 0.95, seeds=(1, 2, 3), has_baseline=True),
    Experiment("bbc", "BBC News, held-back tenth", "accuracy", 0.975, seeds=(1, 2, 3), has_baseline=True),
    Experiment(
        "bbc-lead",
        "BBC News, beginnings of articles, each fifth held back once",
        "accuracy",
        0.975,
        seeds=(1, 2, 3, 4, 5),
        is_folded=True,
        has_baseline=True,
    ),
    Experiment("entities", "CoNLL-2003 test", "f1", 0.86, "pkg://neuroner/data/conll2003/en/test.txt"),
    Experiment("questions", "SQuAD 1.1, part of dev", "f1", 0.62, "data/squad/dev-v1.1.json"),
    Experiment("question-pairs", "pairs of TREC's questions", "spearman", test="data/question-pairs/test.jsonl"),
    Experiment("trec6-decoder", "TREC-6 by SmolLM2-135M with LoRA, held-back tenth", "accuracy", hops=(2,)),
    Experiment(
        "entities-decoder",
        "CoNLL-2003 test by SmolLM2-135M with LoRA",
        "f1",
        test="pkg://neuroner/data/conll2003/en/test.txt",
    ),
)
HOPS = {2: "2-hop diffusion attention", 1: "plain attention"}


@dataclass(frozen=True)
class Measured:
    """Answers of one model, and what they should have been."""

    task: Task
    answers: list[Answer]
    targets: list[Any]

    def metric(self, name: str, rows: NDArray[np.int64] | None = None) -> float:
        """A metric, of all rows or of some, counted as often as they are named."""
        if rows is None:
            return self.task.metrics(self.answers, self.targets)[name]
        return self.task.metrics([self.answers[row] for row in rows], [self.targets[row] for row in rows])[name]


def main(arguments: Sequence[str]) -> None:
    """Train what is not trained yet, measure, write the claims of each experiment that was named, or of all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help="of experiments (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="runs that are trained at the same time")
    settings = parser.parse_args(arguments)
    chosen = [experiment for experiment in EXPERIMENTS if not settings.names or experiment.name in settings.names]
    runs = [(one, hops, seed) for one in chosen for hops in one.hops for seed in one.seeds]
    # Processes: torch exports one graph a process at a time.
    with ProcessPoolExecutor(settings.jobs, get_context("spawn")) as pool:
        list(pool.map(measure, *zip(*runs, strict=True)))
    kept = earlier("quality")
    for experiment in chosen:
        kept = {text: claim for text, claim in kept.items() if not text.startswith(f"{experiment.what} (")}
        kept |= {claim.claim: claim for claim in claims(experiment)}
        write("quality", list(kept.values()))


def claims(experiment: Experiment) -> list[Claim]:
    """The score with diffusion attention, with plain attention, their difference, and the baseline."""
    measured = {hops: [measure(experiment, hops, seed) for seed in experiment.seeds] for hops in experiment.hops}
    if experiment.is_folded:
        measured = {hops: [together(models)] for hops, models in measured.items()}
    repeats = f"{len(experiment.seeds)} {'fold' if experiment.is_folded else 'seed'}"
    seeds = f"{repeats}{'s' if len(experiment.seeds) > 1 else ''}"
    count = len(measured[2][0].answers)
    command = f"python bench/quality.py {experiment.name}"

    def claim(text: str, score: Callable[[NDArray[np.int64] | None], float], goal: Goal | None = None) -> Claim:
        draw = np.random.default_rng(0)
        resampled = [score(draw.integers(count, size=count)) for _ in range(RESAMPLES)]
        what = f"{experiment.what} ({count} rows), {experiment.metric}, {text}"
        return resampled_claim(what, score(None), resampled, experiment.metric, command, goal)

    def mean(hops: int) -> Callable[[NDArray[np.int64] | None], float]:
        return lambda rows: float(np.mean([model.metric(experiment.metric, rows) for model in measured[hops]]))

    goal = None if experiment.goal is None else Goal(experiment.goal, is_upper=False)
    found = [claim(f"{HOPS[hops]}, {seeds}", mean(hops), goal if hops > 1 else None) for hops in experiment.hops]
    if len(experiment.hops) > 1:
        found.append(claim("diffusion minus plain attention, same seeds", lambda rows: mean(2)(rows) - mean(1)(rows)))
    if experiment.has_baseline:
        same_rows = experiment.seeds if experiment.is_folded else experiment.seeds[:1]
        rival = together([tf_idf(experiment, seed) for seed in same_rows])
        found.append(claim("TF-IDF and logistic regression", lambda rows: rival.metric(experiment.metric, rows)))
    return found


def measure(experiment: Experiment, hops: int, seed: int) -> Measured:
    """What a model answers to all rows of the test, asked once."""
    name = run_name(experiment, hops, seed)
    kept = RUNS / name / "answers.json"
    if not kept.is_file():
        found = asked(experiment, bundle(experiment, hops, seed))
        kept.write_text(json.dumps({"task": task_to_dict(found.task), "answers": found.answers}), "utf-8")
    content = json.loads(kept.read_text("utf-8"))
    task = task_from_dict(content["task"])
    return Measured(task, content["answers"], targets(experiment, task, name))


def together(models: Sequence[Measured]) -> Measured:
    """What models answered to rows of their own each, as if one had."""
    answers = [answer for model in models for answer in model.answers]
    return Measured(models[0].task, answers, [target for model in models for target in model.targets])


def asked(experiment: Experiment, path: Path) -> Measured:
    """What a bundle, called as its run is, answers to all rows of the test."""
    model = suffuse.load(path)
    answers = list(model(test_rows(experiment, path.name)))
    return Measured(model.task, answers, targets(experiment, model.task, path.name))


def targets(experiment: Experiment, task: Task, run: str) -> list[Any]:
    """What the answers of a run should be."""
    return [task.target(task.check(row)) for row in test_rows(experiment, run)]


def bundle(experiment: Experiment, hops: int, seed: int) -> Path:
    """The bundle of a model, trained and exported where that was not done yet."""
    name = run_name(experiment, hops, seed)
    run, to = RUNS / name, BUNDLES / name
    if not (run / "finished").is_file():
        recipe = ROOT / "configs" / f"{experiment.name}.yaml"
        options = [f"--model.num_hops={hops}", f"--seed_everything={seed}", f"--run={run}"]
        if experiment.is_folded:
            options.append(f"--data.split.fold={seed - 1}")
        subprocess.run(
            [sys.executable, "-m", "suffuse.cli", "fit", f"--config={recipe}", *options],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        (run / "finished").touch()
    if not to.is_dir():
        export(run, to)
    return to


def run_name(experiment: Experiment, hops: int, seed: int) -> str:
    """What the folder of a run is called, and that of its bundle."""
    return f"{experiment.name}-k{hops}-s{seed}"


def test_rows(experiment: Experiment, run: str) -> list[Any]:
    """The rows that a run is measured on."""
    source = experiment.test or str(RUNS / run / "test.jsonl")
    return [row for _, row in read_rows(source, experiment.columns)]


def tf_idf(experiment: Experiment, seed: int) -> Measured:
    """What TF-IDF and logistic regression answer to the same rows as a run, having learned from the same."""
    run = run_name(experiment, 2, seed)
    pipeline = baseline.tf_idf(data_of(RUNS / run / "config.yaml"))
    texts = [row["text"] for row in test_rows(experiment, run)]
    trained = measure(experiment, 2, seed)
    return Measured(trained.task, [{"label": label} for label in pipeline.predict(texts)], trained.targets)


if __name__ == "__main__":
    main(sys.argv[1:])
