"""HAProxy as a child process: found, told what to do, checked first, started, reloaded and stopped."""

import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from suffuse.balancing.admin import AdminSocket
from suffuse.balancing.config import TOKEN_VARIABLE, BalancerConfig, render
from suffuse.errors import InputError, ServerError
from suffuse.serving.process import ChildProcess, torchserve_environment
from suffuse.serving.settings import refuse_taken_ports

_LOG = logging.getLogger(__name__)
_OLDEST = (2, 6)  # of the converters and conditions in the template
_INSTALL = "`apt install haproxy`, `brew install haproxy`, or `conda install -c conda-forge haproxy`"
_START_LIMIT_S = 10.0
_IDLE_GRACE_S = 1.0  # for a request that came in that moment
_POLL_S = 0.05
_TAIL_LINES = 8


class HAProxy:
    """One HAProxy in master-worker mode, which ends when this process does; a context manager.

    Args:
        config: what it does. The configuration file and the log lie in the folder `config.run`.
        token: the API token that it asks for; it goes into its environment alone.

    Raises:
        InputError: the token cannot be sent in a header, or there is none where `config` asks for it.
    """

    def __init__(self, config: BalancerConfig, token: str | None) -> None:
        if config.token:
            check_token(token)
        self.config = config
        self.admin = AdminSocket(config.admin_socket)
        self.file = config.run / "haproxy.cfg"
        self.log = config.run / "haproxy.log"
        # The mark of a state folder, by which a later start finds what outlived this one.
        self._environment = torchserve_environment(config.run.parent, 1)
        self._environment[TOKEN_VARIABLE] = token or ""
        self._process: ChildProcess | None = None

    @property
    def pid(self) -> int:
        """The master's process id, which stays the same when it is reloaded; 0 before the start."""
        return 0 if self._process is None else self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs, and before the start."""
        return None if self._process is None else self._process.exit_status

    @property
    def listeners(self) -> dict[str, tuple[str, int]]:
        """Host and port by purpose."""
        return {
            "balancer": (self.config.host, self.config.port),
            "balancer's metrics": (self.config.metrics_host, self.config.metrics_port),
        }

    def check(self) -> None:
        """Write the configuration file and have HAProxy read it.

        Raises:
            ServerError: HAProxy is missing or too old, or it refuses the file, as with a certificate that it cannot
                read; the message has its own words.
        """
        self.file.write_text(render(self.config), encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - the command is ours
            [str(find_haproxy()), "-c", "-f", str(self.file)],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = re.findall(r"\[ALERT\]\s+\(\d+\) : (?:config : )?(.*)", done.stderr)
            raise ServerError(f"HAProxy refuses {self.file}: {'; '.join(said) or done.stderr.strip()}")

    def start(self) -> None:
        """Start it with every instance that is up; return when it takes requests.

        Raises:
            ServerError: as `check`, a port is taken, or it ends or hangs; the message has its log's end.
        """
        self.check()
        refuse_taken_ports(self.listeners)
        self.config.server_state.write_text("", encoding="ascii")  # all servers begin anew
        command = [str(find_haproxy()), "-W", "-f", str(self.file)]
        self._process = ChildProcess(command, self._environment, self.config.run, self.log.name)
        self._process.launch()
        try:
            self._await_worker("0")
        except ServerError:
            self._process.end(1.0)
            raise

    def reload(self) -> None:
        """Have a new process take over with the configuration file as it is now; running requests end in the old one.

        Which servers are up, drained, and of which weight goes over.

        Raises:
            ServerError: the file is refused, in which case nothing has changed, or the new process does not come up.
        """
        self.check()
        before = self._worker()
        self.config.server_state.write_text(self.admin.command("show servers state") + "\n", encoding="ascii")
        if self._process is not None:
            self._process.send(signal.SIGUSR2)
        self._await_worker(before)

    def stop(self, grace_s: float) -> None:
        """Take no more requests, let running ones end for `grace_s` seconds, and end it."""
        if self._process is None:
            return
        # From the signal on nobody can ask what is under way. It ends by itself with its last connection, but clients
        # keep idle ones open for a minute.
        limit_s = grace_s if self._busy() else min(grace_s, _IDLE_GRACE_S)
        self._process.send(signal.SIGUSR1)
        self._process.join(limit_s)
        self._process.end(2.0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(grace_s=5.0)

    def _busy(self) -> bool:
        """Whether a request is under way."""
        with suppress(ServerError):
            backends = [row for row in self.admin.stats() if row["svname"] == "BACKEND"]
            return any(int(row["scur"]) for row in backends)
        return False

    def _worker(self) -> str:
        """Process id of the worker that answers at the admin socket."""
        found = re.search(r"^Pid: (\d+)$", self.admin.command("show info"), re.MULTILINE)
        return found[1] if found else "0"

    def _await_worker(self, before: str) -> None:
        """Wait until another worker than `before` answers."""
        deadline = time.monotonic() + _START_LIMIT_S
        while True:
            with suppress(ServerError):
                if self._worker() != before:
                    return
            if self.exit_status is not None or time.monotonic() > deadline:
                why = "has not come up" if self.exit_status is None else f"ended with status {self.exit_status}"
                raise ServerError(f"HAProxy {why}: {self._log_end()}")
            time.sleep(_POLL_S)

    def _log_end(self) -> str:
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join([f"{lines[-1] if lines else 'it wrote nothing'} (log: {self.log})", *lines[-_TAIL_LINES:]])
        return f"no log was written (log: {self.log})"


def find_haproxy() -> Path:
    """HAProxy's program.

    Raises:
        ServerError: there is none on PATH, or one that is too old.
    """
    # Debian's place is on no ordinary user's PATH.
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ServerError(f"HAProxy is not installed: {_INSTALL}")
    said = subprocess.run([found, "-v"], capture_output=True, text=True, check=False).stdout  # noqa: S603 - ours
    version = re.search(r"version (\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST:
        got = version[0] if version else said.partition("\n")[0] or "nothing that has a version"
        raise ServerError(f"{found}: got {got}; expected HAProxy {_OLDEST[0]}.{_OLDEST[1]} or later: {_INSTALL}")
    return Path(found)


def read_or_make_token(path: Path) -> str:
    """The API token in a file, which is made where there is none and is the owner's alone.

    Raises:
        InputError: the file holds no token.
    """
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    token = path.read_text(encoding="utf-8", errors="replace").strip()
    try:
        check_token(token)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return token


def check_token(token: str | None) -> None:
    """Refuse a token that a header or HAProxy's configuration cannot carry; no message shows it.

    Raises:
        InputError: it has other characters than RFC 6750 allows, or fewer than 16.
    """
    if token is None or not re.fullmatch(r"[A-Za-z0-9._~+/-]{16,}=*", token):
        raise InputError(
            "the API token cannot be used; expected at least 16 letters, digits and . _ ~ + / -, "
            "as `python3 -c 'import secrets; print(secrets.token_urlsafe(32))'` prints"
        )
