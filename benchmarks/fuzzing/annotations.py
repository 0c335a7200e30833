"""Mutated annotation files of every layout."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import yaml

from fuzzing.running import Case
from fuzzing.values import LONG, SURROGATE, as_json, brief, damaged_text, mutated
from fuzzing.world import Annotated, World, as_csv, config, written

CELLS = ("", " ", "x", "null", "0", "-1", LONG, LONG * 2, SURROGATE, "\x00", '"', "a,b", "a\nb", "\t", "../x.png", "/",
         "a\rb", "[]", "🙂", "=1+1", "#", "red.png", "1e400")  # fmt: skip


def annotation(world: World, rng: random.Random, folder: Path) -> Case:
    """An annotation file with a value, a cell or its bytes changed, measured on or trained on."""
    one = rng.choice(world.annotations)
    here = folder / "here"
    here.mkdir()
    for other in world.annotations:
        if any(f"HERE/{other.file}" in json.dumps(values) for values in (one.data,)):
            (here / other.file).write_bytes(written(other))
    file = here / one.file
    content, what = _broken(one, rng)
    if what == "a pipe":
        os.mkfifo(file)
    elif what == "a folder":
        file.mkdir()
    elif what == "a loop":
        file.symlink_to(file)
    else:
        file.write_bytes(content)
    trains = rng.random() < 0.3 or one.task == "caption"  # scores of captions need a package of their own
    skip = rng.random() < 0.4
    data: dict[str, Any] = json.loads(json.dumps(one.data).replace("HERE", str(here)))
    data[one.field] = {"test": str(file)} if one.field == "annotations" else str(file)
    if trains:
        data["train"] = data.pop("test")
        if "annotations" in data:
            data["annotations"] = {"train": data["annotations"]["test"]}
    elif one.task == "vqa" and one.field != "answer_list":
        data["answer_list"] = str(world.folder / "answers.json")
    data["on_error"] = "skip" if skip else "raise"
    run = folder / "run.yaml"
    run.write_text(yaml.safe_dump(config(world, one.task, str(folder / "run"), **data)))
    command = "train" if trains else "evaluate"
    arguments = [command, str(run)]
    return Case(f"{one.file} {command} {data['on_error']}: {what}", arguments, (one.file, str(here)))


def _broken(one: Annotated, rng: random.Random) -> tuple[bytes, str]:
    form = rng.random()
    if form < 0.03:
        return b"", rng.choice(("a pipe", "a folder", "a loop"))
    if form < 0.25:
        return damaged_text(written(one), rng)
    if form < 0.28:
        return gzip.compress(written(one)), "gzip"
    if one.rows is None:
        content, what = mutated(one.content, rng)
        return as_json(content, one.lines), what
    rows, what = _other_rows(copy.deepcopy(one.rows), rng)
    return as_csv(rows, "\t" if one.file.endswith(("tsv", "token")) else rng.choice((",", ",", ",", ";", "|"))), what


def _other_rows(rows: list[list[str]], rng: random.Random) -> tuple[list[list[str]], str]:
    place = rng.randrange(len(rows))
    column = rng.randrange(len(rows[place]))
    kind = rng.choice(("cell", "cell", "cell", "cell", "short", "wide", "drop", "twice", "none", "headless"))
    if kind == "cell":
        rows[place][column] = rng.choice(CELLS)
        return rows, f"row {place} column {column}={brief(rows[place][column])}"
    if kind == "short":
        del rows[place][column]
    elif kind == "wide":
        rows[place] += ["x"] * rng.choice((1, 10_000))
    elif kind == "drop":
        del rows[place]
    elif kind == "twice":
        rows.insert(place, list(rows[place]))
    elif kind == "none":
        rows[place] = []
    else:
        del rows[1:]
    return rows, f"{kind} row {place}"
