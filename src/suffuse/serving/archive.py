"""Pack a bundle into a .mar that an unmodified TorchServe accepts, with the serving half of suffuse inside.

So the archive needs numpy, onnxruntime and tokenizers in the server's environment, and no suffuse; the code that
answers is that of the version that packed it. The same bundle gives the same bytes.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from suffuse.bundle import MANIFEST, Bundle
from suffuse.errors import InputError, ServerError

SERVING_HALF = (
    "__init__.py",
    "errors.py",
    "batching.py",
    "bundle.py",
    "card.py",
    "machine.py",
    "rows",
    "tasks",
    "runtime",
)
"""What of suffuse travels inside an archive: all that a handler imports, and what that imports."""
EXPLAINING = ("explain",)
"""What travels besides where the bundle has the graph that explanations are computed with."""
HANDLER = "text.py"
MODEL_CONFIG = "model-config.yaml"

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # what TorchServe takes
_MANIFEST = "MAR-INF/MANIFEST.json"
_CREATED_ON = "01/01/1980 00:00:00"
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the format's first


@dataclass(frozen=True)
class ArchiveSettings:
    """What an archive's model-config.yaml tells TorchServe.

    Args:
        workers: started with the server; `suffuse serve --workers` takes precedence.
        batch_size: requests that a worker is handed at once. Their rows are sorted by length and cut into smaller
            batches, so a larger one costs nothing: at 64 clients, 16 gave 0.83 times the answers a second of 64
            (bench/batch_size.py).
        max_batch_delay_ms: how long TorchServe waits for a batch to fill, at least 1. A lone client pays it whole: 5 ms
            cost it a third of its answers, and gave 16 and 64 clients 5 to 8 % more; 2 ms could not be told from 1.
            TorchServe takes 0, but then answers a lone client twelve times more slowly.
        version: of the model, for roll-outs.
        explanation_share: of a worker's time that explanations take at most, above 0 and at most 1.
        explanation_tokens: that one computes gradients of at most: steps x tokens of the text x things explained. What
            comes meanwhile waits: 4,096 are about a second of a core with a model of six layers.
    """

    workers: int = 1
    batch_size: int = 64
    max_batch_delay_ms: int = 1
    version: str = "1.0"
    explanation_share: float = 0.2
    explanation_tokens: int = 4096

    def model_config(self) -> str:
        """The text of model-config.yaml."""
        settings = {
            "minWorkers": self.workers,
            "maxWorkers": self.workers,
            "batchSize": self.batch_size,
            "maxBatchDelay": self.max_batch_delay_ms,
        }
        explanations = {"share": self.explanation_share, "tokens": self.explanation_tokens}
        return (
            "".join(f"{key}: {value}\n" for key, value in settings.items())
            + "explanations:\n"
            + "".join(f"  {key}: {value}\n" for key, value in explanations.items())
        )


def archive(bundle: Path, model_store: Path, settings: ArchiveSettings | None = None) -> Path:
    """Write MODEL_STORE/NAME.mar, NAME being that of the bundle's folder.

    Args:
        bundle: folder that ``suffuse export`` wrote; every file in it is checked.
        model_store: made if it is missing; an archive of that name is replaced when the new one is whole.
        settings: what TorchServe is told.

    Returns:
        Path of the archive.

    Raises:
        BundleError: the folder is no bundle, or a file in it is missing or altered.
        InputError: the bundle's name or a setting is none that TorchServe takes.
        ServerError: torch-model-archiver is not installed, or fails.
    """
    settings = settings or ArchiveSettings()
    opened = Bundle.open(bundle)
    _check(opened.name, settings)
    model_store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=model_store) as folder:
        packed = _pack(opened, settings, Path(folder))
        normal = Path(folder, "normal.mar")
        _normalise(packed, normal)
        return normal.replace(model_store / f"{opened.name}.mar")


def _check(name: str, settings: ArchiveSettings) -> None:
    if not _MODEL_NAME.fullmatch(name):
        raise InputError(
            f"the bundle's folder is called {name!r}; expected letters, digits, '_', '.' and '-', a letter or digit "
            "first, since it becomes the model's name: rename the folder"
        )
    least = {"workers": 0, "batch_size": 1, "max_batch_delay_ms": 1, "explanation_tokens": 1}
    for field, value in asdict(settings).items():
        if field in least and value < least[field]:
            raise InputError(f"{field} is {value}; expected {least[field]} or more")
    if not 0 < settings.explanation_share <= 1:
        raise InputError(f"explanation_share is {settings.explanation_share:g}; expected above 0 and at most 1")


def _pack(bundle: Bundle, settings: ArchiveSettings, folder: Path) -> Path:
    """Have torch-model-archiver make an archive in a private folder: it stages in one named after the model."""
    if importlib.util.find_spec("model_archiver") is None:
        raise ServerError("torch-model-archiver is not installed: `pip install 'suffuse[serve]'`")
    content, scratch = folder / "content", folder / "scratch"
    for path in (content, scratch):
        path.mkdir()
    for file in (MANIFEST, *bundle.manifest.files):
        shutil.copyfile(bundle.path / file, content / file)
    explaining = EXPLAINING if "explain" in bundle.manifest.graphs else ()
    _copy_parts((*SERVING_HALF, *explaining), content / "suffuse")
    shutil.copyfile(Path(__file__).with_name("text_handler.py"), folder / HANDLER)
    (folder / MODEL_CONFIG).write_text(settings.model_config(), "utf-8")
    arguments = {
        "model-name": bundle.name,
        "version": settings.version,
        "handler": folder / HANDLER,
        "config-file": folder / MODEL_CONFIG,
        "extra-files": content,
        "export-path": folder,
        "archive-format": "zip-store",  # weights hardly shrink, and would be unpacked at every start
    }
    options = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(  # noqa: S603 - the command is ours
        [sys.executable, "-m", "model_archiver.model_packaging", *options],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServerError(f"torch-model-archiver failed: {done.stderr.strip() or done.stdout.strip()}")
    return folder / f"{bundle.name}.mar"


def _copy_parts(parts: Sequence[str], target: Path) -> None:
    source = Path(__file__).parent.parent
    target.mkdir()
    for name in parts:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source / name, target / name)


def _normalise(packed: Path, normal: Path) -> None:
    """Copy an archive with its members in order and no trace of when they were made."""
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(normal, "w", zipfile.ZIP_STORED) as target:
        for name in sorted(source.namelist()):
            member = zipfile.ZipInfo(name, _ZIP_DATE)
            member.external_attr = 0o644 << 16
            with source.open(name) as read, target.open(member, "w") as write:
                if name == _MANIFEST:
                    write.write(_undated(read.read()))
                else:
                    shutil.copyfileobj(read, write)


def _undated(manifest: bytes) -> bytes:
    content = json.loads(manifest) | {"createdOn": _CREATED_ON}
    return json.dumps(content, indent=2, sort_keys=True).encode("utf-8")
