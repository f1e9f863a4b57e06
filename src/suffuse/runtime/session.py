"""ONNX Runtime behind the one function that tasks call: ``run(graph, inputs) -> outputs``."""

from functools import cached_property

import numpy as np
import onnxruntime

from suffuse.bundle import Bundle
from suffuse.errors import BundleError
from suffuse.tasks import Arrays


class Session:
    """The graphs of a bundle, each opened when it is first called.

    Args:
        bundle: an opened bundle.
        threads: of one call; all sessions on a machine together should use its cores once.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle = bundle
        self._threads = threads
        self._graphs: dict[str, onnxruntime.InferenceSession] = {}

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """Compute a graph.

        Args:
            graph: its name in the manifest.
            inputs: arrays with the batch as first axis; those that the graph does not take are left out.

        Raises:
            BundleError: the bundle has no such graph, or this ONNX Runtime cannot open it.
        """
        session = self._graphs.get(graph)
        if session is None:
            session = self._graphs[graph] = self._open(graph)
        described = self._bundle.manifest.graphs[graph]
        outputs = session.run(
            described.outputs, {name: np.ascontiguousarray(inputs[name]) for name in described.inputs}
        )
        return dict(zip(described.outputs, outputs, strict=True))

    @cached_property
    def _options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Idle threads that spin take the cores from the other workers and from the server.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # Every batch has another shape: patterns of past shapes are kept for nothing.
        options.enable_mem_pattern = False
        return options

    def _open(self, graph: str) -> onnxruntime.InferenceSession:
        path = self._bundle.graph(graph)
        try:
            return onnxruntime.InferenceSession(str(path), self._options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise BundleError(
                f"{path}: ONNX Runtime {onnxruntime.__version__} cannot open it: {error}; "
                "export with this version, or install the newer one that the manifest's provenance names"
            ) from None
