"""The module: what it optimises and how fast, what its checkpoint holds, and what is refused as one."""

import json
import math
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch.testing import assert_close

from suffuse.diffusion import diffusion_parameters
from suffuse.errors import BundleError, InputError
from suffuse.tasks import Classification
from suffuse.training import Optimization, TextData, TextModule
from suffuse.training.checkpoint import TrainedModel, load_checkpoint
from suffuse.training.optimization import rate_factor

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore:.*LeafSpec.*:FutureWarning",
)
OPTIMIZATION = Optimization(learning_rate=1e-3, attention_learning_rate=1e-2)


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")


@pytest.fixture(scope="module")
def module(tiny_model: Path, reviews_csv: Path) -> TextModule:
    """A module after one epoch by the plain Trainer, as the package's docstring shows it."""
    torch.manual_seed(0)
    module = TextModule(str(tiny_model), num_hops=3, optimization=OPTIMIZATION)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, TextData(str(reviews_csv)))
    return module


@pytest.fixture
def checkpoint(module: TextModule, tmp_path: Path) -> Path:
    path = tmp_path / "one.ckpt"
    module.trainer.save_checkpoint(path)
    return path


@pytest.fixture
def loaded(checkpoint: Path) -> TrainedModel:
    return load_checkpoint(checkpoint)


def optimizer_groups(module: TextModule) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = module.trainer.optimizers[0].param_groups
    return groups


def names(module: TextModule, group: dict[str, Any]) -> set[str]:
    wanted = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in module.named_parameters() if id(parameter) in wanted}


def test_hop_weights_have_a_rate_of_their_own_and_no_decay(module: TextModule) -> None:
    *_, hops = optimizer_groups(module)
    assert names(module, hops) == {
        f"network.backbone.encoder.layer.{layer}.attention.self.diffusion_beta" for layer in (0, 1)
    }
    assert (hops["initial_lr"], hops["weight_decay"]) == (1e-2, 0.0)


def test_biases_and_normalisations_have_no_decay(module: TextModule) -> None:
    matrices, vectors, _ = optimizer_groups(module)
    assert matrices["weight_decay"] == 0.01
    assert vectors["weight_decay"] == 0.0
    assert all(name.endswith(".bias") or "LayerNorm" in name for name in names(module, vectors))
    assert not any(name.endswith(".bias") or "LayerNorm" in name for name in names(module, matrices))


def test_every_parameter_is_optimised_once(module: TextModule) -> None:
    optimised = [id(parameter) for group in optimizer_groups(module) for parameter in group["params"]]
    assert sorted(optimised) == sorted(id(parameter) for parameter in module.parameters())


def test_hop_weights_leave_zero_in_training(module: TextModule) -> None:
    assert all(beta_kh.abs().min() > 0 for beta_kh in diffusion_parameters(module))


def test_rate_rises_and_then_falls_to_zero() -> None:
    factor = rate_factor(10, warmup=0.2)
    assert [factor(step) for step in range(11)] == [0.5, 1.0, *(pytest.approx(left / 8) for left in range(8, -1, -1))]


def test_rate_without_warmup_starts_at_its_peak() -> None:
    factor = rate_factor(4, warmup=0.0)
    assert factor(0) == 1.0


def test_training_without_an_end_is_refused() -> None:
    message = (
        "the training has no end; expected one to lower the learning rate to: set trainer.max_epochs, or "
        "trainer.max_steps where rows are streamed, whose number nobody knows"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        rate_factor(math.inf, warmup=0.1)


def test_loaded_network_answers_as_the_trained_one_at_the_temperature(module: TextModule, loaded: TrainedModel) -> None:
    inputs = {name: torch.ones(2, 5, dtype=torch.long) for name in loaded.input_names}
    assert module.network is not None
    with torch.no_grad():
        trained = module.network.eval()(**inputs)
        assert_close(loaded.network(**inputs) * module.evaluation.temperature, trained)
    assert module.evaluation.temperature != 1.0


def test_weights_in_a_checkpoint_are_those_that_training_goes_on_with(module: TextModule, checkpoint: Path) -> None:
    assert module.network is not None
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]["network.classifier.weight"]
    assert_close(saved, module.network.classifier.weight.detach(), atol=0, rtol=0)


