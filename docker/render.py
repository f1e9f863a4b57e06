#!/usr/bin/env python3
"""Renders the balancer's configurations of compose.yaml and kubernetes/ anew: docker/render.py [MODEL ...].

They are committed so that neither needs suffuse installed where it runs; a test compares them with what this renders.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from suffuse.balancing.config import BalancerConfig, Instance, render

HERE = Path(__file__).parent
REST, GRPC, MANAGEMENT = 8080, 7070, 8081


def configurations(models: Sequence[str]) -> dict[Path, str]:
    """What each file should hold, for these models."""
    return {
        HERE / "haproxy.cfg": _before(models, {"torchserve-1": "torchserve-1", "torchserve-2": "torchserve-2"}),
        HERE / "kubernetes" / "haproxy.cfg": _before(models, {"torchserve": "127.0.0.1"}),
    }


def _before(models: Sequence[str], hosts: dict[str, str]) -> str:
    """The configuration of a container that stands before `hosts`, which are named."""
    everywhere = "0.0.0.0"  # noqa: S104 - the container's own addresses
    return render(
        BalancerConfig(
            models=tuple(models),
            instances=tuple(Instance(name, host, REST, GRPC, MANAGEMENT) for name, host in hosts.items()),
            run=Path("/run/haproxy"),
            host=everywhere,
            port=8443,
            metrics_host=everywhere,
            metrics_port=8404,
            certificate=Path("/run/secrets/site.pem"),
        )
    )


def main() -> None:
    """Write the files."""
    for path, text in configurations(sys.argv[1:] or ["sentiment"]).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
