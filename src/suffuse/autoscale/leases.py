"""One controller a model and server: two would undo each other's decisions.

A lease is a lock on a file, which the kernel lets go of when its process ends, were it by kill -9. It is seen by this
user's processes on this machine; TorchServe has no place where one for all machines could be kept.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from suffuse.errors import ServerError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@contextlib.contextmanager
def leases(servers: Iterable[str], model: str, folder: Path | None = None) -> Iterator[None]:
    """Hold a model's leases on servers.

    Args:
        servers: management URLs.
        model: its name.
        folder: of the locks; by default one of this user in the folder for temporary files.

    Raises:
        ServerError: another controller holds one, which is named; or the folder cannot be used.
    """
    folder = folder or Path(tempfile.gettempdir(), f"suffuse-{os.getuid()}")
    _make_private(folder)
    with contextlib.ExitStack() as held:
        for server in sorted(servers):
            held.enter_context(_lease(folder, server, model))
        yield


@contextlib.contextmanager
def _lease(folder: Path, server: str, model: str) -> Iterator[None]:
    name = hashlib.sha256(f"{_normal(server)} {model}".encode()).hexdigest()[:16]
    path = folder / f"autoscale-{name}.lock"
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ServerError(
                f"{server}: model {model!r} is scaled by another `suffuse autoscale` already (process "
                f"{file.read().strip() or 'unknown'}); stop that one first"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _normal(server: str) -> str:
    """The same for all ways to write a server's address that can be told without asking the network."""
    parts = urlsplit(server)
    host = parts.hostname or ""
    return f"{'127.0.0.1' if host in _LOOPBACK else host}:{parts.port}"


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise ServerError(f"{folder}: cannot be made for the locks of controllers: {error}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ServerError(
            f"{folder}: got a folder of another user, or one that others may use; expected a private one for the locks "
            "of controllers: remove it, or set TMPDIR"
        )
