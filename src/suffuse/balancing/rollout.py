"""A new version of a model takes over from the old one, on every server, without a lost request, or not at all.

Steps: stage the archive, register it everywhere, compare answers, give it a share of the traffic, switch, drain the old
version, unregister it. Whatever goes wrong before the last server is switched undoes all of them.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suffuse.balancing.canary import Limits, Pair, is_too_little, judge_pairs, judge_traffic
from suffuse.balancing.fleet import Fleet, Member, Pause
from suffuse.balancing.model_store import Change, Journal, ModelStore
from suffuse.balancing.watch import Watch
from suffuse.errors import ClientError, InputError, ServerError, SuffuseError

_LOOK_S = 0.25
_EXTENSIONS = 3  # of the canary's time, where few requests come
_WARMING_SHARE = 0.25  # of the canary's time, in which latency is not looked at

Figures = dict[str, float | int | None]


class RolledBackError(ServerError):
    """The new version did not take over; everything is as before unless the message says otherwise."""


@dataclass(frozen=True)
class RolloutSettings:
    """How carefully to go.

    Args:
        limits: what the new version may do worse.
        canary_share: of the traffic, while it is watched.
        canary_s: how long it is watched, in seconds.
        drain_s: how long a queue has to be empty before a version is removed: longer than a batch takes, in seconds.
        ready_s: time limit for the workers of one server to load the model, in seconds.
        drain_limit_s: time limit for a queue to become empty, in seconds.

    Raises:
        InputError: a number makes no sense.
    """

    limits: Limits = field(default_factory=Limits)
    canary_share: float = 0.1
    canary_s: float = 30.0
    drain_s: float = 0.5
    ready_s: float = 180.0
    drain_limit_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.canary_share <= 0.5:
            raise InputError(f"the canary's share is {self.canary_share:g}; expected more than 0, and 0.5 at most")
        for name in ("canary_s", "drain_s", "ready_s", "drain_limit_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name):g}; expected seconds, from 0")


class Interruption:
    """A wish to stop, which ends the next wait."""

    def __init__(self) -> None:
        self._wished = threading.Event()

    def wish(self) -> None:
        """Have `pause` raise from now on; for signal handlers and other threads."""
        self._wished.set()

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            ServerError: somebody wished to stop.
        """
        if self._wished.wait(seconds):
            raise ServerError("it was interrupted")


