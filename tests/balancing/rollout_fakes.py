"""Stand-ins for what a rollout changes: servers, HAProxy, a model store; each call to them may be the last one."""

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from suffuse.balancing import fleet as fleet_module
from suffuse.balancing import rollout as rollout_module
from suffuse.balancing.admin import AdminSocket
from suffuse.balancing.fleet import Balancer, Fleet, Member, Place
from suffuse.balancing.model_store import Change, ModelStore
from suffuse.errors import AnswerError
from suffuse.serving.client import Client
from suffuse.serving.management import Management
from suffuse.serving.settings import Archive

MODEL = "m"


class KilledError(BaseException):
    """The rollout's process has been killed; nothing that it would still do happens."""


@dataclass
class Life:
    """Counts what a rollout does to the world, and ends it at a given moment.

    Args:
        calls: so far.
        last: the number of the call before which the process is killed; None lets it live.
    """

    calls: int = 0
    last: int | None = None

    def step(self) -> None:
        self.calls += 1
        if self.last is not None and self.calls >= self.last:
            raise KilledError


@dataclass
class FakeVersion:
    """A registered version; `pending` are the numbers of waiting requests that the next looks find."""

    workers: int = 1
    pids: list[int] = field(default_factory=lambda: [100])
    ready: bool = True
    pending: list[int] = field(default_factory=list)


class FakeServer:
    """TorchServe's management API for one model.

    Args:
        name: of the instance.
        store: it loads from there.
        life: of the rollout.
    """

    def __init__(self, name: str, store: Path, life: Life) -> None:
        self.name = name
        self.store = store
        self.life = life
        self.up = True
        self.never_ready: set[str] = set()
        self.lines: list[str] = []
        self.versions: dict[str, FakeVersion] = {}
        self.default = ""
        self.before: Callable[[FakeServer, str], None] = lambda _server, _line: None
        self.start()

    def start(self) -> None:
        """As a server starts: with what the store holds."""
        self.default = Archive.open(self.store / f"{MODEL}.mar").version
        self.versions = {self.default: FakeVersion()}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.life.step()
        line = f"{request.method} {unquote(request.url.path)}"
        self.lines.append(line)
        self.before(self, line)
        if not self.up:
            raise httpx.ConnectError("Connection refused")
        query = dict(request.url.params)
        if request.method == "POST":
            return self._register(query)
        version = unquote(request.url.path).removeprefix(f"/models/{MODEL}").strip("/").removesuffix("/set-default")
        return self._change(request, version or self.default, query)

    def _register(self, query: Mapping[str, str]) -> httpx.Response:
        version = Archive.open(self.store / query["url"]).version
        if version in self.versions:
            return _refused(409, "ConflictStatusException")
        self.versions[version] = FakeVersion(ready=version not in self.never_ready)
        return httpx.Response(202, json={})

    def _change(self, request: httpx.Request, version: str, query: Mapping[str, str]) -> httpx.Response:
        if version not in self.versions:
            return _refused(404, "ModelVersionNotFoundException")
        if request.method == "DELETE":
            if version == self.default:
                return _refused(403, "InvalidModelVersionException")
            del self.versions[version]
        elif request.url.path.endswith("/set-default"):
            self.default = version
        elif request.method == "PUT":
            self.versions[version].workers = int(query["min_worker"])
        else:
            return httpx.Response(200, json=[self._described(version)])
        return httpx.Response(200, json={})

    def _described(self, version: str) -> dict[str, Any]:
        state = self.versions[version]
        pid = state.pids.pop(0) if len(state.pids) > 1 else state.pids[0]
        status = "READY" if state.ready else "UNLOADING"
        return {
            "modelName": MODEL,
            "modelVersion": version,
            "minWorkers": state.workers,
            "maxWorkers": state.workers,
            "batchSize": 1,
            "maxBatchDelay": 1,
            "workers": [{"id": str(n), "pid": pid, "status": status} for n in range(state.workers)],
            "jobQueueStatus": {"pendingRequests": state.pending.pop(0) if state.pending else 0},
        }


