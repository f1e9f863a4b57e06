"""Load on a server: real rows, at the times they are due, and every answer checked.

    config = LoadConfig(Target("http://127.0.0.1:8080", "sentiment"), poisson(40, 60, (1,)), "rows.jsonl")
    result = run_load(config)         # or start_load(config), to make things happen meanwhile
    result.percentile_of_all(99)      # seconds; a request that failed was never answered

    plan      what is asked of which server, when, with which rows
    checks    is an answer right?
    senders   one request over REST or gRPC, in gevent
    users     those who ask, for locust
    runner    the child process that makes the load; gevent patches a process, and callers stay as they are
    engine    starts that child, and waits for what it measured
    figures   what was measured
    workers   the server's workers meanwhile
    charts, page   the same as one HTML file

Nothing is imported before its first use: locust patches whoever imports it, and may do so in the child alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suffuse.load_test.engine import RunningLoad, run_load, start_load
    from suffuse.load_test.figures import LoadResult
    from suffuse.load_test.plan import LoadConfig, Target, Users

__all__ = ["LoadConfig", "LoadResult", "RunningLoad", "Target", "Users", "run_load", "start_load"]

_HOMES = {
    "LoadConfig": "plan",
    "Target": "plan",
    "Users": "plan",
    "LoadResult": "figures",
    "RunningLoad": "engine",
    "run_load": "engine",
    "start_load": "engine",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name in _HOMES:
        return getattr(importlib.import_module(f"suffuse.load_test.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
