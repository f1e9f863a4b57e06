"""A clock for retries that does not run."""

import pytest


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client wanted to wait; it does not."""
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", type("Clock", (), {"sleep": staticmethod(waited.append)}))
    return waited
