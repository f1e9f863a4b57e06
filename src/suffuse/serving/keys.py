"""The key that each of TorchServe's APIs asks for: given, or read from the file that the server writes at its start."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from suffuse.errors import AuthorizationError

_T = TypeVar("_T")


class Key:
    """One API's key. No error message and no representation shows it.

    Args:
        api: the name in the key file, ``inference`` or ``management``.
        token: the key itself; it wins over `key_file`.
        key_file: the server's key_file.json, or a file with the key alone, such as a stack's ``token`` or a secret that
            is mounted. Without either, requests go out without a key.
    """

    def __init__(self, api: str, *, token: str | None = None, key_file: Path | str | None = None) -> None:
        self._api = api
        self._token = token
        self._key_file = Path(key_file) if key_file is not None and token is None else None

    def try_with(self, ask: Callable[[Mapping[str, str]], _T]) -> _T:
        """Ask with the key; where it is refused and the file has another by now, as after a restart, ask once more.

        Args:
            ask: takes HTTP headers, which are gRPC metadata as well.

        Returns:
            What `ask` returns.

        Raises:
            AuthorizationError: no key can be read, or it was refused.
        """
        if self._token is None and self._key_file is not None:
            self._token = self._read(self._key_file)
        token = self._token  # another thread may read a newer one meanwhile
        headers = _headers(token)
        try:
            return ask(headers)
        except AuthorizationError as error:
            if self._key_file is None:
                raise AuthorizationError(f"{error}: {self._hint}") from error
            self._token = self._read(self._key_file)
            if self._token == token:
                raise AuthorizationError(f"{error}: {self._hint}") from error
        return ask(_headers(self._token))

    @property
    def _hint(self) -> str:
        """Where the key came from and what to do about it."""
        if self._key_file is not None:
            return f"the {self._api} key in {self._key_file} is another server's or out of date"
        had = "no key" if self._token is None else "a wrong or outdated key"
        return f"got {had}; expected the {self._api} key: pass key_file=, a server's key_file.json or a stack's token"

    def _read(self, path: Path) -> str:
        try:
            text = path.read_text(encoding="utf-8").strip()
            return str(json.loads(text)[self._api]["key"]) if text[:1] in {"", "{"} else text
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AuthorizationError(
                f"{path}: no {self._api} key can be read ({type(error).__name__}); `suffuse serve` writes this file "
                "when it starts and removes it when it stops"
            ) from error


def _headers(token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    # What cannot be sent would be shown in the error of the library that is to send it.
    if not (token.isascii() and token.isprintable()):
        raise AuthorizationError(
            "the key has characters that cannot be sent; expected printable ASCII without line ends"
        )
    return {"authorization": f"Bearer {token}"}
