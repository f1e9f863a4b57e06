"""The command line; each command is a file of `commands`, and each half is imported only when its command runs."""

import os
import sys
from collections.abc import Sequence
from types import ModuleType

from jsonargparse import ArgumentParser

from suffuse import __version__
from suffuse.commands import (
    archive,
    autoscale,
    evaluate,
    explain,
    export,
    load_test,
    plan,
    playground,
    predict,
    profile,
    rollout,
    serve,
)
from suffuse.errors import InputError, SuffuseError

EPILOG = "Results go to stdout, progress to stderr; exit 2: bad input, 1: failure. Help on one command: COMMAND --help"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: by default those of the process.

    Returns:
        The exit status: 0, 2 for bad input, 1 for a failure; the reason is one line on stderr.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(arguments)
        sys.stdout.flush()
    except InputError as error:
        return _complain(error, 2)
    except ModuleNotFoundError as error:
        return _complain(f"{error}; install what this command needs: {_extra(arguments)}", 1)
    except BrokenPipeError:  # whoever read our results, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (SuffuseError, OSError) as error:  # the latter: a full disk, a folder that may not be written
        return _complain(error, 1)
    except KeyboardInterrupt:
        return 130
    return 0


def _run(arguments: list[str]) -> None:
    if arguments[:1] == ["fit"]:  # LightningCLI has its own parser
        _fit(arguments[1:])
        return
    settings = _parser().parse_args(arguments)
    _COMMANDS[settings.command].run(settings[settings.command])


def _complain(reason: object, status: int) -> int:
    sys.stderr.write(f"suffuse: {' '.join(str(reason).split())}\n")
    return status


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="suffuse", description="Labelled text in, a served language model out.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"suffuse {__version__}")
    subcommands = parser.add_subcommands(dest="command")
    subcommands.add_subcommand("fit", ArgumentParser(), help="train as a recipe says: fit --config configs/NAME.yaml")
    for name, command in _COMMANDS.items():
        its_parser = ArgumentParser(description=command.SUMMARY)
        command.add_arguments(its_parser)
        subcommands.add_subcommand(name, its_parser, help=command.SUMMARY)
    return parser


def _fit(arguments: Sequence[str]) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    from suffuse.training.fit import fit

    run = fit(arguments)
    rank_zero_only(sys.stdout.write)(f"{run}\n")


def _extra(arguments: Sequence[str]) -> str:
    extra = _EXTRAS.get(next(iter(arguments), ""))
    return f"pip install 'suffuse[{extra}]'" if extra else "pip install suffuse"


_COMMANDS: dict[str, ModuleType] = {
    "export": export,
    "archive": archive,
    "serve": serve,
    "rollout": rollout,
    "predict": predict,
    "evaluate": evaluate,
    "explain": explain,
    "playground": playground,
    "profile": profile,
    "plan": plan,
    "autoscale": autoscale,
    "load-test": load_test,
}
_EXTRAS = {
    "fit": "train",
    "export": "train",
    "archive": "serve",
    "serve": "serve",
    "rollout": "serve",
    "plan": "plots",
    "playground": "playground",
    "autoscale": "serve",
    "load-test": "load",
}


if __name__ == "__main__":
    sys.exit(main())
