"""A page of samples side by side, to look at and to listen to; it opens from disk and needs no network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple
from urllib.parse import quote

PAGE = Path(__file__).with_suffix(".html")


class Card(NamedTuple):
    """One sample: its name, what is known of it, its picture and what can be heard of it."""

    name: str
    facts: Mapping[str, str] = {}
    picture: Path | None = None
    sounds: Sequence[Path] = ()


class Row(NamedTuple):
    """Samples that belong together: a query with its neighbours, a group of duplicates, a pair."""

    title: str
    cards: Sequence[Card]
    note: str = ""


def write_page(path: Path, title: str, about: str, rows: Sequence[Row], *, figures: Sequence[Path] = ()) -> Path:
    """Write rows of cards; pictures and sounds are linked, and have to lie beside the page.

    Args:
        path: The page.
        title: Above it.
        about: A line under the title.
        rows: What is side by side.
        figures: Pictures before the rows.
    """
    page = Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        about=escape(about),
        figures="".join(f'<img class="wide" src="{_link(path, one)}" alt="{escape(one.stem)}">' for one in figures),
        rows="\n".join(_row(path, row) for row in rows),
    )
    path.write_text(page, encoding="utf-8")
    return path


def _link(page: Path, file: Path) -> str:
    return quote(file.relative_to(page.parent).as_posix())


def _row(page: Path, row: Row) -> str:
    note = f'<p class="dim">{escape(row.note)}</p>' if row.note else ""
    cards = "".join(_card(page, card) for card in row.cards)
    return f'<section><h2>{escape(row.title)}</h2>{note}<div class="strip">{cards}</div></section>'


def _card(page: Path, card: Card) -> str:
    image = ""
    if card.picture is not None:
        link = _link(page, card.picture)
        image = f'<a href="{link}"><img src="{link}" alt="{escape(card.name)}" loading="lazy"></a>'
    sounds = "".join(f'<audio controls preload="none" src="{_link(page, one)}"></audio>' for one in card.sounds)
    facts = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in card.facts.items())
    return f"<article><h3>{escape(card.name)}</h3>{image}{sounds}<dl>{facts}</dl></article>"
