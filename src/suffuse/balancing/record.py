"""Where a running stack is: a file in its state folder, for programs that look at the stack or change it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from suffuse.errors import InputError

FILE = "stack.json"
"""Its name in the state folder."""


@dataclass(frozen=True)
class InstanceRecord:
    """One instance.

    Args:
        name: as HAProxy's backends have it.
        rest_url: inference over REST.
        grpc_url: inference over gRPC.
        management_url: for `suffuse.serving.management.Management`.
        key_file: where its keys are; None where it asks for none.
    """

    name: str
    rest_url: str
    grpc_url: str
    management_url: str
    key_file: Path | None


@dataclass(frozen=True)
class StackRecord:
    """A running stack.

    Args:
        url: REST, through the balancer.
        grpc_url: gRPC, through the balancer.
        token_file: the file that holds the API token; None where none is asked for.
        certificate: what clients have to trust; None without TLS.
        instances: the servers behind the balancer.
        admin_socket: for `suffuse.balancing.admin.AdminSocket`.
        metrics_url: HAProxy's metrics for Prometheus.
        model_store: the folder of archives that all instances load from.
        models: names of the models served.
        owner_pid: the process that runs the stack.
        haproxy_pid: HAProxy's master process.
    """

    url: str
    grpc_url: str
    token_file: Path | None
    certificate: Path | None
    instances: tuple[InstanceRecord, ...]
    admin_socket: Path
    metrics_url: str
    model_store: Path
    models: tuple[str, ...]
    owner_pid: int
    haproxy_pid: int

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        draft = path.with_name(f"{path.name}.new")
        draft.write_text(json.dumps(asdict(self), indent=2, default=str) + "\n", encoding="utf-8")
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> "StackRecord":
        """Read what `write` wrote.

        Args:
            path: the file, or the state folder that it is in.

        Raises:
            InputError: there is none, or it is no such file.
        """
        file = path / FILE if path.is_dir() else path
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            instances = tuple(
                InstanceRecord(**{**instance, "key_file": _path(instance["key_file"])})
                for instance in content["instances"]
            )
            paths = {name: _path(content[name]) for name in ("token_file", "certificate")}
            folders = {name: Path(content[name]) for name in ("admin_socket", "model_store")}
            own = {"instances": instances, "models": tuple(content["models"])}
            return cls(**{**content, **paths, **folders, **own})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file}: got no record of a running stack ({type(error).__name__}: {error}); expected the state "
                "folder of a `suffuse serve --instances N` that runs"
            ) from error


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
