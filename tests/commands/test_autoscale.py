"""`suffuse autoscale` refuses what cannot work, and says why."""

import os
import re
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from tests.autoscale.fakes import FakeBalancer, FakeServer, listening

from suffuse.autoscale.leases import leases
from suffuse.autoscale.run import AutoscaleConfig
from suffuse.balancing.record import InstanceRecord, StackRecord
from suffuse.cli import main
from suffuse.commands import autoscale
from suffuse.errors import InputError, ServerError

USUAL = ("--server", "http://127.0.0.1:9", "--workers", "1:4", "--slo-p99", "500")


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of this test alone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def run(*arguments: str) -> None:
    parser = ArgumentParser()
    autoscale.add_arguments(parser)
    autoscale.run(parser.parse_args(list(arguments)))


def asked(url: str, *arguments: str) -> tuple[str, ...]:
    return ("--server", url, "--server-metrics", f"{url}/metrics", "--workers", "1:4", "--slo-p99", "500", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--workers", "4:1"),
            "the workers are '4:1'; expected MIN:MAX such as 1:4, MIN at least 1 and no more than MAX",
        ),
        (
            ("--workers", "4"),
            "the workers are '4'; expected MIN:MAX such as 1:4, MIN at least 1 and no more than MAX",
        ),
        (
            ("--workers", "0:3"),
            "the workers are '0:3'; expected MIN:MAX such as 1:4, MIN at least 1 and no more than MAX",
        ),
        (("--slo-p99", "0"), "--slo-p99 is 0; expected milliseconds, more than 0"),
        (("--slo-p99", "-5"), "--slo-p99 is -5; expected milliseconds, more than 0"),
        (("--spare", "-1"), "spare is -1; expected 0 or more"),
        (("--service-time", "0"), "the service time is 0 ms; expected more than 0"),
        (
            ("--service-time", "9", "--profile", "p.json"),
            "got both --service-time and --profile; expected one of them, or neither",
        ),
        (("--server", "b:9"), "got the URL 'b:9'; expected one such as http://127.0.0.1:8081, with a port"),
        (
            ("--stack", "s"),
            "autoscale takes either --server, once or more, or --stack with its state folder",
        ),
        (("--balancer", "h"), "got the URL 'h'; expected one such as http://127.0.0.1:8081, with a port"),
    ],
)
def test_bad_options_are_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        run(*USUAL, *arguments)


def test_profile_that_is_missing_is_refused() -> None:
    message = (
        "none.json: cannot be read (No such file or directory); expected a file that `suffuse profile BUNDLE --output "
        "FILE` wrote"
    )

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        run(*USUAL, "--profile", "none.json")


def test_fewer_workers_than_servers_are_refused() -> None:
    message = (
        "got at most 1 worker(s) for 2 servers; expected at least one each, since a server without workers refuses all"
    )

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        run(*USUAL, "--server", "http://127.0.0.1:10", "--workers", "1:1")


def test_command_line_exits_with_2_for_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["autoscale", *USUAL, "--workers", "9:2"]) == 2
    assert capsys.readouterr().err == (
        "suffuse: the workers are '9:2'; expected MIN:MAX such as 1:4, MIN at least 1 and no more than MAX\n"
    )


@pytest.mark.parametrize("model", [(), ("--model", "m")])
def test_silence_of_all_servers_is_an_error(model: tuple[str, ...]) -> None:
    with pytest.raises(ServerError, match=r"^no server answers: http://127\.0\.0\.1:9/models.*: no connection \("):
        run(*USUAL, *model)


@pytest.mark.parametrize(("models", "have"), [("", "none"), ("m n", "m, n")])
def test_model_must_be_named_where_there_is_not_just_one(models: str, have: str) -> None:
    with listening(FakeServer(models)) as url:
        message = f"{url}: got the models {have}; expected one, or --model with its name"

        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            run(*asked(url))


def test_balancer_that_does_not_know_the_model_is_an_error() -> None:
    with listening(FakeServer()) as url, listening(FakeBalancer("x")) as balancer:
        message = (
            f"the balancer does not answer: {balancer}/metrics: got the backends grpc_x, other, rest_x; "
            "expected rest_m or grpc_m"
        )

        with pytest.raises(ServerError, match=f"^{re.escape(message)}$"):
            run(*asked(url, "--balancer", f"{balancer}/metrics"))


def test_second_controller_of_a_server_is_refused() -> None:
    with listening(FakeServer()) as url:
        message = (
            f"{url}: model 'm' is scaled by another `suffuse autoscale` already (process {os.getpid()}); "
            "stop that one first"
        )
        refused = pytest.raises(ServerError, match=f"^{re.escape(message)}$")

        with leases([url], "m"), refused:
            run(*asked(url))


def test_every_option_that_may_come_again_is_kept() -> None:
    parser = ArgumentParser()
    autoscale.add_arguments(parser)

    settings = parser.parse_args([*USUAL, "--server", "b", "--key-file", "k", "--key-file", "l"])

    assert settings.server == ["http://127.0.0.1:9", "b"]
    assert settings.key_file == ["k", "l"]


def test_stack_that_does_not_run_is_refused(tmp_path: Path) -> None:
    message = f"{tmp_path}/stack.json: got no record of a running stack (FileNotFoundError: "

    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        run("--stack", str(tmp_path), "--workers", "1:4", "--slo-p99", "500")


@pytest.mark.parametrize("names", [("i1",), ("i1", "i2")])
def test_stack_names_its_servers_and_several_can_be_emptied(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[AutoscaleConfig] = []
    monkeypatch.setattr("suffuse.autoscale.run.autoscale", made.append)
    urls = [f"http://127.0.0.1:{port}" for port, _ in enumerate(names, start=201)]
    instances = tuple(InstanceRecord(name, "", "", url, None) for name, url in zip(names, urls, strict=True))
    balancer = "http://127.0.0.1:8082/metrics"
    record = StackRecord("", "", None, None, instances, tmp_path, balancer, tmp_path, ("m",), 1, 2)
    record.write(tmp_path / "stack.json")

    run("--stack", str(tmp_path), "--workers", "1:4", "--slo-p99", "500")

    assert [endpoint.url for endpoint in made[0].endpoints] == urls
    assert made[0].balancer == balancer
    assert (made[0].emptied is not None) == (len(names) > 1)
