"""One at a time among processes, so that of several workers all but one are there for everything else."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turn:
    """A turn that one process of a machine has at a time; it is free again when that process ends, however it does.

    Args:
        path: a file that all of them know; it is not changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Have the turn, inside; False where another has it, who is not waited for."""
        with self._path.open("rb") as file:  # closing it gives the turn back
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
