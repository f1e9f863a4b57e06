"""A model that takes a given time and no processor, so that many workers fit on few cores; its answers can be checked.

The label of an answer is the first word of its text, where senders put what tells their rows apart, and the score comes
of the whole text: an answer to another row, or to a part of one, is seen to be wrong.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any


class SlowHandler:
    """Sleeps `serviceMs` of the archive's model-config.yaml for each request of a batch, then answers them all."""

    def initialize(self, context: Any) -> None:  # noqa: ANN401 - TorchServe's Context
        """Read how long a request takes."""
        self.service_s = float(context.model_yaml_config["serviceMs"]) / 1000

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[str]:  # noqa: ANN401
        """One JSON answer a request."""
        time.sleep(self.service_s * len(requests))
        for index in range(len(requests)):
            context.set_response_content_type(index, "application/json")
        return [json.dumps(slow_answer(text_of(request.get("data") or request.get("body")))) for request in requests]


def text_of(body: Any) -> str:  # noqa: ANN401 - parsed by TorchServe where it likes to
    """The text of a request's row."""
    row = body if isinstance(body, dict) else json.loads(bytes(body))
    return str(row["text"])


def slow_answer(text: str) -> dict[str, Any]:
    """What the model answers."""
    label = text.partition(" ")[0]
    score = round(0.5 + zlib.crc32(text.encode()) / 2**33, 6)
    return {"label": label, "score": score, "scores": {label: score, "another": round(1 - score, 6)}}


def slow_archive(
    store: Path, name: str, *, service_ms: float, version: str = "1.0", batch_size: int = 1, workers: int = 1
) -> Path:
    """Write STORE/NAME.mar; an archive of that name is replaced when the new one is whole.

    Args:
        store: a folder, made if it is missing.
        name: of the model.
        service_ms: milliseconds that a worker takes for each request; a batch takes their sum.
        version: of the model.
        batch_size: requests that a worker is handed at once.
        workers: started with the server.

    Returns:
        The archive's path.
    """
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".slow-", dir=store) as folder:
        config = Path(folder, "model-config.yaml")
        config.write_text(
            f"minWorkers: {workers}\nmaxWorkers: {workers}\nbatchSize: {batch_size}\nmaxBatchDelay: 1\n"
            f"serviceMs: {service_ms}\n",
            "utf-8",
        )
        options = {
            "model-name": name,
            "version": version,
            "handler": Path(__file__),
            "config-file": config,
            "export-path": folder,
        }
        arguments = [part for option, value in options.items() for part in (f"--{option}", str(value))]
        subprocess.run(
            [sys.executable, "-m", "model_archiver.model_packaging", *arguments],
            env={**os.environ, "TMPDIR": folder},
            check=True,
            capture_output=True,
        )
        return Path(folder, f"{name}.mar").replace(store / f"{name}.mar")
