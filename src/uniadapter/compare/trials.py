"""Runs and their records: each is trained once and measured once, by whichever process comes first.

A record is a JSON file named by a hash of all that its figures depend on: config, seed, weights of the base, data. It
holds the correctness of each query, so that intervals can be computed afterwards. Weights are kept elsewhere: seed 0 at
the chosen rate, which the choice of the rate has trained, need not be trained again for the test split. Several
processes may work on the same list.
"""

from __future__ import annotations

import fcntl
import gc
import json
import logging
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from uniadapter.compare.machine import processor, versions, watched_memory
from uniadapter.compare.recipes import IRRELEVANT, Splits, recipe
from uniadapter.config import RunConfig
from uniadapter.files.writing import atomic_file
from uniadapter.runs.results import measure, zero_shot
from uniadapter.runs.steps import evaluate_split, save_result, train_split
from uniadapter.tasks import Result
from uniadapter.tasks.preparing import Prepared, prepare
from uniadapter.training.resume import flatten_config

logger = logging.getLogger(__name__)

Record = dict[str, Any]
OF_THE_FILE = {"right", "curve", "config", "versions", "system"}  # of a record, not in results
_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Trial:
    """A run: a config with its rate and seed, trained, and measured on validation or on the test sets.

    Args:
        arm: name of the arm, for the log.
        method: in the results' rows.
        setting: of the rows.
        config: of the run; `model.method: none` is zero-shot.
        split: "val", or "test" for the test split and the further test sets.
    """

    arm: str
    method: str
    setting: str
    config: RunConfig
    split: Literal["val", "test"]

    def __str__(self) -> str:
        train = self.config.train
        rate = "" if self.method == "zero_shot" else f" lr {train.lr:g} seed {train.seed}"
        return f"{self.arm}{rate} on {self.split}"


