"""A Docker engine and the balancer's port, as tests use them."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import suffuse

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Edge:
    """A port of the balancer, and the folder of its token and certificate."""

    port: int
    secrets: Path

    @classmethod
    def make(cls, secrets: Path) -> "Edge":
        """A free port, and secrets as docker/setup.sh makes them."""
        environment = os.environ | {"SUFFUSE_SECRETS": str(secrets)}
        subprocess.run(["docker/setup.sh"], cwd=ROOT, env=environment, capture_output=True, check=True)
        return cls(free_port(), secrets)

    @property
    def url(self) -> str:
        """For REST."""
        return f"https://localhost:{self.port}"

    @property
    def grpc_url(self) -> str:
        """For gRPC."""
        return f"grpcs://localhost:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What compose.yaml and swarm.yaml read."""
        return {"SUFFUSE_PORT": str(self.port), "SUFFUSE_SECRETS": str(self.secrets)}

    def client(self, url: str, token: str = "") -> suffuse.Client:
        """A client with the right token unless another is given, that does not try again."""
        token = token or (self.secrets / "token").read_text("utf-8").strip()
        return suffuse.Client(url, token=token, ca_file=self.secrets / "site.crt", retries=0)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def docker(*arguments: str) -> str:
    """Run it; its output is shown where it fails."""
    done = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def until(condition: Callable[[], bool], limit_s: float) -> None:
    """Return when it holds; it is looked at twice a second."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s"
        time.sleep(0.5)
