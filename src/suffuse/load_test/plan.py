"""What a load test asks: of which server, when, with which rows; and the order that its child process gets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from suffuse.autoscale.arrivals import Arrivals
from suffuse.errors import DataError, InputError, RowError
from suffuse.rows import Row, read_rows
from suffuse.serving.transports import check_address

FIELDS = ("text", "text_pair", "tokens", "question", "context")
"""What suffuse's tasks read of a row; the rest, such as a label, is not sent."""

MOST_ROWS = 50_000
"""Read of a file, from its beginning: more variety changes no figure, and takes memory."""

MOST_USERS = 2000
"""Of one generator, which has one core; and of sockets a process may usually open a thousand and some."""


@dataclass(frozen=True)
class Users:
    """A closed loop: each of `count` users asks again as soon as it is answered, for `duration_s` seconds."""

    count: int
    duration_s: float

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_USERS:
            raise InputError(f"{self.count} users; expected 1 to {MOST_USERS}")
        if not 0 < self.duration_s < float("inf"):
            raise InputError(f"the duration is {self.duration_s:g} s; expected more than 0")


@dataclass(frozen=True)
class Target:
    """A model on a server.

    Args:
        url: ``http://``, ``https://``, ``grpc://`` or ``grpcs://``, host and port.
        model: its name.
        grpc_url: where the share that goes over gRPC goes; by default to the host and port of `url`, as where a
            balancer takes both on one port.
        grpc_share: of the requests, 0 to 1; by default one half where there is a `grpc_url`, else none, and all where
            `url` is itself one of gRPC.
        token: the inference key.
        key_file: the server's key_file.json, instead of `token`.
        ca_file: PEM file of the authority that signed the server's certificate.
        timeout_s: a request that takes longer has failed; seconds.
    """

    url: str
    model: str
    grpc_url: str = ""
    grpc_share: float | None = None
    token: str | None = field(default=None, repr=False)
    key_file: Path | str | None = None
    ca_file: Path | str | None = None
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        check_address(self.url)
        if self.grpc_url:
            check_address(self.grpc_url)
            if not _is_grpc(self.grpc_url):
                raise InputError(
                    f"{self.grpc_url!r} is no address of gRPC; expected grpc://HOST:PORT or grpcs://HOST:PORT"
                )
            if _is_grpc(self.url):
                raise InputError(f"both {self.url} and {self.grpc_url} are addresses of gRPC; expected one of them")
        if self.grpc_share is not None and not 0 <= self.grpc_share <= 1:
            raise InputError(f"{self.grpc_share:g} of the requests over gRPC; expected a share from 0 to 1")
        if not 0 < self.timeout_s < float("inf"):
            raise InputError(f"the time limit of a request is {self.timeout_s:g} s; expected more than 0")
        if not self.model:
            raise InputError("no model is named; expected its name, as `suffuse serve` lists it")

    @property
    def share_of_grpc(self) -> float:
        """Of the requests, 0 to 1."""
        if _is_grpc(self.url):
            return 1.0
        return self.grpc_share if self.grpc_share is not None else 0.5 if self.grpc_url else 0.0

    @property
    def rest(self) -> str | None:
        """The address for REST; None where nothing goes there."""
        return self.url.rstrip("/") if self.share_of_grpc < 1 else None

    @property
    def grpc(self) -> str | None:
        """The address for gRPC; None where nothing goes there."""
        if self.share_of_grpc == 0:
            return None
        if _is_grpc(self.url):
            return self.url
        parts = urlsplit(self.url)
        return self.grpc_url or f"{'grpcs' if parts.scheme == 'https' else 'grpc'}://{parts.netloc}"

    @property
    def path(self) -> str:
        """Of the model over REST."""
        return f"/predictions/{quote(self.model, safe='')}"


@dataclass(frozen=True)
class LoadConfig:
    """A load test.

    Answers must have one of the shapes of suffuse's tasks. Beyond that they are compared with `expected`, or, without,
    with what the same row was answered before.

    Args:
        target: which model on which server.
        load: when requests are sent: `Users` for a closed loop, or `Arrivals` (of suffuse.autoscale.arrivals), each
            sent when it is due, however slow the answers are.
        data: a file of rows, as `suffuse.rows.read_rows` takes it; drawn from in random order, up to `MOST_ROWS`.
        fields: which of a row's fields are sent; by default those of `FIELDS` that it has.
        columns: field -> column, where the file names them otherwise.
        expected: JSON lines, one answer a row of `data`, as `suffuse predict BUNDLE --input DATA --output` writes.
        answers_may_change: the same row may be answered differently, as while a new version is rolled out.
        most_in_flight: requests under way at once; further arrivals wait, are counted, and their wait is latency.
        workers_from: where numbers of workers are read meanwhile: management URLs of TorchServe, or addresses of
            Prometheus metrics, which end in ``/metrics``.
        seed: of the order of rows and transports.
    """

    target: Target
    load: Users | Arrivals
    data: str | Path
    fields: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    expected: str | Path = ""
    answers_may_change: bool = False
    most_in_flight: int = 1000
    workers_from: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.most_in_flight <= 10_000:
            raise InputError(f"at most {self.most_in_flight} requests in flight; expected 1 to 10000")


