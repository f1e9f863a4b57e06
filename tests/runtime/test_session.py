"""A session opens graphs when they are called, on as many threads as it was given."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from suffuse.bundle import Bundle
from suffuse.errors import BundleError
from suffuse.runtime.session import Session

INPUTS = {
    "input_ids": np.array([[2, 5, 3]]),
    "attention_mask": np.ones((1, 3), np.int64),
    "token_type_ids": np.zeros((1, 3), np.int64),
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The ONNX Runtime sessions that are opened."""
    real = onnxruntime.InferenceSession
    sessions: list[Any] = []

    def spy(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        sessions.append(real(*args, **kwargs))
        return sessions[-1]

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    return sessions


def test_a_graph_is_opened_at_its_first_call_and_once(tiny_bundle: Path, opened: list[Any]) -> None:
    session = Session(Bundle.open(tiny_bundle), threads=1)
    assert not opened

    first, second = (session.run("predict", INPUTS) for _ in range(2))

    assert len(opened) == 1
    assert first["logits"].shape == (1, 2)
    assert np.array_equal(first["logits"], second["logits"])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_given_and_do_not_spin(tiny_bundle: Path, opened: list[Any], threads: int) -> None:
    Session(Bundle.open(tiny_bundle), threads).run("predict", INPUTS)

    options = opened[0].get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_inputs_that_a_graph_does_not_take_are_left_out(tiny_bundle: Path) -> None:
    session = Session(Bundle.open(tiny_bundle), threads=1)

    more = session.run("predict", INPUTS | {"pixels": np.zeros((1, 3))})

    assert np.array_equal(more["logits"], session.run("predict", INPUTS)["logits"])


def test_an_unknown_graph_is_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    message = f"{tiny_bundle}: no graph 'dream'; it has {', '.join(bundle.manifest.graphs)}"

    with pytest.raises(BundleError, match="^" + re.escape(message) + "$"):
        Session(bundle, threads=1).run("dream", INPUTS)


def test_a_graph_that_this_onnx_runtime_cannot_open_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predict.onnx"
    path.write_bytes(b"of another age")
    bundle: Any = SimpleNamespace(graph=lambda _: path)

    with pytest.raises(BundleError) as caught:
        Session(bundle, threads=1).run("predict", INPUTS)

    assert re.fullmatch(
        re.escape(f"{path}: ONNX Runtime {onnxruntime.__version__} cannot open it: ")
        + ".*INVALID_PROTOBUF.*"
        + re.escape("; export with this version, or install the newer one that the manifest's provenance names"),
        str(caught.value),
    )
