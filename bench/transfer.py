"""What of a pretrained model has to be trained: the head alone, adapters, all of it, or all of it from scratch.

The recipe for TREC-6 with the same rows and seed and four epochs; each way has the best of the rates in `WAYS` on the
validation rows, since what suits one is wrong for another. Seconds are those of `suffuse fit`, its start and the first
encoding included, on this machine.

    python bench/transfer.py
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from claims import ROOT, Claim, resampled_claim, write
from quality import Experiment, Measured, asked
from suffuse.export import export
from suffuse.training.checkpoint import read_checkpoint

COMMAND = "python bench/transfer.py"
RUNS = ROOT / "runs" / "transfer"
RESAMPLES = 500
EPOCHS = 4


@dataclass(frozen=True)
class Way:
    """A way to use a pretrained model.

    Args:
        what: for people.
        options: of the command line.
        rates: learning rates to choose from.
    """

    what: str
    options: tuple[str, ...]
    rates: tuple[float, ...]


WAYS = {
    "frozen": Way("the head alone", ("--model.transfer.freeze=-1", "--model.num_hops=1"), (3e-3, 1e-2)),
    "lora": Way("adapters of rank 8 (LoRA)", ("--model.transfer.lora.rank=8",), (1e-3, 3e-3)),
    "full": Way("all", (), (1e-4, 2e-4)),
    "scratch": Way("all, from random weights", ("--model.transfer.pretrained=false",), (2e-4, 5e-4)),
}


def main() -> None:
    """Train what is not trained yet, measure, write the claims."""
    write("transfer", [claim for name, way in WAYS.items() for claim in claims(name, way)])


def claims(name: str, way: Way) -> list[Claim]:
    """Accuracy on the rows held back, seconds, and the share of parameters that was trained."""
    run = max((trained(name, way, rate) for rate in way.rates), key=validated)
    to = ROOT / "bundles" / "transfer" / run.name
    if not to.is_dir():
        export(run, to)
    measured = asked(Experiment(run.name, "", "accuracy", 0, test=str(run / "test.jsonl")), to)
    noted = json.loads((run / "noted.json").read_text("utf-8"))
    what = f"TREC-6, trained: {way.what} ({noted['trained']:,} of {noted['parameters']:,} parameters)"
    return [
        _accuracy(f"{what}, accuracy on {len(measured.answers)} held-back questions", measured),
        resampled_claim(f"{what}, seconds of suffuse fit", noted["seconds"], [noted["seconds"]], "s", COMMAND),
    ]


def trained(name: str, way: Way, rate: float) -> Path:
    """The folder of a run, trained where there is none."""
    run = RUNS / f"{name}-{rate:g}"
    if not (run / "noted.json").is_file():
        options = [
            *way.options,
            f"--trainer.max_epochs={EPOCHS}",
            f"--model.optimization.learning_rate={rate:g}",
            f"--run={run}",
        ]
        start_s = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "suffuse.cli", "fit", "--config=configs/trec6.yaml", *options],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        noted = {"seconds": time.perf_counter() - start_s, **counted(run)}
        (run / "noted.json").write_text(json.dumps(noted), "utf-8")
    return run


def counted(run: Path) -> dict[str, int]:
    """Parameters of a run's network, and how many of them its optimizer holds."""
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    moments = checkpoint["optimizer_states"][0]["state"].values()
    return {
        "trained": sum(state["exp_avg"].numel() for state in moments),
        "parameters": sum(weight.numel() for weight in checkpoint["state_dict"].values()),
    }


def validated(run: Path) -> float:
    """The best score on the validation rows."""
    checkpoint = read_checkpoint(run / "checkpoints" / "best.ckpt")
    score: float = checkpoint["suffuse"]["metrics"]["accuracy"]
    return score


def _accuracy(text: str, measured: Measured) -> Claim:
    draw = np.random.default_rng(0)
    count = len(measured.answers)
    resampled = [measured.metric("accuracy", draw.integers(count, size=count)) for _ in range(RESAMPLES)]
    return resampled_claim(text, measured.metric("accuracy"), resampled, "accuracy", COMMAND)


if __name__ == "__main__":
    main()
