"""N instances and the HAProxy before them, on one machine: started, watched, repaired, and stopped without a trace.

A request reaches HAProxy, and HAProxy keeps it until an instance has answered. So instances may come and go, one at a
time, and nobody notices.
"""

import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from suffuse.balancing import record as records
from suffuse.balancing.admin import AdminSocket
from suffuse.balancing.config import BalancerConfig, Limits
from suffuse.balancing.drain import Drain
from suffuse.balancing.haproxy import HAProxy, read_or_make_token
from suffuse.balancing.instances import (
    InstanceKeeper,
    balanced,
    instance_configs,
    recorded,
)
from suffuse.balancing.record import StackRecord
from suffuse.errors import InputError, ServerError, SuffuseError
from suffuse.serving.server import reachable
from suffuse.serving.settings import ServerConfig, find_archives, refuse_taken_ports
from suffuse.serving.state import StateFolder

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_UP_LIMIT_S = 10.0  # a check is made twice a second
_LOSS_LOOK_S = 0.5
_LOSS_DRAIN_S = 2.0  # for what the other workers of an instance have in hand
_STOP_GRACE_S = 10.0  # for requests that run when a stop is asked for
_LONGEST_PAUSE_S = 10.0  # between starts of a HAProxy that ends again and again


@dataclass(frozen=True)
class StackConfig:
    """What a stack serves and where.

    Args:
        server: what each instance serves, and with how many workers; where it listens is not looked at.
        instances: how many.
        host: address of the balancer's port.
        port: REST and gRPC.
        metrics_host: address of the balancer's metrics port.
        metrics_port: Prometheus.
        first_instance_port: the instances' first port; None is `port` + 100. Each takes five, ten from the next one's.
        certificate: a file with certificate and private key, for TLS.
        token: whether requests need the API token, which is in the state folder's file ``token``.
        limits: what the balancer takes.
        most_workers: workers of a model that one instance may come to have, where an autoscaler adds some.
        state: a private folder; None is .suffuse/stack-<port>.
    """

    server: ServerConfig
    instances: int = 2
    host: str = "127.0.0.1"
    port: int = 8080
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 8082
    first_instance_port: int | None = None
    certificate: Path | None = None
    token: bool = True
    limits: Limits = field(default_factory=Limits)
    most_workers: int | None = None
    state: Path | None = None

    def __post_init__(self) -> None:
        if self.instances < 1:
            raise InputError(f"instances is {self.instances}; expected a whole number from 1")
        if self.certificate is not None and not self.certificate.is_file():
            raise InputError(
                f"{self.certificate}: no such file; expected a certificate and its private key in one file (PEM)"
            )


