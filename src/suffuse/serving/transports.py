"""REST and gRPC as the client uses them: bytes out, bytes in, and the same errors from both."""

import ipaddress
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote, urlsplit

import grpc
import httpx
from google.protobuf.message import Message

from suffuse.errors import ConnectError, DeadlineError, InputError, RequestError
from suffuse.serving.inference_pb2 import PingRequest, PingResponse, PredictionResponse, PredictionsRequest
from suffuse.serving.replies import grpc_refusal, http_refusal

MAX_REQUEST_BYTES = 6_553_500
"""TorchServe's max_request_size. Over gRPC it counts the whole message, the model's name included."""

_Reply = TypeVar("_Reply")
_SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"


@dataclass(frozen=True)
class Deadline:
    """When a call must be over.

    Args:
        limit_s: its time limit in seconds, for messages.
        end: on the monotonic clock, in seconds.
    """

    limit_s: float
    end: float

    @classmethod
    def after(cls, limit_s: float) -> "Deadline":
        """A deadline `limit_s` seconds from now."""
        return cls(limit_s, time.monotonic() + limit_s)

    def remaining_s(self, place: str) -> float:
        """Seconds that are left.

        Raises:
            DeadlineError: none is.
        """
        remaining = self.end - time.monotonic()
        if remaining <= 0:
            raise self.missed(place)
        return remaining

    def missed(self, place: str) -> DeadlineError:
        """The error for a call that was not over in time."""
        return DeadlineError(f"{place}: no answer within {self.limit_s:g} s; send fewer rows, or raise timeout_s")


