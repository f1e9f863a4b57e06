"""The whole of docker/compose.yaml on a real engine: it answers, loses nothing when a container dies, goes clean."""

import json
import os
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docker.engine import ROOT, Edge, docker, free_port, until
from tests.docker.load import SteadyLoad
from tests.docker.metrics import metric_names

from suffuse.errors import AuthorizationError

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1500)]

FILE = ROOT / "docker" / "compose.yaml"
SERVICES = ("torchserve-1", "torchserve-2", "haproxy", "autoscaler", "prometheus")
SERVING = ("torchserve-1", "torchserve-2", "autoscaler")
FINDS_NOTHING = """
import importlib.util, os, shutil, sys
found = [name for name in ("gcc", "cc", "clang", "ld") if shutil.which(name)]
found += [name for name in ("lightning", "transformers", "suffuse.training", "pip") if importlib.util.find_spec(name)]
import torch
print(found, os.path.getsize(torch.__file__) < 10_000, os.getuid())
"""


@dataclass(frozen=True)
class Project:
    """A Compose project with a port, secrets and a name of its own."""

    name: str
    edge: Edge
    environment: dict[str, str]

    def compose(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run `docker compose`; its output is shown where it fails."""
        command = ["docker", "compose", "--file", str(FILE), "--project-name", self.name, *arguments]
        environment = os.environ | self.edge.environment | self.environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done

    def inside(self, service: str, *command: str) -> str:
        """What a command prints in a service's container."""
        return self.compose("exec", "--no-TTY", service, *command).stdout

    def container(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        (content,) = json.loads(docker("inspect", self.compose("ps", "--quiet", service).stdout.strip()))
        return dict(content)

    def remains(self) -> list[str]:
        """Containers, networks and volumes of the project."""
        label = f"label=com.docker.compose.project={self.name}"
        kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
        return [line for kind in kinds for line in docker(*kind, "--quiet", "--filter", label).split()]

    def prometheus(self, path: str, **query: str) -> Any:  # noqa: ANN401 - parsed JSON
        """Data out of Prometheus."""
        address = f"http://127.0.0.1:{self.environment['SUFFUSE_PROMETHEUS_PORT']}/api/v1/{path}"
        with urllib.request.urlopen(f"{address}?{urllib.parse.urlencode(query)}", timeout=10) as reply:  # noqa: S310
            return json.load(reply)["data"]


@pytest.fixture(scope="module")
def new_project(_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Project]]:
    """Makes projects; whatever becomes of a test, nothing of them stays."""
    projects: list[Project] = []

    def make(**environment: str) -> Project:
        edge = Edge.make(tmp_path_factory.mktemp("secrets"))
        own = {"SUFFUSE_PROMETHEUS_PORT": str(free_port()), "SUFFUSE_TAG": "test"}
        projects.append(Project(f"suffuse-test-{edge.port}", edge, own | environment))
        return projects[-1]

    yield make
    for project in projects:
        project.compose("--profile", "load", "down", "--volumes", "--timeout", "5")


@pytest.fixture(scope="module")
def project(_archive: None, new_project: Callable[..., Project]) -> Project:
    """The stack, up and healthy."""
    made = new_project()
    made.compose("up", "--build", "--detach", "--wait", "--wait-timeout", "600")
    return made


def test_every_service_is_healthy(project: Project) -> None:
    assert {name: project.container(name)["State"]["Health"]["Status"] for name in SERVICES} == dict.fromkeys(
        SERVICES, "healthy"
    )


@pytest.mark.parametrize("kind", ["url", "grpc_url"])
def test_answers_come_through_tls_with_the_token(project: Project, kind: str) -> None:
    with project.edge.client(getattr(project.edge, kind)) as client:
        answer = client.predict("sentiment", "a warm, funny film")

    assert answer["label"] == "fresh"


@pytest.mark.parametrize("kind", ["url", "grpc_url"])
def test_wrong_token_is_refused(project: Project, kind: str) -> None:
    with project.edge.client(getattr(project.edge, kind), token="wrong") as client, pytest.raises(AuthorizationError):  # noqa: S106
        client.predict("sentiment", "a warm, funny film")


def test_management_is_not_offered_to_clients(project: Project) -> None:
    ports = {name: project.container(name)["NetworkSettings"]["Ports"] for name in SERVICES}
    published = {port for bound in ports.values() for port, hosts in bound.items() if hosts}

    assert published == {"8443/tcp", "9090/tcp"}


@pytest.mark.parametrize("service", SERVING)
def test_image_has_no_compiler_no_torch_no_training_half_and_no_root(project: Project, service: str) -> None:
    assert project.inside(service, "python", "-c", FINDS_NOTHING) == "[] True 10001\n"


@pytest.mark.parametrize("service", SERVICES)
def test_containers_have_a_read_only_root_no_capabilities_and_limits(project: Project, service: str) -> None:
    host = project.container(service)["HostConfig"]

    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert min(host["Memory"], host["NanoCpus"], host["PidsLimit"]) > 0


def test_every_metric_of_rules_and_dashboard_is_in_prometheus(project: Project) -> None:
    groups = yaml.safe_load((FILE.parent / "prometheus" / "rules.yml").read_text("utf-8"))["groups"]
    panels = json.loads((FILE.parent / "grafana" / "dashboards" / "suffuse.json").read_text("utf-8"))["panels"]
    expressions = [rule["expr"] for group in groups for rule in group["rules"]]
    expressions += [target["expr"] for panel in panels for target in panel["targets"]]
    used = set().union(*map(metric_names, expressions)) - {"ALERTS"}  # that one is there only when something is wrong
    with project.edge.client(project.edge.url) as rest, project.edge.client(project.edge.grpc_url) as grpc:

        def missing() -> set[str]:
            for client in (rest, grpc):
                client.predict("sentiment", "a warm, funny film")
            return used - set(project.prometheus("label/__name__/values"))

        until(lambda: not missing(), limit_s=90)
        assert used
        assert missing() == set()


def test_requests_that_are_counted_are_those_that_came(project: Project) -> None:
    def counted() -> float:
        found = project.prometheus("query", query="sum(suffuse:requests:rate1m)")["result"]
        return float(found[0]["value"][1]) if found else 0.0

    with SteadyLoad(
        [project.edge.client(project.edge.url), project.edge.client(project.edge.grpc_url)], "sentiment"
    ) as load:
        until(lambda: counted() > 0, limit_s=60)

    assert load.failures == []


@pytest.mark.usefixtures("_engine")
@pytest.mark.parametrize("name", ["haproxy.cfg", "kubernetes/haproxy.cfg"])
def test_haproxy_accepts_its_configuration(name: str, tmp_path: Path) -> None:
    files = {Edge.make(tmp_path).secrets / "site.pem": "/run/secrets/site.pem", FILE.parent / name: "/haproxy.cfg"}
    mounts = [f"--volume={file}:{target}:ro" for file, target in files.items()]
    options = ["--rm", "--env=SUFFUSE_API_TOKEN=x", "--entrypoint=haproxy", *mounts]

    said = docker("run", *options, "haproxy:2.6-bookworm", "-c", "-f", "/haproxy.cfg")

    assert "Configuration file is valid" in said


@pytest.mark.usefixtures("_engine")
def test_alerts_fire_when_they_should_and_only_then() -> None:
    rules = FILE.parent / "prometheus" / "rules.yml"
    tests = Path(__file__).with_name("rules_test.yml")
    mounts = [f"--volume={file}:/rules/{file.name}:ro" for file in (rules, tests)]

    command = [*mounts, "--entrypoint=promtool", "prom/prometheus:v2.42.0", "test", "rules", "/rules/rules_test.yml"]
    done = subprocess.run(["docker", "run", "--rm", *command], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "event",
    [
        ("kill", "--signal", "KILL", "torchserve-1"),
        ("up", "--no-deps", "--detach", "--force-recreate", "--wait", "torchserve-2"),
        ("kill", "--signal", "USR2", "haproxy"),
    ],
    ids=["instance killed", "instance recreated", "balancer reloaded"],
)
def test_no_request_fails_meanwhile(project: Project, event: tuple[str, ...]) -> None:
    clients = [project.edge.client(url) for url in (project.edge.url, project.edge.grpc_url) for _ in range(2)]

    with SteadyLoad(clients, "sentiment") as load:
        load.await_answers(20)
        project.compose(*event)
        load.await_answers(20)
        project.compose("up", "--detach", "--wait", "--wait-timeout", "300")
        load.await_answers(20)

    assert load.failures == []
    assert load.answered >= 60


@pytest.mark.parametrize(("goal_ms", "status"), [("20000", 0), ("1", 1)], ids=["met", "missed"])
def test_load_ends_with_a_verdict(project: Project, goal_ms: str, status: int) -> None:
    short = {"SUFFUSE_LOAD_RATE": "4", "SUFFUSE_LOAD_SECONDS": "5", "SUFFUSE_SLO_P99": goal_ms}
    load = Project(project.name, project.edge, project.environment | short)

    done = load.compose("--profile", "load", "run", "--build", "--rm", "--no-deps", "load", check=False)

    assert done.returncode == status, done.stdout + done.stderr


def test_nothing_stays_after_down(project: Project) -> None:
    assert project.remains()

    project.compose("down", "--volumes")

    assert project.remains() == []


def test_model_that_is_missing_is_named_with_what_to_run(new_project: Callable[..., Project], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    project = new_project(SUFFUSE_MODEL_STORE=str(tmp_path))

    done = project.compose("up", "--build", "--detach", "--wait", check=False)

    assert done.returncode != 0
    assert 'service "model-store" didn\'t complete successfully: exit 2' in done.stderr
    assert project.compose("logs", "--no-log-prefix", "model-store").stdout == (
        "model_store: got no sentiment.mar; expected the archive that haproxy.cfg names: run `make demo`, or "
        "`suffuse archive BUNDLE --to model_store` and `docker/render.py MODEL` for another model\n"
    )
