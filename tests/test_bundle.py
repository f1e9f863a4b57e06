"""A bundle is opened only whole, unaltered and of its own folder, and is replaced only whole."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from suffuse.bundle import MANIFEST, TOKENIZER, Bundle, Graph, Limits, Manifest, amend, replace_folder, sha256
from suffuse.errors import BundleError
from suffuse.tasks import Classification, task_to_dict

GRAPH = Graph("predict.onnx", ("input_ids", "attention_mask"), ("logits",), 1e-6)


def manifest_of(files: dict[str, str]) -> Manifest:
    return Manifest(
        task=task_to_dict(Classification(("schlecht", "schön"))),
        model={"type": "bert", "pad_token_id": 3},
        graphs={"predict": GRAPH},
        limits=Limits(max_tokens=16, max_rows=8),
        metrics={"f1_macro": 0.5},
        provenance={"seed": 1},
        suffuse="0.1.0",
        files=files,
    )


def fill(folder: Path, tokenizer: str = "{}") -> None:
    (folder / TOKENIZER).write_text(tokenizer, "utf-8")
    (folder / GRAPH.file).write_bytes(b"a graph")
    files = {name: sha256(folder / name) for name in (TOKENIZER, GRAPH.file)}
    (folder / MANIFEST).write_text(manifest_of(files).to_json(), "utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "reviews"
    path.mkdir()
    fill(path)
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    return str(caught.value)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Alter the manifest as somebody would who also knows how to renew its digest."""
    content = json.loads((folder / MANIFEST).read_text("utf-8"))
    del content["digest"]
    change(content)
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    content["digest"] = hashlib.sha256(canonical.encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(content), "utf-8")


def test_a_manifest_comes_back_from_its_json() -> None:
    manifest = manifest_of({TOKENIZER: "12", GRAPH.file: "34"})

    read = Manifest.from_json(manifest.to_json(), "here")

    assert replace(read, task=manifest.task) == manifest
    assert read.task == json.loads(json.dumps(manifest.task))


def test_the_same_content_gives_the_same_bytes() -> None:
    files = {TOKENIZER: "12", GRAPH.file: "34"}

    assert manifest_of(files).to_json() == manifest_of(dict(reversed(files.items()))).to_json()


def test_an_opened_bundle_knows_its_parts(folder: Path) -> None:
    bundle = Bundle.open(folder)

    assert bundle.name == "reviews"
    assert bundle.task() == Classification(("schlecht", "schön"))
    assert bundle.graph("predict") == folder / "predict.onnx"
    assert bundle.manifest.limits == Limits(16, 8)


def test_its_tokenizer_has_its_limit_and_padding(tmp_path: Path, tiny_model: Path) -> None:
    fill(tmp_path, (tiny_model / TOKENIZER).read_text("utf-8"))

    tokens = Bundle.open(tmp_path).tokens()

    assert (tokens.max_tokens, tokens.pad_token_id) == (16, 3)


def test_an_unknown_graph_is_refused_with_those_there(folder: Path) -> None:
    message = f"{folder}: no graph 'explain'; it has predict"

    with pytest.raises(BundleError, match="^" + re.escape(message) + "$"):
        Bundle.open(folder).graph("explain")


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: no suffuse.json there; expected a bundle, as `suffuse export` writes it"


@pytest.mark.parametrize("name", [TOKENIZER, GRAPH.file])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()

    assert refusal(folder) == f"{folder / name}: the file is missing; export the run again"


@pytest.mark.parametrize("content", [b"a grapH", b"a gra", b"", b"a graph "])
def test_an_altered_or_truncated_file_is_named(folder: Path, content: bytes) -> None:
    (folder / GRAPH.file).write_bytes(content)

    found, expected = (hashlib.sha256(data).hexdigest()[:12] for data in (content, b"a graph"))
    assert refusal(folder) == (
        f"{folder / GRAPH.file}: altered or truncated (SHA-256 {found}…, expected {expected}…); export the run again"
    )


@pytest.mark.parametrize("old", [b"0.5", b"\xc3\xb6n"])
def test_an_altered_manifest_fails_its_own_digest(folder: Path, old: bytes) -> None:
    path = folder / MANIFEST
    path.write_bytes(path.read_bytes().replace(old, b"\xff" if old[0] > 127 else b"0.9"))

    assert refusal(folder) == (f"{path}: its content does not match its digest; it was altered: export the run again")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '"text"', "[" * 100_000])
def test_what_is_no_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text, "utf-8")

    assert refusal(folder) == f"{folder / MANIFEST}: not a suffuse manifest; export the run again"


def test_another_format_is_refused_before_anything_else_is_read(folder: Path) -> None:
    rewrite(folder, lambda content: content.update(format=2, graphs="elsewhere"))

    assert refusal(folder) == f"{folder / MANIFEST}: format 2; this version reads format 1: export again with it"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "a\\b", "..", ".", ""])
