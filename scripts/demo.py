"""The main job from end to end: real reviews in, a served model out, and a table of what each stage took.

    make demo

Stages whose result stands from an earlier run are skipped.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from baseline import tf_idf
from suffuse import Client
from suffuse.serving.process import marked_processes
from suffuse.serving.server import Server, ServerConfig
from suffuse.training import TextData
from suffuse.training.fit import data_of

ROOT = Path(__file__).resolve().parent.parent
RECIPE = Path("configs/sentiment.yaml")
RUN = Path("runs/sentiment")
BUNDLE = Path("bundles/sentiment")
ARCHIVE = Path("model_store/sentiment.mar")
INSTALLED = Path(".venv/demo")
TEXTS = (
    "A warm, funny film whose cast seems to be having the time of their lives.",
    "Two hours of explosions in search of a story.",
    "Nobody will call it a masterpiece, but I laughed from the first minute to the last.",
)


@dataclass
class Stages:
    """Runs stages and remembers what each took."""

    seconds: list[tuple[str, str]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start_s = time.monotonic()
        yield
        self.seconds.append((name, f"{time.monotonic() - start_s:.1f}"))

    def make(self, name: str, target: Path, sources: tuple[Path, ...], command: tuple[str, ...]) -> None:
        """Run a command of suffuse, unless its target stands and is newer than its sources."""
        if target.exists() and all(target.stat().st_mtime >= source.stat().st_mtime for source in sources):
            self.seconds.append((name, "stands"))
            return
        with self.stage(name):
            say(f"$ suffuse {' '.join(command)}")
            subprocess.run([sys.executable, "-m", "suffuse.cli", *command], check=True)


def main() -> None:
    """Run all stages and print the answers and the tables."""
    stages = Stages([("install", INSTALLED.read_text("utf-8").strip())] if INSTALLED.is_file() else [])
    trained, test_rows = RUN / "checkpoints" / "best.ckpt", RUN / "test.jsonl"
    stages.make("fit", trained, (RECIPE,), ("fit", "--config", str(RECIPE)))
    stages.make("export", BUNDLE / "suffuse.json", (trained,), ("export", str(RUN), "--to", str(BUNDLE)))
    stages.make("archive", ARCHIVE, (BUNDLE / "suffuse.json",), ("archive", str(BUNDLE), "--to", str(ARCHIVE.parent)))
    with stages.stage("evaluate"):
        ours = evaluate(test_rows)
    with stages.stage("baseline"):
        data = demo_data()
        held_back = [row for _, _, row in data.rows("test")]
        baseline = tf_idf(data).score([row["text"] for row in held_back], [row["label"] for row in held_back])
    serve_and_ask(stages)
    console = Console()
    console.print(scores(ours, baseline), durations(stages.seconds), sep="\n")


def evaluate(test_rows: Path) -> dict[str, float]:
    """Metrics of the bundle on the films that training never saw."""
    command = ("evaluate", str(BUNDLE), str(test_rows))
    say(f"$ suffuse {' '.join(command)}")
    done = subprocess.run(
        [sys.executable, "-m", "suffuse.cli", *command], check=True, stdout=subprocess.PIPE, text=True
    )
    metrics: dict[str, float] = json.loads(done.stdout)
    return metrics


def demo_data() -> TextData:
    """The rows of the recipe, split as training splits them."""
    return data_of(ROOT / RECIPE)


def serve_and_ask(stages: Stages) -> None:
    """Start TorchServe, ask over REST and over gRPC, stop it, and see that nothing of it is left."""
    server = Server(ServerConfig(ARCHIVE.parent, (ARCHIVE.name,)))
    say("$ suffuse serve sentiment.mar")
    try:
        with stages.stage("start server"):
            server.start()
        for name, url in (("ask over REST", server.url), ("ask over gRPC", server.grpc_url)):
            with stages.stage(name), Client(url, key_file=server.key_file) as client:
                answers = client.predict("sentiment", list(TEXTS))
            for text, answer in zip(TEXTS, answers, strict=True):
                say(f"{name.removeprefix('ask over ')}: {answer['label']} ({answer['score']:.2f})  {text}")
    finally:
        with stages.stage("stop server"):
            server.stop()
    left = marked_processes(server.state)
    if left:
        raise SystemExit(f"processes left behind: {left}")


def scores(ours: dict[str, float], baseline: float) -> Table:
    """The model beside the baseline, on the same rows."""
    table = Table("held-back films", "accuracy", title=f"{ours['rows']:.0f} snippets about films not trained on")
    table.add_row("MiniLM, 2-hop diffusion attention", f"{ours['accuracy']:.3f}")
    table.add_row("TF-IDF + logistic regression", f"{baseline:.3f}")
    return table


def durations(seconds: list[tuple[str, str]]) -> Table:
    """What each stage took."""
    table = Table("stage", "seconds")
    for name, took in seconds:
        table.add_row(name, took)
    return table


say: Callable[[str], None] = Console(stderr=True, highlight=False, soft_wrap=True).print


if __name__ == "__main__":
    main()
