"""docker/swarm.yaml as a stack on a Swarm of this one engine: it answers, a task is replaced, and it goes clean."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from tests.docker.engine import ROOT, Edge, docker, until
from tests.docker.load import SteadyLoad

from suffuse.errors import SuffuseError

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1500)]

STACK = "suffuse-test"
IMAGE = "suffuse-sentiment:test"


@pytest.fixture(scope="module")
def _swarm(_engine: None) -> Iterator[None]:
    """A Swarm; where the engine is in none, one for as long as the tests take."""
    state, manager = docker("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}").split()
    if state == "inactive":
        docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        yield
        docker("swarm", "leave", "--force")
    elif manager == "true":
        yield
    else:
        pytest.skip("the engine is in a Swarm that others manage")


@pytest.fixture(scope="module")
def edge(_archive: None, _swarm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Of the stack, which answers over REST and gRPC; it is removed afterwards."""
    made = Edge.make(tmp_path_factory.mktemp("secrets"))
    docker("build", "--file", "docker/Dockerfile", "--target", "serve", "--tag", "suffuse:test", ".")
    base = "--build-arg=SERVING=suffuse:test"
    docker("build", "--file", "docker/model.Dockerfile", base, "--tag", IMAGE, "model_store")
    environment = os.environ | made.environment | {"SUFFUSE_MODEL_IMAGE": IMAGE}
    deploy = ["docker", "stack", "deploy", "--detach", "--compose-file", "docker/swarm.yaml", STACK]
    subprocess.run(deploy, cwd=ROOT, env=environment, capture_output=True, check=True)
    try:
        until(lambda: answers(made, made.url) and answers(made, made.grpc_url), limit_s=600)
        yield made
    finally:
        docker("stack", "rm", STACK)
        until(lambda: not remains("ps", "--all") and not remains("network", "ls"), limit_s=120)
        docker("volume", "rm", *remains("volume", "ls"))


def answers(edge: Edge, url: str) -> bool:
    try:
        with edge.client(url) as client:
            return bool(client.predict("sentiment", "a warm, funny film")["label"] == "fresh")
    except SuffuseError:
        return False


def remains(*kind: str) -> list[str]:
    return docker(*kind, "--quiet", "--filter", f"label=com.docker.stack.namespace={STACK}").split()


def up(edge: Edge) -> int:
    """Instances that the balancer counts on."""
    (haproxy,) = docker("ps", "--quiet", "--filter", f"name={STACK}_haproxy").split()
    ask = r"exec 3<>/dev/tcp/127.0.0.1/8404; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3"
    metrics = docker("exec", haproxy, "bash", "-c", ask)
    name = 'haproxy_backend_active_servers{proxy="rest_sentiment"}'
    (line,) = (line for line in metrics.splitlines() if line.startswith(name))
    return int(line.rpartition(" ")[2])


def test_no_request_fails_while_the_task_of_an_instance_is_killed_and_replaced(edge: Edge) -> None:
    until(lambda: up(edge) == 2, limit_s=300)
    (task,) = docker("ps", "--quiet", "--filter", f"name={STACK}_torchserve-1").split()

    with SteadyLoad([edge.client(url) for url in (edge.url, edge.grpc_url)], "sentiment") as load:
        load.await_answers(20)
        docker("kill", task)
        until(lambda: up(edge) == 1, limit_s=60)
        load.await_answers(20)
        until(lambda: up(edge) == 2, limit_s=300)
        load.await_answers(20)

    assert load.failures == []


def test_instances_have_a_read_only_root_and_no_capabilities(edge: Edge) -> None:
    for task in docker("ps", "--quiet", "--filter", f"name={STACK}_torchserve").split():
        found = docker("inspect", "--format", "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}", task)
        assert found == "true [ALL]\n"


def test_secrets_are_readable_by_haproxy_alone(edge: Edge) -> None:
    (haproxy,) = docker("ps", "--quiet", "--filter", f"name={STACK}_haproxy").split()

    assert docker("exec", haproxy, "stat", "--format", "%a %u", "/run/secrets/token") == "400 10001\n"
