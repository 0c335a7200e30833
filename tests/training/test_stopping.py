"""Signals: the first one saves and stops, a launcher's repetition is ignored, and ignored signals stay ignored."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from training_runs import assert_same, changed, make_config, train

from squares import save_base
from uniadapter.app.cli import main
from uniadapter.config import RunConfig
from uniadapter.errors import QUEUE_SIGNALS, RUN_AGAIN, Interrupted
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
    assert stop.value.code == (RUN_AGAIN if signum in QUEUE_SIGNALS else 128 + signum)
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("stopped at step"))
    assert line.endswith(f"--output '{out}' --resume")
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


def test_after_a_queues_warning_its_sigterm_does_not_cut_the_step_short(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("uniadapter.training.stopping.time.monotonic", lambda: now[0])
    with GracefulStop() as stopping:
        os.kill(os.getpid(), signal.SIGUSR1)
        now[0] += 90
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.signum == signal.SIGUSR1


def test_when_its_time_is_up_the_run_stops_and_one_command_goes_on_to_the_same_end(
    tmp_path: Path, config: RunConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a queue repeats it: killed before the first checkpoint, then out of time twice, then to the end."""
    file, out = tmp_path / "run.yaml", tmp_path / "out"
    write_config(replace(config, data=replace(config.data, test=None, val=None)), file)
    assert main(["train", str(file), "--output", str(tmp_path / "whole")]) == 0
    out.mkdir()
    (out / "history.jsonl").write_text('{"step": 1, "loss": 9.0}\n')
    again = ["train", str(file), "--output", str(out), "--resume_or_start"]
    capsys.readouterr()
    for steps in (1, 2):  # at least one is made, however short the time
        with pytest.raises(SystemExit) as stop:
            main([*again, "--train.max_minutes", "1e-9"])
        assert stop.value.code == RUN_AGAIN
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("stopped"))
        assert line.startswith(f"stopped at step {steps} (train.max_minutes); everything is saved in {out}; go on with")
        assert line.endswith("--resume_or_start")
    assert main([*again, "--train.max_minutes", "60"]) == 0
    adapters = [load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("whole", "out")]
    assert_same(*adapters)
    shutil.rmtree(out / "adapter")
    for checkpoint in out.glob("checkpoint*.pt"):
        checkpoint.unlink()
    assert main(again) == 2  # what is left is more than the log of a run that was killed early
    assert "holds an earlier run (metrics.json" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 2


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
    with pytest.raises(Interrupted, match=told) as stop, raising_interrupted(tmp_path):
        train(changed(config, epochs=2, evaluate_every=1), tmp_path, validate=validate)
    assert stop.value.exit_code == RUN_AGAIN
    assert not finished


def test_before_anything_is_trained_nothing_was_saved(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="nothing was saved"), raising_interrupted(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
