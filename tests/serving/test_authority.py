"""A server whose certificate an authority of one's own has signed is believed where that authority is named, only."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.load_test.conftest import GOOD, Certificate, FakeServer, fake_server, self_signed

from suffuse.errors import ConnectError, InputError
from suffuse.serving.client import Client


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(certificate: Certificate) -> Iterator[FakeServer]:
    with fake_server(lambda _: (200, GOOD), certificate) as running:
        yield running


@pytest.mark.parametrize("way", ["url", "grpc_url"])
def test_named_authority_is_believed(way: str, server: FakeServer, certificate: Certificate) -> None:
    with Client(getattr(server, way), ca_file=certificate.pem) as client:
        assert client.predict("m", {}) == GOOD


@pytest.mark.parametrize("way", ["url", "grpc_url"])
def test_unknown_authority_is_not(way: str, server: FakeServer) -> None:
    with (
        Client(getattr(server, way), retries=0, timeout_s=5) as client,
        pytest.raises(ConnectError, match="no connection"),
    ):
        client.predict("m", {})


@pytest.mark.parametrize("url", ["https://localhost:1", "grpcs://localhost:1"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), ("no certificate", "it holds none")],
)
def test_file_without_a_certificate_is_named(url: str, content: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content, "utf-8")
    message = (
        f"{path}: no certificate can be read ({reason}); expected a PEM file of the authority that signed the server's "
        "certificate"
    )

    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Client(url, ca_file=path)
