"""A load test as one HTML file that needs no network: verdict, charts and the tables behind them."""

from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from suffuse.load_test.charts import bins, charts
from suffuse.load_test.figures import QUANTILES, LoadResult, quantile_name
from suffuse.load_test.plan import LoadConfig, Users


def render(result: LoadResult, goal_s: float, config: LoadConfig) -> str:
    """The page.

    Args:
        result: what was measured.
        goal_s: the latency that 99 of 100 requests should keep to.
        config: what was asked of which server; the key is not shown.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html.j2").read_text("utf-8"))
    of_bins = bins(result)
    transports = sorted(set(result.transport.tolist()))
    parts = {name: result.of(name) for name in transports}
    return template.render(
        result=result,
        goal_s=goal_s,
        met=result.meets(goal_s),
        verdict=result.verdict(goal_s),
        warning=result.generator_fault(goal_s),
        target=config.target,
        load=_described(config, result),
        started=datetime.fromtimestamp(result.started_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        charts=charts(of_bins, result.duration_s, goal_s),
        bins=of_bins,
        columns={"all": result, **parts} if len(parts) > 1 else parts,
        quantiles={quantile_name(q): q for q in QUANTILES},
        lag_ms=result.send_lag_p99_s * 1000,
        cpu_ms=result.generator_cpu_s * 1000 / max(1, len(result)),
    )


def _described(config: LoadConfig, result: LoadResult) -> str:
    seconds = f"{result.duration_s:.4g} s"
    if isinstance(config.load, Users):
        return f"{config.load.count} users, each asking again once answered, for {seconds}"
    return f"{len(result):,} requests, each sent when it was due, in {seconds}"
