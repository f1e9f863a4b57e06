"""The command line: one small function a command; each half is imported only when its command runs."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from suffuse import __version__
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
    parser, commands = _parser()
    settings = parser.parse_args(arguments)
    commands[settings.command](settings[settings.command])


def _complain(reason: object, status: int) -> int:
    sys.stderr.write(f"suffuse: {' '.join(str(reason).split())}\n")
    return status


def _parser() -> tuple[ArgumentParser, dict[str, Callable[[Namespace], None]]]:
    parser = ArgumentParser(prog="suffuse", description="Labelled text in, a served language model out.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"suffuse {__version__}")
    subcommands = parser.add_subcommands(dest="command")
    commands: dict[str, Callable[[Namespace], None]] = {"fit": lambda _: None}
    subcommands.add_subcommand("fit", ArgumentParser(), help="train as a recipe says: fit --config configs/NAME.yaml")
    for name, (add_arguments, run, summary) in _COMMANDS.items():
        command = ArgumentParser(description=summary)
        add_arguments(command)
        subcommands.add_subcommand(name, command, help=summary)
        commands[name] = run
    return parser, commands


def _fit(arguments: Sequence[str]) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    from suffuse.training.fit import fit

    rank_zero_only(_result)(fit(arguments))


def _export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="folder of a run, or one checkpoint")
    parser.add_argument("--to", type=str, default="", help="the bundle's folder (default: bundles/NAME)")


def _export(settings: Namespace) -> None:
    from rich.console import Console

    from suffuse.export import export

    run = Path(settings.run)
    console = Console(stderr=True, highlight=False)
    with console.status("exporting"):  # shown on a terminal only
        bundle = export(run, Path(settings.to or Path("bundles") / run.resolve().name), console.print)
    _result(bundle.path)


def _archive_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=str, help="folder that export wrote")
    parser.add_argument("--to", type=str, default="model_store", help="folder of archives")
    parser.add_argument("--workers", type=int, default=1, help="workers that a server starts with")
    parser.add_argument("--batch-size", type=int, default=64, help="requests that a worker is handed at once, at most")
    parser.add_argument("--max-batch-delay", type=int, default=1, help="ms that a batch waits to fill, at most")
    parser.add_argument("--model-version", type=str, default="1.0", help="version that the server knows it by")


def _archive(settings: Namespace) -> None:
    from suffuse.serving.archive import ArchiveSettings, archive

    chosen = ArchiveSettings(
        workers=settings.workers,
        batch_size=settings.batch_size,
        max_batch_delay_ms=settings.max_batch_delay,
        version=settings.model_version,
    )
    _result(archive(Path(settings.bundle), Path(settings.to), chosen))


def _predict_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=str, help="folder that export wrote")
    parser.add_argument("texts", nargs="*", type=str, help="texts to answer, or rows as JSON objects")
    parser.add_argument("--input", type=str, default="", help="a file of rows, streamed")
    parser.add_argument("--output", type=str, default="", help="JSON lines, one answer a row (default: stdout)")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime (default: all cores)")


def _predict(settings: Namespace) -> None:
    from suffuse.runtime import load
    from suffuse.runtime.files import predict_file

    if bool(settings.texts) == bool(settings.input):
        raise InputError("predict takes either texts or --input FILE; got " + ("both" if settings.input else "neither"))
    predictor = load(settings.bundle, settings.threads or None)
    if settings.input:
        summary = predict_file(predictor, settings.input, Path(settings.output) if settings.output else None)
        sys.stderr.write(summary + "\n")
        return
    answers = predictor([_row(text) for text in settings.texts])
    for answer in answers:
        _result(json.dumps(answer, ensure_ascii=False))
    if any("error" in answer for answer in answers):
        raise InputError("some texts could not be answered; each error stands in its line")


def _row(text: str) -> str | dict[str, object]:
    """A row that was given as a JSON object, or the text as it is."""
    if text.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            row: dict[str, object] = json.loads(text)
            return row
    return text


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=str, help="folder that export wrote")
    parser.add_argument("rows", type=str, help="a file of rows with their labels")
    parser.add_argument("--columns", type=dict[str, str], default={}, help="field -> column, as in a recipe")


def _evaluate(settings: Namespace) -> None:
    from suffuse.runtime import load
    from suffuse.runtime.files import evaluate_file

    _result(json.dumps(evaluate_file(load(settings.bundle), settings.rows, settings.columns), indent=2))


def _serve_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", type=str, help="archives in the model store (default: all)")
    parser.add_argument("--model-store", type=str, default="model_store", help="folder of archives")
    parser.add_argument("--config", type=str, default="", help="settings of TorchServe (default: suffuse's own)")
    parser.add_argument("--workers", type=int, default=0, help="workers a model (default: as archived)")
    parser.add_argument("--threads", type=int, default=0, help="threads a worker (default: the cores, shared out)")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address of the inference and metrics ports")
    parser.add_argument("--port", type=int, default=8080, help="REST")
    parser.add_argument("--grpc-port", type=int, default=7070, help="gRPC")
    parser.add_argument("--management-port", type=int, default=8081, help="management over REST")
    parser.add_argument("--grpc-management-port", type=int, default=7071, help="management over gRPC")
    parser.add_argument("--metrics-port", type=int, default=8082, help="metrics for Prometheus")
    parser.add_argument("--state", type=str, default="", help="folder of keys and logs (default: .suffuse/serve-PORT)")


def _serve(settings: Namespace) -> None:
    from suffuse.serving.run import serve
    from suffuse.serving.settings import ServerConfig

    serve(
        ServerConfig(
            Path(settings.model_store),
            tuple(settings.models) or ("all",),
            config=Path(settings.config) if settings.config else ServerConfig.config,
            workers=settings.workers or None,
            threads=settings.threads or None,
            host=settings.host,
            inference_port=settings.port,
            management_port=settings.management_port,
            metrics_port=settings.metrics_port,
            grpc_inference_port=settings.grpc_port,
            grpc_management_port=settings.grpc_management_port,
            state=Path(settings.state) if settings.state else None,
        )
    )


_COMMANDS: dict[str, tuple[Callable[[ArgumentParser], None], Callable[[Namespace], None], str]] = {
    "export": (_export_arguments, _export, "turn a run into a bundle: ONNX graphs, tokenizer, manifest"),
    "archive": (_archive_arguments, _archive, "pack a bundle for TorchServe"),
    "serve": (_serve_arguments, _serve, "answer over REST and gRPC until interrupted"),
    "predict": (_predict_arguments, _predict, "answer texts, or a file of rows of any size"),
    "evaluate": (_evaluate_arguments, _evaluate, "measure a bundle on rows with labels"),
}


def _result(value: object) -> None:
    sys.stdout.write(f"{value}\n")


def _extra(arguments: Sequence[str]) -> str:
    extras = {"fit": "train", "export": "train", "archive": "serve", "serve": "serve"}
    command = next(iter(arguments), "")
    return f"pip install 'suffuse[{extras[command]}]'" if command in extras else "pip install suffuse"


if __name__ == "__main__":
    sys.exit(main())