def test_checkpoint_without_a_temperature_is_read_as_it_was(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["suffuse"]["temperature"], content["suffuse"]["evaluation"]
    torch.save(content, checkpoint)
    loaded = load_checkpoint(checkpoint)
    assert_close(loaded.network.classifier.weight, content["state_dict"]["network.classifier.weight"], atol=0, rtol=0)
    assert loaded.evaluation == {}


def test_checkpoint_says_how_many_rows_there_were_and_how_they_were_answered(
    module: TextModule, loaded: TrainedModel
) -> None:
    rows = {"train": len(module.data.train_rows.rows), "validation": len(module.data.validation_rows.rows)}
    assert loaded.provenance["rows"] == rows
    assert loaded.evaluation["rows"] == rows["validation"]
    assert loaded.evaluation["calibration"]["temperature"] == module.evaluation.temperature


def test_hop_weights_are_saved_and_loaded(module: TextModule, loaded: TrainedModel) -> None:
    saved = [beta_kh.tolist() for beta_kh in diffusion_parameters(loaded.network)]
    assert saved == [beta_kh.tolist() for beta_kh in diffusion_parameters(module)]
    assert [len(beta_kh) for beta_kh in saved] == [2, 2]


def test_checkpoint_holds_task_tokenizer_and_metrics(module: TextModule, loaded: TrainedModel) -> None:
    assert loaded.task == Classification(labels=("bad", "good"))
    assert loaded.tokens.encode(["a dull film"])[0].ids == module.tokens.encode(["a dull film"])[0].ids
    assert loaded.tokens.max_tokens == 64
    assert loaded.metrics == module.metrics
    assert set(loaded.metrics) == {"accuracy", "f1_macro", "f1_micro"}


def test_checkpoint_says_where_the_model_came_from(loaded: TrainedModel, reviews_csv: Path, tiny_model: Path) -> None:
    assert loaded.provenance["seed"] == 11
    assert list(loaded.provenance["data"]) == ["train: reviews.csv"]
    assert loaded.provenance["packages"]["torch"] == torch.__version__
    said = json.dumps([dict(loaded.provenance), dict(loaded.model)])
    assert str(reviews_csv.parent) not in said
    assert str(tiny_model.parent) not in said


def test_checkpoint_needs_no_pretrained_model(tiny_model: Path, reviews_csv: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    trainer = lightning.Trainer(fast_dev_run=True, accelerator="cpu", enable_model_summary=False, logger=False)
    trainer.fit(TextModule(str(folder)), TextData(str(reviews_csv)))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    shutil.rmtree(folder)
    assert load_checkpoint(tmp_path / "one.ckpt").model["source"] == "model"


def refused(path: Path, reason: str) -> str:
    return f"^{re.escape(f'{path}: not a usable checkpoint: {reason}; expected one of `suffuse fit`: train again')}$"


class Intruder:
    """Would write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_checkpoint_is_not_run(write: Any, checkpoint: Path, tmp_path: Path) -> None:  # noqa: ANN401
    content = torch.load(checkpoint, weights_only=True)
    write({**content, "suffuse": Intruder(tmp_path / "ran")}, checkpoint)
    with pytest.raises(
        BundleError, match=refused(checkpoint, "it holds objects that could run code, which are not loaded")
    ):
        load_checkpoint(checkpoint)
    assert not (tmp_path / "ran").exists()


def test_truncated_checkpoint_is_refused(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    reason = "PytorchStreamReader failed reading zip archive: failed finding central directory"
    with pytest.raises(BundleError, match=refused(checkpoint, reason)):
        load_checkpoint(checkpoint)


def test_checkpoint_of_another_program_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(BundleError, match=refused(tmp_path / "other.ckpt", "it was not written by `suffuse fit`")):
        load_checkpoint(tmp_path / "other.ckpt")


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    message = f"{tmp_path / 'no.ckpt'}: no such file; expected a checkpoint, as `suffuse fit` writes it"
    with pytest.raises(BundleError, match=f"^{re.escape(message)}$"):
        load_checkpoint(tmp_path / "no.ckpt")


def test_weights_of_another_network_are_refused(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["state_dict"]["network.classifier.bias"]
    torch.save(content, checkpoint)
    trained_with = content["suffuse"]["provenance"]["packages"]["transformers"]
    message = (
        f"{checkpoint}: its weights do not fit the network that the installed transformers builds; "
        f"expected transformers {trained_with}, which it was trained with: install that, or train again"
    )
    with pytest.raises(BundleError, match=f"^{re.escape(message)}$"):
        load_checkpoint(checkpoint)


def test_module_without_data_says_how_it_is_used(tiny_model: Path) -> None:
    message = "the network is built by the Trainer: pass the module to Trainer.fit with a TextData"
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        TextModule(str(tiny_model)).configure_optimizers()
