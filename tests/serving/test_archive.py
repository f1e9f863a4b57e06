"""An archive must hold all that answers, be the same bytes whenever it is made, and replace another only when whole."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from suffuse.errors import BundleError, InputError, ServerError
from suffuse.serving.archive import ArchiveSettings, archive
from suffuse.serving.settings import Archive


@pytest.fixture(scope="module")
def packed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tiny_bundle, tmp_path_factory.mktemp("store"), ArchiveSettings(workers=3, version="2.1"))


def test_archive_says_what_torchserve_needs_to_know(packed: Path) -> None:
    with zipfile.ZipFile(packed) as members:
        manifest = json.loads(members.read("MAR-INF/MANIFEST.json"))
        config = yaml.safe_load(members.read("model-config.yaml"))

    assert manifest["model"] == {
        "modelName": "tiny",
        "modelVersion": "2.1",
        "handler": "text.py",
        "configFile": "model-config.yaml",
    }
    assert config == {
        "minWorkers": 3,
        "maxWorkers": 3,
        "batchSize": 64,
        "maxBatchDelay": 1,
        "explanations": {"share": 0.2, "tokens": 4096},
    }
    assert Archive.open(packed) == Archive("tiny.mar", "tiny", "2.1", 3, batch_size=64)


def test_archive_holds_the_bundle_and_the_serving_half_and_no_more(packed: Path, tiny_bundle: Path) -> None:
    with zipfile.ZipFile(packed) as members:
        names = set(members.namelist())

    assert {path.name for path in tiny_bundle.iterdir()} < names
    parts = {name.split("/")[1].removesuffix(".py") for name in names if name.startswith("suffuse/")}
    assert parts == {"__init__", "errors", "batching", "bundle", "card", "machine", "rows", "tasks", "runtime"}
    assert not [name for name in names if "__pycache__" in name]


def test_archive_of_a_bundle_that_can_explain_holds_what_explains(explainable_bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive(explainable_bundle, tmp_path)) as members:
        names = set(members.namelist())

    assert {"suffuse/explain/served.py", "suffuse/runtime/service.py"} < names
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.parametrize("kind", ["tiny_bundle", "explainable_bundle"])
def test_unpacked_archive_answers_with_the_code_inside_it(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(archive(request.getfixturevalue(kind), tmp_path / "store")) as members:
        members.extractall(tmp_path)
    code = (
        "import types, sys; from text import TextHandler; handler = TextHandler()\n"
        "context = types.SimpleNamespace(system_properties={'model_dir': '.'}, model_yaml_config={},\n"
        "    set_response_content_type=lambda *_: None, set_response_status=lambda *_: None,\n"
        "    get_request_header=lambda *_: None)\n"
        "handler.initialize(context)\n"
        "print(sys.modules['suffuse'].__file__)\n"
        "print(handler.handle([{'body': b'\"a warm and funny film\"'}], context)[0])\n"
        "print(sorted({'torch', 'jinja2', 'matplotlib'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    home, reply, loaded = done.stdout.splitlines()
    assert Path(tmp_path, home).resolve() == (tmp_path / "suffuse" / "__init__.py").resolve()
    assert json.loads(reply)["label"] == "good"
    assert loaded == "[]"


def test_same_bundle_gives_the_same_bytes(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "elsewhere" / "tiny")
    os.utime(copy / "predict.onnx", (0, 0))

    first, second = archive(tiny_bundle, tmp_path / "a"), archive(copy, tmp_path / "b")

    assert first.read_bytes() == second.read_bytes()


def test_archive_that_cannot_be_made_leaves_the_old_one(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = archive(tiny_bundle, tmp_path).read_bytes()
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(ServerError, match="torch-model-archiver failed"):
        archive(tiny_bundle, tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["tiny.mar"]
    assert (tmp_path / "tiny.mar").read_bytes() == old


def test_altered_bundle_is_not_packed(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "tiny")
    (copy / "card.md").write_text("much better", "utf-8")

    with pytest.raises(BundleError, match=re.escape(f"{copy / 'card.md'}: altered or truncated")):
        archive(copy, tmp_path / "store")


@pytest.mark.parametrize("cut", [False, True])
def test_altered_archive_is_refused_by_name(packed: Path, tmp_path: Path, cut: bool) -> None:
    path = tmp_path / "tiny.mar"
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, (content[:-1] if cut else content + b"\n") if name == "tokenizer.json" else content)

    with pytest.raises(BundleError, match=re.escape(f"{path}: tokenizer.json: altered or truncated (SHA-256 ")):
        Archive.open(path)


def test_archive_without_a_file_of_its_bundle_is_refused(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.mar"
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if name != "predict.onnx":
                target.writestr(name, source.read(name))

    with pytest.raises(BundleError, match=r"predict\.onnx"):
        Archive.open(path)


def test_name_that_torchserve_does_not_take_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "my model")

    message = (
        "the bundle's folder is called 'my model'; expected letters, digits, '_', '.' and '-', a letter or digit "
        "first, since it becomes the model's name: rename the folder"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        archive(copy, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ArchiveSettings(workers=-1), "workers is -1; expected 0 or more"),
        (ArchiveSettings(batch_size=0), "batch_size is 0; expected 1 or more"),
        (ArchiveSettings(max_batch_delay_ms=0), "max_batch_delay_ms is 0; expected 1 or more"),
        (ArchiveSettings(explanation_tokens=0), "explanation_tokens is 0; expected 1 or more"),
        (ArchiveSettings(explanation_share=0.0), "explanation_share is 0; expected above 0 and at most 1"),
        (ArchiveSettings(explanation_share=1.1), "explanation_share is 1.1; expected above 0 and at most 1"),
    ],
)
def test_setting_out_of_bounds_is_refused(
    tiny_bundle: Path, tmp_path: Path, settings: ArchiveSettings, message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        archive(tiny_bundle, tmp_path, settings)
