"""Atomic writing of files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from uniadapter.files.writing import (
    WriteError,
    atomic_file,
    atomic_folder,
    file_hash,
    remove_temporary_files,
    write_bytes,
    write_text,
)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = write_text(tmp_path / "deep" / "a.txt", "old")

    def half() -> None:
        with atomic_file(file) as temporary:
            temporary.write_text("new, half")
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        half()
    assert file.read_text() == "old"
    assert [p.name for p in file.parent.iterdir()] == ["a.txt"]


def test_other_files_of_the_folder_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    write_bytes(tmp_path / "a.bin", b"1")
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_new_file_has_the_mode_of_the_umask_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        file = write_bytes(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    file.chmod(0o600)
    write_bytes(file, b"2")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_symbolic_link_is_written_through(tmp_path: Path) -> None:
    real = write_bytes(tmp_path / "real", b"1")
    link = tmp_path / "link"
    link.symlink_to(real)
    write_bytes(link, b"2")
    assert link.is_symlink()
    assert real.read_bytes() == b"2"


@pytest.mark.parametrize("what", ["folder", "below a file"])
def test_write_errors_are_one_line_with_the_path(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" if what == "folder" else tmp_path / "file" / "a"
    with pytest.raises(WriteError) as caught:
        write_bytes(target, b"1")
    assert str(target) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_leftovers_of_dead_processes_are_cleared_and_no_others(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = tmp_path / f".a.bin.{int(dead.stdout)}.tmp"
    busy = tmp_path / f".a.bin.{os.getpid()}.tmp"
    other = tmp_path / ".mine.tmp"
    for file in (left, busy, other):
        file.write_text("x")
    assert remove_temporary_files(tmp_path) == [left]
    assert busy.exists()
    assert other.exists()


def test_a_hash_of_bytes(tmp_path: Path) -> None:
    assert file_hash(write_bytes(tmp_path / "a", b"")).startswith("e3b0c44298fc1c14")


def test_a_folder_is_filled_and_nothing_else_in_it_touched(tmp_path: Path) -> None:
    (tmp_path / "model/notes").mkdir(parents=True)
    (tmp_path / "model/notes/mine.txt").write_text("mine")
    (tmp_path / "model/config.json").write_text("old")
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("new")
        (folder / "parts").mkdir()
        (folder / "parts/weights.bin").write_bytes(b"x" * 100)
    found = {str(file.relative_to(tmp_path / "model")) for file in (tmp_path / "model").rglob("*") if file.is_file()}
    assert found == {"notes/mine.txt", "config.json", "parts/weights.bin"}
    assert (tmp_path / "model/config.json").read_text() == "new"
    with pytest.raises(WriteError, match="a file of that name"), atomic_folder(tmp_path / "model/config.json"):
        pytest.fail("nothing can be written there")


def test_a_folder_that_is_not_filled_to_the_end_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")

    def fail(error: Exception) -> None:
        with atomic_folder(tmp_path) as folder:
            (folder / "config.json").write_text("new")
            raise error

    with pytest.raises(KeyError):
        fail(KeyError())
    with pytest.raises(WriteError, match="No space left"):
        fail(OSError(28, "No space left on device"))
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "old"


def test_folders_that_a_killed_process_left_are_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".files.99999999.tmp"
    left.mkdir()
    (left / "half").write_text("half")
    assert remove_temporary_files(tmp_path) == [left]
    assert not left.exists()


def test_a_writer_that_makes_its_file_private_does_not_decide(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "a") as temporary:
            temporary.write_bytes(b"1")
            temporary.chmod(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
