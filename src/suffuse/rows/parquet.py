"""Parquet, read a few rows at a time."""

from collections.abc import Iterator, Mapping
from typing import IO, Any

from suffuse.errors import DataError, RowError
from suffuse.rows.lines import checked_header

ROWS_AT_ONCE = 1024


def read_parquet(name: str, file: IO[bytes]) -> Iterator[tuple[int, Mapping[str, Any] | RowError]]:
    """Yield the number of each row, from 1, and the row; in place of one whose text is not UTF-8, the error.

    Raises:
        DataError: the file is no Parquet, a column is there twice, or pyarrow is not installed.
        OSError: the file ends too early, or its content is damaged.
    """
    try:
        import pyarrow  # noqa: PLC0415 - the serving half has none
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError:
        raise DataError(f"{name}: Parquet is read by pyarrow: pip install 'suffuse[train]'") from None
    try:
        table = parquet.ParquetFile(file)
        checked_header(name, table.schema_arrow.names)
        number = 0
        for batch in table.iter_batches(ROWS_AT_ONCE):
            for row in _rows(batch):
                number += 1
                yield number, row
    except pyarrow.ArrowException as error:
        raise DataError(f"{name}: not a whole Parquet file: {str(error).partition('.')[0]}; fetch it again") from None


def _rows(batch: Any) -> list[Mapping[str, Any] | RowError]:  # noqa: ANN401 - pyarrow has no types
    try:
        rows: list[Mapping[str, Any] | RowError] = batch.to_pylist()
    except UnicodeDecodeError as error:
        if len(batch) > 1:
            return [row for place in range(len(batch)) for row in _rows(batch.slice(place, 1))]
        byte = error.object[error.start]
        return [RowError(f"byte 0x{byte:02x} of a text is not UTF-8; expected UTF-8", code="not_utf8")]
    return rows
