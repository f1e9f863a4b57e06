"""`suffuse load-test`: a load on a server, every answer checked, and whether the goal was met."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from jsonargparse import ArgumentParser, Namespace

from suffuse.errors import InputError, SuffuseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from suffuse.autoscale.arrivals import Arrivals
    from suffuse.load_test.engine import Progress
    from suffuse.load_test.figures import LoadResult
    from suffuse.load_test.plan import LoadConfig, Target, Users

SUMMARY = "put a load on a server, check every answer, and say whether it keeps its goal (exit 1: it does not)"

LOADS = ("rate", "users", "trace")
DURATION_S = 60.0


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("url", type=str, help="http(s)://HOST:PORT or grpc(s)://HOST:PORT")
    parser.add_argument("--model", type=str, default="", help="its name (default: the only one, if it can be asked)")
    parser.add_argument("--data", type=str, required=True, help="a file of rows, drawn from in random order")
    parser.add_argument("--slo-p99", type=float, required=True, help="ms within which 99 of 100 requests are answered")
    parser.add_argument("--rate", type=float, help="requests a second, by chance (Poisson), however slow the answers")
    parser.add_argument("--even", action="store_true", help="with --rate: evenly instead")
    parser.add_argument("--users", type=int, help="so many, each asking again as soon as it is answered")
    parser.add_argument("--trace", type=str, default="", help="CSV of arrivals with a column of times")
    parser.add_argument("--speed", type=float, default=1.0, help="runs the clock of the trace faster, or slower")
    parser.add_argument("--duration", type=float, help=f"seconds (default: {DURATION_S:g}, or the whole trace)")
    parser.add_argument("--grpc-url", type=str, default="", help="where gRPC goes (default: to the port of URL)")
    parser.add_argument("--grpc-share", type=float, help="of requests, 0 to 1 (default: half with --grpc-url, else 0)")
    parser.add_argument(
        "--token", type=str, help="the inference key; others on this machine can read it: prefer a file"
    )
    parser.add_argument("--key-file", type=str, help="the server's key_file.json, or a stack's token")
    parser.add_argument("--ca-file", type=str, help="PEM file of the authority that signed the server's certificate")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds after which a request has failed")
    parser.add_argument("--fields", nargs="*", type=str, default=[], help="of a row to send (default: those of tasks)")
    parser.add_argument("--columns", type=dict[str, str], default={}, help="field -> column, as in a recipe")
    parser.add_argument("--expected", type=str, default="", help="right answers, as predict --output writes them")
    parser.add_argument("--answers-may-change", action="store_true", help="compare answers with nothing")
    parser.add_argument("--most-in-flight", type=int, default=1000, help="further arrivals wait, and are counted")
    parser.add_argument("--workers-from", nargs="*", type=str, default=[], help="management or /metrics addresses")
    parser.add_argument("--seed", type=int, default=0, help="of arrivals, rows and transports")
    parser.add_argument("--json", type=str, default="", help="file for all figures; - for stdout, without the table")
    parser.add_argument("--html", type=str, default="", help="file for a page with charts")


def run(settings: Namespace) -> None:
    """Make the load; a table or JSON goes to stdout, JSON and a page to files.

    Raises:
        InputError: rows, a trace, an address or a number cannot be used.
        ClientError: the server is not there, does not take the key, or has no such model.
        SuffuseError: the goal was missed.
    """
    from rich.console import Console

    from suffuse.load_test.engine import run_load

    if not 0 < settings.slo_p99 < float("inf"):
        raise InputError(f"--slo-p99 is {settings.slo_p99:g}; expected milliseconds, more than 0")
    goal_s = settings.slo_p99 / 1000
    config = _config(settings)
    errors = Console(stderr=True, highlight=False)
    with errors.status("starting") as status:  # shown on a terminal only
        result = run_load(config, lambda progress: status.update(_progress(progress)))
    _write(settings, config, result, goal_s)
    if (fault := result.generator_fault(goal_s)) is not None:
        errors.print(f"warning: {fault}", soft_wrap=True)
    if not result.meets(goal_s):
        raise SuffuseError(result.verdict(goal_s))


def _config(settings: Namespace) -> "LoadConfig":
    from suffuse.load_test.plan import LoadConfig

    return LoadConfig(
        _target(settings),
        _load(settings),
        settings.data,
        fields=settings.fields,
        columns=settings.columns,
        expected=settings.expected,
        answers_may_change=settings.answers_may_change,
        most_in_flight=settings.most_in_flight,
        workers_from=settings.workers_from,
        seed=settings.seed,
    )


def _target(settings: Namespace) -> "Target":
    from suffuse.load_test.plan import Target

    parts = urlsplit(settings.url)
    before, _, in_path = parts.path.partition("/predictions/")
    named = settings.model or unquote(in_path)
    return Target(
        urlunsplit(parts._replace(path=before)),
        named or _only_model(settings),
        grpc_url=settings.grpc_url,
        grpc_share=settings.grpc_share,
        token=settings.token,
        key_file=settings.key_file,
        ca_file=settings.ca_file,
        timeout_s=settings.timeout,
    )


def _only_model(settings: Namespace) -> str:
    """Ask a management port, since the port that answers requests lists no models."""
    from suffuse.serving.management import Management

    given = [address for address in settings.workers_from if not address.rstrip("/").endswith("/metrics")]
    address = given[0] if given else _management_beside(settings.key_file)
    if address is None:
        raise InputError(
            f"which model of {settings.url}? Expected --model NAME, {settings.url}/predictions/NAME, or who lists it: "
            "--workers-from with a management address, or --key-file in the server's state folder"
        )
    with Management(address, key_file=settings.key_file) as management:
        models = management.models()
    if len(models) != 1:
        raise InputError(f"{address}: got the models {', '.join(models) or 'none'}; expected one, or --model NAME")
    return models[0]


def _management_beside(key_file: str | None) -> str | None:
    """The management address of the server, or of a stack's first instance, whose state folder a key is in."""
    from suffuse.balancing.record import StackRecord
    from suffuse.errors import ServerError
    from suffuse.serving.settings import read_properties

    if key_file is None:
        return None
    state = Path(key_file).absolute().parent
    with suppress(InputError):
        return StackRecord.read(state).instances[0].management_url
    with suppress(ServerError):
        return read_properties(state / "config.properties").get("management_address")
    return None


