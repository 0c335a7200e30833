"""The command line: `uniadapter train`, `evaluate`, `ask`, `caption` and others; torch is imported only to run them."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from uniadapter.app.arguments import Parser, adapter_option, int_between, path_option, shard_size
from uniadapter.app.parsing import parse_run, read_comparison
from uniadapter.app.search_arguments import index_arguments, search_arguments, serve_arguments
from uniadapter.checkpoints.compatibility import check_files, check_fits_folder, check_split
from uniadapter.errors import Interrupted, UsageError, user_message
from uniadapter.files.messages import shortened, suggestion
from uniadapter.files.writing import check_output_folder
from uniadapter.processes.launcher import launched, part_from_others
from uniadapter.version import __version__

USAGE = """usage: uniadapter COMMAND …

  train CONFIG [--resume | --overwrite] [--FIELD …] adapt a model as a config says, measure it, write a run folder
  evaluate CONFIG [--adapter FOLDER] [--FIELD …]   measure a base, or a base with an adapter
  ask FILE QUESTION … [--adapter FOLDER]           answer questions about a picture or video
  caption FILE [--adapter FOLDER]                  write a caption for it
  index FOLDER … [--index INDEX] [--engine ray] …  make folders of pictures and videos searchable
  search INDEX QUERY [--top N] [--type …]          find in them: words, ./FILE, 'dog + 0.5: ./park.jpg - night'
  serve INDEX [--adapter ADAPTER …] [--port N]     the same as a page, to ask and to have captions too
  push SOURCE TARGET [--licence L] [--private]     an adapter to the hub (hf://USER/NAME), an object store, a folder
  pull SOURCE FOLDER                               and from there
  convert FILE OUTPUT [--kind KIND]                the authors' or BLIP's .pth to an adapter or transformers folder
  check-data CONFIG [--json FILE]                  what a local copy of a config's data holds, before training on it
  shard CONFIG --output FOLDER [--size N] …        a split as tar shards, for data larger than a disk
  families                                         which models can be adapted, and what each can do
  compare CONFIG … [--only METHOD …] [--part PART] methods side by side: rates on validation, seeds on test, a table
  demo [TASK] [--output FOLDER] [--seed N]         an embedded task, the methods side by side: scenes, video, vqa,
                                                   videoqa, caption, or easy_vqa

CONFIG is a YAML file or the name of one that comes with the package: pictures, videos, questions, captions for data
of one's own; coco, flickr30k, msrvtt, didemo, vqav2, msrvtt_qa, coco_caption; scenes, clips, vqa, videoqa, caption.
`uniadapter COMMAND --help` explains each field; every field of the YAML can be given on the command line.
"""

# Each demo's data and what it needs; a duration where one was measured (on two cores of an AMD EPYC).
DEMOS = {
    "scenes": "scenes of emoji and their captions; about 4 minutes, nothing else to install",
    "video": "clips and what follows what in them; nothing else to install",
    "vqa": "questions about scenes; nothing else to install",
    "videoqa": "questions about clips; nothing else to install",
    "easy_vqa": "questions that others made about shapes; needs pip install 'uniadapter[easy-vqa]'",
    "caption": "captions of scenes, scored; about 2 minutes, needs pip install 'uniadapter[caption]'",
}


def train(arguments: list[str]) -> None:
    """`uniadapter train`."""

    def options(parser: Parser) -> None:
        parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
        parser.add_argument("--overwrite", action="store_true", help="replace the run that is in the output folder")
        parser.add_argument(
            "--resume_or_start", action="store_true",
            help="--resume if there is a checkpoint, else a new run: one command that a queue may repeat",
        )  # fmt: skip

    ways = ("--resume", "--overwrite", "--resume_or_start")
    given = [one for one in arguments if one not in ways]  # `parse_run` consumes them
    config, chosen = parse_run("train", arguments, options)
    check_output_folder(config.output)
    check_fits_folder(config)
    check_files(config)
    check_split(config, "train")
    _set_up()
    from uniadapter.app.commands import run_training
    from uniadapter.processes.distributed import is_main

    try:
        run_training(config, chosen.resume, chosen.overwrite, chosen.resume_or_start)
        return
    except Interrupted as stop:
        from uniadapter.app.display import say

        way = "--resume_or_start" if chosen.resume_or_start else "--resume"
        more = f"; go on with: {shlex.join(['uniadapter', 'train', *given, way])}"
        if is_main():
            say(f"{stop}{more if stop.folder is not None else ''}")
        status = stop.exit_code
    _shut_down()  # here, where the error holds the model no more
    raise SystemExit(status)


def evaluate(arguments: list[str]) -> None:
    """`uniadapter evaluate`."""

    def options(parser: Parser) -> None:
        parser.add_argument(
            "--adapter",
            type=adapter_option,
            metavar="FOLDER",
            help="folder, embedded:NAME or address of an adapter; without one, the base",
        )
        parser.add_argument("--split", default="test", help="train, val, test or a further test set (default: test)")

    config, chosen = parse_run("evaluate", arguments, options)
    check_output_folder(config.output)
    check_fits_folder(config)
    check_split(config, chosen.split)
    _set_up()
    from uniadapter.app.measuring import run_evaluation

    adapter = _adapter(chosen.adapter)
    run_evaluation(config, adapter, chosen.split, chosen.stated)


def convert(arguments: list[str]) -> None:
    """`uniadapter convert`."""
    parser = Parser(prog="uniadapter convert", description="original checkpoints to folders that load here")
    parser.add_argument("file", type=path_option, help="a .pth of the UniAdapter authors or of BLIP")
    parser.add_argument("output", type=path_option, help="the folder to write")
    parser.add_argument("--kind", choices=("auto", "uniadapter", "blip"), default="auto", help="what the file is")
    parser.add_argument(
        "--frame_aware", action="store_true", help="it was trained with frame-aware attention; the file does not tell"
    )
    heads = int_between(0, 1024)
    parser.add_argument("--vision_heads", type=heads, default=0, help="attention heads; 0 means width / 64, BLIP's")
    parser.add_argument("--text_heads", type=heads, default=0, help="the same for text")
    parser.add_argument(
        "--tokenizer", type=path_option, help="its folder or vocab.txt; without it what lies beside the file"
    )
    chosen = parser.parse_args(arguments)
    check_output_folder(chosen.output)
    counts = {"vision_heads": chosen.vision_heads, "text_heads": chosen.text_heads}
    _set_up()
    from uniadapter.app.commands import run_conversion

    words = Path(chosen.tokenizer) if chosen.tokenizer else None
    run_conversion(Path(chosen.file), Path(chosen.output), chosen.kind, chosen.frame_aware, counts, words)


def ask(arguments: list[str]) -> None:
    """`uniadapter ask`."""
    parser = _predicting("ask", "answer questions about a picture or video")
    parser.add_argument("questions", nargs="+", help="in quotes")
    parser.add_argument(
        "--answers", type=path_option, help="JSON list of answers to choose from; else the adapter's own"
    )
    chosen = parser.parse_args(arguments)
    answers = Path(chosen.answers) if chosen.answers else None
    _set_up()
    from uniadapter.app.commands import run_prediction

    run_prediction(
        "vqa", Path(chosen.file), chosen.questions, chosen.base, _adapter(chosen.adapter), answers, chosen.frames
    )


def caption(arguments: list[str]) -> None:
    """`uniadapter caption`."""
    chosen = _predicting("caption", "write a caption for a picture or video").parse_args(arguments)
    _set_up()
    from uniadapter.app.commands import run_prediction

    run_prediction("caption", Path(chosen.file), [], chosen.base, _adapter(chosen.adapter), None, chosen.frames)


def _predicting(command: str, description: str) -> Parser:
    parser = Parser(prog=f"uniadapter {command}", description=description)
    parser.add_argument("file", type=path_option, help="a picture, a video, or a folder of frames")
    parser.add_argument("--adapter", type=adapter_option, help="as for evaluate; without one, the base alone")
    parser.add_argument("--base", type=path_option, help="base model; without it the adapter's, or the embedded one")
    parser.add_argument("--frames", type=int_between(1, 1024), help="of a video; without it as the adapter was trained")
    return parser


def demo(arguments: list[str]) -> None:
    """`uniadapter demo`."""
    tasks = [one for one in arguments[:1] if one in DEMOS] or list(DEMOS)
    about = "; ".join(f"{name}: {DEMOS[name]}" if len(tasks) > 1 else DEMOS[name] for name in tasks)
    parser = Parser(prog="uniadapter demo", description=f"adapt the embedded BLIP to an embedded task: {about}")
    parser.add_argument("task", nargs="?", choices=tuple(DEMOS), default="scenes", help="which one (default: scenes)")
    parser.add_argument("--output", type=path_option, help="folder of the run; without it runs/demo or runs/demo-TASK")
    parser.add_argument("--seed", type=int_between(0, 2**63 - 1), default=0, help="of every random draw")
    chosen = parser.parse_args(arguments)
    output = chosen.output or ("runs/demo" if chosen.task == "scenes" else f"runs/demo-{chosen.task}")
    check_output_folder(output)
    _set_up()
    from uniadapter.app.demo import run_demo

    run_demo(chosen.task, Path(output), chosen.seed)


def compare(arguments: list[str]) -> None:
    """`uniadapter compare`."""
    parser = Parser(prog="uniadapter compare", description="methods side by side: rates on validation, seeds on test")
    parser.add_argument(
        "configs", nargs="+", metavar="CONFIG",
        help="YAML files, or names of comparisons that come with the package; of several tasks there is a table of all",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="these, and the reference")
    parser.add_argument(
        "--part", choices=("all", "rates", "seeds", "results"), default="all",
        help="rates on validation, seeds on test, both, or the results of what is finished (default: all)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int_between(1, 1000), help="how many, instead of the config's")
    parser.add_argument("--steps", type=int_between(1, 10**9), help="of every run, instead of the configs'")
    parser.add_argument(
        "--output", type=path_option, help="folder of records, results and table; of several, of their folders"
    )
    chosen = parser.parse_args(arguments)
    changes = {name: value for name in ("seeds", "steps", "output") if (value := getattr(chosen, name)) is not None}
    configs = {Path(name).stem: replace(read_comparison(name), **changes) for name in chosen.configs}
    several = len(chosen.configs) > 1
    if len(configs) < len(chosen.configs):
        raise UsageError("two of the comparisons have the same name: give their files different names")
    if several and chosen.output:
        configs = {name: replace(one, output=str(Path(chosen.output) / name)) for name, one in configs.items()}
    for config in configs.values():
        check_output_folder(config.output)
    _set_up()
    first = part_from_others()
    from uniadapter.app.comparing import run_comparison, run_comparisons

    if several:
        run_comparisons(configs, chosen.part, tuple(chosen.only), first)
    else:
        run_comparison(config, chosen.part, tuple(chosen.only), first)


def check_data(arguments: list[str]) -> None:
    """`uniadapter check-data`."""

    def options(parser: Parser) -> None:
        parser.add_argument("--json", type=path_option, metavar="FILE", help="write all that was found to a file")

    config, chosen = parse_run("check-data", arguments, options)
    check_files(config)
    _set_up()
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
    _set_up()
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


def _adapter(named: str | None) -> Path | None:
    """The folder of an adapter that the command line names; one that is elsewhere is pulled."""
    if named and "://" in named:
        from uniadapter.checkpoints.locating import locate_adapter

        return locate_adapter(named)
    return Path(named) if named else None


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
    _set_up()
    from uniadapter.app.sharing import run_push

    run_push(Path(chosen.source), chosen.target, chosen.licence, chosen.private)


def pull(arguments: list[str]) -> None:
    """`uniadapter pull`."""
    parser = Parser(prog="uniadapter pull", description="copy an adapter from the hub, an object store or a folder")
    parser.add_argument("source", help="as for `uniadapter push`")
    parser.add_argument("folder", type=path_option, help="to write into")
    chosen = parser.parse_args(arguments)
    check_output_folder(chosen.folder)
    _set_up()
    from uniadapter.app.sharing import run_pull

    run_pull(chosen.source, Path(chosen.folder))


def index(arguments: list[str]) -> None:
    """`uniadapter index`."""
    chosen = index_arguments(arguments)
    _set_up()
    from uniadapter.app.searching import IndexOptions, run_index

    options = IndexOptions(
        chosen.model, chosen.rebuild, chosen.calibrate, chosen.ann, chosen.engine, chosen.workers, chosen.worker_gpus
    )  # fmt: skip
    run_index(chosen.folders, chosen.index, options)


def search(arguments: list[str]) -> None:
    """`uniadapter search`."""
    chosen = search_arguments(arguments)
    _set_up()
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
    _set_up()
    from uniadapter.app.serving import Address, run_server

    address = Address(chosen.host, chosen.port, chosen.token, chosen.upload_mb << 20, chosen.waiting)
    run_server(chosen.index, chosen.model, chosen.adapter, address)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "evaluate": evaluate,
    "convert": convert,
    "families": list_families,
    "ask": ask,
    "caption": caption,
    "demo": demo,
    "compare": compare,
    "check-data": check_data,
    "shard": shard,
    "index": index,
    "search": search,
    "serve": serve,
    "push": push,
    "pull": pull,
}


# Those that write or serve what only one process may, and what to do where one is not enough.
ALONE = {"index": "; --engine ray encodes in many processes, on many machines", "serve": "", "demo": ""}


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; None takes `sys.argv`.

    Returns:
        The exit status: 0, or 2 after an error that the user can correct, which is one line on standard error.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # characters that the encoding lacks are escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        sys.stdout.write(f"{__version__}\n")
        return 0
    try:
        _command(arguments[0])(arguments[1:])
        _shut_down()
    except BrokenPipeError:  # the reader of the output has exited, `head` for example
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        return stop.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    except Exception as error:
        line = user_message(error)
        if line is None:
            raise  # a bug, whose report needs the traceback
        sys.stderr.write(f"error: {line}\n")
        return 2
    return 0


def _command(name: str) -> Callable[[list[str]], None]:
    """The function of a command.

    Raises:
        UsageError: there is no such command, or it is one process and a launcher has started several.
        SystemExit: with status 2, on the others of these.
    """
    if name not in COMMANDS:
        name = shortened(name, 60)
        raise UsageError(f"there is no command {name!r}{suggestion(name, COMMANDS)}")
    rank, count = launched()
    if count > 1 and name in ALONE:
        if rank:
            raise SystemExit(2)
        raise UsageError(f"{name} is one process: start it without a launcher{ALONE[name]}")
    return COMMANDS[name]


def _set_up() -> None:
    """Set up logging and memory; not needed for help or errors in the command line."""
    from uniadapter.app.display import set_up_logging
    from uniadapter.app.memory import keep_freed_memory

    set_up_logging()
    keep_freed_memory()


def _shut_down() -> None:
    if "torch" in sys.modules:
        from uniadapter.processes.distributed import destroy_process_group

        destroy_process_group()
