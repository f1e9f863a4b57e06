"""What of a pretrained model trains, in whole trainings: what moves, what resumes, what ends in a bundle."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from torch.testing import assert_close
from transformers import AutoModel

from suffuse.diffusion import diffusion_parameters
from suffuse.errors import BundleError, InputError
from suffuse.export import export
from suffuse.runtime import load
from suffuse.training import Loading, TextData, TextModule, TextNetwork
from suffuse.training import fit as fit_module
from suffuse.training.checkpoint import load_checkpoint
from suffuse.training.fit import fit
from suffuse.training.optimization import Optimization
from suffuse.training.transfer import (
    Lora,
    Transfer,
    by_depth,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:.*LeafSpec.*:FutureWarning",
)
Recipe = dict[str, Any]


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")


def train(module: TextModule, rows: Path, **settings: Any) -> lightning.Trainer:  # noqa: ANN401
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
    }
    torch.manual_seed(0)
    trainer = lightning.Trainer(**{"max_epochs": 1, **quiet, **settings})
    trainer.fit(module, TextData(str(rows), loading=Loading(tokens_per_batch=256)))
    return trainer


def moved(module: TextModule, pretrained: Path) -> set[str]:
    """Names of the weights that are no longer those of the pretrained model."""
    assert module.network is not None
    before = AutoModel.from_pretrained(pretrained).state_dict()
    after = module.network.backbone.state_dict()
    return {name for name in after if name in before and not torch.equal(after[name], before[name])}


def test_frozen_layers_are_those_of_the_pretrained_model_after_training(tiny_model: Path, reviews_csv: Path) -> None:
    module = TextModule(str(tiny_model), transfer=Transfer(freeze=1))
    train(module, reviews_csv)
    assert {name.partition(".1.")[0] for name in moved(module, tiny_model)} == {"encoder.layer"}


@pytest.mark.parametrize(("epochs", "prefixes"), [(1, ()), (2, ("encoder.layer.1",)), (4, ("encoder", "embeddings"))])
def test_layers_begin_to_move_one_after_another(
    epochs: int, prefixes: tuple[str, ...], tiny_model: Path, reviews_csv: Path
) -> None:
    module = TextModule(str(tiny_model), transfer=Transfer(unfreeze_every=1))
    train(module, reviews_csv, max_epochs=epochs)
    names = moved(module, tiny_model)
    assert all(name.startswith(prefixes) for name in names)
    assert {prefix for prefix in prefixes if any(name.startswith(prefix) for name in names)} == set(prefixes)
    assert all(beta_kh.abs().min() > 0 for beta_kh in diffusion_parameters(module))


def test_optimizer_knows_of_no_step_of_a_frozen_layer(tiny_model: Path, reviews_csv: Path) -> None:
    module = TextModule(str(tiny_model), transfer=Transfer(unfreeze_every=1))
    trainer = train(module, reviews_csv, max_epochs=2)
    assert module.network is not None
    top, head = by_depth(module.network.backbone)[-2][0], module.network.classifier.weight
    state = trainer.optimizers[0].state
    assert int(state[head]["step"]) == 2 * int(state[top]["step"]) == trainer.global_step


def test_optimizer_steps_are_counted_over_accumulated_batches(tiny_model: Path, reviews_csv: Path) -> None:
    rates_seen: list[float] = []

    class Watch(Callback):
        def on_before_zero_grad(self, trainer: lightning.Trainer, *_: Any) -> None:  # noqa: ANN401
            rates_seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = TextModule(str(tiny_model), optimization=Optimization(learning_rate=1.0, warmup=0.0))
    trainer = train(module, reviews_csv, max_epochs=2, accumulate_grad_batches=2, callbacks=[Watch()])
    batches = int(trainer.num_training_batches)
    steps = 2 * -(-batches // 2)
    assert trainer.global_step == steps < 2 * batches
    assert rates_seen == pytest.approx([1.0 * (steps - step) / (steps - 1) if step else 1.0 for step in range(steps)])


def test_half_precision_trains_to_almost_the_same_loss(tiny_model: Path, reviews_csv: Path) -> None:
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        module = TextModule(str(tiny_model), optimization=Optimization(learning_rate=1e-3))
        trainer = train(module, reviews_csv, precision=precision, max_epochs=2, limit_val_batches=1.0)
        losses.append({name: float(value) for name, value in trainer.callback_metrics.items() if "loss" in name})
    assert losses[1].keys() == losses[0].keys() == {"train_loss", "val_loss"}
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


# By recipe, from checkpoint to bundle.

ALL_OPTIONS: dict[str, Any] = {
    "model": {
        "optimization": {"learning_rate": 2e-2, "depth_decay": 0.9},
        "transfer": {
            "lora": {"rank": 4, "alpha": 32, "dropout": 0.1, "targets": "all-linear"},
            "gradient_checkpointing": True,
        },
        "loss": {"label_smoothing": 0.1, "class_weights": {"bad": 1.1}},
    }
}


@pytest.fixture
def recipe(tiny_model: Path, reviews_csv: Path, tmp_path: Path) -> Recipe:
    return {
        "run": tmp_path / "run",
        "model.model": tiny_model,
        "data.train": reviews_csv,
        "data.loading.tokens_per_batch": 256,
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": 2,
        "trainer.log_every_n_steps": 1,
    }


def line(recipe: Recipe) -> list[str]:
    return [f"--{key}={value}" for key, value in recipe.items()]


class Stop(Callback):
    """Stands for a crash."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:  # noqa: ANN401
        if trainer.global_step == self._steps:
            raise ConnectionAbortedError


