"""The archives of one model in a model store while a new version takes over.

MODEL.mar is what a server loads when it starts, so it is replaced at the switch and in one step: at any other time a
server that starts again comes back with the version that the others serve. Hidden files beside it hold the version that
is to come and, afterwards, the one before. A lock file keeps two rollouts apart, and has in it what a rollout that was
killed was about.
"""

import contextlib
import fcntl
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from suffuse.errors import BundleError, InputError, ServerError
from suffuse.serving.settings import Archive

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # what may be part of a file's name


@dataclass(frozen=True)
class Change:
    """From which version to which.

    Args:
        old: the version that is served.
        new: the one that is to be.
        kept: whether the new version's archive is one that an earlier change kept, and so is not to be thrown away.
    """

    old: str
    new: str
    kept: bool = False


class ModelStore:
    """The archives of one model in a folder.

    Args:
        folder: the model store.
        model: the model's name.

    Raises:
        InputError: the name cannot be a file's, or the folder is missing.
    """

    def __init__(self, folder: Path, model: str) -> None:
        _check_word("model", model)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; expected the model store that the servers load from")
        self.folder = folder
        self.model = model
        self.path = folder / f"{model}.mar"

    def present_version(self) -> str:
        """The version that a server which starts now comes back with.

        Raises:
            BundleError: there is no such archive, it cannot be read, or it is of another model.
        """
        return self._open(self.path).version

    def archive_of(self, version: str) -> str:
        """The file name, in the store, of a version: the present one, or one that is staged or kept."""
        return self.path.name if self.present_version() == version else self._hidden(version).name

    def holds(self, archive: Path) -> bool:
        """Whether an archive's version is the present one."""
        return self._open(archive).version == self.present_version()

    def plan(self, new: Path) -> Change:
        """Read and check an archive.

        Raises:
            BundleError: it is no archive, or a file in it is altered.
            InputError: it is of another model, has a version that cannot be a file's name or is the present one, or
                lies in the store, where servers that start again would find it.
        """
        version = self._open(new).version
        _check_word(f"{new}: version", version)
        present = self.present_version()
        if version == present:
            raise InputError(
                f"{new}: got version {version} of model {self.model!r}, which is the one in {self.folder}; expected "
                "another: `suffuse archive BUNDLE --model-version VERSION` sets it"
            )
        inside = new.resolve().parent == self.folder.resolve()
        if inside and new.name != self._hidden(version).name:
            raise InputError(
                f"{new}: got an archive in the model store, where servers that start again would load it beside "
                f"{self.path.name}; expected one elsewhere: move it out"
            )
        return Change(present, version, kept=inside)

    def stage(self, new: Path, change: Change) -> None:
        """Put a copy of an archive beside the present one, whole or not at all.

        Raises:
            ServerError: it cannot be written, for lack of room or otherwise; the store is as it was.
        """
        target = self._hidden(change.new)
        if change.kept:
            return
        draft = target.with_name(f"{target.name}.part")
        try:
            with new.open("rb") as source, draft.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            draft.replace(target)
            self._sync()
        except OSError as error:
            self.unstage(change)
            raise ServerError(
                f"{self.folder}: the new archive of {new.stat().st_size} bytes cannot be put there "
                f"({error.strerror or error}); nothing was changed: make room, or give this user the right to write"
            ) from error

    def switch(self, change: Change) -> None:
        """Make the staged version the present one, and keep the old one as a hidden file."""
        kept = self._hidden(change.old)
        draft = kept.with_name(f"{kept.name}.part")
        draft.unlink(missing_ok=True)
        try:
            os.link(self.path, draft)
        except OSError:  # a file system without links
            shutil.copyfile(self.path, draft)
        draft.replace(kept)
        self._hidden(change.new).replace(self.path)
        self._sync()

    def switch_back(self, change: Change) -> None:
        """Make the old version the present one again, where it is not, and the new one hidden."""
        if self.present_version() == change.new:
            self.switch(Change(change.new, change.old))

    def unstage(self, change: Change) -> None:
        """Remove what `stage` wrote."""
        staged = self._hidden(change.new)
        staged.with_name(f"{staged.name}.part").unlink(missing_ok=True)
        if not change.kept:
            staged.unlink(missing_ok=True)

    def forget_older(self, kept: str) -> None:
        """Remove all hidden archives of the model but that of one version."""
        for path in self.folder.glob(f".{self.model}-*.mar"):
            if path != self._hidden(kept) and self._is_ours(path):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator["Journal"]:
        """Keep other rollouts of the model away; the kernel lets go of the lock when this process ends.

        Raises:
            ServerError: another rollout has it, or the store cannot be written.
        """
        path = self.folder / f".{self.model}.rollout"
        try:
            file = path.open("ab+", buffering=0)
        except OSError as error:
            raise ServerError(f"{path}: cannot be written ({error.strerror}); a rollout changes the store") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ServerError(
                    f"{path}: another rollout of model {self.model!r} is running; wait until it has ended"
                ) from None
            yield Journal(file)

    def _open(self, path: Path) -> Archive:
        archive = Archive.open(path)
        if archive.model != self.model:
            raise InputError(f"{path}: got an archive of model {archive.model!r}; expected one of {self.model!r}")
        return archive

    def _is_ours(self, path: Path) -> bool:
        """Whether a hidden archive is of this model, and not of one whose name begins alike."""
        try:
            archive = Archive.open(path)
        except BundleError:
            return False
        return archive.model == self.model and path == self._hidden(archive.version)

    def _hidden(self, version: str) -> Path:
        return self.folder / f".{self.model}-{version}.mar"

    def _sync(self) -> None:
        """Have the names of files survive a loss of power."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Journal:
    """What a rollout is about, in its lock file, from before its first change until its last."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    def read(self) -> Change | None:
        """The change that an earlier rollout began and did not end; None where there is none."""
        self._file.seek(0)
        try:
            return Change(**json.loads(self._file.readall()))
        except (ValueError, TypeError):  # empty; or cut off while it was written, which was before any change
            return None

    def write(self, change: Change) -> None:
        """Note a change that begins.

        Raises:
            ServerError: there is no room for it.
        """
        try:
            self._file.truncate(0)
            self._file.write(json.dumps(asdict(change)).encode())
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ServerError(
                f"{self._file.name!s}: cannot be written ({error.strerror or error}); nothing was changed: make room"
            ) from error

    def clear(self) -> None:
        """Note that nothing is left to do."""
        self._file.truncate(0)
        os.fsync(self._file.fileno())


def _check_word(what: str, value: str) -> None:
    if not _WORD.fullmatch(value):
        raise InputError(
            f"{what} is {value!r}; expected letters, digits, '_', '.' and '-', a letter or digit first, since it is "
            "part of a file's name"
        )
