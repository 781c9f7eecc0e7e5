"""Arrows between the rooms of `tasks` go one way, and no file of it needs another that needs it."""

import ast
import graphlib

from toy import ROOT

# What a room may use beside itself; a modality may use all but the commands, which find it by its class path.
ROOMS = {
    "data": set(),
    "tiles": set(),
    "task": {"tiles", "data", "extras"},
    "maps": {"task", "data"},
    "outputs": {"task", "data"},
    "frozen": {"task", "data"},
    "pretrain": {"task", "data"},
    "federate": {"task", "data"},
    "match": {"pretrain", "task", "data"},
    "search": {"data", "extras"},
    "curate": {"search", "outputs", "data"},
    "commands": {"match", "curate", "search", "frozen", "pretrain", "outputs", "maps", "task", "tiles", "data"},
    **{modality: {"outputs", "maps", "task", "tiles", "data", "extras"} for modality in ("graph", "audio", "volume")},
}


def imports(path):
    """The modules of `tasks` that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.partition(".")[0] == "tasks")


def files():
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted((ROOT / "tasks").rglob("*.py"))
        if path.name != "__init__.py"
    }


def test_every_room_is_known():
    folders = {path.parent.name for path in (ROOT / "tasks").glob("*/__init__.py")}
    assert folders == ROOMS.keys()


def test_arrows_between_rooms_go_one_way():
    wrong = [
        f"{name} uses {used}"
        for name, path in files().items()
        for used in imports(path)
        if (room := name.split(".")[1]) in ROOMS and used.split(".")[1] not in {room, *ROOMS[room]}
    ]
    assert wrong == []


def test_no_file_needs_itself():
    """Not even for its types: who helps a task names the part that it needs."""
    graphlib.TopologicalSorter({name: set(imports(path)) for name, path in files().items()}).prepare()


def test_no_file_is_longer_than_can_be_read_at_once():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files().items()}
    assert {name: length for name, length in lengths.items() if length > 350} == {}
