"""What the server costs, and what it saves: served answers a second beside three rivals with the same weights.

- In process: the same bundle in ONNX Runtime with the same threads, handed as many rows at once as clients wait. It
  has no server, no JSON and no sockets, so it bounds what a server can reach.
- Padded: TorchServe with the same weights in eager PyTorch and batch size 1, in the shape of TorchServe's own
  Transformer example, which pads to 150 tokens (bench/eager_handler.py), with the same threads and TorchServe settings.
- Unpadded: the same, but without the padding. It is the harder rival: on a processor, what a batch saves over single
  rows is the cost of a call, not of its arithmetic.

16 and 64 clients in a closed loop send critics' snippets, up to 78 tokens. In every round each of the four runs once,
in random order, and the ratios are taken within the round. `make demo` must have run: it makes the weights.

    python bench/serving.py
"""

import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import suffuse
from claims import ROOT, Claim, Goal, median_claim, write
from suffuse.serving.server import Server, ServerConfig
from suffuse.training.fit import best_checkpoint
from traffic import Target, closed_loop, snippets

RUN = ROOT / "runs" / "sentiment"
BUNDLE = ROOT / "bundles" / "sentiment"
STORE = ROOT / "model_store"
COMMAND = "python bench/serving.py"
CLIENTS = (16, 64)
THREADS = (1, 2)
ROUNDS = 5
SECONDS = 8.0
TEXTS = 4000
PAD_TO = 150
PEERS = {
    "in process": ("ONNX Runtime in process", 0.85),
    "padded": (f"TorchServe with eager PyTorch, batch size 1, padded to {PAD_TO} as its example is", 4.0),
    "unpadded": ("TorchServe with eager PyTorch, batch size 1, unpadded", 4.0),
}
"""What each rival is, and the ratio to reach."""

Rate = Callable[[int], float]
"""Answers a second with so many clients."""


def main() -> None:
    """Measure with one thread and with two, write the claims."""
    random.seed(0)
    texts = snippets(TEXTS)
    claims: list[Claim] = []
    for threads in THREADS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
            rivals: dict[str, Rate] = {
                "served": served(stack, STORE, "sentiment", threads, texts),
                "padded": served(stack, eager_archive(Path(folder), "padded", PAD_TO), "padded", threads, texts),
                "unpadded": served(stack, eager_archive(Path(folder), "unpadded", 0), "unpadded", threads, texts),
                "in process": in_process(threads, texts),
            }
            for clients in CLIENTS:
                claims += compare(rivals, clients, threads)
    write("serving", claims)


def compare(rivals: dict[str, Rate], clients: int, threads: int) -> Iterator[Claim]:
    """Run all rivals `ROUNDS` times with so many clients and yield the claims."""
    rates: dict[str, list[float]] = {name: [] for name in rivals}
    for rate in rivals.values():
        rate(clients)  # warm
    for number in range(ROUNDS):
        for name in random.sample(list(rivals), k=len(rivals)):
            rates[name].append(rivals[name](clients))
        shown = ", ".join(f"{name} {values[-1]:.0f}/s" for name, values in rates.items())
        print(f"{threads} threads, {clients} clients, round {number}: {shown}", file=sys.stderr)
    where = f"{clients} clients, one worker of {threads} thread{'s' if threads > 1 else ''}"
    for rival, (peer, bound) in PEERS.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["served"], rates[rival], strict=True)]
        claim = f"answers a second, suffuse on TorchServe over {peer}: {where}"
        yield median_claim(claim, ratios, "ratio", COMMAND, Goal(bound, is_upper=False))
    yield median_claim(f"answers a second, suffuse on TorchServe: {where}", rates["served"], "1/s", COMMAND)


def served(
    stack: contextlib.ExitStack, store: Path, model: str, threads: int, texts: Sequence[str], seconds: float = SECONDS
) -> Rate:
    """A closed loop against a server of its own."""
    target = started(stack, store, model, threads)
    return lambda clients: closed_loop(target, texts, clients, seconds).rate


def started(stack: contextlib.ExitStack, store: Path, model: str, threads: int) -> Target:
    """Start a server with one worker; it stops with `stack`."""
    state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    server = stack.enter_context(
        Server(
            on_free_ports(
                ServerConfig(
                    store,
                    (f"{model}.mar",),
                    config=ROOT / "config.properties",
                    workers=1,
                    threads=threads,
                    state=state,
                )
            )
        )
    )
    key = json.loads(server.key_file.read_text("utf-8"))["inference"]["key"]
    return Target(server.url, model, key)


def in_process(threads: int, texts: Sequence[str]) -> Rate:
    """The bundle in this process."""
    predictor = suffuse.load(BUNDLE, threads)

    def rate(clients: int) -> float:
        answered, start_s = 0, time.monotonic()
        while time.monotonic() - start_s < SECONDS:
            place = answered % len(texts)
            answered += len(predictor(texts[place : place + clients]))
        return answered / (time.monotonic() - start_s)

    return rate


def eager_archive(folder: Path, name: str, pad_to: int) -> Path:
    """Pack the run's checkpoint with the eager handler; returns the model store."""
    config = folder / "model-config.yaml"
    config.write_text(f"minWorkers: 1\nmaxWorkers: 1\nbatchSize: 1\nmaxBatchDelay: 1\npadTo: {pad_to}\n", "utf-8")
    options = {
        "model-name": name,
        "version": "1.0",
        "handler": ROOT / "bench" / "eager_handler.py",
        "config-file": config,
        "extra-files": best_checkpoint(RUN),
        "export-path": folder,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "model_archiver.model_packaging", *arguments]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def on_free_ports(config: ServerConfig) -> ServerConfig:
    """The configuration with ports that nobody listens at now."""
    return config.at_ports(*free_ports(5))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [int(held.getsockname()[1]) for held in sockets]


if __name__ == "__main__":
    main()
