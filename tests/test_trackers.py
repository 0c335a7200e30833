"""Experiment trackers get what the run's own log gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from squares import karpathy
from test_commands import base, write_run  # noqa: F401 - a fixture
from uniadapter.app.cli import main

LEAN: dict[str, Any] = {"objective": {"queue_size": 0, "momentum": 0, "alpha": 0}}


def run(folder: Path, base: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:  # noqa: F811
    """Train for two epochs, evaluating after each; the exit status and the lines of the run's own log."""
    train = {"epochs": 2, "batch_size": 4, "evaluate_every": 1, "log_every": 1}
    config = write_run(folder, base, karpathy(folder, "tiny"), train=train, **LEAN)
    status = main(["train", str(config), "--output", str(folder / "out"), *more])
    history = folder / "out/history.jsonl"
    return status, [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []


def test_tensorboard_has_the_lines_of_the_history(tmp_path: Path, base: Path) -> None:  # noqa: F811
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    status, lines = run(tmp_path, base, "--train.trackers", "[tensorboard]")
    assert status == 0
    found = EventAccumulator(str(tmp_path / "out/tensorboard"))
    found.Reload()
    losses = {event.step: event.value for event in found.Scalars("train/loss")}
    assert losses == {line["step"]: pytest.approx(line["loss"]) for line in lines}
    validation = [event.value for event in found.Scalars("validation")]
    told = json.loads((tmp_path / "out/metrics.json").read_text())["kept"]
    assert len(validation) == 2
    assert all(0 <= value <= 100 for value in validation), told


def test_wandb_offline(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    status, lines = run(tmp_path, base, "--train.trackers", "[wandb]", "--train.project", "mine")
    assert status == 0
    (stored,) = (tmp_path / "out/wandb").glob("offline-run-*/*.wandb")
    content = stored.read_bytes()
    assert b"train/loss" in content
    assert b"train.batch_size" in content
    assert len(lines) > 1


def test_trackio_stays_on_this_machine(tmp_path: Path, base: Path) -> None:  # noqa: F811
    """In a process of its own, because trackio reads its folder's name when it is imported."""
    pytest.importorskip("trackio")
    train = {"epochs": 2, "batch_size": 4, "evaluate_every": 1, "log_every": 1}
    config = write_run(tmp_path, base, karpathy(tmp_path, "tiny"), train=train, **LEAN)
    command = ["train", str(config), "--output", str(tmp_path / "out"), "--train.trackers", "[trackio]"]
    script = f"""
import json, socket

def connect(self, address):
    called.append(str(address))
    return original(self, address)

called = []
original, socket.socket.connect = socket.socket.connect, connect
from uniadapter.app.cli import main
assert main({[*command, "--train.project", "mine"]!r}) == 0
import trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("mine")
logs = SQLiteStorage.get_logs("mine", run.name)
print(json.dumps({{"name": run.name, "config": run.config, "logs": logs, "called": called}}))
"""
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    stored = json.loads(done.stdout.splitlines()[-1])
    assert stored["called"] == [], "no connection to anywhere"
    assert stored["name"] == "out"
    assert stored["config"]["train.batch_size"] == 4
    lines = [json.loads(line) for line in (tmp_path / "out/history.jsonl").read_text().splitlines()]
    steps = [log for log in stored["logs"] if "train/loss" in log]
    for name, digits in (("loss", 0), ("lr", 0), ("samples_per_second", 0.05)):  # the history's speed is rounded
        assert [log[f"train/{name}"] for log in steps] == [pytest.approx(line[name], abs=digits) for line in lines]
    assert [log["step"] for log in steps] == [line["step"] for line in lines]
    validation = [log["validation"] for log in stored["logs"] if "validation" in log]
    assert len(validation) == 2
    assert all(0 <= value <= 100 for value in validation)


def test_a_tracker_that_is_not_installed(
    tmp_path: Path,
    base: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("uniadapter.app.trackers.find_spec", lambda name: None)
    assert run(tmp_path, base, "--train.trackers", "[trackio]")[0] == 2
    assert "pip install trackio" in capsys.readouterr().err
    assert run(tmp_path, base, "--train.trackers", "[mlflow]")[0] == 2
    assert "mlflow" in capsys.readouterr().err
