"""Whether a request is lost when something happens to a stack of two instances behind the balancer.

A steady load over REST and gRPC goes to the balancer's one port, with the token. No request is sent again by its
client, every answer is checked, and a refusal counts as a failure. The model takes 10 ms a request and no processor.

    python bench/faults.py [EVENT ...]

With events named, those alone happen, and no claims are written. The exit status is 1 if a request failed that should
not have. Filling the disk of the logs needs root, to mount a small file system.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from claims import Claim, Goal, write
from fault_events import EVENTS, LIMIT_S, MODEL, SERVICE_MS, Event, Site
from slow_handler import slow_archive
from steady_load import during, load_on, lost_claim, p99_claim, write_rows
from suffuse.balancing.stack import Stack, StackConfig
from suffuse.load_test import LoadResult
from suffuse.serving.settings import ServerConfig

COMMAND = "python bench/faults.py"
RATE_PER_S = 30.0
"""Of the 100 a second that one instance can take, so that either may be missing."""

PORT = 26080
DISK_MB = 64


@dataclass(frozen=True)
class Outcome:
    """What came of an event; `skipped` is why it did not happen."""

    event: Event
    load: LoadResult | None
    seconds: float = 0.0
    skipped: str = ""

    @property
    def lost(self) -> int:
        """Requests without a right answer."""
        return 0 if self.load is None else len(self.load) - self.load.answered

    @property
    def kept(self) -> bool:
        """Whether it lost no more than it may."""
        return not (self.event.loses_none and self.lost)


def main(words: Sequence[str]) -> int:
    """Have all events happen, or those named; print the table, write the claims."""
    unknown = set(words) - {event.word for event in EVENTS}
    if unknown:
        sys.stderr.write(f"no such event: {', '.join(unknown)}; there are: {', '.join(e.word for e in EVENTS)}\n")
        return 2
    events = [event for event in EVENTS if not words or event.word in words]
    print("| event | requests | failed | p99 |\n| --- | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, site(Path(folder)) as place:
        outcomes = [happened(event, place) for event in events]
    if not words:
        write("faults", [claim for outcome in outcomes for claim in claims(outcome)])
    return 0 if all(outcome.kept for outcome in outcomes) else 1


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Site]:
    """A stack of two instances, with its state on a disk of its own where that can be."""
    state, store = folder / "state", folder / "store"
    slow_archive(store, MODEL, service_ms=SERVICE_MS, batch_size=4)
    with contextlib.ExitStack() as resources:
        small_disk = resources.enter_context(_small_disk(state))
        config = StackConfig(ServerConfig(store), port=PORT, metrics_port=PORT + 2, most_workers=4, state=state)
        yield Site(resources.enter_context(Stack(config)), folder, small_disk)


def happened(event: Event, place: Site) -> Outcome:
    """Have an event happen under load; print its row."""
    if event.needs_small_disk and not place.small_disk:
        outcome = Outcome(event, None, skipped="only root can mount a small file system")
    else:
        load = load_on(place.stack.record, write_rows(place.folder, event.text_bytes), RATE_PER_S, 2 * LIMIT_S)
        start_s = time.monotonic()
        result = during(load, lambda: event.happen(place))
        outcome = Outcome(event, result, time.monotonic() - start_s)
    print(_row(outcome), flush=True)
    return outcome


def claims(outcome: Outcome) -> Iterator[Claim]:
    """How many requests failed, and the p99 of the others."""
    load, event = outcome.load, outcome.event
    if load is None:
        return
    goal = Goal(0, is_upper=True) if event.loses_none else None
    yield lost_claim(f"failed requests during: {event.name}", outcome.lost, load, COMMAND, goal)
    yield p99_claim(f"p99 of requests during: {event.name}", load.latency_s[load.outcome == "ok"], COMMAND)


def _row(outcome: Outcome) -> str:
    load, event = outcome.load, outcome.event
    if load is None:
        return f"| {event.name} | - | not done: {outcome.skipped} | - |"
    for kind, messages in load.examples.items():
        print(f"{event.word}: {kind}: {'; '.join(messages)}", file=sys.stderr)
    if fault := load.generator_fault(1.0):
        print(f"{event.word}: {fault}", file=sys.stderr)
    kinds = ", ".join(f"{count} {kind}" for kind, count in load.failures.items())
    failed = f"{outcome.lost} ({kinds})" if kinds else "0"
    print(f"{event.word}: {outcome.seconds:.0f} s", file=sys.stderr)
    return f"| {event.name} | {len(load)} | {failed} | {load.percentile(99) * 1000:.0f} ms |"


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """A file system of `DISK_MB` at a new folder; yields whether it could be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
