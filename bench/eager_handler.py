"""The rivals of bench/serving.py: eager PyTorch, a row a call, as TorchServe's own Transformer example works.

That example pads every text to max_length, 150 in the configuration that it ships
(pytorch/serve, examples/Huggingface_Transformers). `padTo` in the archive's model-config.yaml says so here; without it
nothing is padded, which is the better rival. Fair to both: the same weights and tokenizer, no gradient, the same number
of threads, and no more work than the answer needs.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch

from suffuse.training.module import load_checkpoint


class EagerHandler:
    """Answers from a checkpoint, one row after the other."""

    def initialize(self, context: Any) -> None:  # noqa: ANN401 - TorchServe's Context
        """Load the checkpoint that was unpacked from the archive."""
        self.pad_to = int(context.model_yaml_config.get("padTo", 0))
        torch.set_num_threads(int(os.environ["SUFFUSE_THREADS"]))
        self.model = load_checkpoint(Path(context.system_properties["model_dir"], "best.ckpt"))

    def handle(self, requests: list[dict[str, Any]], _context: Any) -> list[str]:  # noqa: ANN401
        """One JSON answer a request."""
        return [self._answer(request.get("data") or request.get("body")) for request in requests]

    def _answer(self, body: Any) -> str:  # noqa: ANN401 - parsed by TorchServe where it likes to
        row = body if isinstance(body, dict) else json.loads(bytes(body))
        tokens = self.model.tokens
        encoding = tokens.encode([row["text"]])[0]
        padding = max(0, self.pad_to - len(encoding.ids))
        inputs = {
            "input_ids": torch.tensor([encoding.ids + [tokens.pad_token_id] * padding]),
            "attention_mask": torch.tensor([[1] * len(encoding.ids) + [0] * padding]),
            "token_type_ids": torch.tensor([encoding.type_ids + [0] * padding]),
        }
        with torch.inference_mode():
            logits_c = self.model.network(**{name: inputs[name] for name in self.model.input_names})[0]
        scores_c = logits_c.softmax(-1).tolist()
        best = max(range(len(scores_c)), key=scores_c.__getitem__)
        labels = self.model.task.labels  # type: ignore[attr-defined]
        scores = dict(zip(labels, scores_c, strict=True))
        return json.dumps({"label": labels[best], "score": scores_c[best], "scores": scores})
