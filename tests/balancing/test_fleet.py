"""Servers must be found where they are, and counted as they count."""

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from suffuse.balancing.canary import Traffic
from suffuse.balancing.fleet import Member, Place, fleet_of_state, fleet_of_urls, traffic_of
from suffuse.balancing.record import InstanceRecord, StackRecord
from suffuse.errors import InputError
from suffuse.serving.management import Management

METRICS = """\
# TYPE ts_inference_requests_total counter
ts_inference_requests_total{model_name="m",model_version="default",hostname="h",} 51.0
ts_inference_requests_total{model_name="m",model_version="2.0",hostname="h",} 7.0
ts_inference_requests_total{model_name="n",model_version="default",hostname="h",} 9.0
ts_inference_latency_microseconds{model_name="m",model_version="default",hostname="h",} 2500000.5
ts_queue_latency_microseconds{model_name="m",model_version="default",hostname="h",} 500000.5
"""


def write_properties(folder: Path, *more: str, host: str = "127.0.0.1") -> Path:
    folder.mkdir(exist_ok=True)
    addresses = {"inference": 1, "management": 2, "metrics": 3}
    lines = [f"{purpose}_address=http://{host}:{port}" for purpose, port in addresses.items()]
    (folder / "config.properties").write_text("\n".join([*lines, "model_store=/models", *more]), "utf-8")
    return folder


def test_single_server_is_found_by_its_state_folder(tmp_path: Path) -> None:
    state = write_properties(tmp_path / "serve", host="0.0.0.0")  # noqa: S104 - a text
    (state / "server.json").write_text("{}", "utf-8")

    with ExitStack() as resources:
        fleet = fleet_of_state(state, "m", resources)

    assert [member.place for member in fleet.members] == [
        Place("the server", "http://127.0.0.1:2", "http://127.0.0.1:1", state / "key_file.json", state)
    ]
    assert (fleet.balancer, fleet.model_store) == (None, Path("/models"))


def test_server_without_keys_is_asked_without_one(tmp_path: Path) -> None:
    state = write_properties(tmp_path / "serve", "disable_token_authorization=true")
    (state / "server.json").write_text("{}", "utf-8")

    with ExitStack() as resources:
        [member] = fleet_of_state(state, "m", resources).members

    assert member.place.key_file is None


def test_stack_is_found_by_its_state_folder(tmp_path: Path) -> None:
    instance = InstanceRecord("i1", "http://127.0.0.1:1", "grpc://127.0.0.1:4", "http://127.0.0.1:2", None)
    record = StackRecord(
        url="http://127.0.0.1:9",
        grpc_url="grpc://127.0.0.1:9",
        token_file=None,
        certificate=None,
        instances=(instance,),
        admin_socket=tmp_path / "admin.sock",
        metrics_url="http://127.0.0.1:8",
        model_store=tmp_path / "store",
        models=("m",),
        owner_pid=1,
        haproxy_pid=2,
    )
    record.write(tmp_path / "stack.json")
    write_properties(tmp_path / "i1")

    with ExitStack() as resources:
        fleet = fleet_of_state(tmp_path, "m", resources)

    assert [member.place for member in fleet.members] == [
        Place("i1", "http://127.0.0.1:2", "http://127.0.0.1:1", None, tmp_path / "i1")
    ]
    assert fleet.balancer is not None
    assert fleet.balancer.backends == ("rest_m", "grpc_m")
    assert fleet.model_store == tmp_path / "store"


def test_folder_of_no_server_is_refused(tmp_path: Path) -> None:
    expected = (
        f"{tmp_path}: got no state folder of a server that runs; expected the folder of logs that `suffuse serve` "
        "names when it is ready"
    )

    with ExitStack() as resources, pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        fleet_of_state(tmp_path, "m", resources)


def test_servers_elsewhere_are_known_by_their_addresses(tmp_path: Path) -> None:
    urls = ["http://a:8081", "http://b:8081"]

    with ExitStack() as resources:
        fleet = fleet_of_urls(urls, [], tmp_path, "m", resources)

    assert [member.name for member in fleet.members] == urls
    assert not any(member.answers_rows for member in fleet.members)


def test_work_is_counted_for_requests_that_name_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get(url: str, **_: object) -> httpx.Response:
        asked.append(url)
        return httpx.Response(200, text=METRICS, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    place = Place("i1", "http://127.0.0.1:2", state=write_properties(tmp_path / "i1"))

    with Member(place, "m") as member:
        assert member.work() == Traffic(answered=51, seconds=2.0)
    assert asked == ["http://127.0.0.1:3/metrics"]


def test_work_is_unknown_where_the_metrics_are_out_of_reach(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    state = write_properties(tmp_path / "i1")
    (state / "config.properties").write_text(f"metrics_address=http://127.0.0.1:{free_ports(1)[0]}", "utf-8")

    with Member(Place("i1", "http://127.0.0.1:2", state=state), "m") as member:
        assert member.work() == Traffic()


def test_traffic_counts_all_ways_to_fail_and_what_was_repeated_elsewhere() -> None:
    row = {"stot": "90", "hrsp_4xx": "1", "hrsp_5xx": "2", "econ": "4", "eresp": "8", "wretr": "", "qcur": "99"}

    assert traffic_of(row) == Traffic(requests=90, failed=15)


def test_queue_has_to_be_empty_for_a_while_before_a_version_is_drained() -> None:
    pending = [2, 0, 1, 0, 0]
    pauses: list[float] = []

    def reply(_: httpx.Request) -> httpx.Response:
        state = {"modelName": "m", "modelVersion": "1.0", "minWorkers": 1, "maxWorkers": 1, "batchSize": 1}
        queue = {"pendingRequests": pending.pop(0) if pending else 0}
        return httpx.Response(
            200, text=json.dumps([{**state, "maxBatchDelay": 1, "workers": [], "jobQueueStatus": queue}])
        )

    with Member(Place("i1", "http://a"), "m", Management("http://a", transport=httpx.MockTransport(reply))) as member:
        member.drain("1.0", 1e-9, 60.0, pauses.append)

    assert not pending
    assert len(pauses) == 4
