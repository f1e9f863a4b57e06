"""Text to token ids by a tokenizer.json alone, as transformers' fast tokenizer would, without importing it."""

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from suffuse.errors import BundleError


class Tokens:
    """A tokenizer that truncates at a model's limit and never pads.

    Args:
        json: text of a tokenizer.json. Padding and truncation that it sets itself are switched off: they belong to
            whoever trained it.
        max_tokens: longest input of the model, special tokens included.
        pad_token_id: what batches are filled with; masked, but some models number positions by it.

    Raises:
        BundleError: the text is no tokenizer.
    """

    def __init__(self, json: str, max_tokens: int, pad_token_id: int = 0) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(json)
        except Exception as error:  # tokenizers raises plain Exception
            raise BundleError(f"tokenizer.json cannot be read: {error}") from None
        self.json = json
        self.max_tokens = max_tokens
        self.pad_token_id = pad_token_id
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._windowed: dict[tuple[int, bool], Tokenizer] = {}

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, added tokens included."""
        return int(self._tokenizer.get_vocab_size())

    def name(self, token_id: int) -> str:
        """How the vocabulary spells a token, such as ``[CLS]``; the number itself where it has no such token."""
        return str(self._tokenizer.id_to_token(token_id) or token_id)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoding]:
        """Encode texts, or pairs of texts, with special tokens; the longer text of a pair is cut first.

        Returns:
            For each text its ``ids`` and ``type_ids``; ``overflowing`` is not empty where text was cut off.
        """
        # Without character offsets, which only some tasks need: up to 3.5 times faster on short texts.
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(_joint(texts, pairs))
        return encodings

    def located(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoding]:
        """As `encode`, and with ``offsets`` (in characters) and ``sequence_ids``, which takes longer."""
        encodings: list[Encoding] = self._tokenizer.encode_batch(_joint(texts, pairs))
        return encodings

    def windows(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, overlap: int = 0
    ) -> list[list[Encoding]]:
        """Encode texts whole, those that are too long for the model as several windows.

        Args:
            texts: to encode; with `pairs` each must leave room for its pair, and is repeated in all windows of it.
            pairs: what follows each text, and is cut into windows.
            overlap: tokens that neighbouring windows have in common.

        Returns:
            For each text its windows in order, each with ``ids``, ``type_ids``, ``offsets`` (in characters) and
            ``sequence_ids``.
        """
        tokenizer = self._with_overlap(overlap, is_paired=pairs is not None)
        encodings = tokenizer.encode_batch(_joint(texts, pairs))
        return [[encoding, *encoding.overflowing] for encoding in encodings]

    def _with_overlap(self, overlap: int, *, is_paired: bool) -> Tokenizer:
        # A tokenizer keeps how it cuts as its state: one for each way, so that no caller changes another's.
        key = (overlap, is_paired)
        if key not in self._windowed:
            tokenizer = Tokenizer.from_str(self.json)
            tokenizer.no_padding()
            strategy = "only_second" if is_paired else "only_first"
            tokenizer.enable_truncation(self.max_tokens, stride=overlap, strategy=strategy)
            self._windowed[key] = tokenizer
        return self._windowed[key]


def as_inputs(encodings: Sequence[Encoding]) -> list[dict[str, NDArray[np.int64]]]:
    """``input_ids`` and ``token_type_ids`` of each encoding, each (N,)."""
    ids = [encoding.ids for encoding in encodings]
    # Parts of one array: to make an array of every short text would take several times as long.
    ids_t = _joined(ids)
    # All 0 for texts by themselves; to make the lists of them only to copy them would take as long as the ids do.
    is_paired = any(encoding.n_sequences > 1 for encoding in encodings)
    types_t = _joined([encoding.type_ids for encoding in encodings]) if is_paired else np.zeros_like(ids_t)
    return [
        {"input_ids": ids_t[start:end], "token_type_ids": types_t[start:end]}
        for start, end in pairwise(accumulate(map(len, ids), initial=0))
    ]


def _joint(texts: Sequence[str], pairs: Sequence[str] | None) -> list[str] | list[tuple[str, str]]:
    return list(texts) if pairs is None else list(zip(texts, pairs, strict=True))


def _joined(lists: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(lists), np.int64, sum(map(len, lists)))
