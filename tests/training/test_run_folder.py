"""The run folder: locked to one run, not overwritten unless asked, and without leftover temporary files."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from training_runs import make_config

from squares import save_base
from uniadapter.app import demo
from uniadapter.app.cli import main
from uniadapter.errors import ConfigError
from uniadapter.runs.steps import write_config
from uniadapter.training.run_folder import LOCK, RESULTS, check_run_folder, locked_folder

# It has a child, as a run has that loads pictures in processes, which lives on for a while when it is killed.
HOLDER = """
import os, sys, time
from pathlib import Path
from uniadapter.training.run_folder import locked_folder
with locked_folder(Path(sys.argv[1])):
    if not os.fork():  # the child says so, once it has let go of what it inherited
        print("held", flush=True)
    time.sleep(20)
"""


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    file = folder / "run.yaml"
    write_config(make_config(folder, save_base(folder / "base"), max_steps=2), file)
    return file


def test_a_folder_that_another_process_holds_is_refused_until_that_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid} on .* is writing there"), locked_folder(tmp_path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    (tmp_path / f".checkpoint.pt.{holder.pid}.tmp").write_text("half")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / f".adapter_model.safetensors.{holder.pid}.tmp").write_text("half")
    (tmp_path / "thesis.tmp").write_text("mine")
    with locked_folder(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / LOCK).read_text()
        assert not list(tmp_path.rglob(".*.tmp"))
    assert (tmp_path / "thesis.tmp").read_text() == "mine"
    assert not (tmp_path / LOCK).exists()
    with locked_folder(tmp_path):
        pass


def test_two_runs_in_one_folder_are_one_line(
    tmp_path: Path, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked_folder(tmp_path / "run"):
        assert main(["train", str(run_file), "--output", str(tmp_path / "run")]) == 2
        assert main(["demo", "--output", str(tmp_path / "run")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [f"process {os.getpid()} " in line for line in errors] == [True, True]
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("result", RESULTS)
def test_a_used_folder_is_refused_and_not_changed(
    tmp_path: Path, run_file: Path, capsys: pytest.CaptureFixture[str], result: str
) -> None:
    file = tmp_path / result
    file.parent.mkdir(exist_ok=True)
    file.write_text("old")
    assert main(["train", str(run_file), "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert result in error
    assert "--resume" in error
    assert "--overwrite" in error
    assert error.count("\n") == 1
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [file]
    assert file.read_text() == "old"


def test_overwriting_replaces_old_results_only_by_new_ones(
    tmp_path: Path, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new run that fails at its first batch has touched nothing; one that succeeds has replaced all."""
    out = tmp_path / "run"
    train = ["train", str(run_file), "--output", str(out)]
    umask = os.umask(0o027)
    try:
        assert main(train) == 0
    finally:
        os.umask(umask)
    written = ("checkpoint.pt", "metrics.json", "history.jsonl", "config.yaml", "adapter/adapter_model.safetensors")
    for name in written:
        assert stat.S_IMODE((out / name).stat().st_mode) == 0o640, name
    log = out / "train.log"
    old = {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and file != log}
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps([{"image": str(tmp_path / "none.jpg"), "caption": "a red square"}] * 8))
    fails = ["--overwrite", "--data.train", str(broken), "--data.on_error", "raise", "--train.seed", "5"]
    assert main([*train, *fails]) == 2
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and file != log} == old
    assert main([*train, "--overwrite", "--train.seed", "5", "--train.max_steps", "3"]) == 0
    assert "seed: 5" in (out / "config.yaml").read_text()
    history = [json.loads(line)["step"] for line in (out / "history.jsonl").read_text().splitlines()]
    assert history == [1, 2, 3]
    assert json.loads((out / "metrics.json").read_text())["seed"] == 5
    (out / "adapter" / "notes.txt").write_text("mine")
    assert main([*train, "--overwrite", "--model.method", "full"]) == 0
    assert [file.name for file in (out / "adapter").iterdir()] == ["notes.txt"]  # the old adapter is gone
    assert main([*train, "--overwrite"]) == 0
    assert not (out / "model").exists()
    assert main([*train, "--overwrite", "--resume"]) == 2
    assert "give only one of them" in capsys.readouterr().err


def test_a_file_in_the_folders_place_and_nothing_to_resume(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        check_run_folder(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match="nothing to resume"):
        check_run_folder(tmp_path / "run", resume=True)
    check_run_folder(tmp_path / "run")


def test_a_demo_replaces_a_demo_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: retrieval\n")
    metrics = {"task": "retrieval", "seed": 0, "data": "embedded scenes", "rows": []}
    assert not demo.holds_demo(tmp_path)  # an attempt that failed at once: nothing is in the way
    check_run_folder(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert demo.holds_demo(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({**metrics, "data": None}))
    assert not demo.holds_demo(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "checkpoint.pt").write_text("a run's")
    assert not demo.holds_demo(tmp_path)
    with pytest.raises(ConfigError, match="holds an earlier run"):
        demo.run_demo("scenes", tmp_path)
