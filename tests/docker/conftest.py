"""What tests of the image share."""

import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def _engine() -> None:
    """Skips where there is none."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    for command, lack in (("compose version", "Docker has no Compose"), ("info", "no Docker engine runs")):
        if subprocess.run(["docker", *command.split()], capture_output=True, check=False).returncode:
            pytest.skip(lack)


@pytest.fixture(scope="session")
def _archive() -> None:
    """Skips where there is no model to serve."""
    from tests.docker.engine import ROOT

    if not (ROOT / "model_store" / "sentiment.mar").exists():
        pytest.skip("no sentiment.mar in the model store: `make demo`")