def _load(settings: Namespace) -> "Users | Arrivals":
    from suffuse.autoscale.arrivals import poisson, read_trace
    from suffuse.load_test.plan import Users, evenly, first_seconds

    given = [f"--{name}" for name in LOADS if settings[name] not in (None, "")]
    if len(given) != 1:
        raise InputError(f"load-test takes one load: --rate, --users or --trace; got {' and '.join(given) or 'none'}")
    if settings.trace:
        trace = read_trace(settings.trace, lengths=(1,)).faster(settings.speed)
        return trace if settings.duration is None else first_seconds(trace, settings.duration)
    duration_s = DURATION_S if settings.duration is None else settings.duration
    if settings.users is not None:
        return Users(settings.users, duration_s)
    if settings.rate <= 0:
        raise InputError(f"--rate is {settings.rate:g}; expected requests a second, more than 0")
    if settings.even:
        return evenly(settings.rate, duration_s)
    return poisson(settings.rate, duration_s, (1,), settings.seed)


def _progress(progress: "Progress") -> str:
    in_flight = progress.sent - progress.over
    return (
        f"{progress.sent:,} sent, {progress.ok:,} answered, {progress.refused:,} refused, "
        f"{progress.failed:,} failed, {in_flight:,} in flight"
    )


def _write(settings: Namespace, config: "LoadConfig", result: "LoadResult", goal_s: float) -> None:
    from rich.console import Console

    content = json.dumps(result.as_json(goal_s), indent=2, allow_nan=False) + "\n"
    if settings.json == "-":
        sys.stdout.write(content)
    else:
        _print_table(Console(file=sys.stdout, highlight=False), result, goal_s)
        if settings.json:
            _at(settings.json).write_text(content, "utf-8")
    if settings.html:
        from suffuse.load_test.page import render

        _at(settings.html).write_text(render(result, goal_s, config), "utf-8")


def _at(name: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _quantile(q: float) -> "Callable[[LoadResult], str]":
    return lambda part: f"{part.percentile(q) * 1000:,.1f}" if part.answered else "-"


def _print_table(console: "Console", result: "LoadResult", goal_s: float) -> None:
    from rich.table import Table

    from suffuse.load_test.figures import QUANTILES, quantile_name

    table = Table(title=f"{len(result):,} requests in {result.duration_s:g} s", title_justify="left", box=None)
    table.add_column("")
    names = ["all", *sorted(set(result.transport.tolist()))]
    parts = [result, *(result.of(name) for name in names[1:])]
    if len(parts) == 2:  # one transport, which is all
        names, parts = names[1:], parts[1:]
    for name in names:
        table.add_column(name, justify="right")
    texts: dict[str, Callable[[LoadResult], str]] = {
        "sent a second": lambda part: f"{part.sent_rate:.1f}",
        "answered a second": lambda part: f"{part.rate:.1f}",
        "refused": lambda part: f"{part.refused:,}",
        "failed": lambda part: f"{part.failed:,}",
        **{f"{quantile_name(q)}, ms": _quantile(q) for q in QUANTILES},
        "10-s windows in goal": lambda part: f"{part.windows_within(goal_s):.1%}",
    }
    for label, text in texts.items():
        table.add_row(label, *(text(part) for part in parts))
    console.print(table)
    for kind, count in result.failures.items():
        example = next(iter(result.examples.get(kind, ())), "")
        console.print(f"{count:,} x {kind}: {example}", soft_wrap=True, markup=False)
    console.print(result.verdict(goal_s), soft_wrap=True)
