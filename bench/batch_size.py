"""What the archive's batch size and delay are chosen by: answers a second under other settings, over the default ones.

The same bundle is served by one TorchServe for each setting, with one worker of two threads. 1, 16 and 64 clients in a
closed loop send critics' snippets. Every round runs every setting once, in random order, and the ratios are taken
within the round. `make demo` must have run: it makes the bundle.

    python bench/batch_size.py
"""

import contextlib
import random
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from claims import Claim, median_claim, write
from serving import BUNDLE, Rate, served
from suffuse.serving.archive import MODEL_CONFIG, ArchiveSettings, archive
from traffic import snippets

DEFAULT = ArchiveSettings()
OTHERS = (
    ArchiveSettings(batch_size=16),
    ArchiveSettings(max_batch_delay_ms=0),
    ArchiveSettings(max_batch_delay_ms=2),
    ArchiveSettings(max_batch_delay_ms=5),
)
CLIENTS = (1, 16, 64)
THREADS = 2
ROUNDS = 4
SECONDS = 3.0
TEXTS = 4000


def main() -> None:
    """Measure, write the claims."""
    random.seed(0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        texts = snippets(TEXTS)
        rates = {
            settings: served(stack, packed(folder / str(number), settings), BUNDLE.name, THREADS, texts, SECONDS)
            for number, settings in enumerate((DEFAULT, *OTHERS))
        }
        claims = [claim for clients in CLIENTS for claim in compare(rates, clients)]
    write("batch_size", claims)


def packed(store: Path, settings: ArchiveSettings) -> Path:
    """A model store with the bundle's archive, told of `settings`, also of those that `archive` refuses."""
    path = archive(BUNDLE, store)
    with zipfile.ZipFile(path) as members:
        content = {name: members.read(name) for name in members.namelist()}
    content[MODEL_CONFIG] = settings.model_config().encode("utf-8")
    with zipfile.ZipFile(path, "w") as members:
        for name, member in content.items():
            members.writestr(name, member)
    return store


def compare(rates: dict[ArchiveSettings, Rate], clients: int) -> Iterator[Claim]:
    """Run all settings `ROUNDS` times with so many clients and yield the claims."""
    measured: dict[ArchiveSettings, list[float]] = {settings: [] for settings in rates}
    for number in range(ROUNDS):
        for settings in random.sample(list(rates), k=len(rates)):
            measured[settings].append(rates[settings](clients))
        shown = ", ".join(f"{values[-1]:.0f}/s" for values in measured.values())
        print(f"{clients} clients, round {number}: {shown}", file=sys.stderr)
    for settings in OTHERS:
        yield median_claim(
            f"answers a second with {named(settings)} over {named(DEFAULT)}: {clients} clients",
            [ours / theirs for ours, theirs in zip(measured[settings], measured[DEFAULT], strict=True)],
            unit="ratio",
            command="python bench/batch_size.py",
        )


def named(settings: ArchiveSettings) -> str:
    """Settings in words."""
    return f"batch size {settings.batch_size}, delay {settings.max_batch_delay_ms} ms"


if __name__ == "__main__":
    main()
