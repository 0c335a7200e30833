"""The command lines of `index`, `search` and `serve`."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from uniadapter.app.arguments import Parser, adapter_option, int_between, path_option
from uniadapter.errors import UsageError
from uniadapter.files.messages import shortened


def index_arguments(arguments: list[str]) -> Any:
    """Read the command line of `uniadapter index`.

    Raises:
        UsageError: an option does not exist or is invalid, or there is neither a folder nor an index.
    """
    parser = Parser(prog="uniadapter index", description="make folders of pictures and videos searchable")
    parser.add_argument(
        "folders", nargs="*", type=path_option, metavar="FOLDER", help="of pictures and videos; none: as before"
    )
    parser.add_argument(
        "--index",
        type=adapter_option,
        metavar="INDEX",
        help="its folder, or s3://… (default: FOLDER.index in this folder)",
    )
    parser.add_argument("--model", help="adapter folder, embedded:NAME, run folder or base (default: embedded)")
    parser.add_argument("--rebuild", action="store_true", help="delete the index and build it anew")
    parser.add_argument(
        "--calibrate",
        type=path_option,
        metavar="FILE",
        help="annotations of indexed files, of which the cut-offs are found; not a test split",
    )
    parser.add_argument(
        "--ann", action="store_true", help="build an approximate index, for ten thousand frames and more"
    )
    parser.add_argument(
        "--engine",
        choices=("plain", "ray"),
        default="plain",
        help="what reads and encodes: this process, or a Ray cluster's",
    )
    parser.add_argument(
        "--workers", type=int_between(1, 100_000), metavar="N", help="most of Ray's (default: as many as it has cores)"
    )
    parser.add_argument("--worker-gpus", type=float, default=0.0, metavar="N", help="GPUs of each; parts may be shared")
    chosen = parser.parse_args(arguments)
    if chosen.engine != "ray" and (chosen.workers or chosen.worker_gpus):
        raise UsageError("--workers and --worker-gpus are Ray's: give --engine ray with them")
    if not 0 <= chosen.worker_gpus <= 64:
        raise UsageError(f"--worker-gpus is {chosen.worker_gpus:g}; it is between 0 and 64")
    if not chosen.folders and not chosen.index:
        raise UsageError("name the folders to index, or an index to bring up to date with --index")
    chosen.folders = [Path(one).expanduser() for one in chosen.folders]
    chosen.index = chosen.index or f"{chosen.folders[0].absolute().name or 'media'}.index"
    return chosen


def search_arguments(arguments: list[str]) -> Any:
    """Read the command line of `uniadapter search`.

    Raises:
        UsageError: an option does not exist or is invalid.
    """
    parser = Parser(
        prog="uniadapter search",
        description="find pictures and videos: words, ./FILE for a picture like it, 'dog + 0.5: ./park.jpg - night'",
    )
    parser.add_argument("index", type=adapter_option, help="of uniadapter index")
    parser.add_argument("query", help="in quotes")
    parser.add_argument("--top", type=int_between(1, 100_000), default=10, help="most files (default: 10)")
    parser.add_argument("--type", choices=("picture", "video"), default="", help="of the files")
    parser.add_argument("--after", type=_date, metavar="DATE", help="taken then or later: 2024-01-31, or with 10:30")
    parser.add_argument("--before", type=_date, metavar="DATE", help="taken earlier than that")
    parser.add_argument("--under", type=path_option, metavar="FOLDER", help="below this folder")
    parser.add_argument(
        "--rerank",
        type=int_between(0, 10_000),
        metavar="K",
        help="rank the K most similar anew by matching; 0 does not (default: the adapter's)",
    )
    parser.add_argument("--ann", action="store_true", help="look into the approximate index instead of every frame")
    parser.add_argument("--all", action="store_true", help="without a cut-off")
    parser.add_argument("--json", action="store_true", help="all that is known of each file")
    parser.add_argument("--paths", action="store_true", help="paths alone, as in a pipe")
    parser.add_argument("--html", type=path_option, metavar="FILE", help="write a contact sheet")
    chosen = parser.parse_args(arguments)
    if chosen.json and chosen.paths:
        raise UsageError("--json and --paths are both given; keep one")
    chosen.under = Path(chosen.under).expanduser().absolute() if chosen.under else None
    chosen.html = Path(chosen.html).expanduser() if chosen.html else None
    return chosen


def serve_arguments(arguments: list[str]) -> Any:
    """Read the command line of `uniadapter serve`.

    Raises:
        UsageError: an option does not exist or is invalid.
    """
    parser = Parser(prog="uniadapter serve", description="a page and an API: search an index, and ask what is in it")
    parser.add_argument("index", type=adapter_option, help="of uniadapter index")
    parser.add_argument(
        "--adapter",
        action="append",
        metavar="ADAPTER",
        help="folder, run folder, embedded:NAME or address; for answers, captions, or to rank by; may be repeated "
        "(default: those of this package, where the index was made with the embedded base)",
    )
    parser.add_argument("--model", help="the index's model under another name")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int_between(0, 65535), default=7860, help="0 takes a free one (default: 7860)")
    parser.add_argument("--token", default="", help="that visitors must show; made up where --host is not this machine")
    parser.add_argument("--upload-mb", type=int_between(1, 100_000), default=64, help="most of an upload (default: 64)")
    parser.add_argument(
        "--waiting", type=int_between(1, 100_000), default=64, help="most requests that wait (default: 64)"
    )
    return parser.parse_args(arguments)


def _date(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shortened(text, 40)!r} is not a date like 2024-01-31") from None
