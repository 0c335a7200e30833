"""Write the task sets: ``python -m world.tasks`` writes ``.cache/world/tasks``.

    python -m world.tasks                     # specifications, atlas, animations, counts
    python -m world.tasks --render FOLDER     # and what is made of them at first use

Needs the pictures that ``python -m world.pictures.gathering`` gathers; the packages of animations are fetched with npm
where they are missing (700 MB).
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
from pathlib import Path

from uniadapter.embedded.annotations import read_specifications
from uniadapter.embedded.emoji_clips import prepare_clips
from uniadapter.embedded.emoji_scenes import prepare_scenes
from world.pictures.sources import CACHE, HELD_OUT
from world.tasks.animations import animation_files, frames_of, write_animation
from world.tasks.atlas import write_atlas
from world.tasks.names import Names, task_names
from world.tasks.writing import write_clips, write_drawn, write_scenes

LOG = logging.getLogger(__name__)
OUT = CACHE / "tasks"


def write_animations(out: Path, names: Names, seed: int) -> set[str]:
    """Write `single/CODE.mp4` for each concept that the packages animate, and `clips.json`; returns their codes."""
    (out / "single").mkdir(parents=True)
    moving, novel, files = set(), set(names.novel), animation_files()
    for code in sorted(names.of.keys() & files.keys()):
        frames = frames_of(files[code])
        if frames:
            write_animation(frames, out / "single" / f"{code}.mp4", random.Random(f"{seed}:{code}"))
            moving.add(code)
    table = {code: {"label": names.of[code][0], "novel": code in novel} for code in sorted(moving)}
    (out / "clips.json").write_text(json.dumps(table).replace("}, ", "},\n") + "\n")
    return moving


def write_tasks(out: Path, seed: int) -> None:
    """Write everything into `out`, in the place of what was there."""
    shutil.rmtree(out, ignore_errors=True)
    names = task_names()
    facts: dict = {"seed": seed, "concepts": {"seen": len(names.seen), "novel": len(names.novel)}}
    facts["scenes"] = write_scenes(out / "scenes", names, seed)
    write_atlas(names, out / "scenes")
    facts["drawn"] = write_drawn(out / "drawn", names, seed)
    drawn = {code for row in read_specifications("drawn", "test", out / "drawn") for code, *_ in row["objects"]}
    write_atlas(names, out / "drawn", HELD_OUT, drawn)
    moving = write_animations(out / "clips", names, seed)
    facts["concepts"]["animated"] = len(moving)
    facts["clips"] = write_clips(out / "clips", names, moving, seed)
    (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--render", type=Path, default=None, help="folder for pictures, clips and annotation files")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    write_tasks(args.out, args.seed)
    if args.render:
        prepare_scenes(args.render, args.out / "scenes")
        prepare_scenes(args.render, args.out / "drawn", "drawn")
        prepare_clips(args.render, args.out / "clips")


if __name__ == "__main__":
    main()
