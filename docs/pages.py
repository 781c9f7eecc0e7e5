"""What the site is made of beside docs/: README, contributors' guide and changelog; and links that leave docs/.

A hook of MkDocs: files outside of docs/ become pages, or, where they are code and configs, links to the repository.
"""

import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


class Examples(griffe.Extension):
    """Docstrings say "Example:"; the parser knows "Examples:" alone."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rename the section."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the repository's root, with links as from docs/."""
    for source, page in PAGES.items():
        text = re.sub(r"\]\(([^):#]+)(?=[)#])", r"](../\1", (ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ to where their file is read: a page of the site, or the repository."""
    home = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def moved(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(home, link[1]))  # from the repository's root
        path = "docs/" + PAGES[path] if path in PAGES else path
        if path.startswith("docs/"):
            return "](" + posixpath.relpath(path, home)
        return f"]({config.repo_url}blob/main/{path}"

    return re.sub(r"\]\((\.\./[^):#]*)(?=[)#])", moved, markdown)
