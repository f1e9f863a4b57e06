"""A load must be what was asked for, whatever the server does, and count what came of each request."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.load_test.conftest import GOOD, FakeServer, fake_server, self_signed

from suffuse.errors import AuthorizationError, ConnectError, DataError, SuffuseError, UnknownModelError
from suffuse.load_test import LoadConfig, Target, Users, run_load, start_load
from suffuse.load_test.engine import Progress
from suffuse.load_test.plan import evenly

Row = dict[str, Any]


def good(_row: Row) -> tuple[int, Row]:
    return 200, GOOD


def both(server: FakeServer, **options: Any) -> Target:  # noqa: ANN401
    return Target(server.url, "m", grpc_url=server.grpc_url, **options)


def test_users_ask_over_both_transports_until_time_is_up(rows: Path) -> None:
    with fake_server(good) as server:
        result = run_load(LoadConfig(both(server, token="t"), Users(4, 1.0), rows))  # noqa: S106 - a word

    assert result.answered == len(result) > 50
    assert len(result.of("rest")) > 0 < len(result.of("grpc"))
    assert float(result.start_s.max()) <= 1.0
    assert {(authorization, *row) for _, authorization, row in server.rows} == {("Bearer t", "text")}
    assert len({row["text"] for _, _, row in server.rows}) == 10


def test_load_by_tls_believes_the_named_authority(rows: Path, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with fake_server(good, certificate) as server:
        result = run_load(LoadConfig(both(server, ca_file=certificate.pem), evenly(40, 0.5), rows))

    assert result.answered == len(result) == 20, result.examples


def test_slow_answers_do_not_thin_an_open_load(rows: Path) -> None:
    def slow(_row: Row) -> tuple[int, Row]:
        time.sleep(0.5)
        return 200, GOOD

    with fake_server(slow) as server:
        result = run_load(LoadConfig(Target(server.url, "m"), evenly(30, 1), rows))

    assert len(result) == 30
    assert result.start_s == pytest.approx(np.arange(30) / 30)
    assert result.percentile(50) == pytest.approx(0.5, abs=0.2)


def test_latency_counts_from_when_a_request_was_due(rows: Path) -> None:
    def slow(_row: Row) -> tuple[int, Row]:
        time.sleep(0.2)
        return 200, GOOD

    with fake_server(slow) as server:
        result = run_load(LoadConfig(Target(server.url, "m"), evenly(10, 1), rows, most_in_flight=1))

    # Each waits for the one before it: the last of ten, due after 0.9 s, is answered after 2 s.
    assert result.latency_s[-1] > 1.0
    assert result.held_back >= 8
    assert result.generator_fault(1.0) is not None


def test_rows_are_drawn_as_the_seed_says(rows: Path) -> None:
    with fake_server(good) as server:
        run_load(LoadConfig(Target(server.url, "m"), evenly(40, 0.5), rows, seed=3))

    draw = random.Random(3)
    asked = [row["text"] for _, _, row in server.rows[1:]]
    assert sorted(asked) == sorted(f"film {draw.randrange(10)}" for _ in range(20))


def test_failures_are_counted_by_kind(rows: Path) -> None:
    error = {"error": {"code": "missing_field", "message": "no text"}}
    replies: dict[str, tuple[int, Row]] = {
        "film 1": (429, {"code": 429}),
        "film 2": (500, {"code": 500, "message": "a fault"}),
        "film 3": (200, error),
        "film 4": (200, {**GOOD, "score": 0.1}),
        "film 5": (422, error),
    }

    with fake_server(lambda row: replies.get(row["text"], (200, GOOD))) as server:
        result = run_load(LoadConfig(both(server), evenly(200, 1), rows))

    asked = Counter((transport, row["text"]) for transport, _, row in server.rows)
    films = {film: asked["rest", film] + asked["grpc", film] for film in replies}
    assert result.failures == {
        "refused": films["film 1"],
        "error missing_field": films["film 3"],
        "wrong answer": films["film 4"],
        "http 500": asked["rest", "film 2"],
        "http 422": asked["rest", "film 5"],
        "grpc UNAVAILABLE": asked["grpc", "film 2"] + asked["grpc", "film 5"],
    }
    assert result.examples["http 500"] == [f"{server.url}: model 'm': a fault (status 500)"]


def test_answer_that_changes_is_wrong(rows: Path) -> None:
    scores = iter(np.linspace(0.6, 0.9, 1000))

    def answer(_row: Row) -> tuple[int, Row]:
        score = float(next(scores))
        return 200, {"label": "good", "score": score, "scores": {"bad": 1 - score, "good": score}}

    with fake_server(answer) as server:
        result = run_load(LoadConfig(Target(server.url, "m"), evenly(40, 1), rows))
        free = run_load(LoadConfig(Target(server.url, "m"), evenly(40, 1), rows, answers_may_change=True))

    assert set(result.failures) == {"wrong answer"}
    assert free.failures == {}


def test_answers_are_compared_with_those_expected(rows: Path, tmp_path: Path) -> None:
    expected = tmp_path / "expected.jsonl"
    other = {"label": "bad", "score": 0.75, "scores": {"bad": 0.75, "good": 0.25}}
    expected.write_text("".join(json.dumps(GOOD if index else other) + "\n" for index in range(10)), "utf-8")

    with fake_server(good) as server:
        result = run_load(LoadConfig(Target(server.url, "m"), evenly(60, 1), rows, expected=expected))

    asked = Counter(row["text"] for _, _, row in server.rows[1:])
    assert result.failures == {"wrong answer": asked["film 0"]}
    assert result.examples["wrong answer"] == ['got 0.25 but 0.75 expected; the row is {"text": "film 0"}']


def test_time_limit_and_broken_connection_are_told_apart(rows: Path) -> None:
    asked: list[Row] = []

    def answer(row: Row) -> tuple[int, Row]:
        asked.append(row)
        if len(asked) == 3:
            time.sleep(1.5)
        if len(asked) == 5:
            raise ConnectionAbortedError
        return good(row)

    with fake_server(answer) as server:
        result = run_load(LoadConfig(Target(server.url, "m", timeout_s=0.5), evenly(5, 2), rows))

    assert result.failures == {"connection": 1, "timeout": 1}
    assert len(asked) == 11, "a request was sent again"


def test_refusal_over_grpc_is_quick_while_many_calls_wait(rows: Path) -> None:
    """With gevent's pool of ten threads it was seen only when earlier calls had ended."""
    busy = threading.Semaphore(21)  # one for the request before the load

    def answer(row: Row) -> tuple[int, Row]:
        if not busy.acquire(blocking=False):
            return 429, {}
        if len(server.rows) > 1:
            time.sleep(2.5)
        return good(row)

    with fake_server(answer) as server:
        result = run_load(LoadConfig(Target(server.grpc_url, "m"), evenly(40, 1), rows))

    refused = result.latency_s[result.outcome == "refused"]
    assert (result.answered, len(refused)) == (20, 20)
    assert float(np.median(refused)) < 0.1
    assert float(refused.max()) < 1.0


