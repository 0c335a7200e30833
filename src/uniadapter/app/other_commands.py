"""The commands around a model: data, families, shared adapters, and an index of pictures and videos."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from uniadapter.app.arguments import Parser, path_option, shard_size
from uniadapter.app.parsing import parse_run
from uniadapter.app.search_arguments import index_arguments, search_arguments, serve_arguments
from uniadapter.app.set_up import set_up
from uniadapter.checkpoints.compatibility import check_files, check_split
from uniadapter.files.writing import check_output_folder


def check_data(arguments: list[str]) -> None:
    """`uniadapter check-data`."""

    def options(parser: Parser) -> None:
        parser.add_argument("--json", type=path_option, metavar="FILE", help="write all that was found to a file")

    config, chosen = parse_run("check-data", arguments, options)
    set_up()
    from uniadapter.app.check_data import run_check

    if not run_check(config, Path(chosen.json) if chosen.json else None):
        raise SystemExit(1)


def shard(arguments: list[str]) -> None:
    """`uniadapter shard`."""

    def options(parser: Parser) -> None:
        parser.add_argument("--split", default="train", help="which one to write (default: train)")
        parser.add_argument(
            "--size", type=shard_size, default="1000", metavar="N",
            help="of a shard: records, or bytes with a unit, 500MB say (default: 1000 records)",
        )  # fmt: skip
        parser.add_argument("--overwrite", action="store_true", help="replace shards of other data there")
        parser.add_argument(
            "--index_only", action="store_true", help="write the index of shards that others have made, beside them"
        )

    config, chosen = parse_run("shard", arguments, options)
    check_split(config, chosen.split)
    check_files(config)
    set_up()
    from uniadapter.app.shard_data import run_shard
    from uniadapter.data.shard_writing import ShardSize

    outputs = [text for key, text in chosen.given if key == "output"]
    output = os.path.expanduser(outputs[-1]) if outputs else None
    run_shard(config, chosen.split, output, ShardSize(*chosen.size), chosen.index_only, chosen.overwrite)


def list_families(arguments: list[str]) -> None:
    """`uniadapter families`."""
    parser = Parser(prog="uniadapter families", description="which models can be adapted, and what each can do")
    parser.add_argument("--tests", action="store_true", help="name the test behind each check mark too")
    chosen = parser.parse_args(arguments)
    from uniadapter.model.families import covering_tests, support_matrix

    sys.stdout.write(support_matrix() + (f"\n{covering_tests()}" if chosen.tests else ""))


def push(arguments: list[str]) -> None:
    """`uniadapter push`."""
    parser = Parser(prog="uniadapter push", description="copy an adapter to the hub, an object store or a folder")
    parser.add_argument(
        "source", type=path_option, help="run folder, whose figures go into the card, or adapter folder"
    )
    parser.add_argument("target", help="hf://USER/NAME, s3://…, another address that fsspec knows, or a folder")
    parser.add_argument("--licence", default="", help="for the card, by its SPDX name: apache-2.0")
    parser.add_argument("--private", action="store_true", help="a repository that is created on the hub")
    chosen = parser.parse_args(arguments)
    set_up()
    from uniadapter.app.sharing import run_push

    run_push(Path(chosen.source), chosen.target, chosen.licence, chosen.private)


def pull(arguments: list[str]) -> None:
    """`uniadapter pull`."""
    parser = Parser(prog="uniadapter pull", description="copy an adapter from the hub, an object store or a folder")
    parser.add_argument("source", help="as for `uniadapter push`")
    parser.add_argument("folder", type=path_option, help="to write into")
    chosen = parser.parse_args(arguments)
    check_output_folder(chosen.folder)
    set_up()
    from uniadapter.app.sharing import run_pull

    run_pull(chosen.source, Path(chosen.folder))


def index(arguments: list[str]) -> None:
    """`uniadapter index`."""
    chosen = index_arguments(arguments)
    set_up()
    from uniadapter.app.searching import IndexOptions, run_index

    options = IndexOptions(
        chosen.model, chosen.rebuild, chosen.calibrate, chosen.ann, chosen.engine, chosen.workers, chosen.worker_gpus
    )  # fmt: skip
    run_index(chosen.folders, chosen.index, options)


def search(arguments: list[str]) -> None:
    """`uniadapter search`."""
    chosen = search_arguments(arguments)
    set_up()
    from uniadapter.app.searching import SearchOptions, run_search
    from uniadapter.search.ranking import Filters

    filters = Filters(chosen.type, chosen.after, chosen.before, chosen.under)
    output = "json" if chosen.json else "paths" if chosen.paths else ""
    options = SearchOptions(
        chosen.top, filters, chosen.rerank, not chosen.ann, not chosen.all, output, chosen.html
    )  # fmt: skip
    run_search(chosen.index, chosen.query, options)


def serve(arguments: list[str]) -> None:
    """`uniadapter serve`."""
    chosen = serve_arguments(arguments)
    set_up()
    from uniadapter.app.serving import Address, run_server

    address = Address(chosen.host, chosen.port, chosen.token, chosen.upload_mb << 20, chosen.waiting)
    run_server(chosen.index, chosen.model, chosen.adapter, address)
