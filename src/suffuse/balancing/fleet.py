"""The servers that a rollout changes, and the balancer before them, as it sees both: one model, two versions."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from suffuse.balancing.admin import AdminSocket
from suffuse.balancing.canary import Reply, Traffic
from suffuse.balancing.record import FILE, InstanceRecord, StackRecord
from suffuse.errors import AnswerError, ClientError, InputError, ServerError, UnknownModelError
from suffuse.serving.client import Client
from suffuse.serving.management import Management, ModelState
from suffuse.serving.settings import read_properties

Pause = Callable[[float], None]
"""Waits so many seconds; raises where the waiting is to end."""

_POLL_S = 0.25
_TAIL_LINES = 12
_ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared, not bound
_COUNTER = re.compile(r'(\w+)\{model_name="([^"]*)",model_version="([^"]*)"[^}]*\} (\S+)')
_FAILURES = ("hrsp_4xx", "hrsp_5xx", "econ", "eresp", "wretr")  # a repeated request has no status of its own


@dataclass(frozen=True)
class Place:
    """Where one server is.

    Args:
        name: in messages, and in HAProxy's backends.
        management_url: for `Management`.
        rest_url: inference over REST; None where it is not known, and then no row can be asked.
        key_file: where its keys are; None where it asks for none.
        state: its state folder, which has its logs; None where it is not on this machine.
    """

    name: str
    management_url: str
    rest_url: str | None = None
    key_file: Path | None = None
    state: Path | None = None


class Member:
    """One server, for one model; a context manager.

    Args:
        place: where it is.
        model: the model's name.
        management: stands in for the one of `place`, in tests.
        client: likewise.
    """

    def __init__(
        self, place: Place, model: str, management: Management | None = None, client: Client | None = None
    ) -> None:
        self.place = place
        self.name = place.name
        self._model = model
        self._management = management or Management(place.management_url, key_file=place.key_file, timeout_s=30.0)
        if client is None and place.rest_url is not None:
            client = Client(place.rest_url, key_file=place.key_file, retries=0)
        self._client = client
        self._metrics_url: str | None = None if place.state is None else _metrics_url(place.state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._management.close()
        if self._client is not None:
            self._client.close()

    def default_version(self) -> str:
        """The version that answers requests which name none."""
        return self._management.describe(self._model).version

    def state(self, version: str) -> ModelState | None:
        """How a version stands; None where the server does not have it."""
        try:
            return self._management.describe(self._model, version)
        except UnknownModelError:
            return None

    def set_default(self, version: str) -> None:
        """Have requests that name no version answered by this one, at once."""
        self._management.set_default(self._model, version)

    def bring_up(self, archive: str, version: str, workers: int, limit_s: float, pause: Pause) -> None:
        """Register a version where it is not, and return when it has as many workers as asked for.

        Args:
            archive: its file in the model store.
            version: the version in it.
            workers: how many.
            limit_s: time limit, in seconds.
            pause: waits between two looks.

        Raises:
            ServerError: a worker ended while it loaded the model, or they are not ready in time.
        """
        if self.state(version) is None:
            self._management.register(archive, initial_workers=workers)
        # Its model-config.yaml has won over the number.
        self._management.scale(self._model, workers, version)
        deadline = time.monotonic() + limit_s
        processes: dict[str, int] = {}
        while (state := self.state(version)) is not None and state.ready_workers < workers:
            for worker in state.workers:
                if worker.pid and processes.setdefault(worker.id, worker.pid) != worker.pid:
                    raise ServerError(
                        f"version {version} of model {self._model!r} on {self.name}: a worker ended while it loaded "
                        f"the model{self._log_end(version)}"
                    )
            if time.monotonic() > deadline:
                raise ServerError(
                    f"version {version} of model {self._model!r} on {self.name}: {state.ready_workers} of {workers} "
                    f"workers are ready after {limit_s:g} s{self._log_end(version)}"
                )
            pause(_POLL_S)
        if state is None:
            raise ServerError(f"{self.name} has lost version {version} while it started: did the server start again?")

    def drain(self, version: str, quiet_s: float, limit_s: float, pause: Pause) -> None:
        """Return when a version that is not the default has nothing to do.

        Args:
            version: the version.
            quiet_s: how long its queue has to be empty: the time that a running batch may take, in seconds.
            limit_s: time limit, in seconds.
            pause: waits between two looks.

        Raises:
            ServerError: requests are still waiting at the end, and workers are there to answer them.
        """
        deadline = time.monotonic() + limit_s
        quiet_since: float | None = None
        while (state := self.state(version)) is not None:
            now = time.monotonic()
            if not state.pending:
                quiet_since = now if quiet_since is None else quiet_since
                if now - quiet_since >= quiet_s:
                    return
            else:
                quiet_since = None
                if now > deadline:
                    self._refuse_waiting(state, limit_s)
                    return
            pause(min(_POLL_S, quiet_s))

    def unregister(self, version: str) -> None:
        """Remove a version, where the server has it; `drain` first."""
        if self.state(version) is not None:
            self._management.unregister(self._model, version)

    @property
    def answers_rows(self) -> bool:
        """Whether rows can be asked of it."""
        return self._client is not None

    def ask(self, version: str, row: Any) -> Reply:  # noqa: ANN401 - any JSON
        """What a version answers to a row; a row that it refuses is an error, and what the refusal is called."""
        if self._client is None:
            raise ServerError(f"{self.name}: the address of its inference port is not known")
        start = time.perf_counter()
        try:
            answer, error = self._client.predict(self._model, row, version=version), ""
        except AnswerError as refusal:
            answer, error = None, f"{refusal.code} (status {refusal.status})"
        except ClientError as failure:
            answer, error = None, str(failure)
        return Reply(answer, error, time.perf_counter() - start)

    def work(self) -> Traffic:
        """What TorchServe has counted of REST requests that name no version; zeros where its metrics are out of reach.

        Those of gRPC it does not count.
        """
        if self._metrics_url is None:
            return Traffic()
        try:
            text = httpx.get(self._metrics_url, timeout=5.0, trust_env=False).raise_for_status().text
        except httpx.HTTPError:  # TorchServe begins to count with the first request; a look less does no harm
            return Traffic()
        lines = (_COUNTER.fullmatch(line) for line in text.splitlines())
        found = {line[1]: float(line[4]) for line in lines if line and (line[2], line[3]) == (self._model, "default")}
        spent_us = found.get("ts_inference_latency_microseconds", 0.0) - found.get("ts_queue_latency_microseconds", 0.0)
        return Traffic(answered=int(found.get("ts_inference_requests_total", 0)), seconds=max(0.0, spent_us) / 1e6)

    def _refuse_waiting(self, state: ModelState, limit_s: float) -> None:
        if state.ready_workers:  # without any, nobody answers them in either case
            raise ServerError(
                f"version {state.version} of model {self._model!r} on {self.name} still has {state.pending} requests "
                f"waiting after {limit_s:g} s; it stays until they are answered, since they would hang without it: "
                "run the same command again later"
            )

    def _log_end(self, version: str) -> str:
        """What the version's workers wrote last, where the log is at hand; the lines before it follow."""
        log = self.place.state and self.place.state / "workers.log"
        if not log or not log.is_file():
            return "; TorchServe's workers.log says why"
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - (1 << 16)))
            lines = file.read().decode(errors="replace").splitlines()
        lines = _until_fault([line.partition(" - ")[2] for line in lines if f"-{self._model}_{version}-" in line])
        return "\n".join([f": {lines[-1]} (log: {log})", *lines[-_TAIL_LINES:]]) if lines else ""


