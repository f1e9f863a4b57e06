"""`suffuse predict`: answers for texts, or for a file of rows."""

import json
import sys
from contextlib import suppress
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from suffuse.errors import InputError

SUMMARY = "answer texts, or a file of rows of any size"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("bundle", type=str, help="folder that export wrote")
    parser.add_argument("texts", nargs="*", type=str, help="texts to answer, or rows as JSON objects")
    parser.add_argument("--input", type=str, default="", help="a file of rows, streamed")
    parser.add_argument("--output", type=str, default="", help="JSON lines, one answer a row (default: stdout)")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime (default: all cores)")


def run(settings: Namespace) -> None:
    """Run the command."""
    from suffuse.runtime import load
    from suffuse.runtime.files import predict_file

    if bool(settings.texts) == bool(settings.input):
        raise InputError("predict takes either texts or --input FILE; got " + ("both" if settings.input else "neither"))
    predictor = load(settings.bundle, settings.threads or None)
    if settings.input:
        summary = predict_file(predictor, settings.input, Path(settings.output) if settings.output else None)
        sys.stderr.write(summary + "\n")
        return
    answers = predictor([row_of(text) for text in settings.texts])
    for answer in answers:
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    if any("error" in answer for answer in answers):
        raise InputError("some texts could not be answered; each error stands in its line")


def row_of(text: str) -> str | dict[str, object]:
    """A row that was given as a JSON object, or the text as it is."""
    if text.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            row: dict[str, object] = json.loads(text)
            return row
    return text
