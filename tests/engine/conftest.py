"""What is tried again after a pause is tried again at once."""

import pytest

from proxy.engine import arrival, performer, warming
from proxy.upstream import schema


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "AGAIN", 0.001)
    monkeypatch.setattr(performer, "AGAIN", 0.001)
    monkeypatch.setattr(schema, "RETRY", 0.001)


@pytest.fixture
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-ups need not wait until it has been quiet for a while."""
    monkeypatch.setattr(warming, "SETTLE", 0.0)
    monkeypatch.setattr(warming, "_LOOK", 0.001)
