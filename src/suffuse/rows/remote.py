"""Files elsewhere: whatever address fsspec opens."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from suffuse.errors import DataError


@contextmanager
def open_remote(address: str) -> Iterator[IO[bytes]]:
    """Open ``s3://``, ``https://``, ``hf://`` and other addresses for reading.

    Raises:
        DataError: there is no such file, or what reaches it is not installed.
    """
    fsspec = _fsspec(address)
    try:
        opened = fsspec.open(address, "rb").open()
    except FileNotFoundError:
        raise DataError(f"{address}: no such file; expected the address of an existing one") from None
    except Exception as error:  # each file system has its own kinds
        raise _unreached(address, error) from None
    with opened as file:
        yield file


def remote_files(pattern: str) -> list[str]:
    """Addresses that fit a pattern such as ``s3://bucket/reviews/*.jsonl``, in the order of their names.

    Raises:
        DataError: what reaches them is not installed, or refuses.
    """
    fsspec = _fsspec(pattern)
    try:
        system, path = fsspec.core.url_to_fs(pattern)
        return [str(system.unstrip_protocol(found)) for found in sorted(system.glob(path))]
    except Exception as error:
        raise _unreached(pattern, error) from None


def _fsspec(address: str) -> Any:  # noqa: ANN401 - a module
    try:
        import fsspec  # noqa: PLC0415 - the serving half has none
    except ModuleNotFoundError:
        raise DataError(f"{address}: addresses are opened by fsspec: pip install 'suffuse[train]'") from None
    return fsspec


def _unreached(address: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{address}: cannot be opened: {reason}; expected a file that can be read")
