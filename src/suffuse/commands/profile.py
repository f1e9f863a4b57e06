"""`suffuse profile`: how long a worker takes for a bundle's batches, for `suffuse plan` to simulate."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

SUMMARY = "measure how long a worker takes for a bundle's batches, for plan (on an idle machine)"


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bundle", type=str, help="folder that export wrote")
    parser.add_argument("--rows", type=str, default="", help="a file of rows like those served (default: made up)")
    parser.add_argument("--threads", type=int, default=1, help="of a worker")
    parser.add_argument("--output", type=str, default="", help="JSON (default: stdout)")


def run(settings: Namespace) -> None:
    """Measure, and write the profile.

    Raises:
        InputError: the bundle, the rows or a number cannot be used.
    """
    from rich.console import Console

    from suffuse.autoscale.profile import measure

    console = Console(stderr=True, highlight=False)
    with console.status("profiling") as status:  # shown on a terminal only
        profile = measure(settings.bundle, settings.rows, threads=settings.threads, note=status.update)
    longest = max(profile.lengths)
    console.print(
        f"one request of {longest} tokens: {profile.service.seconds([longest]) * 1000:.1f} ms; "
        f"the model's error over {len(profile.measurements)} batches: {profile.error:.1%} in the median",
        soft_wrap=True,
    )
    if not settings.output:
        sys.stdout.write(profile.dump() + "\n")
        return
    output = Path(settings.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(profile.dump() + "\n", "utf-8")
    sys.stdout.write(f"{output}\n")
