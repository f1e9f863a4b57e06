"""Whatever happens to a rollout, a server that starts must find one whole archive, of the version that is right."""

import errno
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from suffuse.balancing.model_store import Change, ModelStore
from suffuse.errors import BundleError, InputError, ServerError
from suffuse.serving.settings import Archive, ServerConfig, find_archives

Make = Callable[..., Path]
CHANGE = Change("1.0", "2.0")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """An archive with nothing in it but its name and version."""

    def write(path: str, version: str, model: str = "m") -> Path:
        manifest = {"model": {"modelName": model, "modelVersion": version, "handler": "handler.py"}}
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(file, "w") as members:
            members.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        return file

    return write


@pytest.fixture
def store(make: Make) -> ModelStore:
    return ModelStore(make("store/m.mar", "1.0").parent, "m")


@pytest.fixture
def new(make: Make) -> Path:
    return make("new.mar", "2.0")


def files(store: ModelStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def loaded_at_a_start(store: ModelStore) -> list[str]:
    return [archive.version for archive in find_archives(ServerConfig(store.folder))]


def test_staged_version_is_there_and_not_what_a_start_loads(store: ModelStore, new: Path) -> None:
    store.stage(new, CHANGE)

    assert files(store) == [".m-2.0.mar", "m.mar"]
    assert store.archive_of("2.0") == ".m-2.0.mar"
    assert loaded_at_a_start(store) == ["1.0"]


def test_switch_makes_the_new_version_what_a_start_loads_and_keeps_the_old_one(store: ModelStore, new: Path) -> None:
    store.stage(new, CHANGE)

    store.switch(CHANGE)

    assert files(store) == [".m-1.0.mar", "m.mar"]
    assert store.archive_of("2.0") == "m.mar"
    assert loaded_at_a_start(store) == ["2.0"]


def test_archive_is_in_its_place_at_every_step_of_a_switch(
    store: ModelStore, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.stage(new, CHANGE)
    seen: list[str] = []
    replace = Path.replace

    def look_and_replace(path: Path, target: Path) -> Path:
        seen.append(Archive.open(store.path).version)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", look_and_replace)
    store.switch(CHANGE)

    assert seen == ["1.0", "1.0"]


def test_switch_works_where_files_cannot_be_linked(
    store: ModelStore, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    store.stage(new, CHANGE)

    store.switch(CHANGE)

    assert Archive.open(store.folder / ".m-1.0.mar").version == "1.0"


def test_going_back_leaves_the_store_as_it_was(store: ModelStore, new: Path) -> None:
    before = store.path.read_bytes()
    store.stage(new, CHANGE)
    store.switch(CHANGE)

    for _ in range(2):
        store.switch_back(CHANGE)
        store.unstage(CHANGE)

    assert files(store) == ["m.mar"]
    assert store.path.read_bytes() == before


def test_full_disk_leaves_the_store_as_it_was(store: ModelStore, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(_source: IO[bytes], target: IO[bytes], _length: int) -> None:
        target.write(b"PK")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fill)
    expected = (
        f"{store.folder}: the new archive of {new.stat().st_size} bytes cannot be put there (No space left on device); "
        "nothing was changed: make room, or give this user the right to write"
    )

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        store.stage(new, CHANGE)

    assert files(store) == ["m.mar"]


def test_only_the_version_before_is_kept(store: ModelStore, make: Make) -> None:
    make("store/.m-0.9.mar", "0.9")
    make("store/.m-1.0.mar", "1.0")
    make("store/.m-x-1.0.mar", "1.0", model="m-x")

    store.forget_older("1.0")

    assert files(store) == [".m-1.0.mar", ".m-x-1.0.mar", "m.mar"]


def test_kept_version_can_be_brought_back_and_is_not_thrown_away(store: ModelStore, make: Make) -> None:
    kept = make("store/.m-0.9.mar", "0.9")

    change = store.plan(kept)
    store.stage(kept, change)
    store.unstage(change)

    assert change == Change("1.0", "0.9", kept=True)
    assert files(store) == [".m-0.9.mar", "m.mar"]


def test_version_that_is_served_is_refused(store: ModelStore, make: Make) -> None:
    same = make("same.mar", "1.0")
    expected = (
        f"{same}: got version 1.0 of model 'm', which is the one in {store.folder}; expected another: `suffuse archive "
        "BUNDLE --model-version VERSION` sets it"
    )

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        store.plan(same)


def test_archive_of_another_model_is_refused(store: ModelStore, make: Make) -> None:
    other = make("other.mar", "2.0", model="n")

    expected = f"{other}: got an archive of model 'n'; expected one of 'm'"

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        store.plan(other)


def test_archive_that_a_start_would_load_too_is_refused(store: ModelStore, make: Make) -> None:
    beside = make("store/m-2.mar", "2.0")
    expected = (
        f"{beside}: got an archive in the model store, where servers that start again would load it beside m.mar; "
        "expected one elsewhere: move it out"
    )

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        store.plan(beside)


def test_version_that_is_no_file_name_is_refused(store: ModelStore, make: Make) -> None:
    odd = make("odd.mar", "../2")
    expected = (
        f"{odd}: version is '../2'; expected letters, digits, '_', '.' and '-', a letter or digit first, since it is "
        "part of a file's name"
    )

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        store.plan(odd)


def test_file_that_is_no_archive_is_refused(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "new.mar").write_bytes(b"no zip")

    with pytest.raises(BundleError, match="got a file that TorchServe cannot load"):
        store.plan(tmp_path / "new.mar")


def test_store_that_is_missing_is_named(tmp_path: Path) -> None:
    expected = f"{tmp_path / 'none'}: no such folder; expected the model store that the servers load from"

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        ModelStore(tmp_path / "none", "m")


def test_second_rollout_is_kept_away_while_the_first_one_runs(store: ModelStore) -> None:
    expected = f"{store.folder / '.m.rollout'}: another rollout of model 'm' is running; wait until it has ended"

    with store.locked(), pytest.raises(ServerError, match=f"^{re.escape(expected)}$"), store.locked():
        pass


def test_journal_tells_the_next_rollout_what_was_begun(store: ModelStore) -> None:
    with store.locked() as journal:
        assert journal.read() is None
        journal.write(CHANGE)
    with store.locked() as journal:
        assert journal.read() == CHANGE
        journal.clear()
    with store.locked() as journal:
        assert journal.read() is None


def test_journal_that_was_cut_off_tells_of_no_change(store: ModelStore) -> None:
    (store.folder / ".m.rollout").write_text('{"old": "1.', "utf-8")

    with store.locked() as journal:
        assert journal.read() is None
