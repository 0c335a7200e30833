"""The command line: `uniadapter train`, `evaluate`, `ask`, `caption` and others; torch is imported only to run them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from uniadapter.app.model_commands import ask, caption, compare, convert, demo, evaluate, train
from uniadapter.app.other_commands import check_data, index, list_families, pull, push, search, serve, shard
from uniadapter.app.set_up import shut_down
from uniadapter.errors import Interrupted, UsageError, user_message
from uniadapter.files.messages import shortened, suggestion
from uniadapter.processes.launcher import launched
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
        shut_down()
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