def test_stopped_load_ends_early_with_what_it_has(rows: Path) -> None:
    seen: list[Progress] = []
    with (
        fake_server(good) as server,
        start_load(LoadConfig(both(server), evenly(50, 60), rows), seen.append) as running,
    ):
        assert time.time() - running.started_at < 5
        while not seen:
            time.sleep(0.05)
        running.stop()
        result = running.wait()

    assert result.answered == len(result) == running.so_far.sent
    assert result.duration_s < 10
    assert result.sent_rate == pytest.approx(50, rel=0.3)


def test_generator_that_broke_says_why(rows: Path, tmp_path: Path) -> None:
    with fake_server(good) as server, start_load(LoadConfig(Target(server.url, "m"), evenly(5, 60), rows)) as running:
        [child] = [one for one in psutil.Process().children() if "suffuse.load_test.runner" in one.cmdline()]
        child.kill()
        with pytest.raises(SuffuseError, match=r"^the load generator ended with status -9: no message$"):
            running.wait()


def test_left_load_leaves_no_process(rows: Path) -> None:
    with fake_server(good) as server, start_load(LoadConfig(Target(server.url, "m"), evenly(5, 60), rows)):
        children = [one for one in psutil.Process().children() if "suffuse.load_test.runner" in one.cmdline()]

    assert len(children) == 1
    assert not children[0].is_running()


def test_server_that_is_not_there_is_named_before_the_load(rows: Path, free_ports: Any) -> None:  # noqa: ANN401
    [port] = free_ports(1)

    with pytest.raises(ConnectError, match=rf"^http://127.0.0.1:{port}: model 'm': no connection"):
        run_load(LoadConfig(Target(f"http://127.0.0.1:{port}", "m"), Users(1, 1), rows))


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (
            (400, {"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}),
            AuthorizationError,
            "Token Authorization failed. (status 400): got a wrong or outdated key",
        ),
        (
            (404, {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: m"}),
            UnknownModelError,
            "Model not found: m (status 404)",
        ),
        (
            (422, {"error": {"code": "missing_field", "message": "no context"}}),
            DataError,
            "does not answer the first row: no context; expected rows of the task of model 'm'",
        ),
    ],
)
def test_mistake_is_told_after_one_request(
    reply: tuple[int, Row], error: type[Exception], message: str, rows: Path
) -> None:
    with fake_server(lambda _: reply) as server, pytest.raises(error) as caught:
        run_load(LoadConfig(Target(server.url, "m", token="wrong"), Users(1, 1), rows))  # noqa: S106 - a word

    assert message in str(caught.value)
    assert len(server.rows) == 1


def test_busy_server_is_no_mistake(rows: Path) -> None:
    with fake_server(lambda _: (429, {})) as server:
        result = run_load(LoadConfig(Target(server.url, "m"), evenly(10, 0.5), rows))

    assert result.failures == {"refused": 5}


def test_caller_stays_unpatched() -> None:
    check = "import suffuse.load_test.engine, socket, sys; print(socket.socket.__module__, 'gevent' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["socket", "False"]
