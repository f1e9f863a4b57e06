"""One request over REST or gRPC, cheaply, in a process that gevent has patched; never tried again behind one's back."""

import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import gevent
import grpc
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool
from geventhttpclient.response import HTTPParseError, HTTPSocketPoolResponse
from grpc.experimental import gevent as grpc_gevent

from suffuse.errors import AuthorizationError, ClientError, DeadlineError, OverloadError, RequestError
from suffuse.load_test.checks import RequestFailedError
from suffuse.load_test.plan import Target
from suffuse.serving.keys import Key
from suffuse.serving.replies import http_refusal
from suffuse.serving.transports import Deadline, GrpcTransport, trusting

REFUSED = "refused"
TIMEOUT = "timeout"
CONNECTION = "connection"
KEY = "key refused"

_CHANNELS = 16
"""gRPC connections; servers usually let 100 calls be under way on one."""


class Sender(Protocol):
    """A way to a model."""

    name: str

    def send(self, body: str) -> bytes:
        """The reply to a JSON body.

        Raises:
            RequestFailedError: none came, or a refusal; its kind is ``refused``, ``timeout``, ``connection``, ``http
                STATUS``, ``grpc CODE`` or ``key refused``.
        """

    def close(self) -> None:
        """Close the connections."""


def prepare_grpc(most_in_flight: int) -> None:
    """Make gRPC work with gevent; to be called before anything of gRPC is made.

    A call that waits holds a thread of gevent's pool. With the pool's usual ten, answers that were there already were
    seen only when earlier calls had ended: the p99 of refusals was 190 ms instead of 4.
    """
    grpc_gevent.init_gevent()
    gevent.get_hub().threadpool.maxsize = most_in_flight + 10


class RestSender:
    """REST: geventhttpclient's connections and parser, without its client, which would send a request again.

    Args:
        url: of the server.
        target: the model, the key, the time limit.
        connections: at most so many.
    """

    name = "rest"

    def __init__(self, url: str, target: Target, connections: int) -> None:
        parts = urlsplit(url)
        host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
        late_s = target.timeout_s + 1  # of each step; the whole request has a limit of its own, which is sooner
        limits: dict[str, Any] = {"size": connections, "connection_timeout": late_s, "network_timeout": late_s}
        if parts.scheme == "https" and target.ca_file:
            limits["ssl_context_factory"] = partial(_trusting_only, Path(target.ca_file))
        pool = SSLConnectionPool if parts.scheme == "https" else ConnectionPool
        self._pool = pool(host, port, host, port, **limits)
        self._pool.after_connect = _send_at_once  # type: ignore[method-assign]
        self._place = f"{url}: model {target.model!r}"
        self._head = f"POST {target.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self._target = target
        self._key = Key("inference", token=target.token, key_file=target.key_file)

    def send(self, body: str) -> bytes:
        """See `Sender`."""
        return _with_key(self._key, lambda headers: self._send(body, headers))

    def close(self) -> None:
        """See `Sender`."""
        self._pool.close()

    def _send(self, body: str, headers: Mapping[str, str]) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"{self._head}{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode("ascii")
        try:
            with gevent.Timeout(self._target.timeout_s):
                status, reply = self._exchange(request)
        except gevent.Timeout:
            raise _timeout(self._place, self._target) from None
        except (OSError, HTTPParseError) as error:
            raise RequestFailedError(CONNECTION, f"{self._place}: {type(error).__name__}: {error}") from None
        if 200 <= status < 300:
            return reply
        refusal = http_refusal(status, reply, self._place)
        if isinstance(refusal, AuthorizationError):
            raise refusal
        raise RequestFailedError(REFUSED if isinstance(refusal, OverloadError) else f"http {status}", str(refusal))

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        connection = self._pool.get_socket()
        try:
            connection.sendall(request)
        except BaseException:  # also the time limit
            self._pool.release_socket(connection)
            raise
        with HTTPSocketPoolResponse(connection, self._pool, method="POST") as response:
            reply = response.read()
            if not response.message_complete:
                raise ConnectionError("the connection was closed in the midst of an answer")
            return response.status_code, reply


class GrpcSender:
    """gRPC: the client's own transport, over several connections in turn.

    Args:
        url: of the server.
        target: the model, the key, the time limit.
        connections: at most so many.
    """

    name = "grpc"

    def __init__(self, url: str, target: Target, connections: int) -> None:
        ca_file = Path(target.ca_file) if target.ca_file else None
        self._transports = [GrpcTransport(url, ca_file) for _ in range(min(connections, _CHANNELS))]
        self._turn = cycle(self._transports)
        self._place = f"{url}: model {target.model!r}"
        self._target = target
        self._key = Key("inference", token=target.token, key_file=target.key_file)

    def send(self, body: str) -> bytes:
        """See `Sender`."""
        content = body.encode("ascii")
        return _with_key(self._key, lambda headers: self._send(content, headers))

    def close(self) -> None:
        """See `Sender`."""
        for transport in self._transports:
            transport.close()

    def _send(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        by = Deadline.after(self._target.timeout_s)
        try:
            return next(self._turn).predict(self._target.model, None, body, headers, by)
        except AuthorizationError:
            raise
        except DeadlineError:
            raise _timeout(self._place, self._target) from None
        except OverloadError as error:
            raise RequestFailedError(REFUSED, str(error)) from None
        except (ClientError, RequestError) as error:
            raise RequestFailedError(_kind_of(error), str(error)) from None


def _with_key(key: Key, ask: Callable[[Mapping[str, str]], bytes]) -> bytes:
    try:
        return key.try_with(ask)
    except AuthorizationError as error:
        raise RequestFailedError(KEY, str(error)) from None


def _send_at_once(sock: socket.socket) -> None:
    """Without Nagle's algorithm, by which the end of a large request waits up to 40 ms."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _trusting_only(ca_file: Path, **_: object) -> ssl.SSLContext:
    return trusting(ca_file)


def _timeout(place: str, target: Target) -> RequestFailedError:
    return RequestFailedError(TIMEOUT, f"{place}: no answer within {target.timeout_s:g} s")


def _kind_of(error: Exception) -> str:
    """By the call's own code, which the error of suffuse was made from."""
    cause = error.__cause__
    return f"grpc {cause.code().name}" if isinstance(cause, grpc.RpcError) else type(error).__name__
