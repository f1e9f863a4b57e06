"""What the balancer is to do: a few objects, and out of them HAProxy's configuration by one template."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from suffuse.errors import InputError

TOKEN_VARIABLE = "SUFFUSE_API_TOKEN"  # noqa: S105 - a name
"""The environment variable that HAProxy reads the API token from; the token is in no file that is rendered."""

# HAProxy's own rule for names; what has another character in it would end a word of its configuration, or a path.
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")
_TRIES = 4  # retries of the template, and the first one
_UNTELLABLE = re.compile(r"""["'#$\\\s]""")
# HAProxy binds a socket under a longer name first, and Linux takes 107 bytes.
_SOCKET_PATH_LIMIT = 90


@dataclass(frozen=True)
class Instance:
    """One TorchServe as the balancer reaches it, without a key.

    Args:
        name: a word, which names the server in HAProxy's backends.
        host: an address, or a name that is resolved again and again: it need not be known when HAProxy starts.
        rest_port: inference over REST.
        grpc_port: inference over gRPC.
        management_port: management over REST, asked whether a model has a ready worker.
    """

    name: str
    host: str
    rest_port: int
    grpc_port: int
    management_port: int

    @property
    def by_name(self) -> bool:
        """Whether the host has to be looked up."""
        try:
            ip_address(self.host.strip("[]"))
        except ValueError:
            return True
        return False


@dataclass(frozen=True)
class Limits:
    """What the balancer takes, and from when on it refuses. REST and gRPC are counted apart.

    Args:
        in_flight: requests to one instance at a time; more wait in the balancer. Twice the workers times the batch size
            keeps batches full. For all models together, REST and gRPC, it should be below TorchServe's job_queue_size.
        queue: requests of a model that wait in the balancer; one more is refused at once.
        queue_s: how long one waits there at most, in seconds, before it is refused.
        body_bytes: size of a request; by default TorchServe's own limit.
        answer_s: how long an instance may take, in seconds, before the request is sent to another one, three times at
            most. By default a second try is over before `suffuse.Client` gives up, after 30 s.
        client_rate: requests a second from one address, over ten seconds; None sets no limit.
        connections: open connections in all.
    """

    in_flight: int = 64
    queue: int = 100
    queue_s: float = 5.0
    body_bytes: int = 6_553_500
    answer_s: float = 25.0
    client_rate: float | None = None
    connections: int = 4000

    def __post_init__(self) -> None:
        for name in ("in_flight", "queue", "body_bytes", "connections"):
            if getattr(self, name) < 1:
                raise InputError(f"limit {name} is {getattr(self, name)}; expected a whole number from 1")
        for name in ("queue_s", "answer_s"):
            if getattr(self, name) < 0.001:
                raise InputError(f"limit {name} is {getattr(self, name):g}; expected seconds, from 0.001")
        if self.client_rate is not None and self.client_rate < 0.1:
            raise InputError(f"limit client_rate is {self.client_rate:g}; expected requests a second, from 0.1")


@dataclass(frozen=True)
class BalancerConfig:
    """What HAProxy does.

    Args:
        models: names; each has its own check, queue and pair of backends, ``rest_MODEL`` and ``grpc_MODEL``.
        instances: where they are served; each serves all models.
        run: a private folder for the admin socket, the sockets between the two layers, and the servers' state.
        host: address of the port for REST and gRPC.
        port: REST and gRPC.
        metrics_host: address of the metrics port.
        metrics_port: Prometheus, and ``/ping`` without a token.
        certificate: a file with certificate and private key, which turns TLS on; None is plain text.
        token: whether requests need the API token of the environment variable `TOKEN_VARIABLE`.
        limits: sizes and times.

    Raises:
        InputError: a name that HAProxy cannot take, no model, no instance, two of one name, or a path too long.
    """

    models: tuple[str, ...]
    instances: tuple[Instance, ...]
    run: Path
    host: str = "127.0.0.1"
    port: int = 8080
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 8082
    certificate: Path | None = None
    token: bool = True
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        names = tuple(instance.name for instance in self.instances)
        _check_names("model", self.models)
        _check_names("instance", names)
        for host in (self.host, self.metrics_host, *(instance.host for instance in self.instances)):
            if not _HOST.fullmatch(host):
                raise InputError(
                    f"host {host!r} is none; expected an address, in brackets where it has colons, or a name"
                )
        for path in (self.run, self.certificate):
            if path is not None and _UNTELLABLE.search(str(path)):
                raise InputError(f"{path}: HAProxy takes no path with blanks, quotes, #, $ or \\; choose another")
        longest = len(str(self.run / f"rest_{max(names, key=len)}.sock"))
        if longest > _SOCKET_PATH_LIMIT:
            raise InputError(
                f"{self.run}: {longest - _SOCKET_PATH_LIMIT} characters too long for the sockets that HAProxy puts "
                "there; choose a shorter folder"
            )

    @property
    def admin_socket(self) -> Path:
        """Where HAProxy takes commands."""
        return self.run / "admin.sock"

    @property
    def server_state(self) -> Path:
        """The file that tells a reloaded HAProxy which servers are up, drained, and of which weight."""
        return self.run / "servers.state"


def render(config: BalancerConfig) -> str:
    """HAProxy's configuration file."""
    environment = Environment(  # noqa: S701 - no HTML
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    limits = config.limits
    return environment.get_template("haproxy.cfg.j2").render(
        config=config,
        limits=limits,
        queue_ms=round(1000 * limits.queue_s),
        answer_ms=round(1000 * limits.answer_s),
        request_ms=round(1000 * (limits.queue_s + _TRIES * limits.answer_s)),
        tls=f" ssl crt {config.certificate} alpn h2,http/1.1 ssl-min-ver TLSv1.2" if config.certificate else "",
        token_variable=TOKEN_VARIABLE,
        token_reference=f"${{{TOKEN_VARIABLE}}}",
    )


def _check_names(what: str, names: tuple[str, ...]) -> None:
    if not names:
        raise InputError(f"the balancer got no {what}; expected at least one")
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(f"{what} {name!r} cannot be balanced: expected letters, digits, '.', '-' and '_' alone")
        if names.count(name) > 1:
            raise InputError(f"{what} {name!r} is given twice to the balancer; expected each once")
