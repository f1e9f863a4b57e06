"""Starts the child process that makes a load, watches it, and brings back what it measured."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Self

from suffuse.errors import AnswerError, DataError, OverloadError, SuffuseError
from suffuse.load_test.figures import LoadResult
from suffuse.load_test.plan import LoadConfig, Order, Target, make_order
from suffuse.load_test.workers import WorkersWatch
from suffuse.serving.client import Client

# gevent patches before anything else is imported, and only in the child.
_COMMAND = (sys.executable, "-m", "gevent.monkey", "--module", "suffuse.load_test.runner")


@dataclass(frozen=True)
class Progress:
    """How a load goes: requests sent, over, answered rightly and refused so far."""

    sent: int = 0
    over: int = 0
    ok: int = 0
    refused: int = 0

    @property
    def failed(self) -> int:
        """Requests that were neither answered rightly nor refused."""
        return self.over - self.ok - self.refused


def run_load(config: LoadConfig, tell: Callable[[Progress], None] = lambda _: None) -> LoadResult:
    """Make a load and wait for its end.

    Args:
        config: what to send where.
        tell: is told each second how it goes, in another thread.

    Raises:
        InputError: the rows, the expected answers or a number cannot be used.
        ClientError: the server is not there, does not take the key, or has no such model: found by one request of each
            transport before the load.
        SuffuseError: the generator broke.
    """
    with start_load(config, tell) as running:
        return running.wait()


def start_load(config: LoadConfig, tell: Callable[[Progress], None] = lambda _: None) -> "RunningLoad":
    """Begin a load and return; for the arguments and errors see `run_load`."""
    order = make_order(config)
    _try_one(config, order)
    watch = WorkersWatch(config.workers_from, config.target.model, config.target.key_file)
    return RunningLoad(order, watch, tell)


class RunningLoad:
    """A load under way; a context manager, which ends it.

    Args:
        order: what to do.
        watch: reads numbers of workers meanwhile.
        tell: is told each second how it goes, in another thread.

    Attributes:
        started_at: when the load began, in seconds since 1970; columns of the result count from then.
        so_far: how it goes.
    """

    def __init__(self, order: Order, watch: WorkersWatch, tell: Callable[[Progress], None]) -> None:
        self.started_at = 0.0
        self.so_far = Progress()
        self._tell = tell
        self._watch = watch
        self._folder = TemporaryDirectory(prefix="suffuse-load-")  # only its owner may look in: the order has the key
        folder = Path(self._folder.name)
        order.write(folder / "order.json")
        self._errors = folder / "errors.txt"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                (*_COMMAND, str(folder)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C in the terminal is for us; the child ends when its stdin is closed
            )
        self._started = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="suffuse-load", daemon=True)
        self._listener.start()
        self._started.wait()
        self._watch.start()
        if not self.started_at:
            raise self._broken()

    def stop(self) -> None:
        """Send no more requests; those under way are waited for. Returns at once."""
        self._stream(self._process.stdin).close()

    def wait(self) -> LoadResult:
        """What was measured, when the last request is over.

        Raises:
            SuffuseError: the generator broke.
        """
        self._listener.join()
        if self._process.wait() != 0:
            raise self._broken()
        workers = self._watch.stop(self.started_at)
        return LoadResult.read(Path(self._folder.name, "results.npz"), workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._listener.join()
        self._watch.stop(self.started_at)
        self._stream(self._process.stdin).close()
        self._stream(self._process.stdout).close()
        self._folder.cleanup()

    def _listen(self) -> None:
        for line in self._stream(self._process.stdout):
            said = json.loads(line)
            if "started_at" in said:
                self.started_at = said["started_at"]
                self._started.set()
            else:
                self.so_far = Progress(**said)
                self._tell(self.so_far)
        self._started.set()  # the child has gone

    def _broken(self) -> SuffuseError:
        status = self._process.wait()
        lines = self._errors.read_text("utf-8", errors="replace").strip().splitlines()
        self.__exit__()
        return SuffuseError(f"the load generator ended with status {status}: {lines[-1] if lines else 'no message'}")

    @staticmethod
    def _stream(pipe: IO[bytes] | None) -> IO[bytes]:
        if pipe is None:
            raise RuntimeError("the process was started without pipes")
        return pipe


def _try_one(config: LoadConfig, order: Order) -> None:
    """One request of each transport, so that a mistake is told once and not counted a thousand times."""
    target = config.target
    for url in filter(None, (target.rest, target.grpc)):
        with _client(target, url) as client:
            try:
                client.predict(target.model, json.loads(order.bodies[0]))
            except OverloadError:
                pass  # a server may be busy already: that is what is to be measured
            except AnswerError as error:
                raise DataError(
                    f"{config.data}: {url} does not answer the first row: {error}; expected rows of the task of model "
                    f"{target.model!r}: name the fields to send, or the columns they are in"
                ) from error


def _client(target: Target, url: str) -> Client:
    return Client(
        url,
        token=target.token,
        key_file=target.key_file,
        ca_file=target.ca_file,
        timeout_s=target.timeout_s,
        retries=0,
    )
