"""From packages to `assets/`: pictures, the stages of pre-training, the base's folder, the tasks, cards and hashes.

    python -m world                      # what is missing or out of date
    python -m world --only cards         # one step
    python -m world --retrain stage3     # a stage and those after it; without a name, all stages
    python -m world --check              # build beside what is there and compare, changing nothing

Packages are fetched with npm (1.1 GB with the animations) into `.cache/world`. A stage whose weights are in
`world/stages` is not trained again unless that is asked for; one that breaks off goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

from world.pictures.sources import CACHE
from world.shipping.figures import STAGES, stages
from world.shipping.hashes import compare, hashes_of, read_hashes
from world.shipping.recipe import steps
from world.shipping.steps import build

LOG = logging.getLogger("world")
ASSETS = Path(__file__).resolve().parents[1] / "assets"
TRAINED = "adapters/"  # written by benchmarks/trained_adapters.py
CHECKED = ("backbone", "tasks", "assets", "cards")


def retrained(asked: str | None) -> frozenset[str]:
    """The steps that `--retrain` makes anew: the stage and those after it, with their figures."""
    if asked is None:
        return frozenset()
    return frozenset((*STAGES[STAGES.index(asked) :], "figures"))


def check(out: Path) -> int:
    """Build from the committed weights beside `out`, and compare; the number of files that differ and should not."""
    build([step for step in steps(out) if step.name in ("pictures", "concepts")], CACHE / "stamps")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        build([step for step in steps(place / "assets", place) if step.name in CHECKED], place / "stamps")
        kept = {name: value for name, value in read_hashes(out).items() if not name.startswith(TRAINED)}
        wrong, varying = compare(kept, hashes_of(place / "assets"))
    for line in varying:
        LOG.info("differs, as it may: %s", line)
    for line in wrong:
        LOG.error("differs: %s", line)
    LOG.info("%d files differ that should not, %d as they may", len(wrong), len(varying))
    return len(wrong)


def main(given: list[str] | None = None) -> int:
    """Parse and run; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [step.name for step in steps(ASSETS)]
    parser.add_argument("--only", choices=names, metavar="STEP", help=f"one of {', '.join(names)}")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder of what ships")
    parser.add_argument(
        "--retrain", nargs="?", const=STAGES[0], choices=STAGES, metavar="STAGE", help="train it and all after it anew"
    )
    parser.add_argument("--check", action="store_true", help="compare a fresh build with what is in the folder")
    args = parser.parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if args.check:
        return int(check(args.out) > 0)
    build(steps(args.out), CACHE / "stamps", args.only, retrained(args.retrain))
    for stage, row in stages().items():
        LOG.info("%s: %d steps, seed %s, %.2f CPU hours", stage, row["step"], row["settings"]["seed"],
                 row["cpu_seconds"] / 3600)  # fmt: skip
    if not args.only or args.only == "hashes":
        for name, value in read_hashes(args.out).items():
            print(f"{value}  {name}")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
