"""A key must follow its file through restarts, and appear nowhere but in the request."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from suffuse.errors import AuthorizationError
from suffuse.serving.keys import Key

TOKEN = "secret"  # noqa: S105 - a word to look for


def write_keys(path: Path, inference: str) -> Path:
    path.write_text(json.dumps({"inference": {"key": inference}, "management": {"key": "m"}}), "utf-8")
    return path


class Server:
    """Accepts one key and remembers those it was shown."""

    def __init__(self, accepts: str) -> None:
        self.accepts = accepts
        self.shown: list[str | None] = []

    def __call__(self, headers: Mapping[str, str]) -> str:
        self.shown.append(headers.get("authorization"))
        if headers.get("authorization") != f"Bearer {self.accepts}":
            raise AuthorizationError("refused")
        return "answer"


def test_token_goes_out_as_bearer() -> None:
    assert Key("inference", token=TOKEN).try_with(Server(TOKEN)) == "answer"


def test_no_key_sends_no_header() -> None:
    assert Key("inference").try_with(dict) == {}


@pytest.mark.parametrize(("api", "key"), [("inference", "i"), ("management", "m")])
def test_key_of_the_api_is_read_from_the_file(tmp_path: Path, api: str, key: str) -> None:
    path = write_keys(tmp_path / "key_file.json", "i")

    assert Key(api, key_file=path).try_with(dict) == {"authorization": f"Bearer {key}"}


def test_file_may_hold_the_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n", "utf-8")

    assert Key("inference", key_file=path).try_with(Server(TOKEN)) == "answer"


def test_refused_key_is_read_again_and_tried_once_more(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "key_file.json", "old")
    key, server = Key("inference", key_file=path), Server("old")
    key.try_with(server)
    write_keys(path, "new")
    server.accepts = "new"

    assert key.try_with(server) == "answer"
    assert server.shown == ["Bearer old", "Bearer old", "Bearer new"]


def test_refused_key_that_is_still_in_the_file_is_not_tried_again(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "key_file.json", "secret")
    server = Server("other")
    expected = f"refused: the inference key in {path} is another server's or out of date"

    with pytest.raises(AuthorizationError, match=f"^{re.escape(expected)}$"):
        Key("inference", key_file=path).try_with(server)
    assert server.shown == ["Bearer secret"]


@pytest.mark.parametrize(("token", "had"), [(None, "no key"), ("secret", "a wrong or outdated key")])
def test_refusal_says_what_to_pass(token: str | None, had: str) -> None:
    expected = (
        f"refused: got {had}; expected the inference key: pass key_file=, a server's key_file.json or a stack's token"
    )

    with pytest.raises(AuthorizationError, match=f"^{re.escape(expected)}$"):
        Key("inference", token=token).try_with(Server("other"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, "FileNotFoundError"),
        ("", "JSONDecodeError"),
        ("{}", "KeyError"),
        ('{"inference": "secret"}', "TypeError"),
    ],
)
def test_unreadable_key_file_is_named(tmp_path: Path, content: str | None, kind: str) -> None:
    path = tmp_path / "key_file.json"
    if content is not None:
        path.write_text(content, "utf-8")
    expected = (
        f"{path}: no inference key can be read ({kind}); `suffuse serve` writes this file when it starts and removes "
        "it when it stops"
    )

    with pytest.raises(AuthorizationError, match=f"^{re.escape(expected)}$"):
        Key("inference", key_file=path).try_with(dict)


@pytest.mark.parametrize("token", ["secret\n", "secrét"])
def test_key_that_cannot_be_sent_is_refused_without_being_shown(token: str) -> None:
    expected = "the key has characters that cannot be sent; expected printable ASCII without line ends"

    with pytest.raises(AuthorizationError, match=f"^{re.escape(expected)}$"):
        Key("inference", token=token).try_with(dict)


def test_representation_does_not_show_the_key() -> None:
    assert TOKEN not in repr(Key("inference", token=TOKEN))
