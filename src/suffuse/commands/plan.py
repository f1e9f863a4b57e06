"""`suffuse plan`: how many workers a load needs, by simulation."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from suffuse.errors import InputError

if TYPE_CHECKING:
    from suffuse.autoscale.arrivals import Arrivals
    from suffuse.autoscale.planning import Scenario
    from suffuse.autoscale.service_time import Profile

SUMMARY = "say how many workers a load needs, and what scaling saves, by simulation"

TABLE_WIDTH = 100
LOADS = ("trace", "rate", "step", "swing")


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--profile", type=str, required=True, help="file that profile wrote")
    parser.add_argument("--slo-p99", type=float, required=True, help="ms within which 99 of 100 requests are answered")
    parser.add_argument("--trace", type=str, default="", help="CSV of arrivals: a time, a length in tokens")
    parser.add_argument("--time-column", type=str, default="", help="of the trace (default: TIMESTAMP, time_s, time)")
    parser.add_argument("--tokens-column", type=str, default="", help="of the trace (default: ContextTokens, tokens)")
    parser.add_argument("--speed", type=float, default=1.0, help="runs the clock of the trace faster, or slower")
    parser.add_argument("--rate", type=float, help="requests a second, constant")
    parser.add_argument("--step", type=float, nargs=2, help="two rates: the second in the middle third of the time")
    parser.add_argument("--swing", type=float, nargs=2, help="two rates: from the first to the second and back")
    parser.add_argument("--duration", type=float, default=600.0, help="seconds of a rate, a step or a swing")
    parser.add_argument("--tokens", type=int, default=0, help="length of requests (default: the profile's, or trace's)")
    parser.add_argument("--min-workers", type=int, default=1, help="never fewer")
    parser.add_argument("--max-workers", type=int, default=16, help="never more")
    parser.add_argument("--batch-size", type=int, default=64, help="as archived")
    parser.add_argument("--max-batch-delay", type=float, default=1.0, help="ms, as archived")
    parser.add_argument("--queue", type=int, default=100, help="requests that may wait; further ones are refused")
    parser.add_argument(
        "--overhead", type=float, default=3.0, help="ms of network, balancer and server for each request"
    )
    parser.add_argument(
        "--handover", type=float, default=2.0, help="ms of a worker for each batch beyond its profile: sockets, parsing"
    )
    parser.add_argument("--start", type=float, nargs=2, default=[3.5, 6.0], help="least and most seconds of a start")
    parser.add_argument("--seed", type=int, default=0, help="the same gives the same")
    parser.add_argument("--plot", type=str, default="", help="picture to write: .svg, .png or .pdf")
    parser.add_argument("--json", action="store_true", help="JSON instead of the table")


def run(settings: Namespace) -> None:
    """Simulate every rule on the load; the table or JSON goes to stdout.

    Raises:
        InputError: the profile, the trace or a number cannot be used.
    """
    from rich.console import Console

    from suffuse.autoscale.planning import make_plan

    picture = Path(settings.plot) if settings.plot else None
    if picture:
        from suffuse.autoscale.plot import check_path

        check_path(picture)
    scenario = _scenario(settings)
    with Console(stderr=True).status("simulating") as status:  # shown on a terminal only
        plan = make_plan(scenario, lambda name: status.update(f"simulating {name}"))
    if settings.json:
        sys.stdout.write(json.dumps(plan.as_json(), indent=2, allow_nan=False) + "\n")
    else:
        console = Console(file=sys.stdout)
        console.width = max(console.width, TABLE_WIDTH)  # a pipe has no width, and a table cut short is of no use
        console.print(plan.table())
    if picture:
        from suffuse.autoscale.plot import draw

        draw(plan, picture)


def _scenario(settings: Namespace) -> "Scenario":
    from suffuse.autoscale.planning import Scenario
    from suffuse.autoscale.policy import Policy
    from suffuse.autoscale.service_time import Profile
    from suffuse.autoscale.simulator import Stack

    if not 0 < settings.slo_p99 < float("inf"):
        raise InputError(f"--slo-p99 is {settings.slo_p99:g}; expected milliseconds, more than 0")
    profile = Profile.open(settings.profile)
    stack = Stack(
        profile.service,
        batch_size=settings.batch_size,
        max_batch_delay_s=settings.max_batch_delay / 1000,
        queue_limit=settings.queue,
        overhead_s=settings.overhead / 1000,
        handover_s=settings.handover / 1000,
        start_s=tuple(settings.start),
    )
    goal_s = settings.slo_p99 / 1000
    policy = Policy(settings.min_workers, settings.max_workers, goal_s, start_s=stack.start_s[1])
    return Scenario(_arrivals(settings, profile), stack, policy, seed=settings.seed)


def _arrivals(settings: Namespace, profile: "Profile") -> "Arrivals":
    from suffuse.autoscale.arrivals import poisson, read_trace, step, swing

    given = [f"--{name}" for name in LOADS if settings[name] not in (None, "")]
    if len(given) != 1:
        raise InputError(
            f"plan takes one load: --trace, --rate, --step or --swing; got {' and '.join(given) or 'none'}"
        )
    if settings.tokens < 0:
        raise InputError(f"--tokens is {settings.tokens}; expected at least 1, or 0 for the lengths of the profile")
    lengths = (settings.tokens,) if settings.tokens else profile.lengths
    if settings.trace:
        trace = read_trace(
            settings.trace,
            time_column=settings.time_column,
            tokens_column=settings.tokens_column,
            lengths=lengths,
            seed=settings.seed,
        )
        return trace.faster(settings.speed)
    if settings.step:
        return step(settings.step[0], settings.step[1], settings.duration, lengths, settings.seed)
    if settings.swing:
        return swing(settings.swing[0], settings.swing[1], settings.duration, lengths, settings.seed)
    return poisson(settings.rate, settings.duration, lengths, settings.seed)
