"""`suffuse profile`: how long a worker takes for a bundle's batches, for `suffuse plan` to simulate."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "measure how long a worker takes for a bundle's batches, for plan (on an idle machine)"


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bundle", type=str, help="folder that export wrote")
    parser.add_argument("--rows", type=str, default="", help="a file of rows like those served (default: made up)")
    parser.add_argument("--threads", type=int, default=1, help="of a worker")
    parser.add_argument("--output", type=str, default="", help="JSON (default: stdout)")
    parser.add_argument(
        "--card", action="store_true", help="instead measure one row by its length, and put that into the bundle's card"
    )


def run(settings: Namespace) -> None:
    """Measure, and write the profile or the card.

    Raises:
        InputError: the bundle, the rows or a number cannot be used.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if settings.card:
        _check_alone(settings)
        _write_card(settings.bundle, console)
    else:
        _write_profile(settings, console)


def _check_alone(settings: Namespace) -> None:
    """Refuse options that the card has no use for."""
    from suffuse.errors import InputError

    if settings.rows or settings.output or settings.threads != 1:
        raise InputError(
            "--card is given beside --rows, --output or --threads; expected it alone: the card's latency is that of "
            "made-up rows on one thread, and goes into the bundle"
        )


def _write_card(path: str, console: "Console") -> None:
    from dataclasses import asdict

    from suffuse.autoscale.latency import latency_by_length, machine
    from suffuse.bundle import CARD, amend

    with console.status("measuring") as status:
        measured = latency_by_length(path, note=status.update)
    for one in measured:
        console.print(f"{one.tokens:>5} tokens: p50 {one.p50_ms:.2f} ms, p99 {one.p99_ms:.2f} ms")
    bundle = amend(path, latency=[asdict(one) for one in measured], latency_machine=machine())
    sys.stdout.write(f"{bundle.path / CARD}\n")


def _write_profile(settings: Namespace, console: "Console") -> None:
    from suffuse.autoscale.profile import measure

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
