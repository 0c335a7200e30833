"""Cached folders of the embedded data: created atomically, or one line with the reason."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from uniadapter.app.cli import main
from uniadapter.embedded import resolve_embedded
from uniadapter.embedded.cached_folders import STAMP, cache_folder, prepare_folder
from uniadapter.errors import ConfigError
from uniadapter.files.writing import WriteError


def fill(folder: Path) -> None:
    for number in range(3):
        (folder / f"{number}.txt").write_text("picture")


def slowly(folder: Path) -> None:
    (folder.parent / f"made by {os.getpid()}").write_text("")
    fill(folder)
    time.sleep(0.3)


def test_processes_at_once_make_it_once(tmp_path: Path) -> None:
    target = tmp_path / "scenes"
    target.mkdir()
    (target / STAMP).write_text("of an older version")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=prepare_folder, args=(target, "new", slowly)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(file.name for file in target.iterdir()) == ["0.txt", "1.txt", "2.txt", STAMP]
    assert len(list(tmp_path.glob("made by *"))) == 1
    assert not list(tmp_path.glob(".*"))


def killed(folder: Path) -> None:
    fill(folder)
    os.kill(os.getpid(), signal.SIGKILL)


def test_partial_folders_of_killed_processes_are_removed_and_not_used(tmp_path: Path) -> None:
    target = tmp_path / "scenes"
    process = multiprocessing.get_context("fork").Process(target=prepare_folder, args=(target, "new", killed))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert not target.exists()
    assert list(tmp_path.glob(".scenes.*"))
    prepare_folder(target, "new", fill)
    assert (target / STAMP).is_file()
    assert [file.name for file in tmp_path.iterdir()] == ["scenes"]


def test_an_unrelated_folder_of_that_name_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes/thesis.tex").write_text("years of work")
    with pytest.raises(WriteError, match="UNIADAPTER_CACHE"):
        prepare_folder(tmp_path / "scenes", "new", fill)
    assert (tmp_path / "scenes/thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("reason", ["No space left on device", "Read-only file system"])
def test_errors_say_why_it_cannot_be_unpacked(tmp_path: Path, reason: str) -> None:
    def full(folder: Path) -> None:
        fill(folder)
        raise OSError(errno.ENOSPC, reason)

    with pytest.raises(WriteError, match=rf"{reason}.*UNIADAPTER_CACHE"):
        prepare_folder(tmp_path / "scenes", "new", full)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_is_a_file_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNIADAPTER_CACHE", str(tmp_path / "file"))
    assert main(["evaluate", "scenes", "--output", str(tmp_path / "run")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {tmp_path / 'file'}")
    assert "UNIADAPTER_CACHE" in line
    assert len(line) <= 307


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.delenv("UNIADAPTER_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(ConfigError, match="UNIADAPTER_CACHE"):
        resolve_embedded("embedded:scenes/test")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "uniadapter"
    monkeypatch.setenv("UNIADAPTER_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("UNIADAPTER_CACHE", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mine"
