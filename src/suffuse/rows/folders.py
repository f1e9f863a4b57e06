"""A folder that holds a folder of texts for each label: ``reviews/good/1.txt``."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from suffuse.errors import DataError, RowError

FALLBACK_ENCODING = "cp1252"
"""What a text is read as that is not UTF-8, as browsers do: files of one folder often come from many hands."""


def read_folders(folder: Path) -> Iterator[tuple[str, Mapping[str, Any] | RowError]]:
    """Read each .txt file of each folder in `folder` as ``text``, labelled with the folder's name, sorted by name.

    Returns:
        Pairs of place, as ``label/file.txt``, and row; of a file that is neither UTF-8 nor Windows-1252, the error
        that says so.

    Raises:
        DataError: there are no such folders, one of them has no such file, or a file cannot be read.
    """
    for path in _texts(folder):
        text = _decoded(_content(path))
        yield _place(path), text if isinstance(text, RowError) else {"text": text, "label": path.parent.name}


def folders_digest(folder: Path) -> str:
    """SHA-256, in hexadecimal, of what ``sha256sum label/file.txt ...`` prints for the files that `read_folders` reads.

    Raises:
        DataError: as `read_folders`.
    """
    together = hashlib.sha256()
    for path in _texts(folder):
        together.update(
            f"{hashlib.sha256(_content(path)).hexdigest()}  {_place(path)}\n".encode("utf-8", "surrogateescape")
        )
    return together.hexdigest()


def _texts(folder: Path) -> list[Path]:
    labels = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not labels:
        raise DataError(
            f"{folder.name}: the folder holds no folders; expected one for each label, with .txt files in it"
        )
    texts: list[Path] = []
    for label in labels:
        found = sorted(path for path in label.glob("*.txt") if path.is_file())
        if not found:
            raise DataError(
                f"{folder.name}/{label.name}: no .txt files; expected the texts with the label {label.name!r}"
            )
        texts += found
    return texts


def _place(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{_place(path)}: cannot be read: {error.strerror}") from None


def _decoded(content: bytes) -> str | RowError:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        return content.decode(FALLBACK_ENCODING)
    except UnicodeDecodeError as error:
        return RowError(
            f"byte 0x{content[error.start]:02x} at position {error.start} is neither UTF-8 nor Windows-1252; "
            "expected UTF-8 text",
            code="not_utf8",
        )
