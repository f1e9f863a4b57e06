"""The autoscaler as a child of a server's or a stack's process: ends with its parent, is started again when it dies."""

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from suffuse.serving.process import ChildProcess

_LEAST_PAUSE_S, _MOST_PAUSE_S = 0.5, 8.0
_SOUND_AFTER_S = 30.0  # a child that ran so long starts the pauses anew
_END_LIMIT_S = 5.0
_POLL_S = 0.1


class AutoscalerProcess:
    """`suffuse autoscale` in a process of its own; as a context manager, one that runs inside and is gone afterwards.

    It may start before the servers answer: then it ends at once, and is started again until they do. What it says
    besides its decisions, such as why it ended, is in a file beside them: LOG with ``.err`` after its name.

    Args:
        servers: management URLs; none where `options` name a stack.
        key_files: one a server, or none.
        bounds: fewest and most workers, of all servers together.
        slo_p99_ms: the goal on the 99th percentile of latency, in milliseconds.
        log: file of the decisions.
        options: further ones of the command line, such as ``("--model", "NAME")``; paths in them must be absolute.

    Raises:
        ServerError: no process can be started.
    """

    def __init__(
        self,
        servers: Sequence[str],
        key_files: Sequence[Path],
        bounds: tuple[int, int],
        slo_p99_ms: float,
        log: Path,
        options: Sequence[str] = (),
    ) -> None:
        self._log = log.absolute()
        self._command = [sys.executable, "-m", "suffuse.cli", "autoscale"]
        for server in servers:
            self._command += ["--server", server]
        for key_file in key_files:
            self._command += ["--key-file", str(key_file.absolute())]
        self._command += ["--workers", f"{bounds[0]}:{bounds[1]}", "--slo-p99", f"{slo_p99_ms:g}"]
        self._command += ["--log", str(self._log), *options]
        self._stopping = threading.Event()
        self._child = self._new_child()
        self._keeper = threading.Thread(target=self._keep, name="suffuse autoscaler's keeper", daemon=True)

    @property
    def pid(self) -> int:
        """Process id of the present child, or of the last one where it has just ended."""
        return self._child.pid

    def __enter__(self) -> Self:
        self._child.launch()
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._keeper.join()
        self._child.end(_END_LIMIT_S)

    def _new_child(self) -> ChildProcess:
        return ChildProcess(self._command, os.environ, self._log.parent, f"{self._log.name}.err")

    def _keep(self) -> None:
        """Start the child again when it has ended, more slowly where it ends again at once."""
        pause_s, started_s = _LEAST_PAUSE_S, time.monotonic()
        while not self._stopping.wait(_POLL_S):
            if self._child.exit_status is None:
                continue
            if time.monotonic() - started_s > _SOUND_AFTER_S:
                pause_s = _LEAST_PAUSE_S
            if self._stopping.wait(pause_s):
                return
            pause_s, started_s = min(_MOST_PAUSE_S, 2 * pause_s), time.monotonic()
            child = self._new_child()
            child.launch()
            self._child = child
