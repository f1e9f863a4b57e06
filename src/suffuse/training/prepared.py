"""A data set made ready once: rows checked and split, then encoded, in folders that later runs find again.

A folder is named by all that its content follows from: digests of the files, settings, and the code that reads and
encodes. It is filled beside its place and renamed when whole; a lock lets one process fill it while others wait.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import suffuse
from suffuse.errors import RowError

CACHE_VARIABLE = "SUFFUSE_CACHE"
KEPT_DAYS = 30
"""Folders that no run has used for so long are deleted when a new one is made."""
REJECTS = "rejects.jsonl"
_OURS = re.compile(r"\.part-\w+|.+-[0-9a-f]{20}(\.lock)?")
"""Names in the cache; a user may have pointed it at a folder that holds more."""


def cache_folder() -> Path:
    """Where data sets are kept: ``$SUFFUSE_CACHE``, or the folder ``suffuse`` in the user's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "suffuse"


def prepared(what: str, described: Mapping[str, Any], fill: Callable[[Path], None]) -> Path:
    """The folder of a data set, filled where there is none.

    Args:
        what: opens its name.
        described: all that its content follows from, as JSON.
        fill: writes into a fresh folder; when it raises, there is none.
    """
    text = json.dumps({**described, "code": _code_digest()}, sort_keys=True, default=str)
    folder = cache_folder() / f"{what}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not _is_there(folder):
        with FileLock(folder.with_suffix(".lock")):
            if not _is_there(folder):  # another process may have filled it meanwhile
                _delete_unused(folder.parent)
                _fill(folder, fill)
    return folder


@contextmanager
def rejects_to(path: Path) -> Iterator[Callable[[RowError], None]]:
    """A function that writes each bad row's place and reason as a JSON line, where the file has it not yet.

    The file is there if there was a bad row. Every line is in it at once: a loader's worker is ended without notice.
    """
    file: TextIO | None = None
    written = set(path.read_text("utf-8").splitlines()) if path.is_file() else set()

    def reject(error: RowError) -> None:
        nonlocal file
        line = json.dumps({"where": error.where, "code": error.code, "message": error.message})
        if line not in written:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = file or path.open("a", encoding="utf-8", buffering=1)
            file.write(line + "\n")
            written.add(line)

    try:
        yield reject
    finally:
        if file is not None:
            file.close()


def move_rejects(source: Path, target: Path) -> tuple[int, int]:
    """Add the bad rows in one file to another, and delete it; how many were new, and how many there are."""
    before = line_count(target)
    with rejects_to(target) as reject, source.open(encoding="utf-8") as file:
        for line in map(json.loads, file):
            reject(RowError(line["message"], code=line["code"], where=line["where"]))
    source.unlink()
    count = line_count(target)
    return count - before, count


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; yields the function that moves it on."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        shown = bar.add_task(what, total=total)
        yield lambda count: bar.advance(shown, count)


def _fill(folder: Path, fill: Callable[[Path], None]) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        fill(fresh)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def line_count(path: Path) -> int:
    """Lines of a file; none where it is missing."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _is_there(folder: Path) -> bool:
    """Whether the folder is there; from now on it counts as used."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    return True


def _delete_unused(root: Path) -> None:
    oldest_s = time.time() - KEPT_DAYS * 24 * 3600
    for path in root.iterdir():
        if not _OURS.fullmatch(path.name):
            continue
        with suppress(FileNotFoundError):  # another process deletes too
            if path.stat().st_mtime < oldest_s:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


@cache
def _code_digest() -> str:
    """SHA-256 of all code that reads and encodes rows: with other code the same files give other arrays."""
    root = Path(suffuse.__file__).parent
    digest = hashlib.sha256(importlib.metadata.version("tokenizers").encode())
    for part in ("rows", "tasks", "training/sources.py", "training/corpus.py", "training/store.py"):
        path = root / part
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
