"""A load on a real server must be answered as the bundle answers, and end in a verdict; refusals are told as such."""

import json
import time
from pathlib import Path

import pytest

import suffuse
from suffuse import cli
from suffuse.errors import AuthorizationError, UnknownModelError
from suffuse.load_test import LoadConfig, Target, Users, run_load
from suffuse.rows import read_rows
from suffuse.serving.management import Management
from suffuse.serving.server import Server


@pytest.fixture(scope="module")
def expected(reviews_csv: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `suffuse predict` writes for the rows."""
    path = tmp_path_factory.mktemp("expected") / "answers.jsonl"
    answers = suffuse.load(tiny_bundle)([row["text"] for _, row in read_rows(reviews_csv)])
    path.write_text("".join(json.dumps(answer) + "\n" for answer in answers), "utf-8")
    return path


def test_mixed_load_is_answered_as_the_bundle_answers(
    server: Server, reviews_csv: Path, expected: Path, tmp_path: Path
) -> None:
    figures, page = tmp_path / "figures.json", tmp_path / "page.html"
    options = [
        f"--model=tiny --key-file={server.key_file} --grpc-url={server.grpc_url} --data={reviews_csv}",
        f"--expected={expected} --rate=40 --duration=3 --slo-p99=5000 --workers-from={server.management_url}",
        f"--json={figures} --html={page}",
    ]

    assert cli.main(["load-test", server.url, *" ".join(options).split()]) == 0

    content = json.loads(figures.read_text("utf-8"))
    assert content["answered"] == content["requests"] > 60
    assert {way: of_way["failed"] for way, of_way in content["by_transport"].items()} == {"grpc": 0, "rest": 0}
    assert set(content["workers"]["totals"]) == {1}
    assert "Goal met" in page.read_text("utf-8")


def test_refusals_for_lack_of_a_worker_are_no_failures(server: Server, reviews_csv: Path) -> None:
    target = Target(server.url, "tiny", grpc_url=server.grpc_url, key_file=server.key_file)
    with Management(server.management_url, key_file=server.key_file) as management:
        management.scale("tiny", 0)
        deadline = time.monotonic() + 20
        while management.describe("tiny").ready_workers and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            result = run_load(LoadConfig(target, Users(4, 0.5), reviews_csv))
        finally:
            management.scale("tiny", 1)
            management.wait_ready("tiny", timeout_s=60)

    assert result.failures == {"refused": len(result)}
    assert len(result.of("rest")) > 0 < len(result.of("grpc"))


@pytest.mark.parametrize("way", ["url", "grpc_url"])
def test_wrong_key_and_unknown_model_are_told_at_once(way: str, server: Server, reviews_csv: Path) -> None:
    url = getattr(server, way)

    with pytest.raises(AuthorizationError, match="got a wrong or outdated key; expected the inference key"):
        run_load(LoadConfig(Target(url, "tiny", token="wrong"), Users(1, 1), reviews_csv))  # noqa: S106 - a word
    with pytest.raises(UnknownModelError, match="Model not found: nothing"):
        run_load(LoadConfig(Target(url, "nothing", key_file=server.key_file), Users(1, 1), reviews_csv))
