"""`suffuse autoscale`: keeps a model's workers at what its load needs."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from suffuse.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from suffuse.autoscale.meter import Meter
    from suffuse.autoscale.policy import Policy

SUMMARY = "keep the workers of running servers at what their load needs, until interrupted"


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--server", type=str, action="append", default=[], help="management URL; again for further servers"
    )
    parser.add_argument("--stack", type=str, default="", help="instead: state folder of serve --instances")
    parser.add_argument(
        "--key-file", type=str, action="append", default=[], help="key_file.json, one a server, or none"
    )
    parser.add_argument("--workers", type=str, required=True, help="MIN:MAX, of all servers together")
    parser.add_argument("--slo-p99", type=float, required=True, help="ms within which 99 of 100 requests are answered")
    parser.add_argument("--model", type=str, default="", help="its name (default: the servers' only one)")
    parser.add_argument("--balancer", type=str, default="", help="URL of HAProxy's Prometheus exporter, where one is")
    parser.add_argument(
        "--server-metrics", type=str, action="append", default=[], help="URLs of metrics (default: management port + 1)"
    )
    parser.add_argument("--service-time", type=float, help="ms of a worker for one request (default: measured)")
    parser.add_argument("--profile", type=str, default="", help="file that profile wrote, to tell that time by")
    parser.add_argument("--spare", type=int, default=1, help="workers free beyond the load")
    parser.add_argument("--metrics-port", type=int, default=0, help="own metrics for Prometheus (default: none)")
    parser.add_argument("--metrics-host", type=str, default="127.0.0.1", help="address of that port")
    parser.add_argument("--log", type=str, default="", help="file of the decisions, a JSON line each (default: stderr)")


def run(settings: Namespace) -> None:
    """Scale until interrupted.

    Raises:
        InputError: an option cannot be used.
        ServerError: no server answers, or another controller is there.
    """
    from suffuse.autoscale.run import AutoscaleConfig, autoscale
    from suffuse.autoscale.signals import endpoints

    if bool(settings.server) == bool(settings.stack):
        raise InputError("autoscale takes either --server, once or more, or --stack with its state folder")
    servers, balancer, emptied = settings.server, settings.balancer or None, None
    if settings.stack:
        servers, balancer, emptied = _of_stack(Path(settings.stack))
    autoscale(
        AutoscaleConfig(
            endpoints(servers, [Path(file) for file in settings.key_file], settings.server_metrics),
            _policy(settings),
            meter=_meter(settings),
            model=settings.model,
            balancer=balancer,
            metrics_port=settings.metrics_port,
            metrics_host=settings.metrics_host,
            log=Path(settings.log) if settings.log else None,
            emptied=emptied,
        )
    )


def _of_stack(state: Path) -> tuple[list[str], str, "Callable[[str], AbstractContextManager[None]] | None"]:
    """Management URLs, the balancer's metrics, and what empties an instance where there is another to take its load."""
    from suffuse.balancing.drain import emptied
    from suffuse.balancing.record import StackRecord

    record = StackRecord.read(state)
    servers = [instance.management_url for instance in record.instances]
    return servers, record.metrics_url, partial(emptied, record) if len(servers) > 1 else None


def bounds(text: str) -> tuple[int, int]:
    """Fewest and most workers out of MIN:MAX.

    Raises:
        InputError: it is none.
    """
    low, _, high = text.partition(":")
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high)):
        raise InputError(f"the workers are {text!r}; expected MIN:MAX such as 1:4, MIN at least 1 and no more than MAX")
    return int(low), int(high)


def _policy(settings: Namespace) -> "Policy":
    from suffuse.autoscale.policy import Policy

    if not 0 < settings.slo_p99 < float("inf"):
        raise InputError(f"--slo-p99 is {settings.slo_p99:g}; expected milliseconds, more than 0")
    return Policy(*bounds(settings.workers), settings.slo_p99 / 1000, spare=settings.spare)


def _meter(settings: Namespace) -> "Meter | None":
    from suffuse.autoscale.meter import GivenTime, ProfiledTime
    from suffuse.autoscale.service_time import Profile

    if settings.service_time is not None and settings.profile:
        raise InputError("got both --service-time and --profile; expected one of them, or neither")
    if settings.service_time is not None:
        return GivenTime(settings.service_time / 1000)
    return ProfiledTime(Profile.open(settings.profile)) if settings.profile else None
