"""The runs of a comparison: what a record depends on, and several processes at the same table."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squares import karpathy, save_base
from tiny_comparison import EVERYTHING, FULL, tiny_configs, tiny_task
from uniadapter.compare import comparison, trials
from uniadapter.runs.steps import load_split, train_split
from uniadapter.tasks.preparing import prepare

ROOT = Path(__file__).parents[1]


def test_records_depend_on_config_base_data_and_seed(tmp_path: Path) -> None:
    configs = tiny_configs(tmp_path)
    task = tiny_task(tmp_path)
    trial = trials.Trial(EVERYTHING, EVERYTHING, "", configs[EVERYTHING], "val")

    def key(**changes: Any) -> str:
        config = trial.config
        for section, values in changes.items():
            config = replace(config, **{section: replace(getattr(config, section), **values)})
        return trials.Trials(tmp_path / "cache", task.trials.splits).key(replace(trial, config=config))

    same = [key(), key(train={"log_every": 7}, evaluate={"block": 9, "batch_size": 3}, data={"workers": 1})]
    assert same[0] == same[1]
    (tmp_path / "other").mkdir()
    moved = karpathy(tmp_path / "other", "tiny")
    assert key(data={"train": moved["train"], "val": moved["val"], "root": None}) == same[0]
    rows = json.loads(Path(moved["val"]).read_text())
    Path(moved["val"]).write_text(json.dumps(rows[1:]))
    base = save_base(tmp_path / "second", seed=5)
    others = [
        key(train={"seed": 1}), key(train={"lr": 1e-3}), key(evaluate={"k": 2}), key(model={"base": str(base)}),
        trials.Trials(tmp_path / "cache", trials.Splits()).key(
            replace(trial, config=replace(trial.config, data=replace(trial.config.data, **{"val": moved["val"]})))
        ),
        trials.Trials(tmp_path / "cache").key(replace(trial, split="test")),
    ]  # fmt: skip
    assert len({*others, same[0]}) == len(others) + 1


SECOND = """
import logging, sys
from pathlib import Path
from tiny_comparison import tiny_task
from uniadapter.compare import comparison
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
task = tiny_task(Path(sys.argv[1]))
trials = [trial for mine in comparison.rate_trials(task, comparison.own_grids(task)).values() for trial in mine]
task.trials.complete(trials)
"""


@pytest.mark.slow
def test_two_processes_share_the_runs_of_a_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = tiny_task(tmp_path)
    every = [trial for mine in comparison.rate_trials(task, comparison.own_grids(task)).values() for trial in mine]
    command = [sys.executable, "-c", SECOND, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT / "tests") as other:
        while not list((tmp_path / "cache").glob("locks/*")) and other.poll() is None:
            time.sleep(0.05)
        with caplog.at_level("INFO", "uniadapter.compare.trials"):
            found = task.trials.complete(every)
        theirs = (other.communicate()[0] or "").splitlines()
    assert other.returncode == 0
    begun = [[line for line in lines if line.endswith(": begins")] for lines in (caplog.messages, theirs)]
    assert min(map(len, begun)) >= 1
    assert sorted(begun[0] + begun[1]) == sorted(f"{trial}: begins" for trial in every)
    assert [row["lr"] for row in found] == [trial.config.train.lr for trial in every]


def test_a_run_in_progress_is_left_to_its_process(tmp_path: Path) -> None:
    with trials.claimed(tmp_path / "locks/one") as mine:
        assert mine
        with trials.claimed(tmp_path / "locks/one") as second, trials.claimed(tmp_path / "locks/two") as other:
            assert not second
            assert other
    with trials.claimed(tmp_path / "locks/one") as mine:
        assert mine


def test_more_steps_take_more_epochs(tmp_path: Path) -> None:
    config, splits = tiny_configs(tmp_path)[FULL], trials.Splits()
    longer = trials.with_steps(config, 9, splits)
    assert (longer.train.epochs, longer.train.max_steps) == (3, 9)
    assert train_split(prepare(longer), load_split(longer, "train"), longer).step == 9
    assert trials.with_steps(config, 3, splits).train.epochs == 2
