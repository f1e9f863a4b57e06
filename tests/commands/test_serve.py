"""`suffuse serve` must start what its options say, and refuse those that contradict each other."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from suffuse.balancing.config import Limits
from suffuse.balancing.stack import Stack, StackConfig
from suffuse.cli import main
from suffuse.commands import autoscale
from suffuse.serving.server import Server
from suffuse.serving.settings import Archive, ServerConfig


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations that were to be served; nothing is started."""
    configs: list[Any] = []
    monkeypatch.setattr("suffuse.serving.run.serve", lambda config, _beside: configs.append(config))
    monkeypatch.setattr("suffuse.balancing.run.serve_stack", lambda config, _beside: configs.append(config))
    monkeypatch.setattr("suffuse.balancing.instances.in_flight", lambda _, most: 64 if most is None else 10 * most)
    monkeypatch.setattr("suffuse.machine.available_cores", lambda: 8)
    monkeypatch.setattr("suffuse.serving.settings.find_archives", lambda _: (Archive("m.mar", "m", "1", 1),))
    return configs


def test_one_server_is_served_by_default(served: list[Any]) -> None:
    assert main(["serve", "a", "--port", "1", "--management-host", "10.0.0.1", "--state", "s"]) == 0

    assert served == [
        ServerConfig(Path("model_store"), ("a",), inference_port=1, management_host="10.0.0.1", state=Path("s"))
    ]


def test_several_are_served_behind_a_balancer(served: list[Any]) -> None:
    options = ["--instances", "2", "--workers", "3", "--port", "1", "--tls-cert", __file__, "--instance-ports", "9"]
    limits = ["--in-flight", "4", "--queue-limit", "20", "--queue-seconds", "0.5", "--client-rate", "7"]

    assert main(["serve", *options, *limits, "--answer-seconds", "9"]) == 0

    assert served == [
        StackConfig(
            ServerConfig(Path("model_store"), workers=3),
            port=1,
            certificate=Path(__file__),
            first_instance_port=9,
            limits=Limits(in_flight=4, queue=20, queue_s=0.5, answer_s=9.0, client_rate=7.0),
        )
    ]


def test_scaled_server_begins_with_the_fewest_workers_and_leaves_cores_for_the_most(served: list[Any]) -> None:
    assert main(["serve", "--autoscale", "2:4", "--slo-p99", "100"]) == 0

    assert (served[0].workers, served[0].threads) == (2, 2)


def test_scaled_instances_share_the_workers(served: list[Any]) -> None:
    assert main(["serve", "--instances", "2", "--autoscale", "3:8", "--slo-p99", "100"]) == 0

    assert (served[0].server.workers, served[0].most_workers, served[0].limits) == (2, 4, Limits(in_flight=40))


class FakeAutoscaler:
    """Notes how it was made."""

    made: list[tuple[Any, ...]] = []  # noqa: RUF012 - emptied by its fixture

    def __init__(self, *arguments: object, **options: object) -> None:
        self.made.append((*arguments, options))


def beside(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], place: str, running: object
) -> AbstractContextManager[object]:
    """What the command runs beside a server or stack."""
    handed: list[Any] = []
    monkeypatch.setattr(FakeAutoscaler, "made", [])
    monkeypatch.setattr("suffuse.autoscale.beside.AutoscalerProcess", FakeAutoscaler)
    monkeypatch.setattr(place, lambda _, beside: handed.append(beside))
    assert main(arguments) == 0
    made: AbstractContextManager[object] = handed[0](running)
    return made


def test_autoscaler_runs_beside_a_server(served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(ServerConfig(Path("store"), management_port=9, metrics_port=7, state=Path("/s")))

    beside(monkeypatch, ["serve", "--autoscale", "1:4", "--slo-p99", "100"], "suffuse.serving.run.serve", server)

    metrics = ("--server-metrics", "http://127.0.0.1:7/metrics")
    assert FakeAutoscaler.made == [
        (
            ["http://127.0.0.1:9"],
            [Path("/s/key_file.json")],
            (1, 4),
            100.0,
            Path("/s/autoscale.jsonl"),
            {"options": metrics},
        )
    ]
    parser = ArgumentParser()
    autoscale.add_arguments(parser)
    parser.parse_args(["--server", "s", "--workers", "1:4", "--slo-p99", "1", *metrics])


def test_autoscaler_runs_beside_a_stack(served: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("stack", "instances"):
        find = f"suffuse.balancing.{module}.find_archives"
        monkeypatch.setattr(find, lambda _: (Archive("m.mar", "m", "1", 1),))
    stack = Stack(StackConfig(ServerConfig(Path("store")), port=100, state=tmp_path))
    options = ["serve", "--instances", "2", "--autoscale", "2:4", "--slo-p99", "100"]

    beside(monkeypatch, options, "suffuse.balancing.run.serve_stack", stack)

    given = {"options": ("--stack", str(tmp_path))}
    assert FakeAutoscaler.made == [([], [], (2, 4), 100.0, tmp_path / "autoscale.jsonl", given)]


def test_scaling_several_models_is_refused(
    served: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = (Archive("m.mar", "m", "1", 1), Archive("n.mar", "n", "1", 1))
    monkeypatch.setattr("suffuse.serving.settings.find_archives", lambda _: both)

    said = refused(capsys, "--autoscale", "1:4", "--slo-p99", "100")

    assert said == "suffuse: --autoscale scales one model; got m, n: name the one to serve\n"
    assert served == []


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["serve", *options]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--instances", "2", "--grpc-port", "7070"),
            "serve got --grpc-port, which is for one server, and there is --instances",
        ),
        (
            ("--instances", "2", "--management-host", "h"),
            "serve got --management-host, which is for one server, and there is --instances",
        ),
        (
            ("--tls-cert", "c.pem"),
            "serve got --tls-cert, which is for several servers; expected --instances N beside it",
        ),
        (
            ("--queue-seconds", "1"),
            "serve got --queue-seconds, which is for several servers; expected --instances N beside it",
        ),
        (
            ("--autoscale", "1:2"),
            "serve got --autoscale alone; expected --autoscale MIN:MAX and --slo-p99 MS together",
        ),
        (
            ("--slo-p99", "100"),
            "serve got --slo-p99 alone; expected --autoscale MIN:MAX and --slo-p99 MS together",
        ),
        (
            ("--autoscale", "1:2", "--slo-p99", "100", "--workers", "1"),
            "serve got --workers and --autoscale; expected one of them: MIN is what it starts with",
        ),
        (
            ("--autoscale", "3:2", "--slo-p99", "100"),
            "--autoscale is '3:2'; expected MIN:MAX, whole numbers from 1 (one worker a server) and MIN not above MAX",
        ),
        (
            ("--autoscale", "many", "--slo-p99", "100"),
            "--autoscale is 'many'; expected MIN:MAX, whole numbers from 1 (one worker a server) and MIN not above MAX",
        ),
        (
            ("--autoscale", "1:4", "--slo-p99", "100", "--instances", "2"),
            "--autoscale is '1:4'; expected MIN:MAX, whole numbers from 2 (one worker a server) and MIN not above MAX",
        ),
        (("--instances", "-1"), "instances is -1; expected a whole number from 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    served: list[Any], capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert refused(capsys, *options) == f"suffuse: {message}\n"
    assert served == []