class Trials:
    """The records of a folder, and the runs that are missing there.

    Args:
        records: folder shared by all processes that work on the same comparison.
        splits: read once; None reads them anew.
        folder: of weights and locks; None for that of the records.
    """

    def __init__(self, records: Path, splits: Splits | None = None, folder: Path | None = None) -> None:
        self.records, self.splits, self.folder = records, splits or Splits(), folder or records
        for one in (self.records, self.folder):
            one.mkdir(parents=True, exist_ok=True)

    def key(self, trial: Trial) -> str:
        """Of the record; the same recipe under another arm's name is the same run."""
        return f"{trial.split}-{recipe(trial.config, self.splits, ('train', trial.split))}"

    def find(self, trial: Trial) -> Record | None:
        """The record of a finished run, without the correctness of its queries and what only its file tells."""
        path = self.records / f"{self.key(trial)}.json"
        if not path.exists():
            return None
        return {name: value for name, value in json.loads(path.read_text()).items() if name not in OF_THE_FILE}

    def correct(self, trial: Trial) -> dict[str, Tensor]:
        """Test set to the correctness of each query, 0 to 1, of a finished run."""
        right = json.loads((self.records / f"{self.key(trial)}.json").read_text())["right"]
        return {name: torch.tensor(values, dtype=torch.float32) for name, values in right.items()}

    def complete(self, trials: list[Trial]) -> list[Record]:
        """The records of all trials: those that are missing are run here, or awaited if another process runs them."""
        missing = list(trials)
        took: list[float] = []
        while True:
            missing = [trial for trial in missing if self.find(trial) is None]
            if not missing:
                return [record for trial in trials if (record := self.find(trial)) is not None]
            started = time.perf_counter()
            ran = next((trial for trial in missing if self._try(trial)), None)
            if ran is None:  # other processes work on all that is left
                time.sleep(_POLL_SECONDS)
                continue
            took.append(time.perf_counter() - started)
            left = len(missing) - 1
            logger.info("%d left, about %.0f min of one process", left, left * sum(took) / len(took) / 60)

    def forget_weights(self, trials: list[Trial]) -> None:
        """Delete the weights of finished runs that are not needed any more; their records stay."""
        for trial in trials:
            self._weights(trial).unlink(missing_ok=True)

    def _try(self, trial: Trial) -> bool:
        """Run a trial, unless another process is running it or has run it."""
        with claimed(self.folder / "locks" / self.key(trial)) as mine:
            if not mine or self.find(trial) is not None:
                return False
            logger.info("%s: begins", trial)
            self._run(trial)
            gc.collect()  # models refer to themselves, and would be kept until Python looks for such cycles
            return True

    def _run(self, trial: Trial) -> None:
        config = trial.config
        prepared = prepare(config)
        trained = {} if trial.method == "zero_shot" else self._trained(trial, prepared)
        record: Record = {
            "arm": trial.arm, "method": trial.method, "setting": trial.setting, "lr": config.train.lr,
            "seed": config.train.seed, **trained,
        }  # fmt: skip
        sets = self.splits.get(config, trial.split)
        if trial.split == "val":
            found = evaluate_split(prepared, sets["val"], config)
            record |= {"main": found.main, **found.scores}
            correct, headline = {"val": found.right}, found.headline
        else:
            started = time.perf_counter() - trained.get("train_seconds", 0.0)
            if trial.method == "zero_shot":
                done = zero_shot(prepared, config, sets)
            else:
                size = _checkpoint_bytes(prepared, config)
                done = measure(prepared, config, sets, trial.method, started, size, setting=trial.setting)
            record["rows"] = [{"seed": config.train.seed, **row} for row in done.rows]
            results: dict[str, Result] = {"test": done.result, **{name: one for name, (_, one) in done.extra.items()}}
            correct = {name: result.right for name, result in results.items()}
            headline = done.result.headline
        record |= {"device": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        told = {name: value for name, value in flatten_config(config).items() if name not in IRRELEVANT}
        record |= {"config": told, "versions": versions(), "system": platform.platform()}
        record |= {"num_trainable_params": prepared.counts.trainable, "num_total_params": prepared.counts.total}
        record["right"] = {name: [round(value, 6) for value in right.tolist()] for name, right in correct.items()}
        with atomic_file(self.records / f"{self.key(trial)}.json") as file:
            file.write_text(json.dumps(record) + "\n")
        if trial.split == "test":
            self.forget_weights([trial])
        logger.info("%s: %s", trial, headline)

    def _weights(self, trial: Trial) -> Path:
        return self.folder / f"weights-{recipe(trial.config, self.splits, ('train',))}.pt"

    def _trained(self, trial: Trial, prepared: Prepared) -> Record:
        """Train, or load what was trained for another split; returns the facts of the training."""
        file = self._weights(trial)
        own = {name: one for name, one in prepared.model.named_parameters() if one.requires_grad}
        if file.exists():
            content = torch.load(file, weights_only=True)
            with torch.no_grad():
                for name, parameter in own.items():
                    parameter.copy_(content["weights"][name])
            prepared.answers = content["answers"]
            return content["facts"]
        config, train = trial.config, self.splits.training(trial.config)
        wall, processor = time.perf_counter(), time.process_time()
        with watched_memory() as memory:
            trainer = train_split(prepared, train, config, validate=self._chooser(prepared, config))
        facts = {
            "steps": trainer.step, "loss": trainer.history[-1]["loss"],
            "train_seconds": round(time.perf_counter() - wall, 2),
            "train_cpu_seconds": round(time.process_time() - processor, 2),
            "memory": memory.to_dict(), "curve": trainer.history, "kept": trainer.weights_info,
        }  # fmt: skip
        weights = {name: one.detach().clone() for name, one in own.items()}
        with atomic_file(file) as temporary:
            torch.save({"weights": weights, "answers": list(prepared.answers), "facts": facts}, temporary)
        return facts

    def _chooser(self, prepared: Prepared, config: RunConfig) -> Callable[[int], float] | None:
        """What chooses the weights to keep, where they are not the last."""
        if config.train.keep == "last":
            return None
        where = "test" if config.train.keep == "best_on_test" else "val"
        split = self.splits.get(config, where)[where]
        return lambda _: evaluate_split(prepared, split, config).main


def _checkpoint_bytes(prepared: Prepared, config: RunConfig) -> int:
    """The size of the file that a user would keep."""
    with tempfile.TemporaryDirectory(prefix="uniadapter-") as folder:
        return save_result(prepared, config, Path(folder))


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process alone holds a lock, which the system releases when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def steps_per_epoch(config: RunConfig, splits: Splits) -> int:
    """How many steps an epoch of one process has; at least 1."""
    (train,) = splits.get(config, "train").values()
    return max(1, len(train.texts) // (config.train.batch_size * config.train.accumulate))


def with_steps(config: RunConfig, steps: int, splits: Splits) -> RunConfig:
    """The config with that many steps, over as many epochs as they take."""
    epochs = max(config.train.epochs, -(-steps // steps_per_epoch(config, splits)))
    return replace(config, train=replace(config.train, max_steps=steps, epochs=epochs))
