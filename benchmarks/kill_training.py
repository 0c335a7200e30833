"""Runs that are killed at random moments and gone on with: does the adapter come out bit for bit the same?

    python benchmarks/kill_training.py [--seed N] [--out FILE]

Tiny runs through `run_training`, saved every step, each in a process forked from this one, so that imports are paid
once. A chain is a run that is killed (SIGKILL) up to three times and gone on with as a queue would, by the same call
with `resume_or_start`, then left to end; its adapter is compared, tensor by tensor, with that of a run nobody touched.
Moments are drawn from the seed, over the whole of a run: preparing, training, validating, measuring; half of them wait
for the next save and strike in it, which shows in the half-written file that is left. With two processes both are
killed, or one alone: then the other has to end by itself within a minute and say why. In one kind the newest checkpoint
is damaged after each kill: cut, a bit flipped or emptied; the run then goes on from the one before. Writes
benchmarks/results/kill_training.json; `identical` counts the kills whose chain ended with the same adapter.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from uniadapter.compare.machine import processor

sys.path += [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests" / "training")]

from training_runs import changed, make_config, save_dropping_base

from squares import save_base
from uniadapter.app.commands import run_training
from uniadapter.config import RunConfig
from uniadapter.errors import user_message
from uniadapter.files.writing import write_text
from uniadapter.training.history import HISTORY
from uniadapter.training.run_folder import CHECKPOINTS

RESULTS = Path(__file__).parent / "results"
ADAPTER = Path("adapter/adapter_model.safetensors")
PATIENCE = 60.0  # seconds that a process may take to end once it has lost the others
DONE = "had done its part"  # the first writes the report alone
logger = logging.getLogger("kill_training")


@dataclass(frozen=True)
class Kind:
    """Kills of one kind.

    Args:
        what: in words.
        config: of the runs.
        kills: how many.
        processes: of a run.
        victims: ranks that are killed.
        damages: whether the newest of two checkpoints is damaged after a kill.
    """

    what: str
    config: RunConfig
    kills: int
    processes: int = 1
    victims: tuple[int, ...] = (0,)
    damages: bool = False


class Run:
    """A run in processes of its own.

    Args:
        config: of the run; its `output` is the folder, with which it goes on if there is a checkpoint.
        processes: how many.
    """

    def __init__(self, config: RunConfig, processes: int) -> None:
        self.folder = Path(config.output)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.pids = [_fork(lambda rank=rank: _child(config, rank, processes, port)) for rank in range(processes)]
        self.ended: dict[int, int] = {}  # rank to exit status

    def poll(self) -> bool:
        """Whether all processes have ended."""
        for rank, pid in enumerate(self.pids):
            if rank not in self.ended and os.waitpid(pid, os.WNOHANG)[0]:
                self.ended[rank] = 0
        return len(self.ended) == len(self.pids)

    def wait(self, seconds: float) -> float:
        """Wait for the end, so long at most; returns the seconds it took."""
        started = time.monotonic()
        while not self.poll():
            if time.monotonic() - started > seconds:
                raise TimeoutError(f"{self.folder}: processes {self.pids} did not end within {seconds:.0f} s")
            time.sleep(0.005)
        return time.monotonic() - started

    def steps(self) -> int:
        """Steps that the history tells of."""
        file = self.folder / HISTORY
        return len(file.read_text().splitlines()) if file.exists() else 0

    def saving(self) -> bool:
        """Whether one of these processes has half-written a checkpoint."""
        return any((self.folder / f".{name}.{pid}.tmp").exists() for pid in self.pids for name in CHECKPOINTS)

    def log(self) -> str:
        """What the processes said."""
        return "\n".join(Path(f"{self.folder}.{rank}.log").read_text() for rank in range(len(self.pids)))

    def kill(self, ranks: tuple[int, ...]) -> None:
        """End processes as the kernel does when memory runs out."""
        for rank in ranks:
            if rank not in self.ended:
                os.kill(self.pids[rank], signal.SIGKILL)
        for rank in ranks:
            if rank not in self.ended:
                os.waitpid(self.pids[rank], 0)
                self.ended[rank] = -signal.SIGKILL


def _fork(child: Callable[[], None]) -> int:
    pid = os.fork()
    if not pid:
        try:
            child()
        finally:
            os._exit(1)
    return pid


def _child(config: RunConfig, rank: int, processes: int, port: int) -> None:
    """One process of a run, from its start to its end."""
    folder = Path(config.output)
    with Path(f"{folder}.{rank}.log").open("w") as log:  # of the last attempt
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        if processes > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                           "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
        try:
            run_training(config, resume_or_start=True)
            sys.stderr.write(f"{DONE}\n")
        except Exception as error:
            line = user_message(error)
            sys.stderr.write(f"error: {line}\n" if line else traceback.format_exc())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def strike(run: Run, kind: Kind, rng: random.Random, usual: float, steps: int) -> bool | None:
    """Kill a run at a random moment; returns whether that was during a save, None where it had ended before."""
    done = run.steps()
    after, in_save = rng.randint(min(done, steps - 1), steps - 1), rng.random() < 0.5
    while run.steps() < after and not run.poll():
        time.sleep(0.002)
    # Of a step, and where none is waited for of preparing, which takes most of a tiny run's time.
    moment = time.monotonic() + rng.random() * usual * (0.5 if after == done else 0.5 / steps)
    while time.monotonic() < moment and not run.poll():
        time.sleep(0.001)
    while in_save and not run.saving() and not run.poll():
        time.sleep(0.0002)
    if run.poll():
        return None
    run.kill(kind.victims)
    return run.saving()


def damage(folder: Path, rng: random.Random) -> bool:
    """Damage the newest of two checkpoints; returns whether there were two."""
    newest, previous = (folder / name for name in CHECKPOINTS)
    if not (newest.exists() and previous.exists()):
        return False
    content = newest.read_bytes()
    place = rng.randrange(len(content) // 4, len(content) // 2)  # in the tensors
    flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    newest.unlink()  # it may be a link to the one before
    newest.write_bytes(rng.choice([b"", content[:place], flipped]))
    return True


def survivors(run: Run, kind: Kind) -> tuple[float, str]:
    """How long the processes that were left alone took to end, and what they said."""
    seconds = run.wait(PATIENCE)
    left = [rank for rank in range(kind.processes) if rank not in kind.victims]
    lines = [line for rank in left for line in Path(f"{run.folder}.{rank}.log").read_text().splitlines()]
    said = [line for line in lines if line.startswith("error: ") or line == DONE]
    return seconds, said[-1] if said else ""


def measure(kind: Kind, rng: random.Random, scratch: Path) -> dict[str, Any]:
    """The row of a kind."""
    started = time.monotonic()
    untouched = Run(replace(kind.config, output=str(scratch / "untouched")), kind.processes)
    usual = untouched.wait(300)
    wanted, steps = load_file(untouched.folder / ADAPTER), untouched.steps()
    kills = during = identical = chains = damaged = 0
    slowest, said = 0.0, ""
    while kills < kind.kills:
        config = replace(kind.config, output=str(scratch / f"chain-{chains}"))
        chains += 1
        mine = 0
        while mine < 3 and kills + mine < kind.kills:
            run = Run(config, kind.processes)
            in_save = strike(run, kind, rng, usual, steps)
            if in_save is None:
                break
            mine, during = mine + 1, during + in_save
            damaged += kind.damages and damage(run.folder, rng)
            if len(kind.victims) < kind.processes:
                seconds, line = survivors(run, kind)
                slowest, said = max(slowest, seconds), said if line == DONE else line
                if not line:
                    raise RuntimeError(f"{run.folder}: the other process ended without a word: {run.log()}")
        Run(config, kind.processes).wait(300)
        found = load_file(Path(config.output) / ADAPTER)
        same = found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
        kills, identical = kills + mine, identical + mine * same
        logger.info("%s: %d kills so far, %d in a save, %d identical", kind.what, kills, during, identical)
    row: dict[str, Any] = {"what": kind.what, "kills": kills, "during_save": during, "identical": identical,
                           "chains": chains, "seconds": round(time.monotonic() - started, 1)}  # fmt: skip
    if kind.damages:
        row["damaged"] = damaged
    if said:
        row |= {"others_ended_after_seconds": round(slowest, 1), "others_said": said}
    return row


def kinds(folder: Path) -> list[Kind]:
    """What is killed."""
    plain = make_config(folder, save_base(folder / "base"), save_every=1)
    plain = replace(plain, data=replace(plain.data, test=None, val=None))
    dropping = replace(plain, model=replace(plain.model, base=str(save_dropping_base(folder / "dropping"))))
    best = replace(dropping, data=replace(plain.data, val=str(folder / "tiny_val.json")))
    best = changed(best, evaluate_every=1, keep="best")
    two = changed(dropping, epochs=2)
    return [
        Kind("adapters", plain, 5),
        Kind("with dropout", dropping, 5),
        Kind("with dropout, accumulated batches and loading processes",
             replace(changed(dropping, batch_size=2, accumulate=3), data=replace(plain.data, workers=1)), 4),
        Kind("with dropout, the best by validation kept", best, 4),
        Kind("with dropout, the newest checkpoint damaged", dropping, 4, damages=True),
        Kind("two processes with dropout, both killed", two, 3, 2, (0, 1)),
        Kind("two processes with dropout, the first alone killed", two, 3, 2, (0,)),
        Kind("two processes with dropout, the second alone killed", two, 2, 2, (1,)),
    ]  # fmt: skip


def main() -> None:
    """Kill, go on, compare, write."""
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds that have this in their name")
    parser.add_argument("--out", type=Path, default=RESULTS / "kill_training.json")
    arguments = parser.parse_args()
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    started = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for number, kind in enumerate(kinds(scratch)):
            if arguments.only not in kind.what:
                continue
            (scratch / str(number)).mkdir()
            rows.append(measure(kind, random.Random(f"{arguments.seed}/{number}"), scratch / str(number)))
    content = {
        "device": processor(),
        "torch": torch.__version__,
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - started, 1),
        **{name: sum(row[name] for row in rows) for name in ("kills", "during_save", "identical")},
        "rows": rows,
    }
    write_text(arguments.out, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    for row in rows:
        logger.info("%s", row)
    short = [row["what"] for row in rows if row["identical"] < row["kills"]]
    raise SystemExit(f"not identical: {', '.join(short)}" if short else 0)


if __name__ == "__main__":
    main()
