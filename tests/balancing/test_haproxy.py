"""HAProxy must be found, or said to be missing; and be started, reloaded and stopped without harm to a request."""

import os
import re
import signal
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
from tests.balancing.fake_instances import FakeInstance, client, has, rest, row, until

from suffuse.balancing.config import BalancerConfig, Instance
from suffuse.balancing.haproxy import HAProxy, check_token, find_haproxy, read_or_make_token
from suffuse.errors import InputError, ServerError

Balance = Callable[..., HAProxy]
Fakes = tuple[FakeInstance, FakeInstance]
INSTALL = "`apt install haproxy`, `brew install haproxy`, or `conda install -c conda-forge haproxy`"


# Finding it, and its token


def program(folder: Path, says: str) -> Path:
    path = folder / "haproxy"
    path.write_text(f"#!/bin/sh\necho '{says}'\n", "utf-8")
    path.chmod(0o700)
    return path


def test_program_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    path = program(tmp_path, "HAProxy version 3.0.5-1 2024/09/19 - https://haproxy.org/")

    assert find_haproxy() == path


def test_missing_program_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)

    with pytest.raises(ServerError, match=f"^{re.escape(f'HAProxy is not installed: {INSTALL}')}$"):
        find_haproxy()


@pytest.mark.parametrize(("says", "got"), [("HA-Proxy version 2.2.9-2 2021/02/10", "version 2.2"), ("hello", "hello")])
def test_program_that_is_too_old_is_refused(
    says: str, got: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    path = program(tmp_path, says)
    expected = f"{path}: got {got}; expected HAProxy 2.6 or later: {INSTALL}"

    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        find_haproxy()


def test_token_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    first = read_or_make_token(tmp_path / "token")

    assert read_or_make_token(tmp_path / "token") == first
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    check_token(first)


@pytest.mark.parametrize("token", [None, "", "short", "has a blank in its middle", 'quote"quote"quote"', "x" * 15])
def test_token_that_cannot_be_sent_is_refused_and_not_shown(token: str | None) -> None:
    expected = (
        "the API token cannot be used; expected at least 16 letters, digits and . _ ~ + / -, "
        "as `python3 -c 'import secrets; print(secrets.token_urlsafe(32))'` prints"
    )

    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        check_token(token)


def test_file_that_holds_no_token_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("two words\n", "utf-8")

    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'token'))}: the API token cannot be used;"):
        read_or_make_token(tmp_path / "token")


# A real one, before two stand-ins for TorchServe


@pytest.mark.balancing
def test_reload_forgets_no_drain(balance: Balance) -> None:
    haproxy = balance()
    haproxy.admin.set_state("rest_m", "a", "drain")
    before, pid = haproxy.admin.command("show info"), haproxy.pid

    haproxy.reload()

    assert row(haproxy, "rest_m", "a")["status"] == row(haproxy, "grpc_m", "a")["status"] == "DRAIN"
    assert row(haproxy, "rest_m", "b")["status"] == "UP"
    assert (haproxy.pid, haproxy.admin.command("show info") == before) == (pid, False)


@pytest.mark.balancing
def test_reload_cuts_no_request(balance: Balance, fakes: Fakes, transport: str) -> None:
    haproxy = balance()
    answered: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        with client(haproxy, transport) as asking:
            while not ended.is_set():
                answered.append(asking.predict("m", {"text": "x"})["from"])

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(ask) for _ in range(2)]
        for enough in (20, 40):
            until(partial(has, answered, enough))
            haproxy.reload()
        ended.set()
        for done in clients:
            done.result()
    assert len(answered) >= 40


@pytest.mark.balancing
def test_refused_configuration_leaves_the_running_one(balance: Balance, folder: Path) -> None:
    haproxy = balance()
    haproxy.config = replace(haproxy.config, certificate=folder / "none.pem")

    with pytest.raises(ServerError, match=rf"^HAProxy refuses {re.escape(str(haproxy.file))}: .*none\.pem"):
        haproxy.reload()
    with rest(haproxy) as asking:
        assert asking.post("/predictions/m", json={}).status_code == 200


@pytest.mark.balancing
def test_request_that_runs_is_answered_before_the_end(balance: Balance, fakes: Fakes) -> None:
    haproxy = balance()
    for fake in fakes:
        fake.held.clear()

    def ask() -> str:
        with client(haproxy, "rest") as asking:
            return str(asking.predict("m", {"text": "x"})["from"])

    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(ask)
        until(lambda: fakes[0].asked + fakes[1].asked == 1)
        stopped = pool.submit(haproxy.stop, 10.0)
        until(
            lambda: "stopping" in haproxy.log.read_text("utf-8").lower() or "stopped" in haproxy.log.read_text("utf-8")
        )
        for fake in fakes:
            fake.held.set()

        assert asked.result() in {"a", "b"}
        stopped.result()
    assert haproxy.exit_status is not None


@pytest.mark.balancing
def test_taken_port_names_who_has_it(balance: Balance) -> None:
    first = balance()

    with pytest.raises(
        ServerError, match=rf"^port {first.config.port} \(balancer\) on 127.0.0.1: Address already in use "
    ):
        balance(port=first.config.port)


@pytest.mark.balancing
def test_killed_master_leaves_no_worker(balance: Balance) -> None:
    haproxy = balance()
    workers = psutil.Process(haproxy.pid).children()

    os.kill(haproxy.pid, signal.SIGKILL)

    gone, alive = psutil.wait_procs(workers, timeout=10.0)
    assert (len(gone), alive, haproxy.exit_status) == (1, [], -signal.SIGKILL)


def test_balancer_that_needs_a_token_is_not_made_without_one(tmp_path: Path) -> None:
    config = BalancerConfig(("m",), (Instance("a", "127.0.0.1", 1, 2, 3),), tmp_path)

    with pytest.raises(InputError, match=r"^the API token cannot be used; "):
        HAProxy(config, None)
    assert HAProxy(replace(config, token=False), None).pid == 0