def test_a_file_outside_the_folder_is_refused(folder: Path, name: str) -> None:
    rewrite(folder, lambda content: content["files"].update({name: "0"}))

    assert refusal(folder) == (
        f"{folder / MANIFEST}: {name!r} is not a plain file name; a bundle's files lie in its own folder"
    )


@pytest.mark.parametrize("file", ["../secret", "other.onnx"])
def test_a_graph_whose_file_has_no_digest_is_refused(folder: Path, file: str) -> None:
    rewrite(folder, lambda content: content["graphs"]["predict"].update(file=file))

    assert refusal(folder) == f"{folder / MANIFEST}: no digest for the file {file!r}; export the run again"


def test_a_tokenizer_without_a_digest_is_refused(folder: Path) -> None:
    rewrite(folder, lambda content: content["files"].pop(TOKENIZER))

    assert refusal(folder) == f"{folder / MANIFEST}: no digest for the file 'tokenizer.json'; export the run again"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("graphs"), "'graphs'"),
        (lambda content: content["graphs"]["predict"].pop("outputs"), "'outputs'"),
        (lambda content: content.update(graphs=[]), "'list' object has no attribute 'items'"),
        (lambda content: content.update(mood=1), "Manifest.__init__() got an unexpected keyword argument 'mood'"),
        (lambda content: content.pop("model"), "Manifest.__init__() missing 1 required positional argument: 'model'"),
    ],
)
def test_a_manifest_with_other_parts_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    rewrite(folder, change)

    assert refusal(folder) == f"{folder / MANIFEST}: a part is missing or unknown: {reason}; export the run again"


def test_a_new_folder_is_filled_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    replace_folder(tmp_path / "bundles" / "a", fill)

    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["a"]
    assert Bundle.open(tmp_path / "bundles" / "a").name == "a"
    assert (tmp_path / "bundles" / "a").stat().st_mode & 0o777 == 0o755


def test_a_bundle_is_replaced_whole(folder: Path) -> None:
    (folder / "old").touch()

    replace_folder(folder, fill)

    assert sorted(path.name for path in folder.iterdir()) == ["predict.onnx", "suffuse.json", "tokenizer.json"]
    assert list(folder.parent.iterdir()) == [folder]


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    replace_folder(tmp_path / "a", fill)

    assert (tmp_path / "a" / MANIFEST).is_file()


def test_a_bundle_stays_when_its_successor_cannot_be_written(folder: Path) -> None:
    def fail(fresh: Path) -> None:
        fill(fresh)
        raise OSError("disk full")

    with pytest.raises(OSError, match=r"^disk full$"):
        replace_folder(folder, fail)

    assert Bundle.open(folder).name == "reviews"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_bundle_comes_back_when_its_successor_cannot_take_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def rename_but_not_the_fresh_one(path: Path, target: Path) -> Path:
        if target == folder and not path.name.endswith("-old"):
            raise OSError("cannot be renamed")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_but_not_the_fresh_one)
    with pytest.raises(OSError, match=r"^cannot be renamed$"):
        replace_folder(folder, fill)

    assert Bundle.open(folder).name == "reviews"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    thesis = tmp_path / "work" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.touch()

    for target in (thesis.parent, thesis):
        with pytest.raises(BundleError) as caught:
            replace_folder(target, fill)
        assert str(caught.value) == f"{target}: exists and is no bundle; expected a new name, or a bundle to replace"
    assert thesis.exists()


def test_a_bundle_of_an_earlier_version_has_no_evaluation(folder: Path) -> None:
    rewrite(folder, lambda content: content.pop("evaluation"))

    assert Bundle.open(folder).manifest.evaluation == {}


def test_what_is_measured_later_is_written_into_the_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "tiny")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}

    amended = amend(copy, latency=[{"tokens": 8, "p50_ms": 1.5, "p99_ms": 2.0}])

    after = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"card.md", "suffuse.json"}
    assert after.keys() == before.keys()
    assert "| 8 | 1.50 | 2.00 |" in (copy / "card.md").read_text("utf-8")
    assert amended.manifest.evaluation == {
        **Bundle.open(tiny_bundle).manifest.evaluation,
        "latency": [{"tokens": 8, "p50_ms": 1.5, "p99_ms": 2.0}],
    }
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_amending_again_replaces_what_was_said(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "tiny")

    amend(copy, latency=[{"tokens": 8, "p50_ms": 1.5, "p99_ms": 2.0}])
    amended = amend(copy, latency=[])

    assert amended.manifest.evaluation["latency"] == []
    assert "Latency" not in (copy / "card.md").read_text("utf-8")


def test_a_bundle_stays_when_what_was_measured_cannot_be_written(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "tiny")

    with pytest.raises(TypeError):
        amend(copy, notes=object())

    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        path.name: path.read_bytes() for path in tiny_bundle.iterdir()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
