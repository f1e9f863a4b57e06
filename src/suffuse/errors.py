"""Every error that suffuse raises on purpose, so that a caller can tell bad input from a fault of ours.

    SuffuseError
    ├── InputError              what was given cannot be used; the command line exits with 2
    │   ├── DataError           a file of rows: missing, empty, not UTF-8, a column short
    │   ├── RowError            one row: served as status 422
    │   ├── RequestError        one request body: served as status 400 or 413
    │   ├── ModelError          a pretrained model that cannot be found or read
    │   └── BundleError         a run, bundle or archive that is incomplete, altered or of another format
    ├── ExportError             ONNX Runtime and torch disagree
    ├── ServerError             TorchServe does not start, or has gone
    │   └── RolledBackError     a new version did not take over (suffuse.balancing.rollout)
    └── ClientError             a request that a server did not answer
        ├── ConnectError        nobody listens there, or the connection broke
        ├── DeadlineError       no answer in time
        ├── AuthorizationError  the token is missing, wrong or out of date
        ├── UnknownModelError   the server has no such model
        ├── OverloadError       the server refused for lack of room, also after retries
        └── AnswerError         the server answered with an error; `code` and `status` say which

Each message says what was got, what was expected and how to mend it.
"""

import difflib
from collections.abc import Iterable

LONGEST_SHOWN = 40
"""Characters of what a row holds in a message: rows come from strangers, and a message is sent back."""


class SuffuseError(Exception):
    """Base of all errors raised on purpose; the command line prints its message in one line and exits with 1."""


class InputError(SuffuseError):
    """What the caller gave cannot be used; the command line exits with 2."""


class DataError(InputError):
    """A file of rows cannot be read."""


class RowError(InputError):
    """A row cannot be used.

    Args:
        message: what was got, what was expected, how to mend it.
        code: a stable word for programs, such as ``missing_field``.
        where: file and line, where they are known; it opens the message.
    """

    status = 422

    def __init__(self, message: str, *, code: str = "invalid_row", where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.code = code
        self.where = where

    def at(self, where: str) -> "RowError":
        """The same error with its place named, for a reader that knows file and line."""
        return RowError(self.message, code=self.code, where=where)


class RequestError(InputError):
    """A request body cannot be used; `status` is the HTTP status it is answered with."""

    def __init__(self, message: str, *, code: str = "invalid_request", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class ModelError(InputError):
    """A pretrained model cannot be found or read."""


class BundleError(InputError):
    """A run, bundle or archive is incomplete, altered, or of a format this version does not read."""


class ExportError(SuffuseError):
    """The exported graph does not compute what the trained model computes."""


class ServerError(SuffuseError):
    """TorchServe does not start, does not become ready, or has gone."""


class ClientError(SuffuseError):
    """A request was not answered."""


class ConnectError(ClientError):
    """Nobody listens at the address, or the connection broke before an answer came."""


class DeadlineError(ClientError):
    """No answer came within the time-out."""


class AuthorizationError(ClientError):
    """The server did not accept the token."""


class UnknownModelError(ClientError):
    """The server has no model of that name."""


class OverloadError(ClientError):
    """The server refused the request for lack of room or of a ready worker, also after retries."""


class AnswerError(ClientError):
    """The server answered with an error.

    Args:
        message: the server's message.
        code: the server's code, such as ``missing_field``.
        status: the HTTP status; over gRPC the one that REST would have had.
    """

    def __init__(self, message: str, *, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for the end of an error message at which known name was meant; nothing where none is like it."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def brief(text: str) -> str:
    """A text in quotes for error messages, cut where it is long."""
    return repr(text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…")
