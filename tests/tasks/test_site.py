"""The site has every guide and documents what exists; `make docs` builds it, strictly."""

import importlib.util
import re

import pytest
import yaml
from toy import ROOT

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def pages(entries):
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else pages(value)


def test_every_guide_is_in_its_menu():
    found = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(pages(CONFIG["nav"])) == sorted(found | {"index.md", "contributing.md", "changelog.md"})


@pytest.mark.parametrize(
    "name", re.findall(r"^::: (\S+)$", "\n".join(p.read_text() for p in (ROOT / "docs/api").glob("*.md")), flags=re.M)
)
def test_what_it_documents_exists(name):
    home, _, last = name.rpartition(".")
    there = importlib.util.find_spec(name) if importlib.util.find_spec(home).submodule_search_locations else None
    assert there or hasattr(importlib.import_module(home), last)


def test_commits_run_the_linters_of_ci():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"  # nothing is fetched
    assert [hook["entry"] for hook in repo["hooks"]] == ["make lint"]
    assert "make lint" in (ROOT / ".ci" / "run").read_text()
