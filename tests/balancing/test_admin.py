"""HAProxy's admin socket must be spoken to as HAProxy reads it, and its refusals must not be lost."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from suffuse.balancing.admin import AdminSocket
from suffuse.errors import ServerError

Answering = Callable[[str], tuple[AdminSocket, list[str]]]


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """A socket that gives one answer to one command, as HAProxy does: then it closes the connection."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "admin.sock"))
    listener.listen()
    threads: list[threading.Thread] = []

    def answer(text: str) -> tuple[AdminSocket, list[str]]:
        commands: list[str] = []

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                commands.append(connection.recv(1000).decode())
                connection.sendall(text.encode())

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return AdminSocket(tmp_path / "admin.sock"), commands

    yield answer
    for thread in threads:
        thread.join()
    listener.close()


def test_counters_become_rows(answering: Answering) -> None:
    admin, commands = answering("# pxname,svname,scur,\nrest_m,a,2,\nrest_m,BACKEND,3,\n\n")

    rows = admin.stats()

    assert commands == ["show stat\n"]
    assert [(row["pxname"], row["svname"], row["scur"]) for row in rows] == [
        ("rest_m", "a", "2"),
        ("rest_m", "BACKEND", "3"),
    ]


def test_change_is_one_command(answering: Answering) -> None:
    admin, commands = answering("\n")

    admin.set_state("rest_m", "a", "drain")

    assert commands == ["set server rest_m/a state drain\n"]


def test_refused_change_is_an_error(answering: Answering) -> None:
    admin, _ = answering("No such server.\n\n")
    expected = "HAProxy refused 'set server rest_m/z state drain': No such server."

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        admin.set_state("rest_m", "z", "drain")


def test_socket_that_nobody_listens_at_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    expected = f"{path}: HAProxy's admin socket does not answer ([Errno 2] No such file or directory); is it running?"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        AdminSocket(path).stats()
