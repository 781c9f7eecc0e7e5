"""``report.html``: what a run was trained on, how it went, what it is worth and where it fails, from its folder."""

import base64
import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

PAGE = Path(__file__).with_suffix(".html")


def write_report(folder: Path) -> Path:
    """Write the report of a run that was tested.

    Args:
        folder: The run's, with ``summary.json`` and, where there are any, ``floors.csv``, ``curves.png``, ``test.png``
            and ``maps/``. Pictures but those of maps are put into the page, so that it can be sent as one file.

    Returns:
        The page.
    """
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    run = summary.get("run", {})
    sections = [
        ("What was trained on what", _lines(run.get("data", []))),
        (
            "How the training went",
            [*_lines([run["ended"]] if run.get("ended") else []), *_picture(folder / "curves.png")],
        ),
        ("The test", [*_metrics(summary), *_below(run.get("below", [])), *_picture(folder / "test.png")]),
        ("Floors: baselines without a network, on the same samples", _floors(folder / "floors.csv")),
        ("At the threshold chosen on validation", _threshold(summary.get("at_threshold"))),
        ("By class", _by_class(summary.get("per_class", {}))),
        *((f"By {column}", _by_value(values)) for column, values in summary.get("by", {}).items()),
        ("The worst mistakes, with their maps", _mistakes(summary.get("mistakes", []))),
        ("All maps, and searches", _pages(folder)),
        ("To make it again", _again(run)),
    ]
    page = Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(" / ".join(folder.resolve().parts[-3:])),
        about=escape(f"{summary['kind']}: {', '.join(summary['classes'][:12])} · {summary['pool']}"),
        sections="\n".join(_section(title, list(parts)) for title, parts in sections),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _section(title: str, parts: Sequence[str]) -> str:
    return "\n".join([f"<h2>{escape(title)}</h2>", *parts]) if parts else ""


def _pages(folder: Path) -> Iterator[str]:
    for page in sorted(folder.glob("*/index.html")):
        place = page.relative_to(folder).as_posix()
        yield f'<p><a href="{quote(place)}">{escape(place)}</a></p>'


def _lines(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"<pre>{escape(chr(10).join(lines))}</pre>"


def _picture(path: Path) -> Iterator[str]:
    if path.is_file():
        data = base64.b64encode(path.read_bytes()).decode()
        yield f'<img src="data:image/png;base64,{data}" alt="{escape(path.stem)}">'


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    def cells(row: Iterable[Any], tag: str) -> str:
        return "".join(f"<{tag}>{escape(_text(cell))}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{cells(head, "th")}</tr>{body}</table></div>'


def _text(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _metrics(summary: Mapping[str, Any]) -> Iterator[str]:
    groups = f" in {summary['groups']} groups, which the intervals resample" if summary.get("groups") else ""
    positive = f"; the positive class is {summary['positive']}" if "positive" in summary else ""
    yield f"<p>{summary['samples']} samples{groups}{escape(positive)}.</p>"
    p = summary.get("permutation_test", {}).get("p", {})
    head = ["metric", "value", "95 % interval", *(["p"] if p else [])]
    rows = (
        [name, one["value"], f"{_text(one['low'])} to {_text(one['high'])}", *([p.get(name)] if p else [])]
        for name, one in summary["test"].items()
    )
    yield _table(head, rows)
    clean = summary.get("without_leaks")
    if clean and clean["samples"] < summary["samples"]:
        name = next(name for name in ("acc", "mae") if name in clean["test"])
        left_out = summary["samples"] - clean["samples"]
        yield (
            f'<p class="bad">{left_out} test samples are not independent of the training; without them {name} is '
            f"{_text(clean['test'][name]['value'])}.</p>"
        )


def _below(below: Sequence[str]) -> Iterator[str]:
    if below:
        yield f'<p class="bad">Below its floor: {escape("; ".join(below))}.</p>'


def _floors(path: Path) -> Iterator[str]:
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if rows:
            yield _table(rows[0], ([cell[:6] if _is_number(cell) else cell for cell in row.values()] for row in rows))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _threshold(at: Mapping[str, Any] | None) -> Iterator[str]:
    if at:
        yield f"<p>Positive where p &gt; {_text(at['threshold'])}.</p>"
        rows = (
            [name, one["value"], f"{_text(one['low'])} to {_text(one['high'])}"]
            for name, one in at.items()
            if isinstance(one, dict)
        )
        yield _table(["metric", "value", "95 % interval"], rows)


def _by_class(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if classes:
        head = ["class", *next(iter(classes.values()))]
        yield _table(head, ([name, *values.values()] for name, values in classes.items()))


def _by_value(values: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    head = ["", *next(iter(values.values()))]
    yield _table(head, ([name or "(empty)", *metrics.values()] for name, metrics in values.items()))


def _mistakes(mistakes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if mistakes:
        figures = "".join(
            f'<figure><a href="{quote(one["picture"])}"><img src="{quote(one["picture"])}" alt="" loading="lazy"></a>'
            f"<figcaption>{escape(one['id'])}: {escape(one['target'])}, predicted {escape(one['prediction'])}"
            "</figcaption></figure>"
            for one in mistakes
        )
        yield f'<div class="strip">{figures}</div>'


def _again(run: Mapping[str, Any]) -> Iterator[str]:
    lines = [run["command"]] if run.get("command") else []
    lines += [f"{name} {version}" for name, version in run.get("versions", {}).items()]
    yield from _lines(lines)
