"""A bundle as a function from rows to answers.

Rows are checked one by one, encoded together, sorted by length, cut into micro-batches by padded tokens, computed, and
answered in the order asked.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from suffuse.batching import chunked, collate, token_batches
from suffuse.bundle import Bundle
from suffuse.errors import DataError, RowError
from suffuse.machine import available_cores
from suffuse.runtime.session import Session
from suffuse.tasks import Answer, Arrays, Row, Window

if TYPE_CHECKING:
    from suffuse.explain import Explanation

MICRO_BATCH_TOKENS = 512
"""Padded tokens computed at once: on a CPU larger batches are slower (bench/microbatch.py)."""
STREAM_ROWS = 512
"""Rows that are sorted by length together when a file is streamed."""


def load(bundle: str | Path, threads: int | None = None) -> "Predictor":
    """Open a bundle for answering.

    Args:
        bundle: folder that ``suffuse export`` wrote.
        threads: of ONNX Runtime; by default all cores of this process.

    Raises:
        BundleError: the folder is no bundle, or a file in it is missing or altered.
    """
    return Predictor(Bundle.open(bundle), threads)


class Predictor:
    """Answers for rows, from the graphs of one bundle.

    Args:
        bundle: an opened bundle.
        threads: of ONNX Runtime; by default all cores of this process.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        threads = threads or available_cores()
        # Read by the tokenizer when it first encodes; more threads than these would take other workers' cores.
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
        self.bundle = bundle
        self.task = bundle.task()
        self.tokens = bundle.tokens()
        self._session = Session(bundle, threads)

    @overload
    def __call__(self, rows: str | Row) -> Answer: ...  # type: ignore[overload-overlap]  # a str is a Sequence[str]
    @overload
    def __call__(self, rows: Sequence[str | Row]) -> list[Answer]: ...
    def __call__(self, rows: str | Row | Sequence[str | Row]) -> Answer | list[Answer]:
        """Answer one row or many.

        Args:
            rows: a row, a bare text where the task has a single field, or a list of either.

        Returns:
            An answer, or a list of answers in the order of the rows, where a bad row has an ``error`` in its place.

        Raises:
            RowError: a single row is bad.
        """
        if isinstance(rows, str | Mapping):
            answer = self.answers([rows])[0]
            if isinstance(answer, RowError):
                raise answer
            return answer
        return [error_answer(answer) if isinstance(answer, RowError) else answer for answer in self.answers(rows)]

    def answers(self, rows: Sequence[object]) -> list[Answer | RowError]:
        """Answers in the order of the rows; a bad row has its error in its place and harms no other."""
        results: list[Answer | RowError] = []
        checked: list[Row] = []
        places: list[int] = []
        for index, row in enumerate(rows):
            try:
                checked.append(self.task.check(row))
            except RowError as error:
                results.append(error)
            else:
                results.append({})
                places.append(index)
        for place, answer in zip(places, self._answer(checked), strict=True):
            results[place] = answer
        return results

    def stream(self, rows: Iterable[object]) -> Iterator[Answer | RowError]:
        """Answers for any number of rows, in order, in memory that does not grow with their number."""
        for chunk in chunked(rows, STREAM_ROWS):
            yield from self.answers(chunk)

    def evaluate(self, rows: Iterable[Row]) -> dict[str, float]:
        """Metrics of the answers for rows that have the task's target field, and their number as ``rows``.

        Raises:
            RowError: a row is bad or has no target.
            DataError: there are no rows.
        """
        answers: list[Answer] = []
        targets: list[Any] = []  # not the texts, which may fill the memory
        for chunk in chunked(map(self.task.check, rows), STREAM_ROWS):
            targets += [self.task.target(row) for row in chunk]
            answers += self._answer(chunk)
        if not answers:
            raise DataError("no rows to measure; expected at least one")
        return {**self.task.metrics(answers, targets), "rows": len(answers)}

    def explain(self, row: str | Row, *, target: str = "", method: str = "", steps: int | None = None) -> "Explanation":
        """Answer a row and say why.

        Args:
            row: a row, or a bare text where the task has a single field.
            target: what to explain, such as a label; by default all that was answered.
            method: one of `suffuse.explain.METHODS`; by default the one that was measured to be the most faithful for
                this bundle, else integrated gradients.
            steps: points at which a gradient is taken, for methods that take several.

        Raises:
            BundleError: the bundle has no explain.onnx.
            InputError: there is no such method, or it takes no steps or fewer.
            RowError: the row cannot be answered, or has no such target.
        """
        from suffuse.explain import Explainer, default_method, make_method  # noqa: PLC0415 - builds on this package

        settings = {} if steps is None else {"steps": steps}
        return Explainer(self, make_method(method or default_method(self.bundle.manifest), settings))(row, target)

    def outputs(self, windows: Sequence[Window]) -> list[Arrays]:
        """What the network puts out for each window, without the batch axis, in the order of the windows."""
        outputs: list[dict[str, NDArray[Any]]] = [{} for _ in windows]
        for batch in token_batches([len(window) for window in windows], MICRO_BATCH_TOKENS):
            inputs = collate([windows[index].inputs for index in batch], self.tokens.pad_token_id)
            computed = self.task.answer(inputs, self._session.run)
            for name, array in computed.items():
                for index, output in zip(batch, np.asarray(array), strict=True):
                    outputs[index][name] = output
        return list(outputs)

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """Compute a graph of the bundle, as `Session.run`."""
        return self._session.run(graph, inputs)

    def _answer(self, rows: Sequence[Row]) -> list[Answer]:
        windows = self.task.encode(rows, self.tokens) if rows else []
        return self.task.decode(rows, windows, self.outputs(windows))


def error_answer(error: RowError) -> Answer:
    """The answer in the place of a bad row."""
    return {"error": {"code": error.code, "message": str(error), "status": error.status}}
