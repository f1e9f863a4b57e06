"""What is sent where and when must be what was asked for; what makes no sense must be refused before that."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suffuse.autoscale.arrivals import Arrivals
from suffuse.errors import DataError, InputError, RowError
from suffuse.load_test.plan import LoadConfig, Order, Target, Users, evenly, first_seconds, make_order

REST, GRPC = "http://127.0.0.1:80", "grpc://127.0.0.1:70"


@pytest.mark.parametrize(
    ("target", "rest", "grpc", "share"),
    [
        (Target(REST, "m"), REST, None, 0.0),
        (Target(GRPC, "m"), None, GRPC, 1.0),
        (Target(REST, "m", grpc_url=GRPC), REST, GRPC, 0.5),
        (Target(REST, "m", grpc_url=GRPC, grpc_share=1), None, GRPC, 1.0),
        (Target(REST, "m", grpc_url=GRPC, grpc_share=0), REST, None, 0.0),
        (Target(REST, "m", grpc_share=0.2), REST, "grpc://127.0.0.1:80", 0.2),
        (Target("https://h:443/", "m", grpc_share=0.2), "https://h:443", "grpcs://h:443", 0.2),
    ],
)
def test_requests_go_where_they_should(target: Target, rest: str | None, grpc: str | None, share: float) -> None:
    assert (target.rest, target.grpc, target.share_of_grpc) == (rest, grpc, share)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Target("ftp://h:1", "m"),
            (
                "'ftp://h:1' is no server's address; expected http://HOST:PORT, https://HOST:PORT, grpc://HOST:PORT or "
                "grpcs://HOST:PORT"
            ),
        ),
        (
            lambda: Target(REST, "m", grpc_url=REST),
            "'http://127.0.0.1:80' is no address of gRPC; expected grpc://HOST:PORT or grpcs://HOST:PORT",
        ),
        (
            lambda: Target(GRPC, "m", grpc_url=GRPC),
            "both grpc://127.0.0.1:70 and grpc://127.0.0.1:70 are addresses of gRPC; expected one of them",
        ),
        (lambda: Target(REST, "m", grpc_share=2), "2 of the requests over gRPC; expected a share from 0 to 1"),
        (lambda: Target(REST, "m", timeout_s=0), "the time limit of a request is 0 s; expected more than 0"),
        (lambda: Target(REST, ""), "no model is named; expected its name, as `suffuse serve` lists it"),
        (lambda: Users(0, 5), "0 users; expected 1 to 2000"),
        (lambda: Users(5, 0), "the duration is 0 s; expected more than 0"),
        (lambda: evenly(0, 5), "0 requests a second for 5 s; expected more than 0 of both"),
        (
            lambda: LoadConfig(Target(REST, "m"), Users(1, 1), "", most_in_flight=0),
            "at most 0 requests in flight; expected 1 to 10000",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        make()


def order_of(data: Path, **options: Any) -> Order:  # noqa: ANN401
    return make_order(LoadConfig(Target(REST, "m"), Users(1, 1), data, **options))


def test_only_what_a_task_reads_is_sent(rows: Path) -> None:
    assert order_of(rows).bodies[0] == '{"text":"film 0"}'


def test_named_fields_and_columns_are_sent(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("id,sentence,mood\n1,a film,good\n", "utf-8")

    order = order_of(data, fields=["text", "mood"], columns={"text": "sentence"})

    assert order.bodies == ('{"text":"a film","mood":"good"}',)


def test_rows_without_the_fields_are_refused_by_line(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("id,sentence\n1,a film\n", "utf-8")
    message = (
        "rows.csv:2: the row has id, sentence; expected text or text_pair or tokens or question or context: name what "
        "to send, or which column it is in"
    )

    with pytest.raises(RowError, match=f"^{re.escape(message)}$"):
        order_of(data)


def test_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\n", "utf-8")

    with pytest.raises(DataError, match=r"^rows.csv: the file holds no rows; expected at least one$"):
        order_of(tmp_path / "rows.csv")


def test_rows_without_an_expected_answer_are_left_out(rows: Path, tmp_path: Path) -> None:
    expected = tmp_path / "answers.jsonl"
    answers = [{"score": float(number)} if number else {"error": {"code": "too_long"}} for number in range(10)]
    expected.write_text("".join(json.dumps(answer) + "\n" for answer in answers), "utf-8")

    order = order_of(rows, expected=expected)

    assert (len(order.bodies), order.bodies[0]) == (9, '{"text":"film 1"}')
    assert order.expected is not None
    assert order.expected[0] == {"score": 1.0}


@pytest.mark.parametrize("count", [9, 11])
def test_another_number_of_expected_answers_is_refused(rows: Path, tmp_path: Path, count: int) -> None:
    expected = tmp_path / "answers.jsonl"
    expected.write_text('{"score": 1.0}\n' * count, "utf-8")
    message = (
        f"{expected}: {count} answers to 10 rows; expected one for each, in the same order, as "
        "`suffuse predict BUNDLE --input ROWS --output ANSWERS` writes them"
    )

    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        order_of(rows, expected=expected)


def test_expected_answers_that_are_all_errors_are_refused(rows: Path, tmp_path: Path) -> None:
    expected = tmp_path / "answers.jsonl"
    expected.write_text('{"error": {}}\n' * 10, "utf-8")
    message = f"{expected}: all answers are errors; expected some that are none"

    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        order_of(rows, expected=expected)


def test_even_arrivals_come_one_as_long_after_another_as_the_next() -> None:
    arrivals = evenly(20, 2)

    assert (len(arrivals), arrivals.duration_s) == (40, 2)
    assert np.diff(arrivals.times_s) == pytest.approx(0.05)


def test_a_trace_can_be_cut() -> None:
    trace = Arrivals(np.array([0.0, 1.0, 2.0, 3.0]), np.ones(4, dtype=np.int64), 3.0)

    cut = first_seconds(trace, 2)

    assert (cut.times_s.tolist(), cut.duration_s) == ([0.0, 1.0], 2)
    message = "the duration is 9 s; expected more than 0 and at most 3 s, the length of the trace at this speed"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        first_seconds(trace, 9)


@pytest.mark.parametrize("load", [Users(3, 2), evenly(20, 2)])
def test_an_order_arrives_as_it_was_given(load: Any, rows: Path, tmp_path: Path) -> None:  # noqa: ANN401
    target = Target(REST, "m", grpc_share=0.5, token="secret", key_file="k.json")  # noqa: S106 - a word
    order = make_order(LoadConfig(target, load, rows, seed=3))
    order.write(tmp_path / "order.json")

    assert Order.read(tmp_path / "order.json") == order
    assert "secret" not in repr(order)
