"""The commands that train, measure and use a model; torch is imported only to run them."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from uniadapter.app.arguments import Parser, adapter_option, int_between, path_option
from uniadapter.app.parsing import parse_run, read_comparison
from uniadapter.app.set_up import set_up, shut_down
from uniadapter.checkpoints.compatibility import check_files, check_fits_folder, check_split
from uniadapter.errors import Interrupted, UsageError
from uniadapter.files.writing import check_output_folder
from uniadapter.processes.launcher import part_from_others

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
    set_up()
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
    shut_down()  # here, where the error holds the model no more
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
    set_up()
    from uniadapter.app.measuring import run_evaluation

    adapter = _adapter(chosen.adapter)
    run_evaluation(config, adapter, chosen.split, chosen.stated)


def ask(arguments: list[str]) -> None:
    """`uniadapter ask`."""
    parser = _predicting("ask", "answer questions about a picture or video")
    parser.add_argument("questions", nargs="+", help="in quotes")
    parser.add_argument(
        "--answers", type=path_option, help="JSON list of answers to choose from; else the adapter's own"
    )
    chosen = parser.parse_args(arguments)
    answers = Path(chosen.answers) if chosen.answers else None
    set_up()
    from uniadapter.app.predicting import run_prediction

    run_prediction(
        "vqa", Path(chosen.file), chosen.questions, chosen.base, _adapter(chosen.adapter), answers, chosen.frames
    )


def caption(arguments: list[str]) -> None:
    """`uniadapter caption`."""
    chosen = _predicting("caption", "write a caption for a picture or video").parse_args(arguments)
    set_up()
    from uniadapter.app.predicting import run_prediction

    run_prediction("caption", Path(chosen.file), [], chosen.base, _adapter(chosen.adapter), None, chosen.frames)


def _predicting(command: str, description: str) -> Parser:
    parser = Parser(prog=f"uniadapter {command}", description=description)
    parser.add_argument("file", type=path_option, help="a picture, a video, or a folder of frames")
    parser.add_argument("--adapter", type=adapter_option, help="as for evaluate; without one, the base alone")
    parser.add_argument("--base", type=path_option, help="base model; without it the adapter's, or the embedded one")
    parser.add_argument("--frames", type=int_between(1, 1024), help="of a video; without it as the adapter was trained")
    return parser


def _adapter(named: str | None) -> Path | None:
    """The folder of an adapter that the command line names; one that is elsewhere is pulled."""
    if named and "://" in named:
        from uniadapter.checkpoints.locating import locate_adapter

        return locate_adapter(named)
    return Path(named) if named else None


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
    set_up()
    first = part_from_others()
    from uniadapter.app.comparing import run_comparison, run_comparisons

    if several:
        run_comparisons(configs, chosen.part, tuple(chosen.only), first)
    else:
        run_comparison(config, chosen.part, tuple(chosen.only), first)


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
    set_up()
    from uniadapter.app.demo import run_demo

    run_demo(chosen.task, Path(output), chosen.seed)


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
    set_up()
    from uniadapter.app.converting import run_conversion

    words = Path(chosen.tokenizer) if chosen.tokenizer else None
    run_conversion(Path(chosen.file), Path(chosen.output), chosen.kind, chosen.frame_aware, counts, words)
