"""A pretrained transformer and the head that a task needs, as one network: token ids in, logits out."""

import importlib.util
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from suffuse.diffusion import add_diffusion
from suffuse.errors import DataError, ModelError
from suffuse.rows import PACKAGE_SCHEME, locate
from suffuse.tasks import Head, Level, Tokens

LONGEST_INPUT = 512
"""Tokens, where a model sets no limit or a higher one: attention costs their square."""


class TextNetwork(nn.Module):
    """Backbone, pooling where the task wants one vector a row, dropout, linear layer.

    Args:
        backbone: a transformers model without a head, encoder or decoder type.
        head: what the task needs.
        dropout: before the last layer.
    """

    def __init__(self, backbone: PreTrainedModel, head: Head, dropout: float = 0.1) -> None:
        super().__init__()
        config = backbone.config
        if getattr(backbone, "pooler", None) is not None:
            backbone.register_module("pooler", None)  # never used; unused parameters stall distributed training
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, head.size)
        nn.init.normal_(self.classifier.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.classifier.bias)
        self.is_pooled = head.level is Level.ROW
        self.is_causal = is_causal(backbone)
        self.takes_type_ids = getattr(config, "type_vocab_size", 0) > 1

    @property
    def input_names(self) -> tuple[str, ...]:
        """Inputs of `forward` that this network reads, in order."""
        return ("input_ids", "attention_mask", *(("token_type_ids",) if self.takes_type_ids else ()))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Compute logits.

        Args:
            input_ids: (B, N).
            attention_mask: (B, N), 1 where a token is real.
            token_type_ids: (B, N), 1 in the second text of a pair; left out by models that have no such embedding.

        Returns:
            (B, C), or (B, N, C) for a task that speaks about tokens.
        """
        inputs: dict[str, Tensor] = {}
        if self.takes_type_ids and token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        if self.is_causal:
            # GPT-2 would number positions from the padding; counted from the first real token, either side is right.
            inputs["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
            inputs["use_cache"] = False  # type: ignore[assignment]
        hidden_bnd = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        if self.is_pooled:
            pool = last_token if self.is_causal else mean_of_tokens
            hidden_bnd = pool(hidden_bnd, attention_mask)
        logits: Tensor = self.classifier(self.dropout(hidden_bnd))
        return logits


def mean_of_tokens(hidden_bnd: Tensor, attention_mask_bn: Tensor) -> Tensor:
    """Mean over the real tokens of each row, (B, D)."""
    weights_bn1 = attention_mask_bn[..., None].to(hidden_bnd.dtype)
    return (hidden_bnd * weights_bn1).sum(dim=1) / weights_bn1.sum(dim=1)


def last_token(hidden_bnd: Tensor, attention_mask_bn: Tensor) -> Tensor:
    """The last real token of each row, which in a causal model is the one that has seen all others, (B, D)."""
    positions_n = torch.arange(1, hidden_bnd.shape[1] + 1, device=hidden_bnd.device)
    last_b = (attention_mask_bn * positions_n).argmax(dim=1)
    return hidden_bnd.gather(1, last_b[:, None, None].expand(-1, 1, hidden_bnd.shape[2])).squeeze(1)


def is_causal(backbone: PreTrainedModel) -> bool:
    """Whether tokens see only those before them, as in GPT-2 and Llama."""
    return any(getattr(module, "is_causal", False) is True for module in backbone.modules())


def load_backbone(name: str, num_hops: int = 2) -> PreTrainedModel:
    """Load a pretrained model with K-hop diffusion attention.

    Args:
        name: a Hugging Face name, a folder, a .gguf file, or ``pkg://package/path`` of either.
        num_hops: K; 1 is plain attention.

    Raises:
        ModelError: there is no such model, it cannot be read, or its attention cannot be diffused.
    """
    path, options = _located(name)
    with _quiet_transformers(), _explained(name):
        backbone = AutoModel.from_pretrained(
            path, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False, **options
        )
    return _diffused(name, backbone, num_hops)


def random_backbone(name: str, num_hops: int = 2) -> PreTrainedModel:
    """The network of `load_backbone` with random weights, to train from scratch.

    Raises:
        ModelError: as `load_backbone`; no weights need be there.
    """
    path, options = _located(name)
    with _quiet_transformers(), _explained(name):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, **options)
        backbone = _random(config)
    return _diffused(name, backbone, num_hops)


def _diffused(name: str, backbone: PreTrainedModel, num_hops: int) -> PreTrainedModel:
    try:
        return add_diffusion(backbone, num_hops)
    except ValueError as error:
        raise ModelError(f"model {name!r}: {error}") from None


def backbone_from_config(config: dict[str, Any], num_hops: int) -> PreTrainedModel:
    """The network of `load_backbone` with random weights, for weights that are loaded afterwards."""
    settings = dict(config)
    return add_diffusion(_random(AutoConfig.for_model(settings.pop("model_type"), **settings)), num_hops)


def _random(config: PretrainedConfig) -> PreTrainedModel:
    backbone: PreTrainedModel = AutoModel.from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation="sdpa", dtype=torch.float32
    )
    return backbone


def load_tokens(name: str, max_tokens: int | None = None) -> Tokens:
    """Load the tokenizer that belongs to a pretrained model.

    Args:
        name: as for `load_backbone`.
        max_tokens: bound on the input; by default the model's own, at most 512.

    Raises:
        ModelError: there is none, or `max_tokens` is more than the model reads.
    """
    path, options = _located(name)
    with _quiet_transformers(), _explained(name):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, **options)
        file = Path(path) / "tokenizer.json"
        if file.is_file() and not options:
            text = file.read_text("utf-8")
        else:
            text = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **options).backend_tokenizer.to_str()
    limit = longest_input(config)
    if max_tokens is not None and not 1 < max_tokens <= limit:
        raise ModelError(f"max_tokens is {max_tokens}; expected 2 to {limit}, which is what {name!r} reads")
    return Tokens(text, max_tokens or min(limit, LONGEST_INPUT), config.pad_token_id or 0)


def longest_input(config: PretrainedConfig) -> int:
    """Tokens that a model has positions for."""
    positions = int(getattr(config, "max_position_embeddings", LONGEST_INPUT))
    # RoBERTa and its kin count positions from the padding token's id plus one.
    return positions - config.pad_token_id - 1 if config.model_type in _OFFSET_POSITIONS else positions


def config_to_dict(config: PretrainedConfig) -> dict[str, Any]:
    """A configuration as plain JSON, without the file it came from and the version that wrote it."""
    content: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    return {key: value for key, value in content.items() if key not in _UNWANTED}


def source_name(name: str) -> str:
    """A model's name without the folder that it lies in, which is the machine's."""
    return Path(name).name if _is_local(name) else name


_EXPECTED = f"a Hugging Face name, a folder with config.json and weights, or {PACKAGE_SCHEME}package/path"
_GGUF = ".gguf"
# What a model was read from, and how; a quantised one is held unpacked.
_UNWANTED = ("_name_or_path", "_model_name_or_path", "transformers_version", "quantization_config")
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")


def _located(name: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` takes for a model: where it is, and options."""
    if not _is_local(name) and not name.startswith(PACKAGE_SCHEME):
        return name, {}
    try:
        path = locate(name) if name.startswith(PACKAGE_SCHEME) else Path(name).expanduser()
    except DataError as error:
        raise ModelError(f"model {error}") from None
    if path.suffix == _GGUF:
        return _located_gguf(name, path)
    if not path.is_dir():
        raise ModelError(f"model {name!r}: no such folder; expected {_EXPECTED}")
    if not (path / "config.json").is_file():
        raise ModelError(f"model {name!r}: no config.json in that folder; expected {_EXPECTED}")
    return str(path), {}


def _located_gguf(name: str, path: Path) -> tuple[str, dict[str, str]]:
    if not path.is_file():
        raise ModelError(f"model {name!r}: no such file; expected an existing {_GGUF} file")
    missing = [package for package in ("accelerate", "gguf") if importlib.util.find_spec(package) is None]
    if missing:
        raise ModelError(f"model {name!r} needs the package {' and '.join(missing)}: pip install 'suffuse[gguf]'")
    return str(path.parent), {"gguf_file": path.name}


def _is_local(name: str) -> bool:
    if name.startswith(PACKAGE_SCHEME):
        return False
    return name.startswith(("/", ".", "~")) or name.endswith(_GGUF) or Path(name).is_dir()


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence notes on loading, such as unused weights of a head that is replaced, or each failed try of a download."""
    verbosity = transformers_logging.get_verbosity()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    has_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    hub.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub.setLevel(hub_level)
        if has_bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever a broken model raises, which are a dozen kinds of error from four libraries, into `ModelError`."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"model {name!r} cannot be read: {_first_line(error)}; expected {_EXPECTED}") from None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
