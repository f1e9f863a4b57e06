"""`suffuse load-test` from its options to table, JSON, page and exit status."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from jsonargparse import ArgumentParser
from tests.load_test.conftest import GOOD, fake_server
from tests.load_test.test_figures import result_of

from suffuse import cli
from suffuse.autoscale.arrivals import Arrivals
from suffuse.balancing.record import InstanceRecord, StackRecord
from suffuse.commands import load_test
from suffuse.errors import DataError, InputError, SuffuseError
from suffuse.load_test import LoadConfig, LoadResult, Users

URL = "http://127.0.0.1:80"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for the load: holds what was asked for as ``config``, and gives ``result``."""
    made: dict[str, Any] = {"result": result_of([10.0] * 100)}

    def run_load(config: LoadConfig, _tell: object) -> LoadResult:
        made["config"] = config
        result: LoadResult = made["result"]
        return result

    monkeypatch.setattr("suffuse.load_test.engine.run_load", run_load)
    return made


def run(*arguments: str, url: str = f"{URL}/predictions/m", slo: str = "300") -> None:
    parser = ArgumentParser()
    load_test.add_arguments(parser)
    load_test.run(parser.parse_args([url, "--data", "rows.csv", "--slo-p99", slo, *arguments]))


def test_rate_users_and_trace_become_loads(made: dict[str, Any], tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time\n" + "".join(f"{second}\n" for second in range(101)), "utf-8")

    loads = []
    for load in (
        ("--rate", "50", "--duration", "10"),
        ("--rate", "50", "--even"),
        ("--users", "3"),
        ("--trace", str(trace), "--speed", "10"),
        ("--trace", str(trace), "--speed", "10", "--duration", "4.95"),
    ):
        run(*load)
        loads.append(made["config"].load)

    assert loads[2] == Users(3, 60)
    assert [load.duration_s for load in loads] == [10, 60, 60, 10, 4.95]
    assert isinstance(loads[0], Arrivals)
    assert [len(load) for load in (loads[0], loads[1], loads[3], loads[4])] == [len(loads[0]), 3000, 101, 50]
    assert len(loads[0]) == pytest.approx(500, rel=0.2)


def test_model_is_named_in_the_address_or_by_an_option(made: dict[str, Any]) -> None:
    run("--users", "1")
    in_address = made["config"].target
    run("--users", "1", "--model", "other", url=URL)

    assert (in_address.url, in_address.model) == (URL, "m")
    assert (made["config"].target.url, made["config"].target.model) == (URL, "other")


class FakeManagement:
    """Lists the models of the address that it is made for."""

    models_at: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init__(self, address: str, **_: object) -> None:
        self._address = address

    def __enter__(self) -> "FakeManagement":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def models(self) -> tuple[str, ...]:
        return self.models_at[self._address]


@pytest.fixture
def models_at(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    monkeypatch.setattr(FakeManagement, "models_at", {})
    monkeypatch.setattr("suffuse.serving.management.Management", FakeManagement)
    return FakeManagement.models_at


def test_model_is_asked_of_a_management_address(made: dict[str, Any], models_at: dict[str, tuple[str, ...]]) -> None:
    models_at["http://host:81"] = ("only",)

    run("--users", "1", "--workers-from", "http://host:82/metrics", "http://host:81", url=URL)

    assert made["config"].target.model == "only"


def test_model_is_asked_of_the_server_whose_key_is_used(
    made: dict[str, Any], models_at: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    (tmp_path / "config.properties").write_text("management_address=http\\u003a//127.0.0.1\\u003a81\n", "ascii")
    models_at["http://127.0.0.1:81"] = ("only",)

    run("--users", "1", "--key-file", str(tmp_path / "key_file.json"), url=URL)

    assert made["config"].target.model == "only"


def test_model_is_asked_of_the_stack_whose_token_is_used(
    made: dict[str, Any], models_at: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    instance = InstanceRecord("i1", "", "", "http://127.0.0.1:91", None)
    record = StackRecord("", "", None, None, (instance,), Path("a"), "", Path("s"), ("only",), 1, 2)
    record.write(tmp_path / "stack.json")
    models_at["http://127.0.0.1:91"] = ("only",)

    run("--users", "1", "--key-file", str(tmp_path / "token"), url=URL)

    assert made["config"].target.model == "only"


@pytest.mark.parametrize(("models", "told"), [((), "none"), (("a", "b"), "a, b")])
def test_model_that_is_not_the_only_one_has_to_be_named(
    models_at: dict[str, tuple[str, ...]], models: tuple[str, ...], told: str
) -> None:
    models_at["http://host:81"] = models
    expected = f"http://host:81: got the models {told}; expected one, or --model NAME"

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        run("--users", "1", "--workers-from", "http://host:81", url=URL)


def test_table_has_a_column_for_each_transport(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run("--users", "1")

    shown = capsys.readouterr().out
    assert re.search(r"^ +all +grpc +rest *$", shown, re.MULTILINE)
    assert re.search(r"^ p99, ms +10\.0 +10\.0 +10\.0 *$", shown, re.MULTILINE)
    assert shown.endswith("p99 is 10 ms; the goal of 300 ms is met\n")


def test_failures_are_listed_with_an_example(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    made["result"] = result_of([10.0] * 100, ["ok"] * 99 + ["http 500"], examples={"http 500": ["[b] a fault"]})

    run("--users", "1")

    assert "\n1 x http 500: [b] a fault\n" in capsys.readouterr().out


def test_missed_goal_is_a_failure_after_all_is_told(
    made: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "new" / "page.html"
    with pytest.raises(SuffuseError, match=r"^p99 is 10 ms; the goal of 5 ms is missed$"):
        run("--users", "1", "--json", "-", "--html", str(page), slo="5")

    content = json.loads(capsys.readouterr().out)
    assert content["verdict"] == {
        "met": False, "goal_p99_ms": 5.0, "reason": "p99 is 10 ms; the goal of 5 ms is missed",
    }  # fmt: skip
    assert "Goal missed" in page.read_text("utf-8")


def test_json_goes_to_a_file_beside_the_table(
    made: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run("--users", "1", "--json", str(tmp_path / "figures.json"))

    assert json.loads((tmp_path / "figures.json").read_text("utf-8"))["requests"] == 100
    assert "100 requests in 10 s" in capsys.readouterr().out


def test_generator_that_was_the_bottleneck_is_told(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    made["result"] = result_of([10.0] * 100, generator_cpu_s=9.5)

    run("--users", "1")

    assert capsys.readouterr().err == (
        "warning: the generator used 95% of a core, and it has one; take a lower rate, or several generators\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "load-test takes one load: --rate, --users or --trace; got none"),
        (
            ("--rate", "3", "--users", "3"),
            "load-test takes one load: --rate, --users or --trace; got --rate and --users",
        ),
        (("--rate", "0"), "--rate is 0; expected requests a second, more than 0"),
        (("--rate", "-2"), "--rate is -2; expected requests a second, more than 0"),
        (("--users", "0"), "0 users; expected 1 to 2000"),
        (("--users", "2", "--duration", "-1"), "the duration is -1 s; expected more than 0"),
        (("--users", "2", "--grpc-share", "7"), "7 of the requests over gRPC; expected a share from 0 to 1"),
    ],
)
def test_bad_options_are_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        run(*arguments)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            URL,
            (
                f"which model of {URL}? Expected --model NAME, {URL}/predictions/NAME, or who lists it: --workers-from "
                "with a management address, or --key-file in the server's state folder"
            ),
        ),
        (
            "ftp://h:1/predictions/m",
            (
                "'ftp://h:1' is no server's address; expected http://HOST:PORT, https://HOST:PORT, grpc://HOST:PORT or "
                "grpcs://HOST:PORT"
            ),
        ),
    ],
)
def test_bad_addresses_are_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        run("--users", "1", url=url)


def test_goal_that_is_no_time_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--slo-p99 is 0; expected milliseconds, more than 0$"):
        run("--users", "1", slo="0")


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ("time\n5\n4\n", ":3: the time 4 comes before the one above it; expected times in ascending order"),
        ("time\n-5\n", ":2: the time is '-5'; expected 0 or more"),
    ],
)
def test_broken_trace_is_refused_by_line(lines: str, where: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(lines, "utf-8")

    with pytest.raises(DataError, match=f"^{re.escape(f'{trace}{where}')}"):
        run("--trace", str(trace))


@pytest.mark.parametrize(("slo", "status"), [("5000", 0), ("0.01", 1)])
def test_exit_status_is_the_verdict(slo: str, status: int, reviews_csv: Path) -> None:
    with fake_server(lambda _: (200, GOOD)) as server:
        options = [
            "--model",
            "m",
            "--data",
            str(reviews_csv),
            "--rate",
            "20",
            "--even",
            "--duration",
            "0.5",
            "--slo-p99",
            slo,
        ]

        assert cli.main(["load-test", server.url, *options]) == status
