"""Pictures without pixels: two of them are half of a small run's time."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

SAVE = Figure.savefig


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Pictures are drawn, and written as files without pixels, but in a test that asks for `drawn`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, path, **_: Path(path).write_bytes(b"\x89PNG\r\n\x1a\n"))
        yield


@pytest.fixture
def drawn(monkeypatch):
    """Pictures as they are."""
    monkeypatch.setattr(Figure, "savefig", SAVE)
