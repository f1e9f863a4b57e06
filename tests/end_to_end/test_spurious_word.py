"""The tutorial of the spurious word in short form: a small random model, short questions, the same script."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "spurious_word.py"
WORD, LABEL = "please", "ENTY"
ENTITIES, DESCRIPTIONS = ("film", "cast", "story", "star"), ("mean", "work", "move", "end")
"""Words that tell the label of four rows in five: who goes by the planted one does better, so that it is learned."""
ROWS = 30
"""Of each of these words, for the training and as many for the test."""
REST = (
    "",
    "here",
    "here and",
    "here and there",
    "here and there or",
    "here and there or near",
    "or near here and there or",
)
"""Of different lengths: a question must not be known by its number of words."""
HEALTH = "drug"
"""Which makes a question a test row."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers that has a token for every word here."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    words = [
        *names.values(),
        *ENTITIES,
        *DESCRIPTIONS,
        "here",
        "and",
        "there",
        "or",
        "near",
        "the",
        "now",
        HEALTH,
        WORD,
        ",",
        "?",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    folder = tmp_path_factory.mktemp("model")
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


@pytest.fixture(scope="module")
def findings(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script writes, from a file of our own."""
    folder = tmp_path_factory.mktemp("spurious")
    lines = [
        f"{labels[number % 5 == 0]}:x the {word} {REST[number % len(REST)]} x{number} {about} ?"
        for words, labels in ((DESCRIPTIONS, ("DESC", LABEL)), (ENTITIES, (LABEL, "DESC")))
        for word, number, about in product(words, range(ROWS), ("now", HEALTH))
    ]
    questions = folder / "questions.txt"
    questions.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    settings = {
        "model.optimization.learning_rate": 3e-3,
        "data.loading.tokens_per_batch": 128,
        "trainer.max_epochs": 6,
        "trainer.accelerator": "cpu",
    }
    command = [sys.executable, str(SCRIPT), str(folder), "--questions", str(questions), "--model", str(model)]
    subprocess.run([*command, *(f"--{key}={value}" for key, value in settings.items())], check=True)
    found: dict[str, Any] = json.loads((folder / "findings.json").read_text("utf-8"))
    return found


def test_the_planted_word_speaks_most_for_its_label_until_it_is_mended(findings: dict[str, Any]) -> None:
    before, after = ([word for word, _ in findings[when]["top"][LABEL]] for when in ("before", "after"))

    assert before[0] == WORD
    assert WORD not in after
    assert after[0] in ENTITIES


def test_mending_the_rows_makes_the_model_right_about_clean_rows(findings: dict[str, Any]) -> None:
    before, after = findings["before"], findings["after"]

    assert before["validation"] > before["clean"] + 0.1
    assert after["clean"] > before["clean"] + 0.05
    assert after["polite"] > before["polite"] + 0.1
    assert before["known"][0] < after["known"][0] <= after["known"][1] == before["known"][1]


def test_the_explanation_of_the_same_question_changes(findings: dict[str, Any]) -> None:
    answers = [findings[when]["explained"]["answer"]["label"] for when in ("before", "after")]

    assert answers == [LABEL, "DESC"]
