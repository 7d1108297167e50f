"""What is tried again after a pause is tried again at once."""

import pytest

from proxy.engine import engine, performer
from proxy.upstream import schema


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "AGAIN", 0.001)
    monkeypatch.setattr(performer, "AGAIN", 0.001)
    monkeypatch.setattr(schema, "RETRY", 0.001)
