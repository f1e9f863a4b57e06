"""Prepared folders: made once, found again, never half there, and cleared away when nobody uses them."""

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suffuse.errors import RowError
from suffuse.training.prepared import CACHE_VARIABLE, KEPT_DAYS, cache_folder, prepared, rejects_to


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(folder: Path) -> None:
    (folder / "content").write_text("whole", "utf-8")


def never(folder: Path) -> None:
    pytest.fail("filled again")


def test_same_inputs_find_the_folder_again() -> None:
    folder = prepared("rows", {"digest": "a", "split": {"test": 0.1, "group_by": None}}, fill)

    again = prepared("rows", {"split": {"group_by": None, "test": 0.1}, "digest": "a"}, never)

    assert again == folder
    assert (again / "content").read_text("utf-8") == "whole"


@pytest.mark.parametrize(("what", "described"), [("rows", {"digest": "b"}), ("windows", {"digest": "a"})])
def test_other_inputs_have_another_folder(what: str, described: dict[str, str]) -> None:
    assert prepared(what, described, fill) != prepared("rows", {"digest": "a"}, fill)


def fail(folder: Path, error: BaseException) -> None:
    fill(folder)
    raise error


@pytest.mark.parametrize(
    "error", [RowError("bad", where="a.csv:2"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_fill_that_fails_leaves_nothing(error: BaseException, root: Path) -> None:
    with pytest.raises(type(error)):
        prepared("rows", {}, lambda folder: fail(folder, error))

    assert [path.name for path in root.iterdir() if path.suffix != ".lock"] == []
    assert (prepared("rows", {}, fill) / "content").is_file()


def fill_slowly(record: str, barrier: Any) -> None:  # noqa: ANN401 - multiprocessing's
    def note(folder: Path) -> None:
        with Path(record).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        deadline_s = time.monotonic() + 0.3  # so that the other finds no folder yet
        while time.monotonic() < deadline_s:
            os.sched_yield()
        fill(folder)

    barrier.wait()
    assert (prepared("rows", {"shared": True}, note) / "content").is_file()


def test_of_two_processes_one_fills_and_the_other_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=fill_slowly, args=(str(tmp_path / "record"), barrier)) for _ in range(2)]

    for process in processes:
        process.start()
    for process in processes:
        process.join(30)

    assert [process.exitcode for process in processes] == [0, 0]
    assert len((tmp_path / "record").read_text("utf-8").splitlines()) == 1


def aged(path: Path, days: float) -> Path:
    then_s = time.time() - days * 24 * 3600
    os.utime(path, (then_s, then_s))
    return path


def test_folders_that_no_run_has_used_for_long_are_deleted() -> None:
    old, kept, used = (prepared("rows", {"number": number}, fill) for number in range(3))
    aged(old, KEPT_DAYS + 1)
    aged(old.with_suffix(".lock"), KEPT_DAYS + 1)
    aged(kept, KEPT_DAYS - 1)
    aged(used, KEPT_DAYS + 1)
    prepared("rows", {"number": 2}, never)

    prepared("rows", {"number": 3}, fill)

    assert [path.is_dir() for path in (old, kept, used)] == [False, True, True]
    assert not old.with_suffix(".lock").exists()


def test_what_a_killed_process_left_is_deleted(root: Path) -> None:
    (root / ".part-abc12_x9").mkdir(parents=True)
    aged(root / ".part-abc12_x9", KEPT_DAYS + 1)

    folder = prepared("rows", {}, fill)

    assert sorted(path.name for path in root.iterdir()) == [folder.name, f"{folder.name}.lock"]


@pytest.mark.parametrize("name", ["thesis.tex", "data", "rows-of-mine", "backup-2024"])
def test_other_files_in_the_folder_that_a_user_named_are_left_alone(name: str, root: Path) -> None:
    (root / name).mkdir(parents=True)
    aged(root / name, 1000)

    prepared("rows", {}, fill)

    assert (root / name).is_dir()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({CACHE_VARIABLE: "/a"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/suffuse"),
        ({"HOME": "/c", "XDG_CACHE_HOME": ""}, "/c/.cache/suffuse"),
    ],
)
def test_cache_is_where_the_environment_says(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert cache_folder() == Path(expected)


@pytest.fixture
def rejects(tmp_path: Path) -> Callable[[], list[dict[str, str]]]:
    return lambda: [json.loads(line) for line in (tmp_path / "run/rejects.jsonl").read_text("utf-8").splitlines()]


def test_bad_rows_are_listed_once_also_where_they_are_met_again(
    tmp_path: Path, rejects: Callable[[], list[dict[str, str]]]
) -> None:
    first = RowError("not\nJSON", code="invalid_json", where="a.jsonl:1")
    second = RowError("empty", code="empty_text", where="é.jsonl:2")
    for errors in ((first, first), (first, second)):
        with rejects_to(tmp_path / "run/rejects.jsonl") as reject:
            for error in errors:
                reject(error)

    assert rejects() == [
        {"where": "a.jsonl:1", "code": "invalid_json", "message": "not\nJSON"},
        {"where": "é.jsonl:2", "code": "empty_text", "message": "empty"},
    ]


def test_bad_row_is_in_the_file_at_once(tmp_path: Path, rejects: Callable[[], list[dict[str, str]]]) -> None:
    with rejects_to(tmp_path / "run/rejects.jsonl") as reject:
        reject(RowError("empty", code="empty_text", where="a:2"))

        assert len(rejects()) == 1


def test_without_bad_rows_there_is_no_file(tmp_path: Path) -> None:
    with rejects_to(tmp_path / "rejects.jsonl"):
        pass

    assert not (tmp_path / "rejects.jsonl").exists()
