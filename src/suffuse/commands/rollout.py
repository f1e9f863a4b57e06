"""`suffuse rollout`: another version of a model, on every server, or not at all."""

import json
import sys
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from suffuse.errors import InputError

if TYPE_CHECKING:
    from suffuse.balancing.fleet import Fleet

SUMMARY = "bring a new version of a model into service, or roll it back"

MOST_ROWS = 1000


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("model", type=str, help="the model's name")
    parser.add_argument("archive", type=str, help="the new version's .mar, outside the model store")
    parser.add_argument("--stack", type=str, default="", help="state folder of the `suffuse serve` that runs the model")
    parser.add_argument("--server", type=str, nargs="+", default=[], help="instead: addresses of management ports")
    parser.add_argument("--model-store", type=str, default="", help="with --server: the folder they load from")
    parser.add_argument("--key-file", type=str, nargs="+", default=[], help="with --server: their key_file.json")
    parser.add_argument("--rows", type=str, default="", help="a file of rows that both versions are asked first")
    parser.add_argument("--canary", type=float, default=0.1, help="share of the traffic for the new version at first")
    parser.add_argument("--canary-seconds", type=float, default=30.0, help="how long it is watched; 0: not at all")
    parser.add_argument("--max-errors", type=float, default=0.01, help="share of requests that fail, beyond the old's")
    parser.add_argument("--max-latency", type=float, default=2.0, help="as a multiple of the old version's")
    parser.add_argument("--max-disagreement", type=float, default=0.1, help="share of rows answered otherwise")
    parser.add_argument("--ready-seconds", type=float, default=180.0, help="for the workers of a server to load it")
    parser.add_argument("--drain-seconds", type=float, default=0.5, help="longer than a batch takes")


def run(settings: Namespace) -> None:
    """Run the command; a JSON object goes to stdout, a line for each step to stderr.

    Raises:
        InputError: an option, the archive or the rows cannot be used.
        ServerError: a server is not fit, or the new version was rolled back.
    """
    from suffuse.balancing.canary import Limits
    from suffuse.balancing.model_store import ModelStore
    from suffuse.balancing.rollout import Interruption, Rollout, RolloutSettings
    from suffuse.unix_signals import on_signals

    limits = Limits(settings.max_errors, settings.max_latency, settings.max_disagreement)
    chosen = RolloutSettings(
        limits, settings.canary, settings.canary_seconds, settings.drain_seconds, settings.ready_seconds
    )
    rows = _rows(settings.rows)
    interruption = Interruption()
    with ExitStack() as resources:
        fleet = _fleet(settings, resources)
        store = ModelStore(fleet.model_store, settings.model)
        rollout = Rollout(fleet, store, chosen, rows=rows, tell=_tell, interruption=interruption)
        with on_signals(interruption.wish):
            summary = rollout.run(Path(settings.archive))
    sys.stdout.write(json.dumps(summary) + "\n")


def _fleet(settings: Namespace, resources: ExitStack) -> "Fleet":
    from suffuse.balancing.fleet import fleet_of_state, fleet_of_urls

    if bool(settings.stack) == bool(settings.server):
        raise InputError(
            "rollout takes either --stack FOLDER or --server URL; got " + ("both" if settings.stack else "neither")
        )
    if settings.stack:
        return fleet_of_state(Path(settings.stack), settings.model, resources)
    if not settings.model_store:
        raise InputError("rollout --server needs --model-store FOLDER, the one that the servers load from")
    key_files = [Path(file) for file in settings.key_file]
    return fleet_of_urls(settings.server, key_files, Path(settings.model_store), settings.model, resources)


def _rows(source: str) -> list[Any]:
    from suffuse.rows import read_rows

    return [dict(row) for _, row in islice(read_rows(source), MOST_ROWS)] if source else []


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
