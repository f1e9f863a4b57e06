"""A canary's share of the traffic: held, and counted apart from that of the old version."""

from suffuse.balancing.canary import Traffic
from suffuse.balancing.fleet import Balancer, Fleet, traffic_of
from suffuse.balancing.model_store import Change
from suffuse.errors import ServerError


class Watch:
    """Counts from its making on; the first member of the fleet is the canary.

    The canary has both versions and answers by the new one until that is ahead of its share, then by the old one until
    it is not. So each server takes requests all the time, and when one goes, the canary stands in for it. Weights of
    HAProxy would not do: idle servers get requests in turn whatever their weights, and one of weight 0 stands in for
    none, so that a drain of another one met 503s.

    Args:
        fleet: the servers.
        balancer: HAProxy before them.
        change: from which version to which.
        share: of the traffic, that the new version is to have; one server's part of it at most.
    """

    def __init__(self, fleet: Fleet, balancer: Balancer, change: Change, share: float) -> None:
        self.old = Traffic()
        self.new = Traffic()
        self._canary, *self._others = fleet.members
        self._balancer = balancer
        self._change = change
        self._share = share
        self._rows = balancer.rows()
        self._answers_new = False
        self._clocks: tuple[Traffic, Traffic] | None = None  # TorchServe's counters, of the others and of the canary

    def look(self) -> None:
        """Count what HAProxy did since the last look, and hold the share.

        Raises:
            ServerError: the canary has lost the new version, as after a restart.
        """
        before, self._rows = self._rows, self._balancer.rows()
        for key, row in self._rows.items():
            grown = traffic_of(row).since(traffic_of(before[key])) if key in before else Traffic()
            if self._answers_new and key[1] == self._canary.name:
                self.new += grown
            else:
                self.old += grown
        if self._canary.state(self._change.new) is None:
            raise ServerError(
                f"{self._canary.name} has lost version {self._change.new}; was it started anew during the canary?"
            )
        ahead = self.new.requests > self._share * (self.old.requests + self.new.requests)
        if ahead == self._answers_new:
            self._turn(by_new=not ahead)

    def start_clock(self) -> None:
        """From now on, count how long TorchServe takes; the first answers of a worker take longer."""
        self._clocks = (self._work_of_others(), self._canary.work())

    def stop_clock(self) -> None:
        """Add what it took since `start_clock`."""
        if self._clocks is not None:
            self.old += self._work_of_others().since(self._clocks[0])
            self._count_canary()

    def _turn(self, *, by_new: bool) -> None:
        self._count_canary()
        self._canary.set_default(self._change.new if by_new else self._change.old)
        self._answers_new = by_new

    def _count_canary(self) -> None:
        """Add what the canary's requests took since its last turn, where the new version answered them."""
        if self._clocks is not None:
            work = self._canary.work()
            if self._answers_new:
                self.new += work.since(self._clocks[1])
            self._clocks = (self._clocks[0], work)

    def _work_of_others(self) -> Traffic:
        return sum((other.work() for other in self._others), Traffic())
