"""Commands that a launcher starts several times: who shares the work, and who says that it cannot be shared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from test_commands import base  # noqa: F401 - a fixture
from test_compare_command import METHODS, write_comparison
from uniadapter.app.cli import main
from uniadapter.processes.launcher import launched, part_from_others


@pytest.mark.slow
def test_a_launched_comparison_is_shared_run_by_run(tmp_path: Path, base: Path) -> None:  # noqa: F811
    methods = {name: METHODS[name] for name in ("uniadapter", "bitfit")}
    file = write_comparison(tmp_path, base, methods=methods, seeds=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
               "-m", "uniadapter", "compare", str(file)]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout + done.stderr
    begun = re.findall(r"(\S+(?: lr \S+ seed \d+)? on \w+): begins", said)
    assert len(begun) == len(set(begun)) > 5  # each run by one of them
    assert said.count("results.md") == 1  # one of them writes the table
    for name in ("results.json", "results.md", "report.html", "pareto.png"):
        assert (tmp_path / "out" / name).exists()


@pytest.mark.parametrize("command", ["index", "serve", "demo"])
def test_what_is_one_process_says_so_once(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        if rank:
            with pytest.raises(SystemExit):
                main([command])
        else:
            assert main([command]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {command} is one process: start it without a launcher") is (rank == 0)
        assert said.count("\n") == (rank == 0)
        assert ("--engine ray" in said) is (rank == 0 and command == "index")


@pytest.mark.parametrize(("given", "kept"), [("", "1"), ("4,5", "5")])
def test_a_process_that_parts_has_a_gpu_of_its_own(given: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched() == (1, 2)
    assert not part_from_others()
    assert launched() == (0, 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == kept
    assert part_from_others()
