"""Workers and processes that are killed during a run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import make_config, train

from squares import save_base
from uniadapter.errors import RUN_AGAIN, DataError, user_message
from uniadapter.runs.steps import write_config
from uniadapter.training.history import HISTORY
from uniadapter.training.progress import ProgressEvent
from uniadapter.training.trainer import CHECKPOINT


def lose_a_loading_process(folder: Path) -> None:
    """Train until a loading process is killed, and print the line that a user would see."""
    config = make_config(folder, save_base(folder / "base"), save_every=1, epochs=50)
    config = replace(config, data=replace(config.data, workers=1))
    loaders: list[torch.utils.data.DataLoader[object]] = []

    def on_progress(event: ProgressEvent) -> None:
        if event.step == 2:
            os.kill(loaders[0]._iterator._workers[0].pid, signal.SIGKILL)  # type: ignore[union-attr]

    try:
        train(config, folder / "run", ready=lambda t: loaders.append(t.loader._loader), on_progress=on_progress)
    except (DataError, RuntimeError) as error:  # torch's own where it comes in the middle of a step
        print(user_message(error))  # noqa: T201


def test_a_killed_loading_process_is_one_line(tmp_path: Path) -> None:
    # In a separate process, because torch's signal handler may raise at any point, also inside pytest.
    code = (
        "import sys, test_lost_processes as test; from pathlib import Path; "
        "test.lose_a_loading_process(Path(sys.argv[1]))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120
    )
    # the one or the other as the signal comes between two batches or while one is awaited
    ended = re.match(r"a process that loads data (is killed|exited unexpectedly)", done.stdout)
    assert ended, done.stdout + done.stderr[-2000:]
    assert "data.workers" in done.stdout
    assert torch.load(tmp_path / "run" / CHECKPOINT)["place"]["step"] >= 1


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_all_processes_of_a_run_saves_and_stops(tmp_path: Path, signum: int) -> None:
    """As a terminal sends it, or a scheduler: also to the processes that load data, which the last step still needs."""
    config = make_config(tmp_path, save_base(tmp_path / "base"), epochs=5000)
    write_config(replace(config, data=replace(config.data, workers=2)), tmp_path / "run.yaml")
    command = [sys.executable, "-m", "uniadapter", "train", str(tmp_path / "run.yaml")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    history, until = tmp_path / "run" / HISTORY, time.monotonic() + 120
    while not (history.exists() and history.stat().st_size > 1000) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signum)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == (130 if signum == signal.SIGINT else RUN_AGAIN), said
    assert "everything is saved" in said
    assert torch.load(tmp_path / "run" / CHECKPOINT)["place"]["step"] > 1


def test_ctrl_c_during_imports_is_one_line() -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "uniadapter", "train", "coco"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if (
            "uniadapter.version" in line or "uniadapter.files.schema" in line
        ):  # pydantic, yaml and the rest are on their way
            break
    process.send_signal(signal.SIGINT)
    time.sleep(0)
    rest = [line for line in process.stderr if not line.startswith("import time:")]
    assert process.wait() in (130, -signal.SIGINT)
    assert rest == ["stopped\n"]
