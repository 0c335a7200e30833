"""The commands `index` and `search`."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from uniadapter.app.display import console, say
from uniadapter.config import DataConfig
from uniadapter.data.captions import load_retrieval
from uniadapter.errors import DataError
from uniadapter.files.writing import write_text
from uniadapter.report.page import document
from uniadapter.search.index import Index
from uniadapter.search.places import check_there, place_of
from uniadapter.search.ranking import Filters, Match

_LISTED = 20  # problems that are printed
_PREVIEW = (16, 6)  # columns and rows of a thumbnail in the terminal


@dataclass(frozen=True)
class IndexOptions:
    """Options of `uniadapter index`.

    Args:
        model: see `Index`.
        rebuild: delete the index and build it anew.
        calibrate: annotation file of pairs, of which the cut-offs are found.
        ann: build the approximate index.
        engine: see `Index.add`, as the rest.
    """

    model: str | None = None
    rebuild: bool = False
    calibrate: Path | None = None
    ann: bool = False
    engine: str = "plain"
    workers: int | None = None
    worker_gpus: float = 0.0


@dataclass(frozen=True)
class SearchOptions:
    """Options of `uniadapter search`; see `Index.search`."""

    top: int = 10
    filters: Filters = field(default_factory=Filters)
    rerank: int | None = None
    exact: bool = True
    cut_off: bool = True
    output: str = ""  # "json", "paths", or "" for a table
    html: Path | None = None


def run_index(folders: Sequence[Path], index: str, options: IndexOptions) -> None:
    """Build an index, or bring it up to date, and say what was done.

    Args:
        folders: of pictures and videos; none brings those of the index up to date.
        index: its folder, or its address.
        options: the others.

    Raises:
        DataError, CheckpointError, UsageError: see `Index`.
    """
    place, model = place_of(index), options.model
    described = place.described()
    if options.rebuild and described is not None:
        folders = [*map(Path, described.get("folders", [])), *folders]
        model = model or described.get("model")
        place.delete()
    elif not folders and described is None:
        raise DataError(f"{index}: no index yet: name the folders to index", "no index")
    opened = Index(index, model)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("indexing", total=None)
        update = opened.add(
            *folders,
            on_progress=lambda done, every: bar.update(task, completed=done, total=every),
            engine=options.engine,
            workers=options.workers,
            worker_gpus=options.worker_gpus,
        )
    count = len(opened)
    if not count:
        say(f"{', '.join(map(str, folders)) or index}: no picture and no video that can be indexed")
    for problem in update.problems[:_LISTED]:
        say(f"not indexed: {problem.path}: {problem.reason}")
    if len(update.problems) > _LISTED:
        say(f"not indexed: {len(update.problems) - _LISTED} more")
    say(f"{index}: {update}; {count} files in all")
    if options.ann:
        opened.build_ann()
        say("built the approximate index")
    if options.calibrate is not None:
        split = load_retrieval(str(options.calibrate), DataConfig(), "val")
        pairs = [(text, str(split.visuals[row])) for text, row in zip(split.texts, split.text_visual, strict=True)]
        for name, value in opened.calibrate(pairs).items():
            say(f"cut-off, {name}: {value:.3g}")


def run_search(index: str, query: str, options: SearchOptions) -> list[Match]:
    """Search an index, and print what was found.

    Raises:
        DataError, CheckpointError, UsageError: see `Index`.
    """
    check_there(index)
    found = Index(index).search(query, options.top, options.filters, options.rerank, options.exact, options.cut_off)
    if options.html:
        sys.stderr.write(f"{write_text(options.html, contact_sheet(query, found))}\n")  # what was found goes to stdout
    if options.output == "json":
        say(json.dumps([as_values(one) for one in found], indent=1, ensure_ascii=False))
    elif options.output == "paths" or not sys.stdout.isatty():
        for one in found:
            say(one.path)
    elif found:
        console.print(result_table(found))
    else:
        say("nothing found")
    return found


def as_values(match: Match) -> dict[str, Any]:
    """A match as JSON values, without its thumbnail."""
    values = {name: value for name, value in vars(match).items() if name != "thumbnail"}
    return {**values, "taken": datetime.fromtimestamp(match.taken).isoformat(timespec="seconds")}


def clock(seconds: float | None) -> str:
    """A time in a video: "1:05"; "" for a picture."""
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def result_table(found: Sequence[Match]) -> Table:
    """For a terminal, with thumbnails where it has enough colours."""
    colours = console.color_system in ("256", "truecolor")
    made = Table(box=box.SIMPLE, show_lines=colours)
    for title in (*([""] if colours else []), "similarity", "matching", "time", "file"):
        made.add_column(title, justify="left" if title in ("", "file") else "right", overflow="fold")
    for one in found:
        matching = "" if one.matching is None else f"{100 * one.matching:.1f}%"
        cells: list[str | Text] = [f"{one.similarity:.3f}", matching, clock(one.time), Text(one.path)]
        made.add_row(*([preview(one.thumbnail)] if colours else []), *cells)
    return made


def preview(thumbnail: bytes) -> Text:
    """A picture of half blocks, two pixels a character."""
    if not thumbnail:
        return Text("")
    with Image.open(io.BytesIO(thumbnail)) as picture:
        small = picture.convert("RGB")
        small.thumbnail((_PREVIEW[0], 2 * _PREVIEW[1]))
    out = Text()
    for y in range(0, small.height - 1, 2):
        for x in range(small.width):
            top, bottom = (small.getpixel((x, row)) for row in (y, y + 1))
            assert isinstance(top, tuple)
            assert isinstance(bottom, tuple)
            out.append("▀", style=f"rgb({','.join(map(str, top))}) on rgb({','.join(map(str, bottom))})")
        out.append("\n")
    return out


def contact_sheet(query: str, found: Sequence[Match]) -> str:
    """A page of what was found, which stands by itself."""
    cards = []
    for one in found:
        sure = f"{one.similarity:.3f}" if one.matching is None else f"{100 * one.matching:.1f}%"
        source = f"data:image/jpeg;base64,{base64.b64encode(one.thumbnail).decode()}"
        name = Path(one.path).name
        told = " · ".join(part for part in (sure, clock(one.time)) if part)
        cards.append(
            f'<figure style="margin: 0; width: 12rem"><a href="{escape(Path(one.path).as_uri())}">'
            f'<img alt="{escape(name)}" src="{source}" style="width: 100%; border-radius: 4px"></a>'
            f'<figcaption style="overflow-wrap: anywhere">{escape(name)}<br><span class="note">{escape(told)}</span>'
            "</figcaption></figure>"
        )
    body = "".join(cards) if cards else "<p>Nothing found.</p>"
    title = f"“{query}”"
    return document(
        title,
        f'<header class="top"><p class="kicker">uniadapter · search</p><h1>{escape(title)}</h1></header>'
        f'<section style="display: flex; flex-wrap: wrap; gap: 1rem">{body}</section>',
    )