@pytest.mark.parametrize(
    "options",
    [
        {"model.transfer.unfreeze_every": 0.5},
        {"model.transfer.lora.rank": 2, "model.transfer.lora.dropout": 0.2, "model.loss.class_weights": "balanced"},
        {"model.transfer.freeze": 1, "model.optimization.depth_decay": 0.8},
    ],
    ids=["unfreezing", "adapters", "depth"],
)
def test_resumed_run_equals_an_uninterrupted_one(
    options: Recipe, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe |= {"trainer.max_epochs": 3, "model.optimization.learning_rate": 1e-3, **options}
    fit(line(recipe | {"run": tmp_path / "whole"}))
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "PlainProgress", lambda: Stop(4))
        with pytest.raises(ConnectionAbortedError):
            fit(line(recipe))
    fit([*line(recipe), "--resume"])
    resumed, whole = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "whole")
    )
    assert_close(resumed, whole, atol=1e-6, rtol=0)


def test_run_that_trained_another_part_is_not_resumed(recipe: Recipe) -> None:
    fit(line(recipe))
    given = {"pretrained": True, "freeze": 0, "unfreeze_every": 0.0, "lora": None, "gradient_checkpointing": False}
    saved, now = (json.dumps({"transfer": given | {"freeze": freeze}, "depth_decay": 1.0}) for freeze in (0, 1))
    message = (
        f"the run to resume has trained {saved}; data and options now give {now}: "
        "start it anew without --resume, or give what it was started with"
    )
    with pytest.raises(BundleError, match=exactly(message)):
        fit([*line(recipe | {"model.transfer.freeze": 1}), "--resume"])


def test_run_is_resumed_with_less_memory(recipe: Recipe) -> None:
    run = fit(line(recipe))
    fit([*line(recipe | {"model.transfer.gradient_checkpointing": True, "trainer.max_epochs": 3}), "--resume"])
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 2


def test_recipe_with_every_option_becomes_a_bundle_that_answers_as_it_was_trained(
    recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(ALL_OPTIONS), "utf-8")
    run = fit([f"--config={tmp_path / 'recipe.yaml'}", *line(recipe)])
    bundle = export(run, tmp_path / "bundle")
    text = "a warm and funny film about friends"
    trained = load_checkpoint(run / "checkpoints/best.ckpt")
    input_ids = torch.tensor([trained.tokens.encode([text])[0].ids])
    with torch.no_grad():
        logits = trained.network(input_ids, torch.ones_like(input_ids), torch.zeros_like(input_ids))
    scores = dict(zip(("bad", "good"), logits.softmax(-1)[0].tolist(), strict=True))
    assert load(bundle.path)(text)["scores"] == pytest.approx(scores, abs=1e-5)
    said = bundle.manifest.provenance["training"]
    assert said["loss"] == ALL_OPTIONS["model"]["loss"]
    assert said["transfer"]["lora"] == ALL_OPTIONS["model"]["transfer"]["lora"]


def test_loaded_checkpoint_has_its_adapters_merged(tiny_model: Path, reviews_csv: Path, tmp_path: Path) -> None:
    module = TextModule(str(tiny_model), optimization=Optimization(learning_rate=0.1), transfer=Transfer(lora=Lora()))
    trainer = train(module, reviews_csv)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    loaded = load_checkpoint(tmp_path / "one.ckpt").network
    assert module.network is not None
    inputs = [torch.randint(0, 60, (2, 9)), torch.ones(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)]
    with torch.no_grad():
        assert_close(loaded(*inputs), module.network.eval()(*inputs), atol=1e-5, rtol=0)
    assert isinstance(loaded, TextNetwork)
    unadapted = copy.deepcopy(loaded)
    unadapted.backbone.load_state_dict(AutoModel.from_pretrained(tiny_model).state_dict(), strict=False)
    with torch.no_grad():
        assert (unadapted(*inputs) - loaded(*inputs)).abs().max() > 1e-3
    assert not any("lora" in name for name in loaded.state_dict())


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "optimization.depth_decay",
            2,
            "optimization.depth_decay is 2; expected more than 0 and at most 1 (the same rate for all layers)",
        ),
        ("transfer.lora.rank", 0, "lora.rank is 0; expected at least 1: leave lora out to train without"),
        (
            "loss.label_smoothing",
            1,
            "loss.label_smoothing is 1; expected 0 or more and less than 1, such as 0.1",
        ),
    ],
)
def test_bad_value_in_a_recipe_is_told_in_one_line(option: str, value: object, message: str, recipe: Recipe) -> None:
    with pytest.raises(InputError, match=exactly(message)):
        fit(line(recipe | {f"model.{option}": value}))


def test_freezing_too_many_layers_is_refused_before_the_folder_is_touched(recipe: Recipe, tmp_path: Path) -> None:
    message = "transfer.freeze is 9; expected 0 to 2, the layers of BertModel, or -1 for all of it"
    with pytest.raises(InputError, match=exactly(message)):
        fit(line(recipe | {"model.transfer.freeze": 9}))
    assert not (tmp_path / "run").exists()
