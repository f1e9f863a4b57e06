"""Lines of a label and a text, as the TREC questions are published: ``DESC:manner How did serfdom develop ?``."""

from collections.abc import Iterator, Mapping
from typing import Any

from suffuse.errors import RowError
from suffuse.rows.lines import Lines, numbered

_Row = Mapping[str, Any]


def read_labelled_lines(_: str, lines: Lines) -> Iterator[tuple[int, _Row | RowError]]:
    """Read ``label``, up to the first space of a line, and ``text``, the rest of it.

    A label with a colon also gives ``coarse``, the part before it; one without is its own ``coarse``. Empty lines are
    left out.

    Returns:
        Pairs of line and row; of a line that is not UTF-8 or has no text, the error that says so.
    """
    for number, line in numbered(lines, lines):
        if isinstance(line, RowError):
            yield number, line
        elif line.strip():
            yield number, _row(line)


def _row(line: str) -> _Row | RowError:
    label, *rest = line.split(maxsplit=1)
    if not rest:
        return RowError(
            f"the label {label[:40]!r} stands alone; expected a label, a space and a text", code="invalid_line"
        )
    return {"label": label, "coarse": label.partition(":")[0], "text": rest[0].strip()}
