"""The command shows its page, ends when it is told to, and says what is missing."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from suffuse.cli import main


@contextmanager
def running(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The command in a process of its own, and the address that it wrote."""
    command = [sys.executable, "-m", "suffuse.cli", "playground", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_the_page_is_there_until_a_sigterm(tiny_bundle: Path, free_ports: Callable[[int], list[int]]) -> None:
    pytest.importorskip("gradio", reason="needs the extra playground")
    port = free_ports(1)[0]

    with running(str(tiny_bundle), "--port", str(port)) as (process, url):
        page = httpx.get(url, trust_env=False)
        config = httpx.get(f"{url}config", trust_env=False).json()
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=20)

    assert url == f"http://127.0.0.1:{port}/"
    assert page.status_code == 200
    assert not config["analytics_enabled"]
    assert "fonts.googleapis" not in page.text
    assert status == 0


def test_a_port_that_is_taken_is_named(tiny_bundle: Path) -> None:
    pytest.importorskip("gradio", reason="needs the extra playground")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "suffuse.cli", "playground", str(tiny_bundle), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert done.stderr.endswith(f"suffuse: port {port} of 127.0.0.1 is taken; expected a free one: --port\n")


def test_without_gradio_the_extra_is_named(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in [name for name in sys.modules if name.startswith("suffuse.playground")]:
        monkeypatch.delitem(sys.modules, name)

    status = main(["playground", str(tiny_bundle)])

    assert status == 1
    assert capsys.readouterr().err.endswith("install what this command needs: pip install 'suffuse[playground]'\n")
