"""A turn is had by one process at a time, and is not lost with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from suffuse.explain.turn import Turn

HOLD = """
import sys
from pathlib import Path
from suffuse.explain.turn import Turn
with Turn(Path(sys.argv[1])).taken() as is_ours:
    print(is_ours, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "suffuse.json"
    path.touch()
    return path


def test_one_has_it_at_a_time(file: Path) -> None:
    mine, theirs = Turn(file), Turn(file)

    with mine.taken() as first, theirs.taken() as second:
        assert (first, second) == (True, False)
    with theirs.taken() as third:
        assert third


def test_a_failure_gives_it_back(file: Path) -> None:
    with pytest.raises(ZeroDivisionError), Turn(file).taken():
        _ = 1 / 0

    with Turn(file).taken() as is_ours:
        assert is_ours


def test_a_process_that_is_killed_gives_it_back(file: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with Turn(file).taken() as meanwhile:
            assert not meanwhile

        other.kill()
        other.wait()

        with Turn(file).taken() as afterwards:
            assert afterwards
