"""The commands: train, evaluate, convert, demo."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from jsonargparse import ArgumentParser

from uniadapter.display import say, set_up_logging
from uniadapter.errors import CheckpointError, ConfigError, DataError, Interrupted, UsageError
from uniadapter.memory import keep_freed_memory
from uniadapter.parsing import Parser, parse_run
from uniadapter.version import __version__

logger = logging.getLogger(__name__)

USAGE = """usage: uniadapter COMMAND …

  train CONFIG [--resume] [--FIELD VALUE …]        adapt a BLIP as a config says, measure it, write a run folder
  evaluate CONFIG [--adapter FOLDER] [--FIELD …]   measure a base, or a base with an adapter
  ask FILE QUESTION … [--adapter FOLDER]           answer questions about a picture or video
  caption FILE [--adapter FOLDER]                  write a caption for it
  convert FILE OUTPUT [--kind KIND]                the authors' or BLIP's .pth to an adapter or transformers folder
  demo [TASK] [--output FOLDER] [--seed N]         an embedded task, the methods side by side: scenes, video, vqa,
                                                   videoqa, caption, or easy_vqa

CONFIG is a YAML file or the name of one that comes with the package (coco, flickr30k, msrvtt, didemo,
vqav2, msrvtt_qa, coco_caption, scenes, clips, vqa, videoqa, caption).
`uniadapter COMMAND --help` explains each field; every field of the YAML can be given on the command line."""


def train(arguments: list[str]) -> None:
    """`uniadapter train`."""

    def options(parser: ArgumentParser) -> None:
        parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")

    config, chosen = parse_run("train", arguments, options)
    from uniadapter.commands import run_training

    command = f"uniadapter train {' '.join(a for a in arguments if a != '--resume')} --resume"
    try:
        run_training(config, bool(chosen.resume))
    except Interrupted as stop:
        say(f"{stop}; go on with:\n  {command}")
        raise SystemExit(130) from None


def evaluate(arguments: list[str]) -> None:
    """`uniadapter evaluate`."""

    def options(parser: ArgumentParser) -> None:
        parser.add_argument("--adapter", type=str, default=None, help="adapter folder; without one, zero-shot")
        parser.add_argument("--split", type=str, default="test", help="train, val, test or a further test set")

    config, chosen = parse_run("evaluate", arguments, options)
    from uniadapter.commands import run_evaluation

    run_evaluation(config, Path(chosen.adapter) if chosen.adapter else None, chosen.split)


def convert(arguments: list[str]) -> None:
    """`uniadapter convert`."""
    parser = Parser(prog="uniadapter convert", description="original checkpoints to folders that load here")
    parser.add_argument("file", help="a .pth of the UniAdapter authors or of BLIP")
    parser.add_argument("output", help="the folder to write")
    parser.add_argument("--kind", choices=("auto", "uniadapter", "blip"), default="auto", help="what the file is")
    parser.add_argument(
        "--frame_aware", action="store_true", help="it was trained with frame-aware attention; the file does not tell"
    )
    parser.add_argument("--vision_heads", type=int, default=0, help="attention heads; 0 means width / 64, BLIP's")
    parser.add_argument("--text_heads", type=int, default=0, help="the same for text")
    chosen = parser.parse_args(arguments)
    heads = {"vision_heads": chosen.vision_heads, "text_heads": chosen.text_heads}
    from uniadapter.commands import run_conversion

    run_conversion(Path(chosen.file), Path(chosen.output), chosen.kind, chosen.frame_aware, heads)


def ask(arguments: list[str]) -> None:
    """`uniadapter ask`."""
    parser = _predicting("ask", "answer questions about a picture or video")
    parser.add_argument("questions", nargs="+", help="in quotes")
    parser.add_argument("--answers", default=None, help="JSON list of answers to choose from; else the adapter's own")
    chosen = parser.parse_args(arguments)
    adapter, answers = (Path(path) if path else None for path in (chosen.adapter, chosen.answers))
    from uniadapter.commands import run_prediction

    run_prediction("vqa", Path(chosen.file), chosen.questions, chosen.base, adapter, answers, chosen.frames)


def caption(arguments: list[str]) -> None:
    """`uniadapter caption`."""
    chosen = _predicting("caption", "write a caption for a picture or video").parse_args(arguments)
    adapter = Path(chosen.adapter) if chosen.adapter else None
    from uniadapter.commands import run_prediction

    run_prediction("caption", Path(chosen.file), [], chosen.base, adapter, None, chosen.frames)


def _predicting(command: str, description: str) -> Parser:
    parser = Parser(prog=f"uniadapter {command}", description=description)
    parser.add_argument("file", help="a picture, a video, or a folder of frames")
    parser.add_argument("--adapter", default=None, help="adapter folder; without one, the bare base")
    parser.add_argument("--base", default=None, help="base model; without it the adapter's, or the embedded one")
    parser.add_argument("--frames", type=int, default=None, help="of a video; without it as the adapter was trained")
    return parser


def demo(arguments: list[str]) -> None:
    """`uniadapter demo`."""
    from uniadapter.demo import DEMOS, run_demo

    parser = Parser(prog="uniadapter demo", description="adapt the embedded BLIP to an embedded task, three ways")
    parser.add_argument(
        "task",
        nargs="?",
        choices=tuple(DEMOS),
        default="scenes",
        help="pictures, clips, questions about either, or captions",
    )
    parser.add_argument("--output", default=None, help="folder of the run; without it runs/demo or runs/demo-TASK")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw")
    chosen = parser.parse_args(arguments)
    usual = "runs/demo" if chosen.task == "scenes" else f"runs/demo-{chosen.task}"
    run_demo(chosen.task, Path(chosen.output or usual), chosen.seed)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "evaluate": evaluate,
    "convert": convert,
    "ask": ask,
    "caption": caption,
    "demo": demo,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; what a user can mend is one line on standard error and exit status 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(USAGE)
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        say(__version__)
        return 0
    command = COMMANDS.get(arguments[0])
    set_up_logging()
    keep_freed_memory()
    try:
        if command is None:
            raise UsageError(f"there is no command {arguments[0]!r}; there is {', '.join(COMMANDS)}")
        command(arguments[1:])
        if "torch" in sys.modules:
            from uniadapter.distributed import leave

            leave()
    except (ConfigError, DataError, CheckpointError, UsageError, FloatingPointError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
    return 0
