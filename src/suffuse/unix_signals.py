"""What SIGINT and its kin do to a command that must end in good order."""

import contextlib
import logging
import queue
import signal
import threading
import types
from collections.abc import Callable, Iterator

_LOG = logging.getLogger(__name__)

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def on_signals(act: Callable[[], None], numbers: tuple[signal.Signals, ...] = STOPS) -> Iterator[None]:
    """Have signals call `act` and do no more: an exception in the midst of a stop would leave it undone.

    It is called in a thread of its own, once for each signal, one after the other. Were it called by the handler, which
    interrupts the main thread anywhere, it could not even set a `threading.Event`: where the main thread is just
    entering `wait` of that event, it holds the lock that `set` needs, and both would wait for ever. What the handler
    does is to put a number into a `queue.SimpleQueue`, whose `put` may be interrupted by itself.

    To be entered in the main thread, as Python has it.

    Args:
        act: may take locks and time; on the way out of the context, a running one is waited for. What it raises is
            logged.
        numbers: the signals.
    """
    arrived: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def handle(number: int, _frame: types.FrameType | None) -> None:
        arrived.put(number)

    def serve() -> None:
        while (number := arrived.get()) is not None:
            try:
                act()
            except Exception:  # the next signal is to be heeded all the same
                _LOG.exception("%s could not be heeded", signal.Signals(number).name)

    thread = threading.Thread(target=serve, name="suffuse signals", daemon=True)
    before = {number: signal.signal(number, handle) for number in numbers}
    thread.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        arrived.put(None)
        thread.join()
