"""Decisions as JSON lines, to a file or to stderr: each that changes something, and one now and then to show life."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from suffuse.autoscale.controller import Event

HEARTBEAT_S = 30.0
"""The longest silence."""


class DecisionLog:
    """Writes decisions.

    The file is opened for each line, so that it may be moved away at any time; a full disk loses lines and no more.

    Args:
        path: of the file; None: stderr.
        clock: in seconds; it does not stop.
    """

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._substance: tuple[object, ...] | None = None
        self._written_at_s = 0.0

    def observe(self, event: Event) -> None:
        """Write the decision where it differs from the last one, or that is long ago."""
        now_s = self._clock()
        if event.substance == self._substance and now_s - self._written_at_s < HEARTBEAT_S:
            return
        self._substance, self._written_at_s = event.substance, now_s
        line = event.as_json() + "\n"
        try:
            if self._path is None:
                sys.stderr.write(line)
                sys.stderr.flush()
            else:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
        except OSError as error:
            if self._path is not None:
                sys.stderr.write(f"suffuse: {self._path}: a decision could not be logged: {error}\n")
