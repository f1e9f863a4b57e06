"""Two controllers must never scale one model of one server, and a dead one must never keep a living one out."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from suffuse.autoscale.leases import leases
from suffuse.errors import ServerError

A, B = "http://127.0.0.1:8081", "http://127.0.0.1:9081"
HOLD = """
import sys
from pathlib import Path
from suffuse.autoscale.leases import leases
with leases([sys.argv[1]], "m", Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def taken(server: str, pid: int | str) -> str:
    return f"{server}: model 'm' is scaled by another `suffuse autoscale` already (process {pid}); stop that one first"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks"


def test_second_controller_in_another_process_is_refused_until_the_first_is_killed(folder: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, A, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ServerError, match=f"^{re.escape(taken(A, first.pid))}$"), leases([A], "m", folder):
            pass
        first.send_signal(signal.SIGKILL)
        first.wait()

    with leases([A], "m", folder):
        pass


@pytest.mark.parametrize("other", ["http://localhost:8081", "http://127.0.0.1:8081/", "http://[::1]:8081"])
def test_one_server_by_another_name_is_the_same(other: str, folder: Path) -> None:
    refused = pytest.raises(ServerError, match=f"^{re.escape(taken(other, os.getpid()))}$")

    with leases([A], "m", folder), refused, leases([other], "m", folder):
        pass


def test_other_servers_and_other_models_are_free(folder: Path) -> None:
    with leases([A], "m", folder), leases([B], "m", folder), leases([A, B], "n", folder):
        holders = [path.read_text("ascii").strip() for path in folder.glob("*.lock")]

    assert holders == [str(os.getpid())] * 4


def test_one_server_of_several_suffices_for_a_refusal(folder: Path) -> None:
    with leases([B], "m", folder):
        with pytest.raises(ServerError, match=f"^{re.escape(taken(B, os.getpid()))}$"), leases([A, B], "m", folder):
            pass
        with leases([A], "m", folder):  # what had been taken was given back
            pass


def test_folder_that_others_may_use_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    message = (
        f"{folder}: got a folder of another user, or one that others may use; expected a private one for the locks of "
        "controllers: remove it, or set TMPDIR"
    )

    with pytest.raises(ServerError, match=f"^{re.escape(message)}$"), leases([A], "m", folder):
        pass


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "none" / "locks"
    message = f"{folder}: cannot be made for the locks of controllers: [Errno 2] No such file or directory: '{folder}'"

    with pytest.raises(ServerError, match=f"^{re.escape(message)}$"), leases([A], "m", folder):
        pass
