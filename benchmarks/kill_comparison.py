"""A comparison that is killed and started again: what is lost, and is the table the same?

    python benchmarks/kill_comparison.py [--kills N] [--seed N] [--out FILE]

Three methods, two seeds, tiny runs, each start in a process forked from this one, so that imports are paid once. At
random moments the process gets SIGKILL, and the same command is given again, until it has been killed often enough and
ends. Written to benchmarks/results/kill_comparison.json: finished records that a kill has destroyed or changed (none
may be: then at most the run in progress is lost), and whether learning rates and results are those of a comparison that
nobody touched.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from squares import save_base
from test_compare_command import write_comparison
from uniadapter.app.comparing import run_comparison
from uniadapter.app.parsing import read_comparison
from uniadapter.compare.machine import processor
from uniadapter.config import CompareConfig
from uniadapter.files.writing import write_text

RESULTS = Path(__file__).parent / "results"
MEASURED = ("train_seconds", "train_cpu_seconds", "seconds", "peak_memory_bytes", "memory", "steps")


def start(config: CompareConfig) -> int:
    """Run a comparison in a process of its own; its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            run_comparison(config)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def records(folder: Path) -> dict[str, bytes]:
    """Name to content of each finished record."""
    return {file.name: file.read_bytes() for file in (folder / "records").glob("*.json")}


def without_times(value: Any) -> Any:
    """The same without what differs between two runs of one thing."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in MEASURED}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def outcome(folder: Path) -> list[Any]:
    """Learning rates and results, without times."""
    return [without_times(json.loads((folder / name).read_text())) for name in ("learning-rates.json", "results.json")]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "kill_comparison.json")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        base = save_base(place / "base")
        whole = read_comparison(str(write_comparison(place, base, output=str(place / "whole"))))
        began = time.perf_counter()
        assert os.waitpid(start(whole), 0)[1] == 0
        took = time.perf_counter() - began
        broken = read_comparison(str(write_comparison(place, base, output=str(place / "broken"))))
        rows, kills = [], 0
        while True:
            before, process = records(place / "broken"), start(broken)
            moment = rng.uniform(0.02, 0.2) * took
            until = time.perf_counter() + moment if kills < asked.kills else float("inf")
            ended = 0
            while not ended and time.perf_counter() < until:
                ended, status = os.waitpid(process, os.WNOHANG)
                time.sleep(0.005)
            if ended:
                assert status == 0
                break
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            after, kills = records(place / "broken"), kills + 1
            lost = sum(after.get(one) != content for one, content in before.items())
            rows.append({"after_seconds": round(moment, 2), "finished": len(after), "lost": lost})
        same = without_times(outcome(place / "whole")) == without_times(outcome(place / "broken"))
        total = len(records(place / "whole"))
    write_text(asked.out, json.dumps({
        "device": processor(), "seed": asked.seed, "seconds_undisturbed": round(took, 1), "runs": total, "kills": kills,
        "records_lost": sum(row["lost"] for row in rows), "same_rates_and_results": same, "each": rows,
    }, indent=2) + "\n")  # fmt: skip


if __name__ == "__main__":
    main()
