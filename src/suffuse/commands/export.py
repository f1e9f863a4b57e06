"""`suffuse export`: a run becomes a bundle."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

SUMMARY = "turn a run into a bundle: ONNX graphs, tokenizer, manifest"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("run", type=str, help="folder of a run, or one checkpoint")
    parser.add_argument("--to", type=str, default="", help="the bundle's folder (default: bundles/NAME)")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="add explain.onnx and attention.onnx, for `suffuse explain`; takes minutes, and as much room again",
    )


def run(settings: Namespace) -> None:
    """Run the command."""
    from rich.console import Console

    from suffuse.export import export

    run = Path(settings.run)
    console = Console(stderr=True, highlight=False)
    with console.status("exporting"):  # shown on a terminal only
        bundle = export(
            run, Path(settings.to or Path("bundles") / run.resolve().name), console.print, explain=settings.explain
        )
    sys.stdout.write(f"{bundle.path}\n")
