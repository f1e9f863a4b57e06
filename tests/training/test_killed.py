"""A run that is killed within an epoch goes on where it was: no row of the epoch is lost and none is given twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

RECORDER = '''
import json, os, signal
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

class Recorder(Callback):
    """Writes what every step is given, and kills its process after a number of them."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        ids = [row[mask == 1].tolist() for row, mask in
               zip(batch["inputs"]["input_ids"], batch["inputs"]["attention_mask"])]
        with open(os.environ["RECORD"], "a") as file:
            file.write(json.dumps([trainer.current_epoch, trainer.global_step, ids]) + "\\n")
        trainer.save_checkpoint(os.environ["LAST"])
        if trainer.global_step == int(os.environ["KILLED_AFTER"]):
            os.kill(os.getpid(), signal.SIGKILL)
'''


def record(tmp_path: Path, recipe: Path, killed_after: int, *arguments: str) -> tuple[int, list[Any]]:
    """Exit status of a run and what its steps were given, in order."""
    file = tmp_path / "record.jsonl"
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "RECORD": str(file),
        "LAST": str(tmp_path / "run/checkpoints/last.ckpt"),
        "KILLED_AFTER": str(killed_after),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "suffuse.cli", "fit", f"--config={recipe}", f"--run={tmp_path / 'run'}", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=200,
        check=False,
    )
    steps = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
    file.unlink(missing_ok=True)
    return done.returncode, steps


@pytest.mark.parametrize("loading", [{"workers": 2}, {"streaming": {"shuffle_rows": 16}, "workers": 2}])
def test_run_killed_within_an_epoch_sees_the_rest_of_it(
    loading: dict[str, Any], tiny_model: Path, reviews_csv: Path, tmp_path: Path
) -> None:
    (tmp_path / "recording.py").write_text(RECORDER, "utf-8")
    recipe = tmp_path / "recipe.yaml"
    data = {"train": str(reviews_csv), "validation": str(reviews_csv), "loading": {"tokens_per_batch": 64, **loading}}
    callbacks = [{"class_path": "recording.Recorder"}]
    trainer = {"max_steps": 12, "accelerator": "cpu", "callbacks": callbacks, "val_check_interval": 12}
    recipe.write_text(yaml.safe_dump({"model": {"model": str(tiny_model)}, "data": data, "trainer": trainer}), "utf-8")

    status, whole = record(tmp_path, recipe, 0)
    killed, before = record(tmp_path, recipe, 4)
    killed_again, between = record(tmp_path, recipe, 7, "--resume")
    resumed, after = record(tmp_path, recipe, 0, "--resume")

    assert (status, killed, killed_again, resumed) == (0, -signal.SIGKILL, -signal.SIGKILL, 0)
    assert before + between + after == whole
    assert len({json.dumps(ids) for _, _, batch in whole for ids in batch}) >= 50
