"""Rooms, floors and arrows of the package, counted from its imports: ``python docs/rooms.py [--figure] [FOLDER]``.

A room is a folder of modules, or a module that stands in none. An arrow goes from a room to one that it imports, also
where it does so inside a function or for types alone. A room stands one floor above the highest that it imports; rooms
that import each other in a circle stand on one floor, and are named.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "uniadapter"
DOORS = {"__init__", "__main__", "version"}  # of the package itself: names for outsiders, not rooms

Arrows = Mapping[str, set[str]]


def modules(package: Path) -> dict[str, Path]:
    """The package's files by dotted name, "uniadapter.model.adapter"; a folder's `__init__` has the folder's name."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(name: str, file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The package's modules that one of them imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
                base = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield from (one for one in (inner if inner in known else base,) if one in known)


def room_of(name: str, file: Path, package: Path) -> str:
    """The room of a module: its folder, or itself where it stands in none; "" for the package's own doors."""
    folder = file.parent.relative_to(package).as_posix()
    if folder == ".":
        return "" if file.stem in DOORS else file.stem
    return folder


def arrows(package: Path = PACKAGE) -> dict[str, set[str]]:
    """From each room to those that it imports."""
    known = modules(package)
    rooms = {name: room_of(name, file, package) for name, file in known.items()}
    found: dict[str, set[str]] = {room: set() for room in rooms.values() if room}
    for name, file in known.items():
        if rooms[name]:
            found[rooms[name]] |= {rooms[one] for one in imported(name, file, known)} - {rooms[name], ""}
    return found


def files(package: Path = PACKAGE) -> dict[str, set[str]]:
    """From each file to those that it imports, by dotted names; a package's `__init__` re-exports and is left out."""
    known = modules(package)
    plain = {name: file for name, file in known.items() if file.name != "__init__.py"}
    return {name: {one for one in imported(name, file, known) if one in plain} - {name} for name, file in plain.items()}


def circles(graph: Arrows) -> list[set[str]]:
    """Rooms that reach each other, a set for each circle."""
    reach = {room: _reached(room, graph) for room in graph}
    tied = {room: frozenset(other for other in reach[room] if room in reach[other]) for room in graph}
    return [set(one) for one in sorted({circle for circle in tied.values() if circle}, key=sorted)]


def _reached(room: str, graph: Arrows) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[room])
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += graph[one]
    return seen


def floors(graph: Arrows) -> dict[str, int]:
    """The floor of each room, 1 for those that import none; a circle is one floor."""
    tied = {room: circle for circle in circles(graph) for room in circle}
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            circle = tied.get(room, {room})
            below = set().union(*(graph[one] for one in circle)) - circle
            found.update(dict.fromkeys(circle, 1 + max(map(floor, below), default=0)))
        return found[room]

    return {room: floor(room) for room in graph}


def shortest(graph: Arrows) -> dict[str, set[str]]:
    """The arrows that no chain of others implies; of a graph without circles."""
    return {
        room: {one for one in below if not any(one in _reached(other, graph) for other in below - {one})}
        for room, below in graph.items()
    }


def figure(graph: Arrows) -> str:
    """The rooms as a Mermaid diagram, the highest floor on top, with the arrows that no chain of others implies."""
    level, lines = floors(graph), ["```mermaid", "flowchart TB"]
    names = {room: room.replace("/", "_") for room in graph}
    for floor in sorted(set(level.values()), reverse=True):
        rooms = sorted(room for room in graph if level[room] == floor)
        lines.append("    " + "; ".join(f"{names[room]}[{room}]" for room in rooms))
    for room, below in sorted(shortest(graph).items()):
        if below:
            lines.append(f"    {names[room]} --> {' & '.join(names[one] for one in sorted(below))}")
    return "\n".join([*lines, "```"]) + "\n"


def main(package: Path) -> None:
    """Print the rooms, the highest floor first, then the counts."""
    graph = arrows(package)
    level = floors(graph)
    for room in sorted(graph, key=lambda one: (-level[one], one)):
        print(f"{level[room]:>2}  {room:<16} {' '.join(sorted(graph[room]))}")  # noqa: T201 - a script
    count = sum(map(len, graph.values()))
    print(f"{len(graph)} rooms, {max(level.values())} floors, {count} arrows")  # noqa: T201 - a script
    for circle in circles(graph) + circles(files(package)):
        print(f"a circle: {', '.join(sorted(circle))}")  # noqa: T201 - a script


if __name__ == "__main__":
    given = [one for one in sys.argv[1:] if one != "--figure"]
    chosen = Path(given[0]).resolve() if given else PACKAGE
    if "--figure" in sys.argv:
        sys.stdout.write(figure(arrows(chosen)))
    else:
        main(chosen)
