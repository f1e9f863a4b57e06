"""The bundle: all that is needed to answer, in one folder, and nothing that can run code.

``suffuse.json`` describes the task, the model, the graphs and where they came from, and holds a digest of every other
file and of itself. The same checkpoint gives the same bytes, so nothing in it depends on the clock or on the machine.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from suffuse.errors import BundleError
from suffuse.tasks import Task, Tokens, task_from_dict

MANIFEST = "suffuse.json"
TOKENIZER = "tokenizer.json"
CARD = "card.md"
FORMAT = 1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Graph:
    """An ONNX graph of a bundle.

    Args:
        file: its file name.
        inputs: names of its inputs, in order.
        outputs: names of its outputs, in order.
        max_difference: bound on what it was measured to differ from torch, in logits, or as a share of the largest
            where that is above 1; of gradients, as a share of the largest.
    """

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_difference: float


@dataclass(frozen=True)
class Limits:
    """What a request may hold.

    Args:
        max_tokens: longest window; longer text is read in several, or cut, and the answer says so.
        max_rows: rows in one request; a longer list would keep its worker from everybody else.
    """

    max_tokens: int
    max_rows: int = 256


@dataclass(frozen=True)
class Manifest:
    """What ``suffuse.json`` says.

    Args:
        task: as `suffuse.tasks.task_to_dict` gives it.
        model: type, parameters, hops of attention, padding token.
        graphs: by name; every bundle has ``predict``.
        limits: what a request may hold.
        metrics: measured at the end of training, on validation rows.
        provenance: package versions, digest of the data, seed.
        files: SHA-256 of every other file, by name.
        suffuse: version that wrote it.
        evaluation: what is known of it beyond its metrics: intervals, slices, confusion, calibration, and what `amend`
            added, such as faithfulness and latency.
    """

    task: Mapping[str, Any]
    model: Mapping[str, Any]
    graphs: Mapping[str, Graph]
    limits: Limits
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]
    suffuse: str
    files: Mapping[str, str] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of ``suffuse.json``: keys sorted, and a digest over all the rest."""
        content = {"format": FORMAT, **asdict(self)}
        return (
            json.dumps({**content, "digest": _digest_of(content)}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        )

    @classmethod
    def from_json(cls, text: str, where: str) -> "Manifest":
        """Read ``suffuse.json``.

        Raises:
            BundleError: not JSON, altered, of another format, or with a file outside the folder; `where` opens the
                message.
        """
        try:
            content = json.loads(text)
            digest = content.pop("digest")
            found_format = content.pop("format")
        except (ValueError, RecursionError, KeyError, AttributeError, TypeError):
            raise BundleError(f"{where}: not a suffuse manifest; export the run again") from None
        if found_format != FORMAT:
            raise BundleError(
                f"{where}: format {found_format!r}; this version reads format {FORMAT}: export again with it"
            )
        if digest != _digest_of({"format": found_format, **content}):
            raise BundleError(f"{where}: its content does not match its digest; it was altered: export the run again")
        try:
            graphs = {
                name: Graph(graph["file"], tuple(graph["inputs"]), tuple(graph["outputs"]), graph["max_difference"])
                for name, graph in content.pop("graphs").items()
            }
            manifest = cls(**{**content, "graphs": graphs, "limits": Limits(**content["limits"])})
        except (KeyError, AttributeError, TypeError) as error:
            raise BundleError(f"{where}: a part is missing or unknown: {error}; export the run again") from None
        manifest._check_files(where)
        return manifest

    def _check_files(self, where: str) -> None:
        for name in self.files:
            if not _is_plain(name):
                raise BundleError(f"{where}: {name!r} is not a plain file name; a bundle's files lie in its own folder")
        for name in (TOKENIZER, *(graph.file for graph in self.graphs.values())):
            if name not in self.files:
                raise BundleError(f"{where}: no digest for the file {name!r}; export the run again")


@dataclass(frozen=True)
class Bundle:
    """A folder that was opened and found whole."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Open a bundle and check the digest of every file.

        Raises:
            BundleError: no bundle, or a file is missing, altered or truncated; the file is named.
        """
        folder = Path(path)
        if not (folder / MANIFEST).is_file():
            raise BundleError(f"{folder}: no {MANIFEST} there; expected a bundle, as `suffuse export` writes it")
        text = (folder / MANIFEST).read_text("utf-8", errors="replace")  # a damaged byte then fails its digest
        manifest = Manifest.from_json(text, str(folder / MANIFEST))
        for name, digest in manifest.files.items():
            if not (folder / name).is_file():
                raise BundleError(f"{folder / name}: the file is missing; export the run again")
            with (folder / name).open("rb") as file:
                check_digest(str(folder / name), file, digest)
        return cls(folder, manifest)

    @property
    def name(self) -> str:
        """The bundle's name: its folder's."""
        return self.path.resolve().name

    def graph(self, name: str) -> Path:
        """Path of a graph.

        Raises:
            BundleError: the bundle has no such graph.
        """
        if name not in self.manifest.graphs:
            raise BundleError(f"{self.path}: no graph {name!r}; it has {', '.join(self.manifest.graphs)}")
        return self.path / self.manifest.graphs[name].file

    def task(self) -> Task:
        """The task it was trained for."""
        return task_from_dict(self.manifest.task)

    def tokens(self) -> Tokens:
        """Its tokenizer, with its limit and padding."""
        return Tokens(
            (self.path / TOKENIZER).read_text("utf-8"),
            self.manifest.limits.max_tokens,
            self.manifest.model["pad_token_id"],
        )


def amend(path: str | Path, **evaluation: Any) -> Bundle:  # noqa: ANN401 - JSON
    """Write into a bundle what was measured of it since, and its card anew; all else in it stays as it is.

    Args:
        path: of the bundle, which is replaced when the new one is whole.
        evaluation: keys of the manifest's `evaluation`, and what they hold from now on.

    Returns:
        The bundle as it is now.

    Raises:
        BundleError: no bundle, or a file of it is missing or altered.
    """
    # Here, since an archive carries no card: a server amends nothing.
    from suffuse.card import card  # noqa: PLC0415

    bundle = Bundle.open(path)
    manifest = replace(bundle.manifest, evaluation={**bundle.manifest.evaluation, **evaluation})

    def fill(folder: Path) -> None:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        (folder / CARD).write_text(card(manifest), "utf-8")
        files = {**manifest.files, CARD: sha256(folder / CARD)}
        (folder / MANIFEST).write_text(replace(manifest, files=files).to_json(), "utf-8")

    replace_folder(bundle.path, fill)
    return Bundle.open(path)


def require_graph(bundle: Bundle, graph: str, purpose: str) -> None:
    """Refuse, with what to do, to go on without a graph that `suffuse export --explain` adds.

    Args:
        bundle: that should have it.
        graph: its name.
        purpose: what "is" or "are" computed with it, for the error.

    Raises:
        BundleError: the bundle has no such graph.
    """
    if graph not in bundle.manifest.graphs:
        raise BundleError(
            f"{bundle.path}: it has no {graph}.onnx, which {purpose} computed with; "
            f"make it from the run: suffuse export RUN --to {bundle.path} --explain"
        )


def check_digest(where: str, file: IO[bytes], digest: str) -> None:
    """Compare a file of a bundle with its digest.

    Args:
        where: its path, or its place in an archive; it opens the message.
        file: open for reading.
        digest: SHA-256 in hexadecimal, from the manifest.

    Raises:
        BundleError: it is altered or truncated.
    """
    found = _sha256(file)
    if found != digest:
        raise BundleError(
            f"{where}: altered or truncated (SHA-256 {found[:12]}…, expected {digest[:12]}…); export the run again"
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return _sha256(file)


def replace_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a fresh folder beside `target`, then put it in its place, so that no half folder is seen.

    Args:
        target: replaced if it is a bundle or an empty folder.
        fill: is handed the fresh folder; when it raises, `target` stays as it was.

    Raises:
        BundleError: `target` is something else, which would be lost.
    """
    if target.exists() and not (target / MANIFEST).is_file() and not _is_empty_folder(target):
        raise BundleError(f"{target}: exists and is no bundle; expected a new name, or a bundle to replace")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fill(fresh)
        fresh.chmod(0o755)  # mkdtemp's folders are for their owner alone
        if target.exists():
            old = target.rename(fresh.with_name(fresh.name + "-old"))
            try:
                fresh.rename(target)
            except OSError:
                old.rename(target)
                raise
            shutil.rmtree(old)
        else:
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _sha256(file: IO[bytes]) -> str:
    computed = hashlib.sha256()  # not hashlib.file_digest, which by its types takes no member of a zip file
    while chunk := file.read(_CHUNK_BYTES):
        computed.update(chunk)
    return computed.hexdigest()


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _is_plain(name: str) -> bool:
    return name not in {"", ".", ".."} and not set(name) & set("/\\\0")


def _digest_of(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
