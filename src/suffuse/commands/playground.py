"""`suffuse playground`: a page to try models on."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

SUMMARY = "a page to try models on: answers, explanations, two models side by side, a server's workers"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("models", nargs="+", type=str, help="bundles, URLs of servers, or URL/predictions/NAME")
    parser.add_argument("--management", type=str, default="", help="management address of the server, to watch it")
    parser.add_argument("--key-file", type=str, default="", help="the server's key_file.json, or a stack's token")
    parser.add_argument("--examples", type=str, default="", help="a file of rows to pick from (default: a few of ours)")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=7860, help="the same")


def run(settings: Namespace) -> None:
    """Run the command."""
    from suffuse.playground.run import Settings
    from suffuse.playground.run import run as run_playground

    run_playground(
        Settings(
            tuple(settings.models),
            settings.management,
            Path(settings.key_file) if settings.key_file else None,
            settings.examples,
            settings.host,
            settings.port,
        )
    )
