"""Claims: what a bench script measured, kept in bench/results/NAME.json and rendered as docs/claims.md.

python bench/claims.py
"""

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "claims.md"
RESAMPLES = 2000


@dataclass(frozen=True)
class Goal:
    """A bound to hold: ``at most`` or ``at least`` a value."""

    bound: float
    is_upper: bool

    def __str__(self) -> str:
        return f"{'<=' if self.is_upper else '>='} {self.bound:g}"

    def met_by(self, value: float) -> bool:
        """Whether a value keeps the bound."""
        return value <= self.bound if self.is_upper else value >= self.bound


@dataclass(frozen=True)
class Claim:
    """One row of the table: a value with its 95 % interval; without a goal it is reported and nothing more."""

    claim: str
    goal: str
    value: float
    low: float
    high: float
    unit: str
    met: bool
    command: str
    commit: str
    machine: str


def median_claim(claim: str, values: ArrayLike, unit: str, command: str, goal: Goal | None = None) -> Claim:
    """The median of repeated measurements, with a bootstrap interval.

    Args:
        claim: what was measured, against what.
        values: one a round, (R,).
        unit: of the values.
        command: which measures it again.
        goal: where there is one, the median has to meet it.
    """
    rounds = np.asarray(values, dtype=np.float64)
    resampled = np.random.default_rng(0).choice(rounds, size=(RESAMPLES, len(rounds)))
    return resampled_claim(claim, float(np.median(rounds)), np.median(resampled, axis=1), unit, command, goal)


def resampled_claim(
    claim: str, value: float, resampled: ArrayLike, unit: str, command: str, goal: Goal | None = None
) -> Claim:
    """A value with the interval of its bootstrap.

    Args:
        claim: what was measured, against what.
        value: as measured.
        resampled: the same of each resample.
        unit: of the value.
        command: which measures it again.
        goal: where there is one, the value has to meet it.
    """
    low, high = np.quantile(np.asarray(resampled, dtype=np.float64), [0.025, 0.975])
    return Claim(
        claim=claim,
        goal="reported" if goal is None else str(goal),
        value=round(value, 3),
        low=round(float(low), 3),
        high=round(float(high), 3),
        unit=unit,
        met=goal is None or goal.met_by(value),
        command=command,
        commit=commit(),
        machine=machine(),
    )


def write(name: str, claims: Sequence[Claim]) -> None:
    """Write claims to bench/results/NAME.json and to stdout."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps([asdict(claim) for claim in claims], indent=2) + "\n", "utf-8")
    for claim in claims:
        met = "" if claim.goal == "reported" else ("met" if claim.met else "NOT MET")
        print(f"{claim.value:.3f} [{claim.low:.3f}, {claim.high:.3f}] {claim.goal:>8} {met:>7}  {claim.claim}")


def earlier(name: str) -> dict[str, Claim]:
    """The claims in bench/results/NAME.json by their text, for a script that measures some of them anew."""
    path = RESULTS / f"{name}.json"
    rows = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return {row["claim"]: Claim(**row) for row in rows}


def commit() -> str:
    """The commit that was measured; "-dirty" where tracked files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def machine() -> str:
    """The processor and the libraries, and nothing that tells one host from another."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    cores = sum(line.startswith("processor") for line in lines)
    return f"{model}, {cores} cores, torch {version('torch')}, onnxruntime {version('onnxruntime')}"


def render() -> str:
    """The page of all claims, those that do not hold first."""
    claims = [Claim(**row) for path in sorted(RESULTS.glob("*.json")) for row in json.loads(path.read_text("utf-8"))]
    claims.sort(key=lambda claim: (claim.met, claim.goal == "reported"))
    rows = [
        f"| {_verdict(claim)} | {claim.claim} | {claim.goal} | {claim.value:g} ({claim.low:g} to {claim.high:g}) "
        f"| {claim.unit} | `{claim.command}` | {claim.commit} |"
        for claim in claims
    ]
    machines = "\n".join(f"- {name}" for name in sorted({claim.machine for claim in claims}))
    return "\n".join(
        [
            "# Claims",
            "",
            "Every figure was measured by the command beside it, with its rival in the same run; in brackets its 95 %",
            "interval. Claims that do not hold come first. Rendered by `make claims`; do not edit.",
            "",
            "| | claim | goal | value | unit | command | commit |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "Machines:",
            "",
            machines,
            "",
        ]
    )


def _verdict(claim: Claim) -> str:
    if claim.goal == "reported":
        return "-"
    return "met" if claim.met else "**not met**"


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}\n")
