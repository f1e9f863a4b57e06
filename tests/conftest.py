"""Small real parts that many tests share: a BERT of two layers with a trained tokenizer, and rows that it can learn."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from suffuse.serving.settings import ServerConfig

SENTENCES = [
    "a warm and funny film about friends",
    "a dull and tired film about nothing",
    "the cast is superb and the story moves",
    "the cast is wooden and the story drags",
    "funny, clever and moving from start to end",
    "tired, clumsy and boring from start to end",
]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of prepared data sets that no other run has touched."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUFFUSE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers saves it: a random BERT, 2 layers of width 32, that reads up to 64 tokens."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_model")
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(folder)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)  # type: ignore[no-untyped-call]
    wrapped.save_pretrained(folder)
    # As published tokenizers do: the padding and truncation of whoever trained it, which must not be obeyed.
    text = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(16)
    text |= {key: json.loads(tokenizer.to_str())[key] for key in ("padding", "truncation")}
    (folder / "tokenizer.json").write_text(json.dumps(text), "utf-8")
    return folder


@pytest.fixture(scope="session")
def reviews_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty reviews, ``text`` and ``label`` (bad, good), each followed by a number that makes it unlike the others."""
    path = tmp_path_factory.mktemp("rows") / "reviews.csv"
    lines = ["text,label"]
    for number in range(10):
        for index, sentence in enumerate(SENTENCES):
            lines.append(f'"{sentence} {number}",{("good", "bad")[index % 2]}')
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_model: Path, reviews_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run: `tiny_model` with 2-hop attention, which has learned `reviews_csv`."""
    from suffuse.training.fit import fit

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = {
        "run": folder,
        "model.model": tiny_model,
        "model.optimization.learning_rate": 3e-3,
        "model.optimization.attention_learning_rate": 3e-2,
        "data.train": reviews_csv,
        "data.loading.tokens_per_batch": 128,
        "trainer.max_epochs": 5,
        "trainer.accelerator": "cpu",
        "trainer.log_every_n_steps": 1,
    }
    return fit([f"--{key}={value}" for key, value in recipe.items()])


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `tiny_run`; it tells ``bad`` from ``good`` and reads up to 64 tokens."""
    from suffuse.export import export

    return export(tiny_run, tmp_path_factory.mktemp("bundles") / "tiny").path


@pytest.fixture(scope="session")
def explainable_bundle(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_bundle` with explain.onnx."""
    from suffuse.export import export

    return export(tiny_run, tmp_path_factory.mktemp("bundles") / "explainable", explain=True).path


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """So many ports that nobody listens at now."""

    def find(count: int) -> list[int]:
        with ExitStack() as stack:
            listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
            return [int(listener.getsockname()[1]) for listener in listeners]

    return find


@pytest.fixture(scope="session")
def on_free_ports(free_ports: Callable[[int], list[int]]) -> "Callable[[ServerConfig], ServerConfig]":
    """A server's configuration, on ports that nobody listens at now."""
    return lambda config: config.at_ports(*free_ports(5))


def _tokenizer() -> Any:  # noqa: ANN401 - tokenizers has no types
    """Reads the words of `SENTENCES` whole and others by letters; always the same, as one that is trained is not."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    text = normalizer.normalize_str(" ".join([*SENTENCES, *"0123456789"]))
    words = sorted({word for word, _ in pre_tokenizer.pre_tokenize_str(text)})
    letters = sorted(set("".join(words)))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    known = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    vocabulary = {token: index for index, token in enumerate(known)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer
