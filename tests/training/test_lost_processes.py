"""Workers and processes that are killed or hang during a run."""

from __future__ import annotations

import multiprocessing
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
from training_runs import assert_same, make_config, train, weights

from squares import save_base
from uniadapter.data.batches import LoadRequest
from uniadapter.data.loaders import visual_loader
from uniadapter.data.samples import LoadedVisual, TrainDataset, VisualDataset
from uniadapter.errors import RUN_AGAIN, DataError, user_message
from uniadapter.runs.steps import load_split, write_config
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


def test_processes_that_hang_are_replaced_and_nothing_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stopped, they answer to nothing but SIGKILL."""
    config = make_config(tmp_path, save_base(tmp_path / "base"))
    whole = train(config)
    config = replace(config, data=replace(config.data, workers=2, timeout=1))
    loaders: list[torch.utils.data.DataLoader[object]] = []
    stopped: list[int] = []

    def on_progress(event: ProgressEvent) -> None:
        if event.step in (2, 7):
            for worker in loaders[0]._iterator._workers:  # type: ignore[union-attr]
                os.kill(worker.pid, signal.SIGSTOP)
                stopped.append(worker.pid)

    found = train(config, ready=lambda t: loaders.append(t.loader._loader), on_progress=on_progress)  # type: ignore[arg-type]
    assert_same(weights(found), weights(whole))
    told = [line for line in caplog.messages if "data.timeout" in line]
    assert len(told) == 2
    assert all("new processes load this batch once more" in line for line in told)
    for pid in stopped:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_batch_that_hangs_twice_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(tmp_path, save_base(tmp_path / "base"), save_every=1)
    config = replace(config, data=replace(config.data, workers=1, timeout=1))
    original = TrainDataset.__getitem__

    def hanging(self: TrainDataset, load: LoadRequest) -> list[LoadedVisual]:
        if load.group[0] == 3:
            time.sleep(3600)
        return original(self, load)

    monkeypatch.setattr(TrainDataset, "__getitem__", hanging)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"no batch came .* within 1 s \(data.timeout\)") as error:
        train(config, tmp_path / "run")
    assert time.monotonic() - began < 60
    assert user_message(error.value) == str(error.value)
    assert not multiprocessing.active_children()


def test_in_evaluation_it_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(tmp_path, save_base(tmp_path / "base"))
    split = load_split(config, "test")
    loader = visual_loader(split, replace(config.data, workers=1, timeout=1), size=32, batch_size=4)
    monkeypatch.setattr(VisualDataset, "__getitem__", lambda *_: time.sleep(3600))
    with pytest.raises(DataError, match=r"\(data.timeout\)"):
        list(loader)
