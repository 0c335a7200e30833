"""Figures of the base, as the stages' logs and measures have them: the cards quote nothing else."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from world.stages import stage1, stage2, stage3, stage4

FOLDER = Path(stage1.__file__).parent
ARGUMENTS = {"stage1": stage1.arguments, "stage2": stage2.arguments, "stage3": stage3.arguments,
             "stage4": stage4.arguments}  # fmt: skip
STAGES = tuple(ARGUMENTS)
SPEECH = "stage4_speech.json"


def defaults(stage: str) -> dict[str, Any]:
    """What a stage is run with where the command line says nothing."""
    parser: argparse.ArgumentParser = ARGUMENTS[stage]()
    return {action.dest: action.default for action in parser._actions if action.default != argparse.SUPPRESS}


def read_log(file: Path) -> dict[str, Any]:
    """How a stage ended: its last record, with `cpu_seconds` of all sittings and the `settings` of the last one."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    settings = [row["settings"] for row in rows if "settings" in row]
    last = [row for row in rows if "settings" not in row][-1]
    return {**last, "settings": settings[-1] if settings else {}}


def stages(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """`read_log` of every stage that has a log, with the defaults for what a log says nothing of."""
    found = {}
    for stage in STAGES:
        log = folder / f"{stage}.log.jsonl"
        if log.exists():
            row = read_log(log)
            found[stage] = {**row, "settings": {**defaults(stage), **row["settings"]}}
    return found


def measured(folder: Path = FOLDER) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was measured of fusion and of speech, by style: of the joint stage, or of the earlier ones before it is.

    Returns:
        Two dictionaries with `stage` and `styles`.

    Raises:
        FileNotFoundError: nothing was measured.
    """
    fusion = _first(folder, ("stage4.json", "stage2.json"))
    speech = _first(folder, (SPEECH, "stage3.json"))
    return fusion, speech


def _first(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    for name in names:
        if (folder / name).exists():
            return {"stage": name[5], **json.loads((folder / name).read_text())}
    raise FileNotFoundError(f"{folder} has none of {', '.join(names)}: measure the base with python -m world.measures")