class FakeClient(Client):
    """Asks a server's versions without a network; `answers` has an answer by version, or an error."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        super().__init__("http://localhost:1")
        self.answers = answers

    def predict(self, _model: str, _rows: Any, *, version: str | None = None) -> Any:  # noqa: ANN401 - any JSON
        answer = self.answers.get(version or "", {"label": "good", "score": 0.9})
        if isinstance(answer, AnswerError):
            raise answer
        return answer


class FakeAdmin(AdminSocket):
    """HAProxy with requests that come in at each look: ten for each server and backend.

    Args:
        servers: behind it, in one backend for REST and one for gRPC.
        life: of the rollout.
    """

    def __init__(self, servers: list[FakeServer], life: Life) -> None:
        super().__init__(Path("admin.sock"))
        self.servers = servers
        self.life = life
        self.failing: set[str] = set()
        self.status = dict.fromkeys((server.name for server in servers), "UP")
        self.counts = {server.name: {"stot": 0, "hrsp_5xx": 0} for server in servers}
        self.versions_seen: list[str] = []

    def stats(self) -> list[dict[str, str]]:
        self.life.step()
        self.versions_seen.append(self.servers[0].default)
        for server in self.servers:
            self.counts[server.name]["stot"] += 10
            self.counts[server.name]["hrsp_5xx"] += 10 if server.default in self.failing else 0
        backends = [f"{kind}_{MODEL}" for kind in ("rest", "grpc")]
        rows = [self._row(backend, name) for backend in backends for name in self.status]
        totals = [{"pxname": backend, "svname": "BACKEND"} for backend in backends]
        return [{"pxname": "other", "svname": "FRONTEND"}, *rows, *totals]

    def _row(self, backend: str, server: str) -> dict[str, str]:
        empty = dict.fromkeys(("hrsp_4xx", "econ", "eresp", "wretr"), "")
        counts = {name: str(value) for name, value in self.counts[server].items()}
        return {"pxname": backend, "svname": server, "status": self.status[server], **empty, **counts}


class MortalStore(ModelStore):
    """A model store whose user may be killed before each change."""

    life = Life()

    def stage(self, new: Path, change: Change) -> None:
        self.life.step()
        super().stage(new, change)
        self.life.step()

    def switch(self, change: Change) -> None:
        self.life.step()
        super().switch(change)
        self.life.step()

    def unstage(self, change: Change) -> None:
        self.life.step()
        super().unstage(change)

    def forget_older(self, kept: str) -> None:
        self.life.step()
        super().forget_older(kept)
        self.life.step()


@dataclass
class World:
    """Two servers of version 1.0 behind HAProxy, and how they stand."""

    store: MortalStore
    servers: list[FakeServer]
    admin: FakeAdmin
    life: Life
    client: FakeClient

    @classmethod
    def make(cls, folder: Path, names: tuple[str, ...] = ("i1", "i2")) -> "World":
        write_archive(folder / "store" / f"{MODEL}.mar", "1.0")
        life = Life()
        store = MortalStore(folder / "store", MODEL)
        store.life = life
        servers = [FakeServer(name, store.folder, life) for name in names]
        return cls(store, servers, FakeAdmin(servers, life), life, FakeClient({}))

    def fleet(self, *, state: Path | None = None, balanced: bool = True) -> Fleet:
        members = [self._member(server, state) for server in self.servers]
        return Fleet(tuple(members), Balancer(self.admin, MODEL) if balanced else None, self.store.folder)

    def _member(self, server: FakeServer, state: Path | None) -> Member:
        url = f"http://{server.name}"
        management = Management(url, transport=httpx.MockTransport(server))
        member = Member(Place(server.name, url, "http://localhost:1"), MODEL, management, self.client)
        return member if state is None else _with_state(member, state, management, self.client)

    @property
    def versions(self) -> list[tuple[str, list[str]]]:
        """Default version, and all, by server."""
        return [(server.default, sorted(server.versions)) for server in self.servers]

    @property
    def files(self) -> list[str]:
        """Archives in the store."""
        return sorted(path.name for path in self.store.folder.iterdir() if ".mar" in path.name)

    def stands_at(self, version: str, files: list[str]) -> bool:
        """Whether every server has this version and no other, and the store these files, with nothing left to do."""
        return (
            self.versions == [(version, [version])] * len(self.servers)
            and self.files == files
            and self.store.present_version() == version
            and not (self.store.folder / f".{MODEL}.rollout").read_bytes()
        )


def write_archive(path: Path, version: str) -> Path:
    """An archive with nothing in it but its name and version."""
    path.parent.mkdir(exist_ok=True)
    manifest = {"model": {"modelName": MODEL, "modelVersion": version, "handler": "handler.py"}}
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    return path


class Clock:
    """A millisecond passes whenever somebody looks at it, and none while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, _seconds: float) -> None:
        pass


def spare_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rollouts poll without pauses, by a clock that nobody waits for."""
    monkeypatch.setattr(fleet_module, "_POLL_S", 0.0)
    monkeypatch.setattr(rollout_module, "_LOOK_S", 0.0)
    monkeypatch.setattr(rollout_module, "time", Clock())


def _with_state(member: Member, state: Path, management: Management, client: Client) -> Member:
    place = Place(member.name, member.place.management_url, member.place.rest_url, state=state)
    return Member(place, MODEL, management, client)


def _refused(status: int, kind: str) -> httpx.Response:
    return httpx.Response(status, json={"code": status, "type": kind, "message": "refused"})
