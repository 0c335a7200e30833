"""Mutated inputs: adapter folders, `.pth`, configs, annotations, pictures and clips, each in a process that may die.

    python benchmarks/fuzz.py [--only KIND] [--count N] [--seed N] [--case KIND:NUMBER] [--list-failures FILE]

Everything is drawn from the seed, the kind and the number of the input, so that `--case adapter:17` makes the same one
again and shows its traceback. An input should be accepted or refused in one line of at most 300 characters that names
what it is about. Counted are errors, inputs that were accepted, tracebacks (and processes that died), hangs (more than
20 s) and escapes (a file written outside the input's own folder, a program started, code that an input carries run);
beside these, errors that are too long or name nothing, and runs that a picture ended although `on_error` is "skip".
Writes benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import PIL
import torch
import transformers
from fuzzing import annotations, checkpoints, configs, media
from fuzzing.running import LIMIT, Case, Draw, Outcome, attempt
from fuzzing.world import World, build

from uniadapter.compare.machine import processor

RESULTS = Path(__file__).parent / "results"
KINDS: dict[str, tuple[str, int, Callable[[World, Draw, Path], Case]]] = {
    "adapter": ("adapter folders", 300, checkpoints.adapter),
    "pth": (".pth files, a quarter with code", 400, checkpoints.pth),
    "yaml": ("configs in YAML", 250, configs.yaml_file),
    "values": ("settings on the command line", 420, configs.command_line),
    "annotations": ("annotations of every layout", 400, annotations.annotation),
    "pictures": ("pictures", 200, media.picture),
    "clips": ("clips", 120, media.clip),
}
logger = logging.getLogger("fuzz")


def outcomes(
    world: World, kind: str, seed: int, numbers: range, scratch: Path, limit: float = LIMIT
) -> Iterator[Outcome]:
    """What becomes of the inputs of a kind with these numbers."""
    make = KINDS[kind][2]
    before = _state_of(scratch)
    for number in numbers:
        outcome = attempt(partial(make, world, Draw(seed, kind, number)), scratch / f"{kind}-{number}", limit)
        if (after := _state_of(scratch)) != before:
            changed = sorted(set(after.items()) ^ set(before.items()))
            outcome.escapes.append(f"changed: {changed[0][0]}")
            before = after
        yield outcome


def _state_of(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*")}


def row(kind: str, found: list[Outcome]) -> dict[str, Any]:
    """Counts over the inputs of a kind."""
    kinds = Counter(one.kind for one in found)
    faults = Counter(fault for one in found for fault in one.faults)
    return {
        "what": KINDS[kind][0],
        "inputs": len(found),
        "errors": kinds["error"],
        "accepted": kinds["accepted"],
        "tracebacks": kinds["traceback"],
        "hangs": kinds["hang"],
        "escapes": sum(bool(one.escapes) for one in found),
        "errors_too_long": faults["long"],
        "errors_naming_nothing": faults["unnamed"] + faults["without a line"],
        "stopped_despite_skip": faults["stopped"],
        "slowest_seconds": round(max(one.seconds for one in found), 1),
    }


def failures(found: dict[str, list[Outcome]]) -> str:
    """What went wrong, by kind, exception and place, as Markdown."""
    lines = []
    for kind, ended in found.items():
        groups: dict[tuple[str, str, str], list[tuple[int, Outcome]]] = {}
        for number, one in enumerate(ended):
            words = one.text if one.kind != "hang" else ""
            for fault in [*([one.kind] if one.kind in ("traceback", "hang") else []), *one.faults,
                          *(["escape"] if one.escapes else [])]:  # fmt: skip
                key = (fault, one.place, words[:60] if fault == "traceback" else "")
                groups.setdefault(key, []).append((number, one))
        lines.append(f"\n## {kind}: {len(ended)} inputs, {row(kind, ended)}\n")
        for (fault, place, _), members in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]))):
            number, one = members[0]
            numbers = " ".join(str(n) for n, _ in members[:6])
            words = "; ".join(one.escapes) if fault == "escape" else one.text
            lines.append(
                f"- **{fault}** {len(members)}x {place}: {words[:200]} | `{one.what[:160]}` | {kind}:{numbers}"
            )
    return "\n".join(lines) + "\n"


def show(world: World, case: str, seed: int, scratch: Path) -> None:
    """One input in this process, with whatever it prints and raises."""
    kind, _, number = case.partition(":")
    folder = scratch / f"{kind}-{number}"
    folder.mkdir()
    made = KINDS[kind][2](world, Draw(seed, kind, int(number)), folder)
    logger.info("%s\nuniadapter %s", made.what, " ".join(ascii(a)[:300] for a in made.arguments))
    from uniadapter.app.cli import main as run

    logger.info("exit status %d", run(made.arguments))


def main() -> None:
    """Mutate, run, count, write."""
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(KINDS), action="append", help="a kind; several times for several")
    parser.add_argument("--count", type=int, help="inputs of each kind; 2,090 in all without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", help="KIND:NUMBER, shown with its traceback")
    parser.add_argument("--list-failures", type=Path, help="a Markdown file of what went wrong")
    parser.add_argument("--out", type=Path, help="benchmarks/results/fuzz.json where everything is run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kinds = arguments.only or list(KINDS)
    with tempfile.TemporaryDirectory() as folder:
        scratch, started = Path(folder), time.monotonic()
        world = build(scratch / "world")
        if arguments.case:
            show(world, arguments.case, arguments.seed, scratch)
            return
        found = {}
        for kind in kinds:
            numbers = range(arguments.count or KINDS[kind][1])
            found[kind] = list(outcomes(world, kind, arguments.seed, numbers, scratch))
            logger.info("%s", json.dumps(row(kind, found[kind])))
            if arguments.list_failures:
                arguments.list_failures.write_text(failures(found))
        spent = time.monotonic() - started
    whole = arguments.only is None and arguments.count is None
    if out := arguments.out or (RESULTS / "fuzz.json" if whole else None):
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "av": av.__version__,
                    "pillow": PIL.__version__, "python": platform.python_version()}  # fmt: skip
        rows = [row(kind, ended) for kind, ended in found.items()]
        result = {"device": processor(), "versions": versions, "seed": arguments.seed, "limit_seconds": LIMIT,
                  "seconds": round(spent), "inputs": sum(one["inputs"] for one in rows), "rows": rows}  # fmt: skip
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
