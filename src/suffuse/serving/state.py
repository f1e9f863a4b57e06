"""A private folder that one running server or stack owns: locked, and cleared of what an earlier one left behind."""

import contextlib
import fcntl
import json
import logging
from pathlib import Path
from typing import IO

from suffuse.errors import ServerError
from suffuse.serving.process import end_marked_processes, marked_processes

_LOG = logging.getLogger(__name__)
_LOCK_FILE = "lock"


class StateFolder:
    """A state folder.

    Args:
        path: where it is; it need not exist.
        record: name of the file in it whose ``owner`` or ``owner_pid`` is the process that has it.
    """

    def __init__(self, path: Path, record: str) -> None:
        self.path = path
        self._record = path / record
        self._lock: IO[str] | None = None

    @property
    def owned(self) -> bool:
        """Whether it is this object's."""
        return self._lock is not None

    def own(self) -> None:
        """Make it ours alone, and end the processes that an earlier owner left behind.

        Raises:
            ServerError: another process has it, it holds other files, or it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign_files()
            self.path.chmod(0o700)
            lock = (self.path / _LOCK_FILE).open("a")
        except OSError as error:
            raise ServerError(f"state folder {self.path}: cannot be made and kept private: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when this process ends
        except BlockingIOError:
            lock.close()
            raise ServerError(
                f"state folder {self.path}: in use by {self._owner()}; stop that one, or choose another state folder "
                "and other ports"
            ) from None
        self._lock = lock
        if leftovers := marked_processes(self.path):
            names = ", ".join(f"{process.pid} ({process.name()})" for process in leftovers)
            _LOG.warning("left behind by an earlier `suffuse serve`, ended now: %s", names)
            end_marked_processes(self.path, grace_s=5.0)

    def release(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _refuse_foreign_files(self) -> None:
        """Files in it would be removed, and a folder such as /tmp be closed to all others."""
        files = sorted(path.name for path in self.path.iterdir())
        if files and _LOCK_FILE not in files:
            raise ServerError(
                f"state folder {self.path}: holds other files ({', '.join(files[:3])}); expected a folder that is "
                "empty, new, or an earlier server's"
            )

    def _owner(self) -> str:
        with contextlib.suppress(OSError, ValueError, StopIteration):
            content = json.loads(self._record.read_text(encoding="utf-8"))
            owner = next(content[key] for key in ("owner", "owner_pid") if key in content)
            return f"the `suffuse serve` with process id {owner}"
        return "another `suffuse serve`"
