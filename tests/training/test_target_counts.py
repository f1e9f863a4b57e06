"""How often each output is the right one in an epoch, from which balanced class weights follow."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from suffuse.tasks import Classification, Task, TokenClassification
from suffuse.training import TextData
from suffuse.training.models import load_tokens
from suffuse.training.sources import SourceOptions

Write = Callable[..., str]
Encoded = Callable[..., TextData]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write lines to a file and return its path."""

    def to_file(name: str, *lines: str) -> str:
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return str(tmp_path / name)

    return to_file


@pytest.fixture
def encoded(tiny_model: Path) -> Encoded:
    """Data all of which are trained on."""

    def encode(*train: SourceOptions, task: Task | None = None) -> TextData:
        data = TextData(list(train), validation=train[0]["path"], task=task)
        data.encode(load_tokens(str(tiny_model)))
        return data

    return encode


def test_targets_are_counted_by_class(write: Write, encoded: Encoded) -> None:
    data = encoded({"path": write("a.csv", "text,label", "a,y", "b,x", "c,y", "d,z")})

    assert data.target_counts().tolist() == [1, 2, 1]


def test_targets_count_by_the_weight_of_their_source(write: Write, encoded: Encoded) -> None:
    halved = write("a.csv", "text,label", "a,x", "b,y")
    tripled = write("b.csv", "text,label", "c,y")
    data = encoded({"path": halved, "weight": 0.5}, {"path": tripled, "weight": 3})

    assert data.target_counts().tolist() == [0.5, 3.5]


def test_targets_of_several_labels_are_counted_each_by_the_weight_of_their_source(
    write: Write, encoded: Encoded
) -> None:
    single = write("a.csv", "text,labels", 'a,"x,y"', "b,", 'c,"y,z"', "d,y")
    doubled = write("b.csv", "text,labels", 'e,"x,z"')
    task = Classification(multi_label=True)

    assert encoded({"path": single}, task=task).target_counts().tolist() == [1, 3, 1]
    data = encoded({"path": single}, {"path": doubled, "weight": 2}, task=task)
    assert data.target_counts().tolist() == [3, 3, 3]


def test_targets_of_tokens_are_counted_without_padding_and_without_parts_of_words(
    write: Write, encoded: Encoded
) -> None:
    rows = [
        {"tokens": ["friends", "dull", "film"], "tags": ["B-X", "I-X", "O"]},
        {"tokens": ["zzz"], "tags": ["O"]},
    ]
    data = encoded({"path": write("a.jsonl", *map(json.dumps, rows))}, task=TokenClassification())

    assert isinstance(data.task, TokenClassification)
    assert dict(zip(data.task.tags, data.target_counts(), strict=True)) == {"O": 2, "B-X": 1, "I-X": 1}
    assert min(targets.min() for targets, _ in data.train_rows.windows.targets()) < 0
