"""Rows to begin with: of a file, or a few of ours for each form that rows have."""

from collections.abc import Iterable, Sequence
from itertools import islice

from suffuse.errors import InputError
from suffuse.playground.models import Model
from suffuse.rows import read_rows
from suffuse.tasks import Field

MOST_ROWS = 100
"""Of a file: a longer list is no help in picking one."""
LONGEST_SHOWN = 80
"""Characters of an example in the list."""

Example = dict[str, str]

EXAMPLES: tuple[Example, ...] = (
    {"text": "A warm, funny film whose cast seems to be having the time of their lives."},
    {"text": "Two hours of explosions in search of a story."},
    {"text": "Ada Lovelace wrote to Charles Babbage in London about the Analytical Engine."},
    {"text": "How many bones are there in the human hand?"},
    {"text": "A man is playing a guitar.", "text_pair": "Somebody makes music."},
    {"text": "The contract ends in May.", "text_pair": "The river is full of fish."},
    {
        "question": "Who designed the bridge?",
        "context": "The bridge over the Tay was designed by Thomas Bouch and opened in 1878. It fell a year later.",
    },
)


def read_examples(source: str, models: Iterable[Model]) -> tuple[Example, ...]:
    """The first rows of a file, with the fields that some model reads.

    Raises:
        DataError, RowError: the file or a line of it cannot be read.
        InputError: no row has what a model reads.
    """
    names = {field.name for model in models for field in model.fields}
    rows = [
        {name: value for name, value in row.items() if name in names and isinstance(value, str)}
        for _, row in islice(read_rows(source), MOST_ROWS)
    ]
    found = tuple(row for row in rows if row)
    if not found:
        raise InputError(f"{source}: no row has a field that a model reads; expected {', '.join(sorted(names))}")
    return found


def fitting(examples: Sequence[Example], fields: Sequence[Field]) -> list[tuple[str, int]]:
    """The examples that have exactly these fields, as what to show of each and its index."""
    names = {field.name for field in fields}
    return [(_shown(example), index) for index, example in enumerate(examples) if set(example) == names]


def _shown(example: Example) -> str:
    text = " | ".join(" ".join(part.split()) for part in example.values())
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
