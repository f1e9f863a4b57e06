"""`suffuse autoscale`: a controller with all that it needs, until it is interrupted."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from suffuse.autoscale.controller import Controller, Event, Lowering
from suffuse.autoscale.exporter import Exporter
from suffuse.autoscale.leases import leases
from suffuse.autoscale.log import DecisionLog
from suffuse.autoscale.meter import MeasuredTime, Meter
from suffuse.autoscale.policy import Policy
from suffuse.autoscale.signals import BalancerSource, Endpoint, Probe, Source, TorchServeSource, check_url
from suffuse.errors import ClientError, InputError, ServerError
from suffuse.serving.management import Management
from suffuse.unix_signals import on_signals

QUIET_WAIT_S = 10.0
"""So long a server that cannot be emptied waits for a moment without requests before it gives up workers."""


@dataclass(frozen=True)
class AutoscaleConfig:
    """What to scale, and how.

    Args:
        endpoints: the servers, as `signals.endpoints` makes them.
        policy: decides; its bounds are for all servers together.
        meter: of the service time; None: measured.
        model: its name; "" where the servers have but one.
        balancer: URL of HAProxy's exporter; None: signals come from the servers alone.
        metrics_port: of the controller's own metrics; 0: none.
        metrics_host: address of that port.
        log: of the decisions; None: stderr.
        emptied: as for `Lowering`; None: no server can be emptied.

    Raises:
        InputError: the most workers are fewer than the servers, or the balancer is no URL.
    """

    endpoints: tuple[Endpoint, ...]
    policy: Policy
    meter: Meter | None = None
    model: str = ""
    balancer: str | None = None
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    log: Path | None = None
    emptied: Callable[[str], contextlib.AbstractContextManager[None]] | None = None

    def __post_init__(self) -> None:
        if self.balancer is not None:
            check_url(self.balancer)
        if self.policy.max_workers < len(self.endpoints):
            raise InputError(
                f"got at most {self.policy.max_workers} worker(s) for {len(self.endpoints)} servers; expected at least "
                "one each, since a server without workers refuses all"
            )


def autoscale(config: AutoscaleConfig) -> None:
    """Scale until SIGINT or SIGTERM comes; to be called in the main thread. The servers keep their workers then.

    Args:
        config: what to scale, and how.

    Raises:
        ServerError: no server answers, the balancer does not, another controller is there, or a port is taken.
        InputError: the model is not named and the servers have several.
    """
    model = config.model or _only_model(config.endpoints)
    servers = tuple(endpoint.url for endpoint in config.endpoints)
    needs_metrics = config.balancer is None or config.meter is None
    endpoints = config.endpoints if needs_metrics else [replace(one, metrics_url=None) for one in config.endpoints]
    # A server without workers refuses all, so each keeps one.
    policy = replace(config.policy, min_workers=max(config.policy.min_workers, len(servers)))
    exporter = Exporter(model, servers)
    observers: list[Callable[[Event], None]] = [DecisionLog(config.log).observe, exporter.observe]
    with contextlib.ExitStack() as stack:
        stop = threading.Event()
        stack.enter_context(on_signals(stop.set))
        stack.enter_context(leases(servers, model))
        probes = [stack.enter_context(Probe(endpoint, model)) for endpoint in endpoints]
        source: Source = TorchServeSource(probes)
        if config.balancer:
            source = stack.enter_context(BalancerSource(probes, config.balancer, model))
        _refuse_silence(source, config)
        if config.metrics_port:
            stack.enter_context(exporter.serve(config.metrics_host, config.metrics_port))
        controller = Controller(
            model,
            source,
            config.meter or MeasuredTime(),
            policy,
            {probe.endpoint.url: probe for probe in probes},
            observers,
            Lowering(emptied=config.emptied) if config.emptied else Lowering(QUIET_WAIT_S),
        )
        controller.run(stop)


def _only_model(endpoints: tuple[Endpoint, ...]) -> str:
    """The model of the first server that answers."""
    errors = []
    for endpoint in endpoints:
        try:
            with Management(endpoint.url, key_file=endpoint.key_file) as management:
                models = management.models()
        except ClientError as error:
            errors.append(str(error))
        else:
            if len(models) != 1:
                have = ", ".join(models) or "none"
                raise InputError(f"{endpoint.url}: got the models {have}; expected one, or --model with its name")
            return models[0]
    raise ServerError(f"no server answers: {'; '.join(errors)}")


def _refuse_silence(source: Source, config: AutoscaleConfig) -> None:
    """Find out now what was misspelt: later on, silence is waited for."""
    reading = source.read(0.0)
    if not reading.views:
        raise ServerError(f"no server answers: {'; '.join(reading.errors.values())}")
    if config.balancer and config.balancer in reading.errors:
        raise ServerError(f"the balancer does not answer: {reading.errors[config.balancer]}")
