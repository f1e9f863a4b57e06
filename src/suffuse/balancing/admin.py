"""HAProxy's admin socket: its counters as rows, and the state of its servers to be set."""

import csv
import socket
from pathlib import Path

from suffuse.errors import ServerError

_LIMIT_S = 5.0


class AdminSocket:
    """The admin socket of one HAProxy. Each method connects anew, as the process behind it changes with every reload.

    Every method raises ServerError where nobody listens, or HAProxy refuses.

    Args:
        path: the socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, text: str) -> str:
        """HAProxy's answer to one command, without the blank line at its end."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_LIMIT_S)
                connection.connect(str(self.path))
                connection.sendall(f"{text}\n".encode())
                parts = iter(lambda: connection.recv(65536), b"")
                return b"".join(parts).decode(errors="replace").rstrip("\n")
        except OSError as error:
            raise ServerError(
                f"{self.path}: HAProxy's admin socket does not answer ({error}); is it running?"
            ) from error

    def stats(self) -> list[dict[str, str]]:
        """One row for each frontend, backend and server, by the names of HAProxy's CSV: ``pxname``, ``svname``, ..."""
        lines = self.command("show stat").removeprefix("# ").splitlines()
        return list(csv.DictReader(lines))

    def set_state(self, backend: str, server: str, state: str) -> None:
        """Have a server take requests or not.

        Args:
            backend: such as ``rest_sentiment``.
            server: the instance's name.
            state: ``ready``; ``drain``, which lets running requests end and sends no more; ``maint``, which also ends
                checks.
        """
        command = f"set server {backend}/{server} state {state}"
        if refusal := self.command(command):  # it says something only when it fails
            raise ServerError(f"HAProxy refused {command!r}: {' '.join(refusal.split())}")
