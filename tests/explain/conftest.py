"""Predictors of each task and architecture, their graphs computed by torch; export tests compare ONNX Runtime."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from suffuse.bundle import Bundle
from suffuse.runtime import Predictor, Session
from suffuse.tasks import Arrays, Classification, QuestionAnswering, Similarity, Task, TokenClassification, Tokens

if TYPE_CHECKING:
    from suffuse.training import TextNetwork

WIDTH: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", "max_position_embeddings": 64, "pad_token_id": 0, **WIDTH},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "eos_token_id": 0},
}
TASKS: dict[str, Task] = {
    "labels": Classification(labels=("bad", "good", "odd")),
    "several": Classification(labels=("bad", "good", "odd"), multi_label=True, threshold=0.0),
    "pairs": Classification(labels=("no", "yes"), pair=True),
    "alike": Similarity(),
    "entities": TokenClassification(tags=("O", "B-FILM", "B-MOOD", "I-FILM", "I-MOOD"), overlap=8),
    "answers": QuestionAnswering(overlap=8),
}
ROWS: dict[str, dict[str, str]] = {
    "labels": {"text": "a warm and funny film"},
    "several": {"text": "the cast is superb"},
    "pairs": {"text": "the cast is superb", "text_pair": "a dull film"},
    "alike": {"text": "the cast is wooden", "text_pair": "a tired, clumsy film"},
    "entities": {"text": "funny, clever and moving from start to end"},
    "answers": {"question": "who is superb", "context": "the cast is superb and the story moves"},
}


@dataclass(frozen=True)
class Case:
    """A predictor, and a row that it explains."""

    predictor: Predictor
    row: dict[str, str]


class TorchSession:
    """Stands in for a session: the graphs of a bundle, computed by torch."""

    def __init__(self, network: "TextNetwork") -> None:
        from suffuse.export import Attention, Gradients

        self.network = network
        self.gradients = Gradients(network)
        self.attention = Attention(network)
        self.shapes: list[tuple[int, ...]] = []
        """Of the batches of gradients."""

    def run(self, graph: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        import torch

        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}
        with torch.no_grad():
            if graph == "predict":
                return {"logits": self.network(**{name: tensors[name] for name in self.network.input_names}).numpy()}
            if graph == "attention":
                matrices = self.attention(**{name: tensors[name] for name in self.network.input_names})
                return {name: each.numpy() for name, each in zip(self.attention.output_names, matrices, strict=True)}
            self.shapes.append(inputs["input_ids"].shape)
            outputs = self.gradients(**{name: tensors[name] for name in self.gradients.input_names})
        names = ("logits", "gradient", "embeddings", "baselines")
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


@pytest.fixture(scope="session")
def tokens_of() -> Mapping[str, Tokens]:
    """A tokenizer for each architecture: word pieces with special tokens, and bytes without any.

    Not trained, which does not give the same twice: with random weights the answers would change.
    """
    return {"bert": Tokens(_word_pieces(), 64), "gpt2": Tokens(_byte_level(), 64)}


@pytest.fixture(scope="session")
def predictor_of(tokens_of: Mapping[str, Tokens]) -> Callable[[str, str, int], Predictor]:
    """A predictor with random weights, for an architecture, a task and a number of hops."""
    from suffuse.export.attention import hop_weights
    from suffuse.export.gradients import baseline_token_id, embedding_size

    @cache
    def make(architecture: str, task_name: str, num_hops: int) -> Predictor:
        task, tokens = TASKS[task_name], tokens_of[architecture]
        network = _network(ARCHITECTURES[architecture], task, num_hops, tokens.vocabulary_size)
        model = {
            "embedding_size": embedding_size(network),
            "baseline_token_id": baseline_token_id(network),
            "beta": hop_weights(network),
        }
        manifest = SimpleNamespace(graphs={"predict": None, "explain": None, "attention": None}, model=model)
        bundle = SimpleNamespace(path=Path("bundle"), manifest=manifest, task=lambda: task, tokens=lambda: tokens)
        predictor = Predictor(cast("Bundle", bundle), threads=1)
        predictor._session = cast("Session", TorchSession(network))
        return predictor

    return make


@pytest.fixture(
    params=[
        pytest.param((architecture, task, num_hops), id=f"{architecture}-{task}-{num_hops}")
        for architecture in ARCHITECTURES
        for task in TASKS
        for num_hops in (1, 2)
    ]
)
def case(request: pytest.FixtureRequest, predictor_of: Callable[[str, str, int], Predictor]) -> Case:
    """Each architecture, task and number of hops."""
    return Case(predictor_of(*request.param), ROWS[request.param[1]])


def _network(settings: Mapping[str, Any], task: Task, num_hops: int, vocabulary_size: int) -> "TextNetwork":
    from tests.export.families import random_network
    from transformers import AutoConfig

    return random_network(AutoConfig.for_model(**settings, vocab_size=vocabulary_size), task.head, num_hops)


def _word_pieces() -> str:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = sorted({word for row in ROWS.values() for text in row.values() for word in text.replace(",", " ,").split()})
    letters = "abcdefghijklmnopqrstuvwxyz0123456789<>/=&;'"
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {name: index for index, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(tokenizer.to_str())


def _byte_level() -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers

    merges = [("Ġ", "f"), ("Ġf", "i"), ("l", "m"), ("Ġfi", "lm"), ("Ġ", "a"), ("n", "n"), ("u", "nn"), ("Ġ", "s")]
    names = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return str(tokenizer.to_str())
