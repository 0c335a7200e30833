"""The steps from packages to `assets/`, with what each is made from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from uniadapter.embedded import emoji_scenes
from uniadapter.files.writing import write_text
from world.pictures import concepts, gathering, leakage
from world.pictures.sources import CACHE
from world.shipping.base_card import base_card
from world.shipping.data_cards import clips_card, drawn_card, scenes_card
from world.shipping.figures import FOLDER, SPEECH, STAGES
from world.shipping.hashes import SPLITS, write_hashes
from world.shipping.licences import copy_licences
from world.shipping.steps import Step, fingerprint
from world.stages import folder
from world.stages.stage3 import read_joint
from world.tasks.__main__ import write_tasks
from world.texts import vocabulary

WORLD = FOLDER.parent
FINAL = FOLDER / "stage4.safetensors"
# What a stage begins with beside the first one's encoder.
BASES = {"stage3": ("--base", "stage2"), "stage4": ("--base", "stage2", "--decoder", "stage3")}
RENDERER = Path(emoji_scenes.__file__)


def code(*names: str) -> tuple[Path, ...]:
    """Files and folders of `world/`."""
    return tuple(WORLD / name for name in names)


def run(*arguments: object) -> None:
    """Run a module of the world in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    subprocess.run([sys.executable, "-m", *map(str, arguments)], check=True, cwd=WORLD.parent)


def check_concepts() -> None:
    """Choose the concepts anew and compare them with the committed ones, on which all else rests.

    Raises:
        ValueError: others were chosen, or two of them are near-twins.
    """
    kept = concepts.read_concepts()
    concepts.check_distinct(kept)
    if concepts.choose() != kept:
        raise ValueError(
            f"{concepts.FILE}: the pictures and candidates give other concepts; if that is wanted, write them with "
            "python -m world.pictures.concepts, and everything anew with --retrain"
        )
    if vocabulary.gather() != vocabulary.FILE.read_text().splitlines():
        raise ValueError(
            f"{vocabulary.FILE}: the names give other words; write them with python -m world.texts.vocabulary"
        )


def train(stage: str, work: Path) -> None:
    """Run a stage, or go on with it, and keep its weights and log in `world/stages`.

    Its checkpoint is in a folder named by what it begins with, so that another beginning is another run.
    """
    begins = [FOLDER / f"{earlier}.safetensors" for earlier in STAGES[: STAGES.index(stage)]]
    out = work / f"{stage}-{fingerprint([*begins, concepts.FILE, vocabulary.FILE, CACHE / 'pictures.npz'])[:12]}"
    given = [a if a.startswith("--") else FOLDER / f"{a}.safetensors" for a in BASES.get(stage, ())]
    run(f"world.stages.{stage}", "--out", out, "--export", FOLDER / f"{stage}.safetensors", *given)
    shutil.copyfile(out / "log.jsonl", FOLDER / f"{stage}.log.jsonl")


def measure() -> None:
    """Measure the joint stage's base and decoder."""
    run("world.measures.fusion", FINAL, FOLDER / "stage4.json")
    run("world.measures.speech", FINAL, FOLDER / SPEECH)


def replace(source: Path, target: Path) -> None:
    """Put a folder in another's place."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def export_base(out: Path) -> None:
    """The folder that transformers load."""
    shutil.rmtree(out / "backbone", ignore_errors=True)
    folder.write(*read_joint(FINAL), out / "backbone")


def ship(tasks: Path, out: Path) -> None:
    """The task sets with their licences, and how near their pictures are to pre-training's."""
    for name in ("scenes", "drawn", "clips"):
        replace(tasks / name, out / name)
        write_hashes(out / name, SPLITS)
    shutil.copyfile(tasks / "facts.json", out / "facts.json")
    write_text(out / "scenes" / "leakage.json", json.dumps(leakage.measure(), indent=1) + "\n")
    copy_licences(out / "scenes", out / "clips", out / "drawn")


def write_cards(out: Path) -> None:
    """The four cards, of what is in the folders and in `world/stages`."""
    facts = json.loads((out / "facts.json").read_text())
    near = json.loads((out / "scenes" / "leakage.json").read_text())
    write_text(out / "backbone" / "README.md", base_card(out / "backbone", near))
    write_text(out / "scenes" / "README.md", scenes_card(out / "scenes", facts, near))
    write_text(out / "drawn" / "README.md", drawn_card(out / "drawn", facts))
    write_text(out / "clips" / "README.md", clips_card(out / "clips", facts, near))


def steps(out: Path, work: Path = CACHE) -> list[Step]:
    """All steps, in order.

    Args:
        out: folder of what ships.
        work: folder of what doesn't: task sets, checkpoints.
    """
    pictures, kept = (CACHE / "pictures.npz", CACHE / "words.json"), (concepts.FILE, vocabulary.FILE)
    gathered = code("pictures/sources.py", "pictures/emoji.py", "pictures/rendering.py", "pictures/gathering.py")
    weights = [FOLDER / f"{stage}.safetensors" for stage in STAGES]
    logs = [FOLDER / f"{stage}.log.jsonl" for stage in STAGES]
    figures = (FOLDER / "stage4.json", FOLDER / SPEECH)
    shape, base = code("stages/folder.py", "stages/blip.py"), (out / "backbone" / "model.safetensors",)
    facts, tasks = (out / "facts.json", out / "scenes" / "leakage.json"), work / "tasks"
    data = (*facts, out / "scenes" / "sprites.webp", out / "drawn" / "sprites.webp", out / "clips" / "single")
    cards = tuple(out / name / "README.md" for name in ("backbone", "scenes", "drawn", "clips"))

    def stage(name: str, file: Path) -> Step:
        return Step(name, (), (file,), lambda: train(name, work), kept=True)

    return [
        Step("pictures", gathered, pictures, gathering.gather),
        Step("concepts", (*pictures, *kept, *code("pictures", "texts")), kept, check_concepts),
        *map(stage, STAGES, weights),
        Step("figures", (), figures, measure, kept=True),
        Step("backbone", (*weights, *kept, *shape), base, lambda: export_base(out)),
        Step("tasks", (*pictures, *kept, RENDERER, *code("tasks", "texts")), (tasks,), lambda: write_tasks(tasks, 0)),
        Step("assets", (tasks, *pictures, *code("pictures", "shipping")), data, lambda: ship(tasks, out)),
        Step("cards", (tasks, *facts, *base, *logs, *figures, *code("shipping")), cards, lambda: write_cards(out)),
        Step("hashes", (out,), (out / "SHA256SUMS",), lambda: write_hashes(out)),
    ]