class Rollout:
    """One model's way to another version.

    Args:
        fleet: its servers.
        store: the model store they load from.
        settings: how carefully to go.
        rows: what both versions are asked before any client meets the new one; without any, answers are not compared.
        tell: gets a line at each step.
        interruption: ends it early.
    """

    def __init__(
        self,
        fleet: Fleet,
        store: ModelStore,
        settings: RolloutSettings,
        *,
        rows: Sequence[Any] = (),
        tell: Callable[[str], None] = lambda _: None,
        interruption: Interruption | None = None,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._settings = settings
        self._rows = rows
        self._tell = tell
        self._pause: Pause = (interruption or Interruption()).pause

    def run(self, new: Path) -> dict[str, Any]:
        """Bring an archive's version into service.

        Args:
            new: the archive, which lies outside the model store.

        Returns:
            What was done and measured, as JSON.

        Raises:
            InputError: the archive or the settings cannot be used; nothing was changed.
            RolledBackError: it did not work out.
            ServerError: a server is not fit, and nothing was changed; or the new version is in service, but something
                of the old one is left.
        """
        start = time.monotonic()
        with self._store.locked() as journal:
            unfinished = journal.read()
            if unfinished is not None:
                self._repair(unfinished, journal)
                if self._store.holds(new):
                    return self._summary(unfinished, start) | {"repaired": True}
            change = self._store.plan(new)
            self._refuse_unfit(change)
            journal.write(change)
            figures = self._take_over(new, change, journal)
            self._finish(change, journal)
        return self._summary(change, start) | figures

    def _take_over(self, new: Path, change: Change, journal: Journal) -> dict[str, Figures | None]:
        try:
            self._store.stage(new, change)
        except ServerError:
            journal.clear()
            raise
        try:
            for member in self._fleet.members:
                self._tell(f"{member.name}: version {change.new} starts")
                self._bring_up(member, change)
            figures = {"side_by_side": self._compare(change), "canary": self._try_canary(change)}
            self._switch(change)
        except BaseException as error:
            self._tell(f"rolling back: {error}")
            left = self._undo(change, journal)
            raise RolledBackError(
                f"version {change.new} of model {self._store.model!r} was rolled back, version {change.old} is served: "
                f"{_first_line(error)}{_still(left)}"
            ) from error
        return figures

    def _refuse_unfit(self, change: Change) -> None:
        """Find out before anything is changed."""
        if self._rows and not self._fleet.members[0].answers_rows:
            raise InputError(
                "rows cannot be compared: the servers were given by their management ports alone; expected --stack "
                "FOLDER, or no --rows"
            )
        for member in self._fleet.members:
            try:
                why = self._unfit(member, change)
            except ClientError as error:
                why = str(error)
            if why:
                raise ServerError(f"{member.name}: {why}; nothing was changed")

    def _unfit(self, member: Member, change: Change) -> str:
        version = member.default_version()
        if version != change.old:
            return f"it answers by version {version}, and the model store has {change.old}; start it again"
        if member.state(change.new) is not None:
            return (
                f"it has a version {change.new} already, which no rollout left; unregister it, or take another number"
            )
        state = member.state(version)
        if state is None or not state.ready_workers:
            return f"no worker of version {version} is ready; wait for one, or start the server again"
        if self._fleet.balancer is not None:
            rows = self._fleet.balancer.rows()
            for backend in self._fleet.balancer.backends:
                row = rows.get((backend, member.name))
                if row is None or not row["status"].startswith("UP"):
                    found = "does not know it" if row is None else f"calls it {row['status']}"
                    return f"HAProxy {found} in {backend}; expected UP: wait, or end its drain"
        return ""

    def _bring_up(self, member: Member, change: Change) -> None:
        """Have as many workers of the new version as there are of the old one."""
        present = member.state(change.old) or member.state(change.new)
        workers = max(1, present.min_workers) if present else 1
        archive = self._store.archive_of(change.new)
        member.bring_up(archive, change.new, workers, self._settings.ready_s, self._pause)

    def _compare(self, change: Change) -> Figures | None:
        """Ask both versions the same rows, on one server, so that load and machine are the same."""
        if not self._rows:
            return None
        member = self._fleet.members[0]
        self._tell(f"{member.name}: both versions answer {len(self._rows)} rows")
        for version in (change.old, change.new):  # the first answer of a worker takes longer
            member.ask(version, self._rows[0])
        pairs = []
        for row in self._rows:
            self._pause(0)
            pairs.append(Pair(member.ask(change.old, row), member.ask(change.new, row)))
        verdict = judge_pairs(pairs, self._settings.limits)
        if verdict.breaches:
            raise ServerError(f"compared on {len(pairs)} rows: {'; '.join(verdict.breaches)}")
        return verdict.figures

    def _try_canary(self, change: Change) -> Figures | None:
        """Give one server's share of the traffic to the new version, and watch."""
        settings, fleet = self._settings, self._fleet
        if fleet.balancer is None or len(fleet.members) == 1 or not settings.canary_s:
            return None
        canary = fleet.members[0]
        self._tell(f"{canary.name}: canary with {settings.canary_share:.0%} of the traffic for {settings.canary_s:g} s")
        watch = Watch(fleet, fleet.balancer, change, settings.canary_share)
        watch.look()
        self._look_on(watch, settings.canary_s * _WARMING_SHARE)
        watch.start_clock()
        self._look_on(watch, settings.canary_s * (1 - _WARMING_SHARE))
        for _ in range(_EXTENSIONS):
            if is_too_little(watch.new, settings.limits):
                self._tell(f"{canary.name}: canary for {settings.canary_s:g} s more, since few requests came")
                self._look_on(watch, settings.canary_s)
        watch.stop_clock()
        if watch.new.answered < settings.limits.requests:
            self._tell(f"{canary.name}: latency is not judged, since {watch.new.answered} answers over REST were timed")
        return self._judge(watch, least=1)

    def _look_on(self, watch: Watch, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._pause(_LOOK_S)
            watch.look()
            self._judge(watch, least=self._settings.limits.requests)

    def _judge(self, watch: Watch, *, least: int) -> Figures:
        verdict = judge_traffic(watch.old, watch.new, self._settings.limits, least=least)
        if verdict.breaches:
            raise ServerError(f"as a canary: {'; '.join(verdict.breaches)}")
        return verdict.figures

    def _switch(self, change: Change) -> None:
        self._settle(change, self._pause)
        self._store.switch(change)
        self._settle(change, self._pause)  # a server that started again meanwhile came back with the old version
        self._tell(f"version {change.new} answers on every server")

    def _settle(self, change: Change, pause: Pause) -> None:
        """Have each server answer by the new version, with as many workers as the old one has by now."""

        def settle(member: Member) -> None:
            self._bring_up(member, change)
            if member.default_version() != change.new:
                member.set_default(change.new)

        for member in self._fleet.members:
            self._patiently(settle, member, pause)

    def _finish(self, change: Change, journal: Journal) -> None:
        """Remove the old version everywhere; from here on nothing is undone, and no signal is heeded."""
        left = self._remove(change.old)
        if left:
            raise ServerError(f"version {change.new} of model {self._store.model!r} is in service{_still(left)}")
        self._store.forget_older(change.old)
        journal.clear()

    def _remove(self, version: str) -> list[str]:
        def remove(member: Member) -> None:
            member.drain(version, self._settings.drain_s, self._settings.drain_limit_s, time.sleep)
            member.unregister(version)

        left: list[str] = []
        for member in self._fleet.members:
            with _noted(member.name, left):
                self._patiently(remove, member, time.sleep)
                self._tell(f"{member.name}: version {version} is gone")
        return left

    def _undo(self, change: Change, journal: Journal) -> list[str]:
        """Go back to the old version, from wherever; no signal is heeded.

        Returns:
            What could not be undone.
        """

        def restore(member: Member) -> None:
            if member.state(change.old) is None:  # it started again when the new version was in the store
                archive = self._store.archive_of(change.old)
                member.bring_up(archive, change.old, 1, self._settings.ready_s, time.sleep)
            if member.default_version() != change.old:
                member.set_default(change.old)

        left: list[str] = []
        with _noted("model store", left):
            self._store.switch_back(change)
        for member in self._fleet.members:
            with contextlib.suppress(SuffuseError):  # a server that is down must not keep the others waiting
                restore(member)
        for member in self._fleet.members:
            with _noted(member.name, left):
                self._patiently(restore, member, time.sleep)
        left += self._remove(change.new) if not left else []
        if not left:
            with _noted("model store", left):
                self._store.unstage(change)
                journal.clear()
        return left

    def _patiently(self, act: Callable[[Member], None], member: Member, pause: Pause) -> None:
        """Do something with a server that may be starting again just now."""
        deadline = time.monotonic() + self._settings.ready_s
        while True:
            try:
                act(member)
            except ClientError:
                if time.monotonic() > deadline:
                    raise
                pause(_LOOK_S)
            else:
                return

    def _repair(self, change: Change, journal: Journal) -> None:
        """Go on from where an earlier rollout was killed: forward if it had switched, else back."""
        if self._store.present_version() == change.new:
            self._tell(f"finishing an earlier rollout from version {change.old} to {change.new}")
            self._settle(change, time.sleep)
            self._finish(change, journal)
            return
        self._tell(f"undoing an earlier rollout from version {change.old} to {change.new}")
        left = self._undo(change, journal)
        if left:
            raise ServerError(f"an earlier rollout of model {self._store.model!r} was cut off{_still(left)}")

    def _summary(self, change: Change, start: float) -> dict[str, Any]:
        return {
            "model": self._store.model,
            "from": change.old,
            "to": change.new,
            "servers": [member.name for member in self._fleet.members],
            "seconds": round(time.monotonic() - start, 1),
        }


@contextlib.contextmanager
def _noted(where: str, left: list[str]) -> Iterator[None]:
    """Go on after a failure, and note it."""
    try:
        yield
    except (SuffuseError, OSError) as error:
        left.append(f"{where}: {error}")


def _first_line(error: BaseException) -> str:
    """What happened; the lines of a log that may follow were told before."""
    return str(error).partition("\n")[0] or type(error).__name__


def _still(left: Sequence[str]) -> str:
    """What is left to do, for a message."""
    return f"; still to be put right, by the same command run again: {'; '.join(left)}" if left else ""
