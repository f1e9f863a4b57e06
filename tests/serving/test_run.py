"""Who starts a server must learn where it is and how to ask it, and no key may be shown."""

import json
import logging
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from suffuse.serving.run import announcement, serve
from suffuse.serving.server import Server
from suffuse.serving.settings import Archive, ServerConfig


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """One that was never started, with a key file."""
    server = Server(ServerConfig(Path("store"), state=tmp_path / "it's a state", inference_port=18080))
    server.archives = (Archive("a.mar", "sentiment", "1.0", None), Archive("b.mar", "ner", "2.0", None))
    server.state.mkdir()
    server.key_file.write_text(json.dumps({"inference": {"key": "secret"}}), "utf-8")
    return server


def test_addresses_models_and_key_file_are_told(server: Server) -> None:
    assert announcement(server).splitlines()[:8] == [
        "ready; Ctrl-C stops it",
        "  REST        http://127.0.0.1:18080",
        "  gRPC        grpc://127.0.0.1:7070",
        "  management  http://127.0.0.1:8081",
        "  metrics     http://127.0.0.1:8082/metrics",
        "  models      sentiment 1.0, ner 2.0",
        f"  keys        {server.key_file}",
        f"  logs        {server.state}",
    ]


def test_key_is_not_shown(server: Server) -> None:
    assert "secret" not in announcement(server)


def arguments_of_example(server: Server) -> list[str]:
    """What the shell hands to curl."""
    program = 'curl() { printf "%s\\n" "$@"; }\n' + announcement(server).splitlines()[-1]
    return subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True).stdout.splitlines()


def test_example_is_a_request_with_the_key_of_the_file(server: Server) -> None:
    assert arguments_of_example(server) == [
        "http://127.0.0.1:18080/predictions/sentiment",
        "-H",
        "Authorization: Bearer secret",
        "-H",
        "Content-Type: application/json",
        "-d",
        '{"text": "a warm, funny film"}',
    ]


def test_server_without_keys_says_so(server: Server) -> None:
    server.needs_key = False

    assert "  keys        none; anybody who reaches the ports may use them" in announcement(server).splitlines()
    assert "Authorization" not in " ".join(arguments_of_example(server))


def test_server_on_all_addresses_is_told_by_one_that_can_be_asked(server: Server) -> None:
    server.config = replace(server.config, host="0.0.0.0")  # noqa: S104 - not bound

    assert "  REST        http://127.0.0.1:18080" in announcement(server).splitlines()


def test_what_runs_beside_gets_the_server_that_is_ready(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[object] = []
    monkeypatch.setattr("suffuse.serving.run.run_until_signal", lambda *arguments: handed.append(arguments[2]))

    serve(server.config, beside := nullcontext)

    assert handed == [beside]


def test_announcement_comes_on_stdout_when_the_server_is_ready(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("suffuse.serving.run.run_until_signal", lambda _, on_ready, _beside: on_ready(server))
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)

    serve(server.config)

    assert capsys.readouterr().out == announcement(server) + "\n"
    assert logging.getLogger("httpx").level == logging.WARNING
