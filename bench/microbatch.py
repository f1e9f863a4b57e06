"""How many padded tokens to compute at once: the sizes that the runtime could cut to, over what is usually done.

Usual is padding 16 rows at a time in the order they came. Each size sorts all 128 rows by length, as the runtime does
with a file, and cuts. Every round runs every way once, in random order, on one thread, in processor time. `make demo`
must have run: it makes the bundle.

    python bench/microbatch.py
"""

import random
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from claims import ROOT, Goal, median_claim, write
from suffuse.batching import chunked, collate, token_batches
from suffuse.bundle import Bundle
from suffuse.runtime import Session
from suffuse.runtime.predictor import MICRO_BATCH_TOKENS
from suffuse.tasks import Window
from traffic import snippets_and_plots

SIZES = (128, 256, 512, 1024, 2048, 4096)
USUAL_ROWS = 16
ROWS = 128
ROUNDS = 9

Way = Callable[[], None]


def main() -> None:
    """Time every size against the usual way, write the claims."""
    random.seed(0)
    bundle = Bundle.open(ROOT / "bundles" / "sentiment")
    session, tokens = Session(bundle, threads=1), bundle.tokens()
    windows = bundle.task().encode([{"text": text} for text in snippets_and_plots(ROWS)], tokens)
    lengths = [len(window) for window in windows]

    def way(batches: Sequence[Sequence[int]]) -> Way:
        parts: list[list[Window]] = [[windows[index] for index in batch] for batch in batches]
        inputs = [collate([window.inputs for window in part], tokens.pad_token_id) for part in parts]

        def run() -> None:
            for arrays in inputs:
                session.run("predict", arrays)

        return run

    usual = "usual"
    ways = {usual: way(list(chunked(range(ROWS), USUAL_ROWS)))}
    ways |= {str(size): way(token_batches(lengths, size)) for size in SIZES}
    seconds = time_ways(ways)
    claims = [
        median_claim(
            f"speed of micro-batches of {size} padded tokens, sorted by length, over {USUAL_ROWS} rows as they came",
            np.divide(seconds[usual], seconds[str(size)]),
            unit="ratio of processor time",
            command="python bench/microbatch.py",
            goal=Goal(1.5, is_upper=False) if size == MICRO_BATCH_TOKENS else None,
        )
        for size in SIZES
    ]
    write("microbatch", claims)


def time_ways(ways: dict[str, Way]) -> dict[str, list[float]]:
    """Processor seconds of every way in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        print(f"round {number}", file=sys.stderr)
        for name in random.sample(list(ways), k=len(ways)):
            start_s = time.process_time()
            ways[name]()
            seconds[name].append(time.process_time() - start_s)
    return seconds


if __name__ == "__main__":
    main()
