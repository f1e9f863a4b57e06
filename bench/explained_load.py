"""What explanations that are asked for without pause do to the predictions beside them, over HTTP.

The sentiment model, K=2, is served by one worker of one thread, and by two. Snippets come by chance (Poisson) at a
third of what the server can do, while a client asks for one explanation after the other, as soon as it was answered or
the Retry-After of the server has passed. In every round the load goes on once without explanations and once with those
of each method, in random order; ratios are taken within the round. All processes share two cores.

`make demo` must have run: it makes the run. An idle machine, 15 minutes.

    python bench/explained_load.py [--rounds 3]
"""

import argparse
import contextlib
import itertools
import json
import random
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from claims import ROOT, Claim, Goal, median_claim, write
from serving import on_free_ports
from suffuse import Client
from suffuse.autoscale.arrivals import poisson
from suffuse.errors import DeadlineError, OverloadError
from suffuse.export import export
from suffuse.load_test import LoadConfig, LoadResult, Target, Users, run_load
from suffuse.serving.archive import archive
from suffuse.serving.server import Server, ServerConfig
from traffic import snippets

COMMAND = "python bench/explained_load.py"
RUN = ROOT / "runs" / "sentiment"
MODEL = "sentiment"
WORKERS = (1, 2)
METHODS = ("gradient", "integrated")
ROUNDS = 3
SECONDS = 45.0
LOAD = 1 / 3
ROWS = 512
CLIENTS_AT_FULL_LOAD = 32
LARGEST_RATIO = 2.0
"""Of the 99th percentile with explanations to that without, with a worker that is left to predict."""


@dataclass(frozen=True)
class Served:
    """The model on a server, and what it is asked."""

    target: Target
    rows: Path
    texts: Sequence[str]

    def loaded(self, load: LoadConfig) -> LoadResult:
        """What came of a load.

        Raises:
            RuntimeError: a prediction failed.
        """
        result = run_load(load)
        if result.answered < len(result):
            raise RuntimeError(
                f"{len(result) - result.answered} of {len(result)} predictions failed: {result.examples}"
            )
        return result


@dataclass(frozen=True)
class Seen:
    """Of one load: the 99th percentile of predictions in seconds, and explanations a second."""

    p99_s: float
    explained_per_s: float


def main() -> None:
    """Serve with one worker and with two, measure, write the claims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    random.seed(0)
    texts = snippets(ROWS)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        bundle = export(RUN, folder / MODEL, lambda step: print(step, file=sys.stderr), explain=True).path
        archive(bundle, folder / "store")
        claims: list[Claim] = []
        for workers in WORKERS:
            with serving(folder, workers) as target:
                claims += compared(Served(target, rows, texts), workers, rounds)
    write("explained_load", claims)


@contextlib.contextmanager
def serving(folder: Path, workers: int) -> Iterator[Target]:
    """The model on so many workers of one thread."""
    config = ServerConfig(
        folder / "store",
        (MODEL,),
        workers=workers,
        threads=1,
        authorization=False,
        state=folder / f"state-{workers}",
    )
    with Server(on_free_ports(config)) as server:
        yield Target(server.url, MODEL)


def compared(served: Served, workers: int, rounds: int) -> Iterator[Claim]:
    """Send the same predictions alone and beside explanations, and yield the claims."""
    closed = LoadConfig(served.target, Users(CLIENTS_AT_FULL_LOAD, SECONDS / 3), served.rows)
    served.loaded(closed)  # warm
    rate_per_s = LOAD * served.loaded(closed).rate
    seen: dict[str, list[Seen]] = {method: [] for method in ("", *METHODS)}
    for number in range(rounds):
        for method in random.sample(list(seen), k=len(seen)):
            seen[method].append(measured(served, rate_per_s, number, method))
            print(f"{workers} workers, round {number}, {method or 'alone'}: {seen[method][-1]}", file=sys.stderr)
    where = f"{workers} worker{'s' if workers > 1 else ''} of one thread, {LOAD:.0%} load"
    alone_s = np.array([one.p99_s for one in seen[""]])
    yield median_claim(f"99th percentile of predictions without explanations: {where}", alone_s, "s", COMMAND)
    for method in METHODS:
        beside_s = np.array([one.p99_s for one in seen[method]])
        goal = Goal(LARGEST_RATIO, is_upper=True) if workers > 1 else None
        claim = f"99th percentile of predictions beside explanations ({method}) over that without: {where}"
        yield median_claim(claim, beside_s / alone_s, "ratio", COMMAND, goal)
        explained = [one.explained_per_s for one in seen[method]]
        yield median_claim(f"explanations a second ({method}) beside predictions: {where}", explained, "1/s", COMMAND)


def measured(served: Served, rate_per_s: float, seed: int, method: str) -> Seen:
    """One load, beside explanations by a method where one is named."""
    load = LoadConfig(served.target, poisson(rate_per_s, SECONDS, (1,), seed=seed), served.rows)
    with explaining(served, method) if method else contextlib.nullcontext({"explained": 0}) as count:
        result = served.loaded(load)
        explained = count["explained"]
    return Seen(float(np.quantile(result.latency_s, 0.99, method="higher")), explained / SECONDS)


@contextlib.contextmanager
def explaining(served: Served, method: str) -> Iterator[Mapping[str, int]]:
    """A client that asks for one explanation after the other, and how many it got."""
    count, over = {"explained": 0}, threading.Event()

    def ask() -> None:
        with Client(served.target.url, retries=1000) as client:
            for text in itertools.cycle(served.texts):
                if over.is_set():
                    return
                with contextlib.suppress(OverloadError, DeadlineError):
                    client.explain(MODEL, text, method=method)
                    count["explained"] += 1

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield count
        finally:
            over.set()
        asking.result()  # raises what ended it


if __name__ == "__main__":
    main()