class Stack:
    """A running stack; as a context manager, one that is ready inside and gone afterwards.

    Args:
        config: what to serve and where.

    Raises:
        InputError: the configuration cannot be balanced.
        BundleError: an archive is missing or unreadable.
    """

    def __init__(self, config: StackConfig) -> None:
        self.config = config
        self.state = (config.state or Path(f".suffuse/stack-{config.port}")).absolute()
        self.record_file = self.state / records.FILE
        self.token_file = self.state / "token"
        self.ready = False
        self.archives = find_archives(config.server)
        servers = instance_configs(
            config.server,
            config.instances,
            first_port=config.first_instance_port or config.port + 100,
            state=self.state,
            most_workers=config.most_workers,
        )
        self._balancer = BalancerConfig(
            models=tuple(dict.fromkeys(archive.model for archive in self.archives)),
            instances=tuple(balanced(name, server) for name, server in servers.items()),
            run=self.state / "haproxy",
            host=config.host,
            port=config.port,
            metrics_host=config.metrics_host,
            metrics_port=config.metrics_port,
            certificate=config.certificate and config.certificate.absolute(),
            token=config.token,
            limits=config.limits,
        )
        self._keepers = {name: InstanceKeeper(name, server) for name, server in servers.items()}
        self._folder = StateFolder(self.state, records.FILE)
        self._stopping = threading.Event()
        self._restarting = threading.Lock()
        self._haproxy: HAProxy | None = None
        self._watch = threading.Thread(target=self._keep_haproxy, name="suffuse haproxy", daemon=True)
        self._healer = threading.Thread(target=self._keep_workers, name="suffuse workers", daemon=True)

    @property
    def url(self) -> str:
        """Address for `Client` over REST."""
        return f"{'https' if self.config.certificate else 'http'}://{self._address}"

    @property
    def grpc_url(self) -> str:
        """Address for `Client` over gRPC."""
        return f"{'grpcs' if self.config.certificate else 'grpc'}://{self._address}"

    @property
    def metrics_url(self) -> str:
        """HAProxy's metrics for Prometheus."""
        return f"http://{reachable(self.config.metrics_host)}:{self.config.metrics_port}/metrics"

    @property
    def instances(self) -> tuple[str, ...]:
        """Names of the instances."""
        return tuple(self._keepers)

    @property
    def record(self) -> StackRecord:
        """Where everything is."""
        return StackRecord(
            url=self.url,
            grpc_url=self.grpc_url,
            token_file=self.token_file if self.config.token else None,
            certificate=self._balancer.certificate,
            instances=tuple(recorded(name, keeper.config) for name, keeper in self._keepers.items()),
            admin_socket=self._balancer.admin_socket,
            metrics_url=self.metrics_url,
            model_store=self.config.server.model_store.absolute(),
            models=self._balancer.models,
            owner_pid=os.getpid(),
            haproxy_pid=0 if self._haproxy is None else self._haproxy.pid,
        )

    def start(self) -> None:
        """Start all instances side by side, and HAProxy as soon as one is ready; return when all are, or at a stop.

        Raises:
            ServerError: an instance or HAProxy does not start. Nothing is left running.
        """
        self._folder.own()
        try:
            self._haproxy = self._checked_haproxy()
            for keeper in self._keepers.values():
                keeper.start()
            self._bring_up(self._haproxy)
        except BaseException:
            self.stop()
            raise
        self.ready = not self._stopping.is_set()
        self._healer.start()

    def wait(self) -> None:
        """Block until a stop is requested."""
        self._stopping.wait()

    def request_stop(self) -> None:
        """Make `start` and `wait` return soon; for signal handlers and other threads."""
        self._stopping.set()

    def reload(self) -> None:
        """Have HAProxy read its files anew, such as a certificate that was renewed; no request is lost.

        Raises:
            ServerError: HAProxy refuses them, and goes on as before.
        """
        if self._haproxy is not None:
            self._haproxy.reload()
            self.record.write(self.record_file)

    def restart_instance(self, name: str, drain_s: float = 60.0) -> None:
        """Drain an instance, end it, start it anew with what the model store holds now, and let it have requests again.

        Args:
            name: one of `instances`.
            drain_s: how long its requests may take to end, in seconds.

        Raises:
            InputError: there is none of that name.
            ServerError: no other instance is up, or its requests do not end: then nothing has changed. Or it does not
                come back: then it is tried again and again.
        """
        keeper = self._keepers.get(name)
        if keeper is None or self._haproxy is None:
            raise InputError(f"instance {name!r} is unknown; there are: {', '.join(self._keepers)}")
        drain = Drain(self._haproxy.admin, self._balancer.models, name)
        with self._restarting:
            drain.begin()
            try:
                drain.await_idle(recorded(name, keeper.config).management_url, drain_s)
                self._start_again(keeper)
            finally:
                drain.end()  # from now on its check decides
            drain.await_up(_UP_LIMIT_S)

    def stop(self) -> None:
        """Let running requests end, then end HAProxy and all instances; nothing of them is left."""
        self._stopping.set()
        self.ready = False
        if not self._folder.owned:
            return
        if self._watch.is_alive():
            self._watch.join()
        if self._haproxy is not None:
            self._haproxy.stop(_STOP_GRACE_S)
        for keeper in self._keepers.values():
            keeper.request_stop()
        for keeper in self._keepers.values():
            if keeper.is_alive():
                keeper.join()
        if self._healer.is_alive():  # it waits for instances
            self._healer.join()
        self.record_file.unlink(missing_ok=True)
        self._folder.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _checked_haproxy(self) -> HAProxy:
        """HAProxy, not started, but with what would keep it from starting found out."""
        self._balancer.run.mkdir(exist_ok=True)
        haproxy = HAProxy(self._balancer, read_or_make_token(self.token_file) if self.config.token else None)
        haproxy.check()
        listeners = {**haproxy.listeners}
        for name, keeper in self._keepers.items():
            listeners |= {f"{purpose} of {name}": place for purpose, place in keeper.config.listeners.items()}
        refuse_taken_ports(listeners)
        return haproxy

    def _bring_up(self, haproxy: HAProxy) -> None:
        while not self._stopping.wait(_POLL_S):
            for keeper in self._keepers.values():
                keeper.refuse_failed_start()
            ready = [keeper for keeper in self._keepers.values() if keeper.ready]
            if ready and not self._watch.is_alive():
                haproxy.start()
                self.record.write(self.record_file)
                self._watch.start()
            if len(ready) == len(self._keepers):
                return

    def _keep_haproxy(self) -> None:
        """Start HAProxy again whenever it has ended."""
        pause_s = _POLL_S
        while not self._stopping.wait(pause_s):
            pause_s = _POLL_S if self._haproxy_runs() else min(2 * pause_s, _LONGEST_PAUSE_S)

    def _haproxy_runs(self) -> bool:
        """Whether it does, or has been started again."""
        if self._haproxy is None or self._haproxy.exit_status is None:
            return True
        _LOG.warning("HAProxy ended with status %s; it is started again", self._haproxy.exit_status)
        try:
            self._haproxy.start()
            self.record.write(self.record_file)
        except (SuffuseError, OSError) as error:
            _LOG.warning("%s", error)
            return False
        return True

    def _keep_workers(self) -> None:
        """See to instances that have lost workers."""
        while not self._stopping.wait(_LOSS_LOOK_S):
            for keeper in self._keepers.values():
                if keeper.loss is not None:
                    _LOG.warning("instance %s: %s; it is started again", keeper.instance, keeper.loss)
                    with suppress(SuffuseError), self._restarting:  # it is looked at again
                        self._heal(keeper)

    def _heal(self, keeper: InstanceKeeper) -> None:
        """Send elsewhere what an instance has not answered, and start it again; if there is no other, its workers."""
        drain = Drain(AdminSocket(self._balancer.admin_socket), self._balancer.models, keeper.instance)
        try:
            drain.begin()
        except ServerError:
            keeper.restart_lost_workers()
            return
        try:
            with suppress(ServerError):  # what the lost workers had in hand does not end
                drain.await_idle(recorded(keeper.instance, keeper.config).management_url, _LOSS_DRAIN_S)
            drain.cut()
            self._start_again(keeper)
        finally:
            drain.end()
        drain.await_up(_UP_LIMIT_S)

    def _start_again(self, keeper: InstanceKeeper) -> None:
        before = keeper.starts
        keeper.start_again()
        keeper.await_ready(self.config.server.ready_timeout_s, beyond=before)

    @property
    def _address(self) -> str:
        return f"{reachable(self.config.host)}:{self.config.port}"
