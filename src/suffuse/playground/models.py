"""What the playground can ask: a bundle in this process, or a model of a server; the page does not tell them apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from suffuse.bundle import Bundle
from suffuse.errors import AnswerError, InputError
from suffuse.explain.gradients import GRAPH
from suffuse.runtime import Predictor
from suffuse.serving.client import Client
from suffuse.tasks import TASKS, Answer, Field, Row

TIMEOUT_S = 10.0
"""Of a request to a server: somebody is waiting before the page."""
MISSING_FIELD = "missing_field"
"""The code of a server's error where a row lacks a field."""


@dataclass(frozen=True)
class Servers:
    """What holds for all servers that are asked.

    Args:
        models: names of those that a server without a named one is asked for.
        key_file: a server's key_file.json, or a stack's token.
    """

    models: tuple[str, ...] = ()
    key_file: Path | str | None = None


class Model(Protocol):
    """Something that answers rows and may explain its answers."""

    @property
    def name(self) -> str:
        """As the page calls it."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """What a row must have."""

    def answer(self, row: Row) -> Answer:
        """Answer one row.

        Raises:
            SuffuseError: it cannot be answered, or nobody is there to do so.
        """

    def explain(self, row: Row, method: str = "") -> Mapping[str, Any]:
        """The answer to one row and why, as `Explanation.to_dict` has it.

        Args:
            row: to answer.
            method: one of `suffuse.explain.METHODS`; by default the model's own.

        Raises:
            SuffuseError: as `answer`; also, this model explains nothing.
        """


class BundleModel:
    """A bundle, opened in this process.

    Args:
        path: its folder.
        threads: of ONNX Runtime; by default all cores.

    Raises:
        BundleError: the folder is no bundle, or a file in it is missing or altered.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        bundle = Bundle.open(path)
        self.name = bundle.name
        self._predictor = Predictor(bundle, threads)
        self.fields = self._predictor.task.fields
        self._predictor.answers([{field.name: "warm up" for field in self.fields}])  # the first takes longer

    def answer(self, row: Row) -> Answer:
        """Answer one row."""
        return self._predictor(row)

    def explain(self, row: Row, method: str = "") -> Mapping[str, Any]:
        """The answer and why."""
        if GRAPH not in self._predictor.bundle.manifest.graphs:
            raise InputError(
                f"the bundle {self.name} has no graph to explain with; make it anew: "
                f"suffuse export RUN --to {self._predictor.bundle.path} --explain"
            )
        return self._predictor.explain(row, method=method).to_dict()


class ServedModel:
    """A model of a server.

    Args:
        client: of the server.
        model: its name there.
        place: of the server, for the page.

    Raises:
        ClientError: the server is not there, does not take the key, or has no such model.
    """

    def __init__(self, client: Client, model: str, place: str) -> None:
        self.name = f"{model} at {place}"
        self._client = client
        self._model = model
        self.fields = fields_of(client, model)

    def answer(self, row: Row) -> Answer:
        """Answer one row."""
        return self._client.predict(self._model, row)

    def explain(self, row: Row, method: str = "") -> Mapping[str, Any]:
        """The answer and why."""
        return self._client.explain(self._model, row, method=method)


def fields_of(client: Client, model: str) -> tuple[Field, ...]:
    """The fields that a served model reads, found by asking: a server does not say.

    Rows of every form that some task has are tried, those with the fewest fields first.

    Raises:
        ClientError: the server does not answer.
        InputError: no row is of the right form.
    """
    for fields in known_fields():
        try:
            client.predict(model, {field.name: "a text to try" for field in fields})
        except AnswerError as error:
            if error.code == MISSING_FIELD:
                continue
            raise
        return fields
    known = "; ".join(", ".join(field.name for field in fields) for fields in known_fields())
    raise InputError(f"model {model!r} reads rows of a form that this version does not know; expected one of: {known}")


def known_fields() -> list[tuple[Field, ...]]:
    """The forms that rows of the tasks have, by the names of their fields, the shortest first."""
    forms: dict[tuple[str, ...], tuple[Field, ...]] = {}
    for task in TASKS.values():
        fields = task().fields
        forms.setdefault(tuple(field.name for field in fields), fields)  # what a field means differs between tasks
    return sorted(forms.values(), key=lambda fields: (len(fields), [field.name for field in fields]))


def open_models(sources: Sequence[str], servers: Servers) -> dict[str, Model]:
    """Everything that was named, in order, by the name that the page shows.

    Args:
        sources: folders of bundles, and addresses of servers: ``URL/predictions/NAME`` for one model, ``URL`` for all
            that `servers` names.
        servers: what holds for all of them.

    Raises:
        InputError: nothing was named, a server's models are not known, or a folder is no bundle.
        ClientError: a server is not there, does not take the key, or has no such model.
    """
    if not sources:
        raise InputError("no model was named; expected folders of bundles, addresses of servers, or both")
    models: list[Model] = []
    for source in sources:
        models += _served(source, servers) if "://" in source else [BundleModel(source)]
    return _with_names_of_their_own(models)


def _served(url: str, servers: Servers) -> Iterator[ServedModel]:
    parts = urlsplit(url)
    before, _, name = parts.path.partition("/predictions/")
    names = (unquote(name),) if name else servers.models
    if not names:
        raise InputError(
            f"which models of {url}? Expected {url.rstrip('/')}/predictions/NAME, or --management URL to ask it"
        )
    client = Client(urlunsplit(parts._replace(path=before)), key_file=servers.key_file, timeout_s=TIMEOUT_S)
    for model in names:
        yield ServedModel(client, model, parts.netloc)


def _with_names_of_their_own(models: Sequence[Model]) -> dict[str, Model]:
    """The models by their names, with a number behind a name that came before."""
    named: dict[str, Model] = {}
    for model in models:
        name = next(name for name in _numbered(model.name) if name not in named)
        named[name] = model
    return named


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name} ({number})" for number in count(2))
