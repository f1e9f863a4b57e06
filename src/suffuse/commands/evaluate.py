"""`suffuse evaluate`: how good a bundle is on rows with labels."""

import json
import sys

from jsonargparse import ArgumentParser, Namespace

SUMMARY = "measure a bundle on rows with labels"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("bundle", type=str, help="folder that export wrote")
    parser.add_argument("rows", type=str, help="a file of rows with their labels")
    parser.add_argument("--columns", type=dict[str, str], default={}, help="field -> column, as in a recipe")


def run(settings: Namespace) -> None:
    """Run the command."""
    from suffuse.runtime import load
    from suffuse.runtime.files import evaluate_file

    metrics = evaluate_file(load(settings.bundle), settings.rows, settings.columns)
    sys.stdout.write(json.dumps(metrics, indent=2) + "\n")
