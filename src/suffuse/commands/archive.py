"""`suffuse archive`: a bundle becomes a .mar."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

SUMMARY = "pack a bundle for TorchServe"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("bundle", type=str, help="folder that export wrote")
    parser.add_argument("--to", type=str, default="model_store", help="folder of archives")
    parser.add_argument("--workers", type=int, default=1, help="workers that a server starts with")
    parser.add_argument("--batch-size", type=int, default=64, help="requests that a worker is handed at once, at most")
    parser.add_argument("--max-batch-delay", type=int, default=1, help="ms that a batch waits to fill, at most")
    parser.add_argument("--model-version", type=str, default="1.0", help="version that the server knows it by")


def run(settings: Namespace) -> None:
    """Run the command."""
    from suffuse.serving.archive import ArchiveSettings, archive

    chosen = ArchiveSettings(
        workers=settings.workers,
        batch_size=settings.batch_size,
        max_batch_delay_ms=settings.max_batch_delay,
        version=settings.model_version,
    )
    sys.stdout.write(f"{archive(Path(settings.bundle), Path(settings.to), chosen)}\n")