class Balancer:
    """HAProxy's counters for one model.

    Args:
        admin: its admin socket.
        model: the model's name.
    """

    def __init__(self, admin: AdminSocket, model: str) -> None:
        self._admin = admin
        self.backends = (f"rest_{model}", f"grpc_{model}")

    def rows(self) -> dict[tuple[str, str], dict[str, str]]:
        """A row of HAProxy's statistics for each backend of the model and each server in it."""
        rows = ((row["pxname"], row["svname"], row) for row in self._admin.stats())
        return {(backend, name): row for backend, name, row in rows if backend in self.backends and name != "BACKEND"}


def traffic_of(row: dict[str, str]) -> Traffic:
    """What HAProxy has counted for one server."""
    return Traffic(requests=int(row["stot"] or 0), failed=sum(int(row[name] or 0) for name in _FAILURES))


@dataclass(frozen=True)
class Fleet:
    """All servers of a model.

    Args:
        members: at least one; the first one is the canary.
        balancer: None where there is none, or it is out of reach.
        model_store: the folder that all load from.
    """

    members: tuple[Member, ...]
    balancer: Balancer | None
    model_store: Path


def fleet_of_state(state: Path, model: str, resources: ExitStack) -> Fleet:
    """The servers of a `suffuse serve`, found by its state folder.

    Args:
        state: of one server, or of a stack of several.
        model: the model's name.
        resources: closes the connections.

    Raises:
        InputError: no server runs with this state folder, or it does not serve the model.
    """
    if (state / FILE).is_file():
        record = StackRecord.read(state)
        places = [_place_in_stack(instance, state) for instance in record.instances]
        balancer = Balancer(AdminSocket(record.admin_socket), model)
        return Fleet(_members(places, model, resources), balancer, record.model_store)
    if not (state / "server.json").is_file():
        raise InputError(
            f"{state}: got no state folder of a server that runs; expected the folder of logs that `suffuse serve` "
            "names when it is ready"
        )
    properties = read_properties(state / "config.properties")
    needs_key = properties.get("disable_token_authorization", "").lower() != "true"
    place = Place(
        "the server",
        _reachable(properties["management_address"]),
        _reachable(properties["inference_address"]),
        state.absolute() / "key_file.json" if needs_key else None,
        state.absolute(),
    )
    return Fleet(_members([place], model, resources), None, Path(properties["model_store"]))


