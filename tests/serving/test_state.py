"""A state folder must be one owner's alone, and free again when that one lets go of it."""

import json
import re
import stat
from pathlib import Path

import pytest

from suffuse.errors import ServerError
from suffuse.serving.state import StateFolder


def test_folder_is_made_and_closed_to_others(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "a" / "b", "server.json")

    folder.own()

    assert folder.owned
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    folder.release()


@pytest.mark.parametrize(
    ("content", "owner"),
    [
        ({"owner": 4711}, "the `suffuse serve` with process id 4711"),
        ({"owner_pid": 4712}, "the `suffuse serve` with process id 4712"),
        ({}, "another `suffuse serve`"),
    ],
)
def test_owned_folder_is_refused_by_the_owners_number(tmp_path: Path, content: dict[str, int], owner: str) -> None:
    first, second = StateFolder(tmp_path, "r.json"), StateFolder(tmp_path, "r.json")
    first.own()
    (tmp_path / "r.json").write_text(json.dumps(content), "utf-8")
    expected = (
        f"state folder {tmp_path}: in use by {owner}; stop that one, or choose another state folder and other ports"
    )

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        second.own()
    assert not second.owned
    first.release()


def test_released_folder_may_be_owned_again(tmp_path: Path) -> None:
    first, second = StateFolder(tmp_path, "r.json"), StateFolder(tmp_path, "r.json")
    first.own()

    first.release()
    second.own()

    assert (first.owned, second.owned) == (False, True)
    second.release()


def test_folder_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", "utf-8")
    tmp_path.chmod(0o755)
    expected = (
        f"state folder {tmp_path}: holds other files (thesis.txt); expected a folder that is empty, new, or an earlier "
        "server's"
    )

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        StateFolder(tmp_path, "r.json").own()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(
        ServerError, match=rf"^state folder {re.escape(str(tmp_path))}/file/s: cannot be made and kept private: "
    ):
        StateFolder(tmp_path / "file" / "s", "r.json").own()
