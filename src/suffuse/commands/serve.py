"""`suffuse serve`: answers over REST and gRPC, from one server or several, with as many workers as the load needs."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from suffuse.errors import InputError

if TYPE_CHECKING:
    from suffuse.balancing.config import Limits
    from suffuse.balancing.stack import Stack
    from suffuse.serving.server import Server
    from suffuse.serving.settings import ServerConfig

SUMMARY = "answer over REST and gRPC until interrupted"

_OF_ONE_SERVER = ("grpc_port", "management_port", "management_host", "grpc_management_port")
_OF_THE_QUEUE = ("in_flight", "queue_limit", "queue_seconds", "answer_seconds", "client_rate")
_OF_A_BALANCER = ("instance_ports", "tls_cert", *_OF_THE_QUEUE)
_Bounds = tuple[int, int]


def add_arguments(parser: ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("models", nargs="*", type=str, help="archives in the model store (default: all)")
    parser.add_argument("--model-store", type=str, default="model_store", help="folder of archives")
    parser.add_argument("--config", type=str, default="", help="settings of TorchServe (default: suffuse's own)")
    parser.add_argument("--workers", type=int, default=0, help="workers a model and server (default: as archived)")
    parser.add_argument("--threads", type=int, default=0, help="threads a worker (default: the cores, shared out)")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address of the inference and metrics ports")
    parser.add_argument("--port", type=int, default=8080, help="REST; with --instances gRPC too")
    parser.add_argument("--metrics-port", type=int, default=8082, help="metrics for Prometheus")
    parser.add_argument("--state", type=str, default="", help="folder of keys and logs (default: in .suffuse/)")
    one = parser.add_argument_group("one server")
    one.add_argument("--grpc-port", type=int, default=0, help="gRPC (default: 7070)")
    one.add_argument("--management-port", type=int, default=0, help="management over REST (default: 8081)")
    one.add_argument("--management-host", type=str, default="", help="address of management (default: 127.0.0.1)")
    one.add_argument("--grpc-management-port", type=int, default=0, help="management over gRPC (default: 7071)")
    several = parser.add_argument_group("several servers behind HAProxy")
    several.add_argument("--instances", type=int, default=0, help="how many (default: one server, no HAProxy)")
    several.add_argument("--instance-ports", type=int, default=0, help="first of their ports (default: --port + 100)")
    several.add_argument("--tls-cert", type=str, default="", help="PEM file of certificate and key (default: no TLS)")
    several.add_argument("--in-flight", type=int, default=0, help="requests to one at a time (default: two batches)")
    several.add_argument("--queue-limit", type=int, default=0, help="requests of a model that may wait (default: 100)")
    several.add_argument("--queue-seconds", type=float, default=0.0, help="how long one may wait (default: 5)")
    several.add_argument("--answer-seconds", type=float, default=0.0, help="before another one is asked (default: 25)")
    several.add_argument("--client-rate", type=float, default=0.0, help="requests/s of one address (default: no limit)")
    scaling = parser.add_argument_group("workers by load")
    scaling.add_argument("--autoscale", type=str, default="", help="fewest and most workers in all, MIN:MAX")
    scaling.add_argument("--slo-p99", type=float, default=0.0, help="ms within which 99 of 100 are to be answered")


def run(settings: Namespace) -> None:
    """Run the command.

    Raises:
        InputError: options that contradict each other, or numbers that make no sense.
    """
    bounds = _bounds(settings)
    if bounds is not None:
        _refuse_several_models(settings)
    if settings.instances:
        _refuse(settings, _OF_ONE_SERVER, "is for one server, and there is --instances")
        _serve_several(settings, bounds)
    else:
        _refuse(settings, _OF_A_BALANCER, "is for several servers; expected --instances N beside it")
        _serve_one(settings, bounds)


def _serve_one(settings: Namespace, bounds: _Bounds | None) -> None:
    from dataclasses import replace

    from suffuse.machine import available_cores
    from suffuse.serving.run import serve

    config = replace(
        _server_config(settings),
        host=settings.host,
        inference_port=settings.port,
        management_host=settings.management_host or "127.0.0.1",
        management_port=settings.management_port or 8081,
        metrics_port=settings.metrics_port,
        grpc_inference_port=settings.grpc_port or 7070,
        grpc_management_port=settings.grpc_management_port or 7071,
        state=Path(settings.state) if settings.state else None,
    )
    if bounds is not None:
        threads = config.threads or max(1, available_cores() // bounds[1])
        config = replace(config, workers=bounds[0], threads=threads)

    def beside(server: "Server") -> AbstractContextManager[object]:
        from suffuse.autoscale.beside import AutoscalerProcess

        if bounds is None:
            return nullcontext()
        keys = [server.key_file] if server.needs_key else []
        log = server.state / "autoscale.jsonl"
        metrics = ("--server-metrics", server.metrics_url)
        return AutoscalerProcess([server.management_url], keys, bounds, settings.slo_p99, log, options=metrics)

    serve(config, beside)


def _serve_several(settings: Namespace, bounds: _Bounds | None) -> None:
    from dataclasses import replace

    from suffuse.balancing.run import serve_stack
    from suffuse.balancing.stack import StackConfig

    server, most_workers = _server_config(settings), None
    if bounds is not None:
        least, most_workers = (-(-bound // settings.instances) for bound in bounds)
        server = replace(server, workers=least)
    config = StackConfig(
        server,
        instances=settings.instances,
        host=settings.host,
        port=settings.port,
        metrics_host=settings.host,
        metrics_port=settings.metrics_port,
        first_instance_port=settings.instance_ports or None,
        certificate=Path(settings.tls_cert) if settings.tls_cert else None,
        limits=_limits(settings, server, most_workers),
        most_workers=most_workers,
        state=Path(settings.state) if settings.state else None,
    )

    def beside(stack: "Stack") -> AbstractContextManager[object]:
        from suffuse.autoscale.beside import AutoscalerProcess

        if bounds is None:
            return nullcontext()
        log = stack.state / "autoscale.jsonl"
        return AutoscalerProcess([], [], bounds, settings.slo_p99, log, options=("--stack", str(stack.state)))

    serve_stack(config, beside)


def _server_config(settings: Namespace) -> "ServerConfig":
    """What is the same for one server and for several."""
    from suffuse.serving.settings import ServerConfig

    return ServerConfig(
        Path(settings.model_store),
        tuple(settings.models) or ("all",),
        config=Path(settings.config) if settings.config else ServerConfig.config,
        workers=settings.workers or None,
        threads=settings.threads or None,
    )


def _limits(settings: Namespace, server: "ServerConfig", most_workers: int | None) -> "Limits":
    from suffuse.balancing.config import Limits
    from suffuse.balancing.instances import in_flight

    return Limits(
        in_flight=settings.in_flight or in_flight(server, most_workers),
        queue=settings.queue_limit or Limits.queue,
        queue_s=settings.queue_seconds or Limits.queue_s,
        answer_s=settings.answer_seconds or Limits.answer_s,
        client_rate=settings.client_rate or None,
    )


def _bounds(settings: Namespace) -> _Bounds | None:
    """Fewest and most workers."""
    if bool(settings.autoscale) != bool(settings.slo_p99):
        got = "--autoscale" if settings.autoscale else "--slo-p99"
        raise InputError(f"serve got {got} alone; expected --autoscale MIN:MAX and --slo-p99 MS together")
    if not settings.autoscale:
        return None
    if settings.workers:
        raise InputError("serve got --workers and --autoscale; expected one of them: MIN is what it starts with")
    least, _, most = settings.autoscale.partition(":")
    fits = least.isdecimal() and most.isdecimal() and 1 <= int(least) <= int(most)
    if not fits or int(least) < settings.instances:
        raise InputError(
            f"--autoscale is {settings.autoscale!r}; expected MIN:MAX, whole numbers from {max(1, settings.instances)} "
            "(one worker a server) and MIN not above MAX"
        )
    return int(least), int(most)


def _refuse_several_models(settings: Namespace) -> None:
    from suffuse.serving.settings import find_archives

    models = dict.fromkeys(archive.model for archive in find_archives(_server_config(settings)))
    if len(models) > 1:
        raise InputError(f"--autoscale scales one model; got {', '.join(models)}: name the one to serve")


def _refuse(settings: Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if settings[name]:
            raise InputError(f"serve got --{name.replace('_', '-')}, which {why}")
