"""Whether a server answers as the bundle does offline: 500 real rows a task, over REST and over gRPC.

All that is not a score must be the same, and scores may differ by 1e-4 at most. The bundles are those that
bench/quality.py has left; claims about others stay as they are.

    python bench/served.py
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import suffuse
from claims import Claim, Goal, earlier, resampled_claim, write
from quality import BUNDLES, EXPERIMENTS, Experiment, test_rows
from suffuse.serving.archive import archive
from suffuse.serving.server import Server, ServerConfig

COMMAND = "python bench/served.py"
ROWS = 500
AT_ONCE = 50
LARGEST = 1e-4


def main() -> None:
    """Serve all bundles that there are, ask, compare, write the claims."""
    experiments = {
        f"{experiment.name}-k2-s1": experiment
        for experiment in EXPERIMENTS
        if (BUNDLES / f"{experiment.name}-k2-s1").is_dir()
    }
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        store.mkdir()
        for name in experiments:
            archive(BUNDLES / name, store)
        with Server(ServerConfig(store, workers=1, threads=1, state=Path(folder) / "state")) as server:
            claims = [claim for name, experiment in experiments.items() for claim in compared(name, experiment, server)]
    write("served", list((earlier("served") | {claim.claim: claim for claim in claims}).values()))


def compared(name: str, experiment: Experiment, server: Server) -> Iterator[Claim]:
    """For each protocol, how many of the answers are the same."""
    model = suffuse.load(BUNDLES / name, threads=1)
    wanted = {field for field in model.task.columns if field != model.task.target_field.name}
    rows = [{key: value for key, value in row.items() if key in wanted} for row in test_rows(experiment, name)[:ROWS]]
    offline = list(model(rows))
    for protocol, url in (("REST", server.url), ("gRPC", server.grpc_url)):
        with suffuse.Client(url, key_file=server.key_file, timeout_s=300) as client:
            served = [
                answer
                for start in range(0, len(rows), AT_ONCE)
                for answer in client.predict(name, rows[start : start + AT_ONCE])
            ]
        same = np.array([is_same(one, other) for one, other in zip(served, offline, strict=True)], dtype=np.float64)
        text = f"answers over {protocol} that equal those offline, {experiment.what}, {len(rows)} rows"
        share = float(same.mean())
        yield resampled_claim(text, share, [share], "share of rows", COMMAND, Goal(1.0, is_upper=False))


def is_same(one: Any, other: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether two answers are equal but for scores that differ by little."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= LARGEST
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


if __name__ == "__main__":
    main()
