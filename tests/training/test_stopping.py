"""Signals: the first one saves and stops, a launcher's repetition is ignored, and ignored signals stay ignored."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from training_runs import changed, make_config, train

from squares import save_base
from uniadapter.app.cli import main
from uniadapter.config import RunConfig
from uniadapter.errors import Interrupted
from uniadapter.runs.steps import write_config
from uniadapter.training.stopping import SIGNALS, GracefulStop, raising_interrupted
from uniadapter.training.trainer import CHECKPOINT, ProgressEvent


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("stopping")
    return make_config(folder, save_base(folder / "base"))


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_saves_and_stops(
    tmp_path: Path, config: RunConfig, capsys: pytest.CaptureFixture[str], signum: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    write_config(config, file)
    from uniadapter.training.history import StepLog

    append = StepLog.append

    def spy(self: StepLog, record: dict[str, object]) -> None:
        append(self, record)
        if record["step"] == 2:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(StepLog, "append", spy)
    out = tmp_path / "a folder"
    with pytest.raises(SystemExit) as stop:
        main(["train", str(file), "--output", str(out)])
    assert stop.value.code == 128 + signum
    said = capsys.readouterr().out
    assert "stopped at step" in said
    assert f"--output '{out}' --resume" in said
    assert (out / CHECKPOINT).is_file()
    assert not (out / "adapter").exists()
    assert signal.getsignal(signum) in (signal.default_int_handler, signal.SIG_DFL)


def test_without_a_folder_it_does_not_say_saved(config: RunConfig) -> None:
    def on_progress(event: ProgressEvent) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped at step 1; nothing was saved"):
        train(changed(config, epochs=1), on_progress=on_progress)


def test_the_echo_of_a_signal_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("uniadapter.training.stopping.time.monotonic", lambda: now[0])
    with GracefulStop() as stopping:
        os.kill(os.getpid(), signal.SIGINT)
        now[0] += 0.3
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.signum == signal.SIGINT
        now[0] += 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    """As under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulStop() as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopping.signum
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_while_validation_runs_all_is_saved_and_it_stops_at_once(tmp_path: Path, config: RunConfig) -> None:
    finished: list[int] = []

    def validate(epoch: int) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        finished.append(epoch)
        return 0.0

    told = f"stopped; everything is saved in {tmp_path}"
    with pytest.raises(Interrupted, match=told) as stop, raising_interrupted(tmp_path, tmp_path / CHECKPOINT):
        train(changed(config, epochs=2, evaluate_every=1), tmp_path, validate=validate)
    assert stop.value.exit_code == 143
    assert not finished


def test_before_anything_is_trained_nothing_was_saved(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="nothing was saved"), raising_interrupted(tmp_path, tmp_path / CHECKPOINT):
        os.kill(os.getpid(), signal.SIGTERM)