@dataclass(frozen=True)
class Order:
    """What the child process is to do; it travels as JSON.

    Args:
        target: which model on which server.
        bodies: of requests, to draw from.
        expected: an answer for each; None where they are not known.
        answers_may_change: see LoadConfig.
        users: of a closed loop; 0 where there are `times_s`.
        times_s: when requests are due, in seconds from the start.
        duration_s: how long requests are sent.
        most_in_flight: see LoadConfig.
        seed: of the order of rows and transports.
    """

    target: Target
    bodies: tuple[str, ...]
    expected: tuple[dict[str, Any], ...] | None
    answers_may_change: bool
    users: int
    times_s: tuple[float, ...]
    duration_s: float
    most_in_flight: int
    seed: int

    def write(self, path: Path) -> None:
        """As JSON. The file holds the key: its folder must be private."""
        path.write_text(json.dumps(asdict(self), default=str), "utf-8")

    @classmethod
    def read(cls, path: Path) -> "Order":
        """What `write` wrote."""
        content = json.loads(path.read_text("utf-8"))
        content["target"] = Target(**content["target"])
        listed = {name: tuple(content[name]) for name in ("bodies", "expected", "times_s") if content[name] is not None}
        return cls(**content | listed)


def evenly(rate_per_s: float, duration_s: float) -> Arrivals:
    """Requests at a constant rate, one as long after another as the next after that.

    Raises:
        InputError: the rate or the duration is not more than 0.
    """
    if not (0 < rate_per_s < float("inf") and 0 < duration_s < float("inf")):
        raise InputError(f"{rate_per_s:g} requests a second for {duration_s:g} s; expected more than 0 of both")
    times_s = np.arange(max(1, int(rate_per_s * duration_s + 1e-9))) / rate_per_s
    return Arrivals(times_s, np.ones(len(times_s), dtype=np.int64), duration_s)


def first_seconds(arrivals: Arrivals, duration_s: float) -> Arrivals:
    """Those of the first `duration_s` seconds.

    Raises:
        InputError: the duration is not more than 0, or longer than all.
    """
    if not 0 < duration_s <= arrivals.duration_s:
        raise InputError(
            f"the duration is {duration_s:g} s; expected more than 0 and at most {arrivals.duration_s:.0f} s, "
            "the length of the trace at this speed"
        )
    count = int(np.searchsorted(arrivals.times_s, duration_s))
    return Arrivals(arrivals.times_s[:count], arrivals.tokens[:count], duration_s)


def make_order(config: LoadConfig) -> Order:
    """Read the rows and fix the times.

    Raises:
        DataError, RowError: a file cannot be read, holds no rows, or no fields that could be sent; the number of
            expected answers is not that of the rows.
    """
    rows = _rows(config)
    expected = _expected(config.expected, len(rows)) if config.expected else None
    if expected is not None:  # a row that has no answer tells nothing of the server
        rows = [row for row, answer in zip(rows, expected, strict=True) if "error" not in answer]
        expected = tuple(answer for answer in expected if "error" not in answer)
        if not rows:
            raise DataError(f"{config.expected}: all answers are errors; expected some that are none")
    load = config.load
    return Order(
        target=config.target,
        bodies=tuple(json.dumps(row, separators=(",", ":")) for row in rows),
        expected=expected,
        answers_may_change=config.answers_may_change,
        users=load.count if isinstance(load, Users) else 0,
        times_s=() if isinstance(load, Users) else tuple(load.times_s.tolist()),
        duration_s=load.duration_s,
        most_in_flight=config.most_in_flight,
        seed=config.seed,
    )


def _rows(config: LoadConfig) -> list[dict[str, Any]]:
    rows = []
    for where, row in read_rows(config.data, config.columns):
        rows.append(_sent(where, row, config.fields))
        if len(rows) == MOST_ROWS:
            break
    return rows


def _sent(where: str, row: Row, fields: Sequence[str]) -> dict[str, Any]:
    """The part of a row that goes to the server; not a list of tags that would be taken for the answer."""
    sent = {name: row[name] for name in fields or FIELDS if name in row}
    if not sent or (fields and len(sent) < len(fields)):
        raise RowError(
            f"the row has {', '.join(row) or 'nothing'}; expected {', '.join(fields) or ' or '.join(FIELDS)}: name "
            "what to send, or which column it is in",
            code="missing_field",
            where=where,
        )
    return sent


def _expected(path: str | Path, rows: int) -> tuple[dict[str, Any], ...]:
    answers = [dict(answer) for _, answer in islice(read_rows(path), rows + 1)]
    if len(answers) < rows or (len(answers) > rows and rows < MOST_ROWS):
        raise DataError(
            f"{path}: {len(answers)} answers to {rows} rows; expected one for each, in the same order, as "
            "`suffuse predict BUNDLE --input ROWS --output ANSWERS` writes them"
        )
    return tuple(answers[:rows])


def _is_grpc(url: str) -> bool:
    return urlsplit(url).scheme.startswith("grpc")
