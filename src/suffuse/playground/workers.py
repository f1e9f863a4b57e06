"""How a server's models stand now and stood a minute ago: workers and waiting requests, by its management API."""

import math
import threading
import time
from collections import defaultdict, deque
from html import escape

from suffuse.errors import SuffuseError
from suffuse.serving.management import Management, ModelState

POLL_S = 1.5
"""Seconds between two looks; each asks for every model once."""
KEPT = 40
"""Looks that are drawn, one bar each: a minute."""
_FRESH_S = 0.9 * POLL_S
_HEIGHT, _BAR, _STEP = 28.0, 3, 4


class Workers:
    """The workers and queues of a server, drawn; however many pages look, the server is asked once in `POLL_S`.

    Args:
        management: of the server.
    """

    def __init__(self, management: Management) -> None:
        self._management = management
        self._waiting: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._drawn = ""
        self._drawn_s = -math.inf
        self._lock = threading.Lock()

    def panel(self) -> str:
        """HTML of how all models stand, or of why that is not known; never raises."""
        with self._lock:
            if time.monotonic() - self._drawn_s > _FRESH_S:
                self._drawn = self._look()
                self._drawn_s = time.monotonic()
            return self._drawn

    def _look(self) -> str:
        try:
            states = [self._management.describe(name) for name in self._management.models()]
        except SuffuseError as error:
            return _panel(
                f'<p class="sf-problem"><b>The server does not say how it stands.</b> {escape(str(error))}</p>'
            )
        for state in states:
            self._waiting[state.name].append(state.pending)
        rows = "".join(self._row(state) for state in states)
        heads = "".join(f'<th scope="col">{head}</th>' for head in ("model", "workers", "waiting", "last minute"))
        return _panel(f'<table class="sf-models"><tr>{heads}</tr>{rows}</table>')

    def _row(self, state: ModelState) -> str:
        squares = "".join(
            f'<i class="{"ready" if worker.ready else ""}" title="{escape(worker.status)}"></i>'
            for worker in state.workers
        )
        return (
            f'<tr><th scope="row">{escape(state.name)} {escape(state.version)}</th>'
            f'<td class="sf-workers">{squares} {state.ready_workers} of {len(state.workers)} ready</td>'
            f"<td>{state.pending:,} of {state.pending + state.remaining:,}</td>"
            f"<td>{_bars(list(self._waiting[state.name]))}</td></tr>"
        )


def _panel(content: str) -> str:
    return f'<section class="sf sf-panel" aria-label="workers of the server">{content}</section>'


def _bars(waiting: list[int]) -> str:
    """Waiting requests over time, one bar a look, the newest on the right."""
    most = max([1, *waiting])
    first = _STEP * (KEPT - len(waiting))
    bars = "".join(
        f'<rect x="{first + _STEP * index}" y="{_HEIGHT * (1 - count / most):.1f}" width="{_BAR}" '
        f'height="{_HEIGHT * count / most:.1f}"/>'
        for index, count in enumerate(waiting)
    )
    label = f"waiting requests in the last {KEPT * POLL_S:.0f} seconds, at most {max(waiting, default=0):,}"
    return (
        f'<svg class="sf-history" viewBox="0 0 {_STEP * KEPT} {_HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}"><title>{label}</title>{bars}</svg>'
    )