class Transport(Protocol):
    """A way to a server; every method but `close` raises the errors that `Client.predict` documents."""

    def predict(
        self, model: str, version: str | None, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> bytes:
        """The body of the answer to a JSON body."""

    def explain(
        self, model: str, version: str | None, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> bytes:
        """The body of the explanation that a JSON body asks for."""

    def health(self, headers: Mapping[str, str], deadline: Deadline) -> bytes:
        """The JSON body that says how the server is."""

    def close(self) -> None:
        """Close the connections."""


class RestTransport:
    """REST, by httpx.

    Args:
        url: ``http://`` or ``https://``.
        network: stands in for the network, in tests.
        ca_file: PEM file of the authority that signed the server's certificate, for one that the system does not know.
    """

    def __init__(self, url: str, network: httpx.BaseTransport | None = None, ca_file: Path | None = None) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            transport=network,
            verify=True if ca_file is None else trusting(ca_file),
            trust_env=not _is_loopback(url),
            # As many as there are threads: the server's queue is the place to wait in.
            limits=httpx.Limits(max_connections=None),
        )

    def predict(
        self, model: str, version: str | None, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> bytes:
        """POST /predictions/MODEL[/VERSION]."""
        return self._post(f"/predictions/{_path(model, version)}", model, body, headers, deadline)

    def explain(
        self, model: str, version: str | None, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> bytes:
        """POST /explanations/MODEL[/VERSION]."""
        return self._post(f"/explanations/{_path(model, version)}", model, body, headers, deadline)

    def health(self, headers: Mapping[str, str], deadline: Deadline) -> bytes:
        """GET /ping."""
        return self._ask("GET", "/ping", self._url, deadline, headers)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _post(self, path: str, model: str, body: bytes, headers: Mapping[str, str], deadline: Deadline) -> bytes:
        place = f"{self._url}: model {model!r}"
        _refuse_too_large(place, len(body))
        return self._ask("POST", path, place, deadline, headers, body)

    def _ask(
        self, method: str, path: str, place: str, deadline: Deadline, headers: Mapping[str, str], body: bytes = b""
    ) -> bytes:
        sent = {**headers, "content-type": "application/json"}
        limit_s = deadline.remaining_s(place)
        try:
            with self._http.stream(method, self._url + path, content=body, headers=sent, timeout=limit_s) as reply:
                chunks = []
                for chunk in reply.iter_bytes():
                    chunks.append(chunk)
                    deadline.remaining_s(place)  # httpx's limit is for each chunk, not for all of them
        except httpx.TimeoutException as error:
            raise deadline.missed(place) from error
        except httpx.RequestError as error:
            raise ConnectError(f"{place}: no connection ({error}); is `suffuse serve` running there?") from error
        if not reply.is_success:
            raise http_refusal(reply.status_code, b"".join(chunks), place, reply.headers.get("retry-after"))
        return b"".join(chunks)


class GrpcTransport:
    """gRPC, by the methods and messages of TorchServe's inference.proto.

    Args:
        url: ``grpc://``, or ``grpcs://`` for TLS, with a port.
        ca_file: PEM file of the authority that signed the server's certificate, for one that the system does not know.
    """

    def __init__(self, url: str, ca_file: Path | None = None) -> None:
        self._url = url.rstrip("/")
        parts = urlsplit(url)
        options = (
            ("grpc.max_receive_message_length", -1),  # the server limits its replies
            ("grpc.enable_http_proxy", 0 if _is_loopback(url) else 1),
            # A connection of its own: gRPC would share one among all channels to an address, and servers limit calls
            # that are under way on one connection.
            ("grpc.use_local_subchannel_pool", 1),
            # A server that comes back is found at the next retry, not after gRPC's own second and more.
            ("grpc.initial_reconnect_backoff_ms", 100),
            # What gRPC gives one attempt to connect: a busy machine, or one far away, takes its time.
            ("grpc.min_reconnect_backoff_ms", 5000),
            ("grpc.max_reconnect_backoff_ms", 1000),
        )
        self._channel = (
            grpc.secure_channel(parts.netloc, _credentials(ca_file), options)
            if parts.scheme == "grpcs"
            else grpc.insecure_channel(parts.netloc, options)
        )
        self._predictions: Callable[..., PredictionResponse] = self._channel.unary_unary(
            f"{_SERVICE}/Predictions",
            request_serializer=PredictionsRequest.SerializeToString,
            response_deserializer=PredictionResponse.FromString,
        )
        self._ping: Callable[..., PingResponse] = self._channel.unary_unary(
            f"{_SERVICE}/Ping",
            request_serializer=PingRequest.SerializeToString,
            response_deserializer=PingResponse.FromString,
        )

    def predict(
        self, model: str, version: str | None, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> bytes:
        """Predictions, with the JSON body under the key that handlers look for first."""
        return self._predict(model, version, {"data": body}, headers, deadline)

    def explain(
        self, model: str, version: str | None, body: bytes, headers: Mapping[str, str], deadline: Deadline
    ) -> bytes:
        """Predictions, with a second key: the service has no method for explanations."""
        return self._predict(model, version, {"data": body, "explain": b"{}"}, headers, deadline)

    def health(self, headers: Mapping[str, str], deadline: Deadline) -> bytes:
        """Ping."""
        return self._ask(self._ping, PingRequest(), self._url, deadline, headers).health.encode()

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()

    def _predict(
        self,
        model: str,
        version: str | None,
        content: Mapping[str, bytes],
        headers: Mapping[str, str],
        deadline: Deadline,
    ) -> bytes:
        place = f"{self._url}: model {model!r}"
        request = PredictionsRequest(model_name=model, model_version=version or "", input=content)
        _refuse_too_large(place, request.ByteSize())
        return self._ask(self._predictions, request, place, deadline, headers).prediction

    @staticmethod
    def _ask(
        method: Callable[..., _Reply], request: Message, place: str, deadline: Deadline, headers: Mapping[str, str]
    ) -> _Reply:
        try:
            return method(request, timeout=deadline.remaining_s(place), metadata=tuple(headers.items()))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise deadline.missed(place) from error
            after = dict(error.trailing_metadata() or ()).get("retry-after")
            raise grpc_refusal(error.code().name, error.details() or "", place, after) from error


_TRANSPORTS: dict[str, Callable[..., Transport]] = {
    "http": RestTransport,
    "https": RestTransport,
    "grpc": GrpcTransport,
    "grpcs": GrpcTransport,
}


def transport_for(url: str, ca_file: Path | None = None) -> Transport:
    """The transport that an address asks for.

    Raises:
        InputError: it asks for none of them, or has a user name or password in it; `ca_file` cannot be used.
    """
    check_address(url)
    return _TRANSPORTS[urlsplit(url).scheme](url, ca_file=ca_file)


def check_address(url: str) -> None:
    """Refuse what is no address of a server.

    Raises:
        InputError: it has none of the schemes, no host, a port that is none, or a user name in it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # such as a port that is no number
        host = port = None
    if host is None or parts.scheme not in _TRANSPORTS or (parts.scheme.startswith("grpc") and port is None):
        raise InputError(
            f"{url!r} is no server's address; expected http://HOST:PORT, https://HOST:PORT, grpc://HOST:PORT or "
            "grpcs://HOST:PORT"
        )
    if "@" in parts.netloc:  # the address is in error messages, and they in logs
        raise InputError("the server's address has a user name in it; expected none: the key is given as token=")


def trusting(ca_file: Path) -> ssl.SSLContext:
    """TLS for a server whose certificate was signed by this authority, and by no other.

    Raises:
        InputError: the file cannot be read or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        reason = "it holds none" if isinstance(error, ssl.SSLError) else error.strerror
        raise InputError(
            f"{ca_file}: no certificate can be read ({reason}); expected a PEM file of the authority "
            "that signed the server's certificate"
        ) from None


def _credentials(ca_file: Path | None) -> grpc.ChannelCredentials:
    if ca_file is None:
        return grpc.ssl_channel_credentials()
    trusting(ca_file)  # gRPC would only say, at the first call, that there is no connection
    return grpc.ssl_channel_credentials(ca_file.read_bytes())


def _path(model: str, version: str | None) -> str:
    return "/".join(quote(part, safe="") for part in (model, version) if part is not None)


def _refuse_too_large(place: str, size: int) -> None:
    """Find out before sending: TorchServe cuts the connection in the midst of it."""
    if size > MAX_REQUEST_BYTES:
        raise RequestError(
            f"{place}: the request has {size} bytes; expected at most {MAX_REQUEST_BYTES}: send fewer rows at once",
            code="request_too_large",
            status=413,
        )


def _is_loopback(url: str) -> bool:
    """Whether an address is this machine's own, where no proxy is of use."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
