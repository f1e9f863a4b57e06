"""Streamed batches: every row once, for any number of ranks, workers and files; as many steps for each rank."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.errors import DataError, RowError
from suffuse.tasks import Classification, Tokens
from suffuse.training.models import load_tokens
from suffuse.training.sources import Checks, Reader, Source
from suffuse.training.streaming import StreamedBatches, Streaming, StreamLoader

TASK = Classification(("bad", "good"))


@pytest.fixture(scope="module")
def tokens(tiny_model: Path) -> Tokens:
    return load_tokens(str(tiny_model))


def shards(folder: Path, sizes: Sequence[int]) -> Source:
    """Files with so many rows each; every row's text is its number, as one token of its own, and some words."""
    number = 0
    for shard, size in enumerate(sizes):
        with (folder / f"{shard:02}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(size):
                words = "a dull film " * (number % 5)
                file.write(json.dumps({"text": f"{words}{number}", "label": ("bad", "good")[number % 2]}) + "\n")
                number += 1
    return Source(str(folder / "*.jsonl"))


def stream(
    sources: Sequence[Source],
    tokens: Tokens,
    ranks: tuple[int, int] = (0, 1),
    *,
    checks: Checks | None = None,
    rejects: Path | None = None,
    shuffle_rows: int = 16,
) -> StreamedBatches:
    return StreamedBatches(
        Reader(tuple(sources), TASK, checks or Checks()),
        tokens,
        tokens_per_batch=64,
        streaming=Streaming(shuffle_rows=shuffle_rows),
        ranks=ranks,
        seed=3,
        rejects=rejects,
    )


def batches(
    source: Source, tokens: Tokens, ranks: tuple[int, int], *, epoch: int = 0, given: int = 0, workers: int = 0
) -> list[tuple[bytes, ...]]:
    """What a rank is given: for each batch the token ids of its rows, without padding."""
    return given_by(StreamLoader(stream([source], tokens, ranks), workers, lambda: (epoch, given)))


def given_by(loader: StreamLoader | StreamedBatches) -> list[tuple[bytes, ...]]:
    return [
        tuple(
            ids[mask == 1].numpy().tobytes()
            for ids, mask in zip(batch["inputs"]["input_ids"], batch["inputs"]["attention_mask"], strict=True)
        )
        for batch in loader
    ]


def rows_of(parts: list[list[tuple[bytes, ...]]]) -> Counter[bytes]:
    return Counter(row for part in parts for batch in part for row in batch)


def all_rows(source: Source, tokens: Tokens) -> Counter[bytes]:
    reader = Reader((source,), TASK)
    rows = [placed.row for placed in reader.read(lambda _: None)]
    return Counter(window.inputs["input_ids"].tobytes() for window in TASK.encode(rows, tokens))


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
@settings(deadline=None, max_examples=25)
def test_every_row_is_given_once_whatever_the_ranks_and_files(
    sizes: list[int], world_size: int, epoch: int, tokens: Tokens, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = shards(tmp_path_factory.mktemp("shards"), [sizes[0] + 4, *sizes[1:]])

    parts = [batches(source, tokens, (rank, world_size), epoch=epoch) for rank in range(world_size)]

    assert rows_of(parts) == all_rows(source, tokens)
    assert len({len(part) for part in parts}) == 1


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize(("world_size", "workers"), [(1, 1), (1, 3), (2, 2), (3, 3), (4, 1)])
def test_workers_give_what_their_rank_would_have_given_alone(
    world_size: int, workers: int, tokens: Tokens, tmp_path: Path
) -> None:
    source = shards(tmp_path, [37, 5, 18])

    for rank in range(world_size):
        alone = batches(source, tokens, (rank, world_size))
        assert batches(source, tokens, (rank, world_size), workers=workers) == alone


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("given", [1, 4])
def test_stream_resumed_within_an_epoch_gives_the_rest_of_it(
    workers: int, given: int, tokens: Tokens, tmp_path: Path
) -> None:
    source = shards(tmp_path, [37, 5, 18])

    whole = batches(source, tokens, (0, 2), epoch=2)

    assert batches(source, tokens, (0, 2), epoch=2, given=given, workers=workers) == whole[given:]


def test_epochs_have_other_batches(tokens: Tokens, tmp_path: Path) -> None:
    source = shards(tmp_path, [37, 5, 18])

    first, second = (batches(source, tokens, (0, 1), epoch=epoch) for epoch in (0, 1))

    assert sorted(map(sorted, first)) != sorted(map(sorted, second))


def test_batches_hold_about_their_budget_of_padded_tokens(tokens: Tokens, tmp_path: Path) -> None:
    source = shards(tmp_path, [200])

    padded = [len(batch) * max(map(len, batch)) // 8 for batch in batches(source, tokens, (0, 1))]

    assert max(padded) <= 2 * 64


def test_fewer_rows_than_processes_are_refused(tokens: Tokens, tmp_path: Path) -> None:
    source = shards(tmp_path, [2])
    message = f"{tmp_path}/*.jsonl: 2 training rows for 3 processes; expected at least one each: lower trainer.devices"

    with pytest.raises(DataError) as caught:
        batches(source, tokens, (0, 3))

    assert str(caught.value) == message


def written(path: Path, *texts: str, label: str = "good") -> Source:
    """A file with a row for each text."""
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text in texts), "utf-8")
    return Source(str(path))


def sizes(streamed: StreamedBatches, epochs: int = 1) -> list[Counter[int]]:
    """For each epoch, how many rows have so many tokens; files whose rows have other lengths are told apart by it."""
    counts = []
    for epoch in range(epochs):
        streamed.epoch = epoch
        counts.append(Counter(len(row) // 8 - 2 for batch in given_by(streamed) for row in batch))
    return counts


def test_rows_longer_than_a_batch_are_given_to_all_ranks(tokens: Tokens, tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", *(f"{'a dull film ' * 20}{number}" for number in range(5)))

    parts = [batches(source, tokens, (rank, 2)) for rank in range(2)]

    assert [len(part) for part in parts] == [3, 3]
    assert set(rows_of(parts)) == set(all_rows(source, tokens))
    assert sorted(rows_of(parts).values()) == [1, 1, 1, 1, 2]


def test_whole_weights_are_kept_exactly(tokens: Tokens, tmp_path: Path) -> None:
    one, two = written(tmp_path / "a.jsonl", *["film"] * 20), written(tmp_path / "b.jsonl", *["dull film"] * 7)

    counts = sizes(stream([Source(one.path, weight=2), Source(two.path, weight=3)], tokens), epochs=2)

    assert counts == [{1: 40, 2: 21}] * 2


def test_fractional_weights_are_kept_within_chance(tokens: Tokens, tmp_path: Path) -> None:
    one, two = written(tmp_path / "a.jsonl", *["film"] * 400), written(tmp_path / "b.jsonl", *["dull film"] * 30)

    counts = sizes(stream([Source(one.path, weight=1.25), two], tokens), epochs=2)

    assert all(450 < count[1] < 550 and count[2] == 30 for count in counts)
    assert counts[0][1] != counts[1][1]


def test_sources_take_turns(tokens: Tokens, tmp_path: Path) -> None:
    one, two = written(tmp_path / "a.jsonl", *["film"] * 160), written(tmp_path / "b.jsonl", *["dull film"] * 160)

    first = [len(row) // 8 - 2 for batch in given_by(stream([one, two], tokens))[:8] for row in batch]

    assert {1, 2} == set(first)
    assert 0.2 < first.count(1) / len(first) < 0.8


def test_files_of_a_source_come_in_another_order_each_epoch(tokens: Tokens, tmp_path: Path) -> None:
    for number in range(4):
        written(tmp_path / f"{number}.jsonl", *["film " * (number + 1)] * 8)
    streamed = stream([Source(f"{tmp_path}/*.jsonl")], tokens, shuffle_rows=8)

    orders = []
    for epoch in range(4):
        streamed.epoch = epoch
        sizes_seen = [len(row) for batch in given_by(streamed) for row in batch]
        orders.append(tuple(dict.fromkeys(sizes_seen)))

    assert len(set(orders)) > 1
    assert {len(order) for order in orders} == {4}


def test_repeated_rows_are_left_out_across_sources_with_weights(tokens: Tokens, tmp_path: Path) -> None:
    one, two = written(tmp_path / "a.jsonl", "film", "dull"), written(tmp_path / "b.jsonl", "film", "dull film")

    counts = sizes(stream([Source(one.path, weight=2), Source(two.path, weight=2)], tokens, checks=Checks(("text",))))

    assert counts == [{1: 4, 2: 2}]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_are_listed_once_whatever_the_ranks_workers_and_epochs(
    workers: int, tokens: Tokens, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.jsonl", *["a dull film"] * 30).path
    with Path(path).open("a", encoding="utf-8") as file:
        file.write('nonsense\n{"text": " ", "label": "bad"}\n{"text": "x", "label": "god"}\n{"text": "y"}\n')
        file.write('{"text": "dull", "label": "bad"}\n')
    rejects = tmp_path / "run/rejects.jsonl"
    checks = Checks(on_bad_row="skip")

    given_rows = 0
    for epoch in range(2):
        for rank in range(2):
            loader = StreamLoader(
                stream([Source(path)], tokens, (rank, 2), checks=checks, rejects=rejects),
                workers,
                lambda e=epoch: (e, 0),  # type: ignore[misc]
            )
            given_rows += sum(map(len, given_by(loader)))

    assert given_rows == 2 * 31
    assert [(line["where"], line["code"]) for line in map(json.loads, rejects.read_text("utf-8").splitlines())] == [
        ("a.jsonl:31", "invalid_json"),
        ("a.jsonl:32", "empty_text"),
        ("a.jsonl:33", "unknown_label"),
        ("a.jsonl:34", "missing_field"),
    ]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("nonsense", "a.jsonl:41: not JSON: Expecting value at column 1; expected one object a line"),
        (
            '{"text": "x", "label": "god"}',
            "a.jsonl:41: field 'label' is 'god'; expected one of bad, good (learned in training)",
        ),
    ],
)
def test_bad_row_stops_the_training_and_is_named_in_one_line(
    workers: int, bad: str, message: str, tokens: Tokens, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.jsonl", *["a dull film"] * 40).path
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(bad + "\n")

    with pytest.raises(RowError, match=f"^{re.escape(message)}$"):
        list(StreamLoader(stream([Source(path)], tokens), workers, lambda: (0, 0)))


def test_loader_draws_no_random_numbers_that_dropout_would_have(tokens: Tokens, tmp_path: Path) -> None:
    loader = StreamLoader(stream([written(tmp_path / "a.jsonl", "film", "dull")], tokens), 0, lambda: (0, 0))
    before = torch.get_rng_state()

    list(loader)

    assert torch.equal(torch.get_rng_state(), before)
