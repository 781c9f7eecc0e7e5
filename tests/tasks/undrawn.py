"""Pictures without pixels and floors that try little: together they are most of a small run's time."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tasks.task import estimators

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


@pytest.fixture(scope="module", autouse=True)
def unchosen():
    """Floors choose one of two penalties by two inner folds; their forests have five trees."""
    few = {"INNER_FOLDS": 2, "TREES": 5, "PENALTIES": estimators.PENALTIES[1::2], "RIDGES": estimators.RIDGES[2::4]}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in few.items():
            patch.setattr(estimators, name, value)
        yield
