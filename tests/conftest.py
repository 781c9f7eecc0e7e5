from pathlib import Path

import pytest
from _pytest.doctest import DoctestModule

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data():
    """The real data sets beside the project; tests that use them are marked slow."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data not found beside the project (../shared/data)")
    return folder


@pytest.hookimpl(hookwrapper=True)
def pytest_collect_file():
    """Tests hold no doctests, and ``--doctest-modules`` would import each file of them a second time to see."""
    found = yield
    found.force_result([one for one in found.get_result() if not isinstance(one, DoctestModule)])