def fleet_of_urls(
    urls: Sequence[str], key_files: Sequence[Path], model_store: Path, model: str, resources: ExitStack
) -> Fleet:
    """Servers that are somewhere else, which share a model store.

    Args:
        urls: of the management ports.
        key_files: none, or one for each.
        model_store: the folder, as it is found from here.
        model: the model's name.
        resources: closes the connections.

    Raises:
        InputError: there are key files, and not as many as servers.
    """
    if key_files and len(key_files) != len(urls):
        raise InputError(f"got {len(urls)} servers and {len(key_files)} key files; expected one for each, or none")
    files: Sequence[Path | None] = key_files or [None] * len(urls)
    places = [Place(url, url, key_file=file) for url, file in zip(urls, files, strict=True)]
    return Fleet(_members(places, model, resources), None, model_store)


def _members(places: Sequence[Place], model: str, resources: ExitStack) -> tuple[Member, ...]:
    return tuple(resources.enter_context(Member(place, model)) for place in places)


def _place_in_stack(instance: InstanceRecord, state: Path) -> Place:
    folder = (state / instance.name).absolute()
    known = folder if folder.is_dir() else None
    return Place(instance.name, instance.management_url, instance.rest_url, instance.key_file, known)


def _metrics_url(state: Path) -> str | None:
    address = read_properties(state / "config.properties").get("metrics_address")
    return None if address is None else f"{_reachable(address)}/metrics"


def _until_fault(lines: list[str]) -> list[str]:
    """The lines up to the end of the last traceback, where there is one: the next worker may have begun to write."""
    for start in reversed([index for index, line in enumerate(lines) if line.startswith("Traceback")]):
        for end in range(start + 1, len(lines)):
            if not lines[end].startswith(" "):
                return lines[: end + 1]
    return lines


def _reachable(address: str) -> str:
    return address.replace(f"//{_ANY_ADDRESS}:", "//127.0.0.1:")
