"""The page must stand alone, hold what was measured, and let nothing of what servers say act as markup."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from tests.load_test.test_figures import result_of

from suffuse.load_test.charts import Tick, bins, charts
from suffuse.load_test.page import render
from suffuse.load_test.plan import LoadConfig, Target, Users, evenly
from suffuse.load_test.workers import Workers

EVIL = "<script>alert(1)</script>"
LOSSES = ["ok"] * 60 + ["refused"] * 20 + ["http 500"] * 20
WORKERS = Workers(("a",), tuple(np.arange(20) / 2), ((1,),) * 10 + ((3,),) * 10)


def page(**fields: object) -> str:
    result = result_of([float(10 + number) for number in range(100)], LOSSES, **fields)  # type: ignore[arg-type]
    config = LoadConfig(Target("http://h:80", f"m{EVIL}", token="secret"), evenly(10, 10), "rows.csv")  # noqa: S106
    return render(result, 0.05, config)


def test_page_stands_alone_and_shows_no_key() -> None:
    html = page(workers=WORKERS)

    assert "secret" not in html
    assert not re.search(r"<link|<img|<script|@import|url\(|src=", html)
    assert re.findall(r"https?://[^\s<]+", html) == ["http://h:80;"]


def test_page_is_well_formed() -> None:
    opened: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, _attrs: object) -> None:
            if tag != "meta":
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in ("line", "path"):
                assert opened.pop() == tag

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

    Parser().feed(page(workers=WORKERS))

    assert opened == []


def test_what_servers_say_is_text() -> None:
    html = page(examples={"http 500": [EVIL]})

    assert EVIL not in html
    assert html.count("&lt;script&gt;") >= 3


def test_verdict_figures_and_failures_are_told() -> None:
    html = page()

    assert "Goal missed:</b> of 100 requests 20 were refused and 20 failed; 41.0% were answered within 50 ms" in html
    assert re.search(r"<th scope=\"row\">http 500</th><td>20</td>", html)
    assert re.search(r"p99 of answered, ms</th><td>69.0</td><td>69.0</td><td>68.0</td>", html)


def test_charts_as_a_table_have_a_line_for_each_bin() -> None:
    html = page(workers=WORKERS)
    table = html[html.index("The charts as a table") :]

    assert len(re.findall(r"<tr><th scope=\"row\">", table)) == 10
    assert (
        '<tr><th scope="row">9</th><td>10.0</td><td>0.0</td><td>0.0</td><td>10.0</td><td>-</td><td>-</td><td>3</td>'
        in table
    )


def test_closed_load_is_described() -> None:
    config = LoadConfig(Target("grpc://h:70", "m"), Users(8, 10), "rows.csv")

    assert "8 users, each asking again once answered, for 10 s" in render(result_of([5.0] * 9), 0.05, config)


def test_bins_are_round_and_few() -> None:
    of_bins = bins(result_of([1.0] * 100, duration_s=250))

    assert len(of_bins) == 50
    assert {one.start_s % 5 for one in of_bins} == {0}


def test_curves_have_gaps_where_nothing_was_answered() -> None:
    of_bins = bins(result_of([1.0] * 30, ["ok"] * 10 + ["refused"] * 10 + ["ok"] * 10))
    _, latencies = charts(of_bins, 10, 0.05)

    assert [line.path.count("M") for line in latencies.lines] == [2, 2]


@pytest.mark.parametrize(("count", "labels"), [(1, ["0", "1"]), (3, ["0", "1", "2", "3"]), (9, ["0", "5", "10"])])
def test_axis_of_workers_counts_whole_ones(count: int, labels: list[str]) -> None:
    workers = Workers(("a",), (0.0, 5.0), ((1,), (count,)))
    chart = charts(bins(result_of([1.0] * 30, workers=workers)), 10, 0.05)[-1]

    assert [tick.label for tick in chart.y_ticks] == labels
    assert (chart.y_ticks[0].at, chart.y_ticks[-1]) == (100, Tick(0, labels[-1]))


def test_workers_stay_until_they_are_read_again() -> None:
    workers = Workers(("a",), (0.5, 1.5, 4.2, 5.5), ((1,), (2,), (None,), (3,)))
    of_bins = bins(result_of([1.0] * 30, workers=workers))

    assert [one.workers for one in of_bins] == [1, 2, 2, 2, None, 3, 3, 3, 3, 3]


def test_goal_is_within_the_picture() -> None:
    for goal_s in (0.001, 5.0):
        latencies = charts(bins(result_of([10.0] * 30)), 10, goal_s)[1]

        assert latencies.goal_at is not None
        assert 0 < latencies.goal_at < 100
