"""Indexing with Ray: the result is that of the plain engine, also when a worker is killed; errors are one line."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import uniadapter as ua
from uniadapter.app.cli import main
from uniadapter.embedded import resolve_embedded
from uniadapter.errors import DataError, UsageError
from uniadapter.search import contents
from uniadapter.search.attempts import Attempts
from uniadapter.search.media_files import MediaFile
from uniadapter.search.ray_engine import LOST, Job, Worker, parted

pytest.importorskip("lancedb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty pictures, one of them twice, a video, and three files that cannot be indexed."""
    file = Path(resolve_embedded("embedded:drawn/test"))
    rows = json.loads(file.read_text())[:60]
    out = tmp_path / "media"
    out.mkdir()
    for number, row in enumerate(rows):
        shutil.copy(file.parent / row["image"], out / f"{number:02d}.png")
    shutil.copy(out / "07.png", out / "99.png")
    clips = Path(resolve_embedded("embedded:clips/test")).parent
    shutil.copy(sorted((clips / "videos" / "test").glob("*.mp4"))[0], out / "clip.mp4")
    (out / "page.png").write_text("<html>not found</html>")
    (out / "empty.jpg").touch()
    Image.new("RGB", (60, 60)).save(out / "plain.png")
    return out


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two cores of this machine."""
    pytest.importorskip("pandas", reason="Ray Data needs it")
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    settings: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=2, object_store_memory=100 * 2**20, **settings)
    yield
    ray.shutdown()


def workers() -> list[int]:
    """Processes of Ray's workers that hold the model; Ray writes what they are into their titles."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:  # ended meanwhile
            continue
    return found


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(
    tmp_path: Path, folder: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "BATCH", 4)  # many parts, so that both workers have several in work or waiting
    plain, index = (ua.Index(tmp_path / f"{name}.index", "embedded:scenes") for name in ("plain", "ray"))
    expected = plain.add(folder)
    seen: list[int] = []
    killed: list[int] = []
    counts: list[tuple[int, int]] = []

    def on_progress(done: int, every: int) -> None:
        counts.append((done, every))
        seen.extend(workers())
        if not killed:
            killed.append(seen[0])
            os.kill(seen[0], signal.SIGKILL)

    update = index.add(folder, on_progress=on_progress, engine="ray", workers=2)
    assert len(killed) == 1
    assert len(set(seen)) > 1, "another did its part"
    assert counts[-1] == (65, 65)
    assert counts == sorted(counts)
    assert vars(update) == vars(expected)
    assert update.added == 62
    assert index.files() == plain.files()
    assert index.problems() == plain.problems()
    assert len(index.problems()) == 3
    one, other = index.store.frames(), plain.store.frames()
    order, other_order = (np.lexsort((f.numbers, f.digests.astype(str))) for f in (one, other))
    for name in ("digests", "numbers", "times"):
        assert np.array_equal(getattr(one, name)[order], getattr(other, name)[other_order])
    assert np.allclose(one.vectors[order], other.vectors[other_order], atol=1e-5, rtol=0)
    wanted = list(zip(one.digests, one.numbers, strict=True))
    assert index.store.thumbnails(wanted) == plain.store.thumbnails(wanted)
    (folder / "03.png").rename(folder / "renamed.png")
    assert str(index.add(engine="ray", workers=1)) == "1 renamed, 61 unchanged, 3 not indexed"
    assert str(plain.add()) == "1 renamed, 61 unchanged, 3 not indexed"
    assert index.files() == plain.files()


@pytest.mark.slow
def test_what_workers_cannot_do_is_one_line(tmp_path: Path, folder: Path, cluster: None) -> None:
    shutil.copytree(ua.from_pretrained("embedded:scenes").adapter or "", tmp_path / "mine")
    index = ua.Index(tmp_path / "my.index", tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(ValueError, match="mine") as caught:
        index.add(folder, engine="ray", workers=1)
    assert "\n" not in str(caught.value)
    assert len(index) == 0
    assert str(index.add(folder)) == "62 added, 3 not indexed", "the index is free again, and as it was"


def test_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [MediaFile(f"{number}.png", 1, 1) for number in range(70)]
    films = [MediaFile(f"{number}.mp4", 1, 1) for number in range(5)]
    assert [len(part) for part in parted(files)] == [64, 6]
    assert [len(part) for part in parted(films)] == [2, 2, 1]
    assert [file for part in parted([*files, *films]) for file in part] == [*files, *films]
    assert list(parted([])) == []


@pytest.mark.slow
def test_a_part_at_which_workers_die_is_given_up(folder: Path, cluster: None) -> None:
    ray = pytest.importorskip("ray")
    attempts = ray.remote(num_cpus=0)(Attempts).remote()
    assert [ray.get(attempts.begin.remote(3)) for _ in range(LOST)] == [1, 2, 3, 4, 5]
    assert ray.get(attempts.begin.remote(2)) == 1
    worker = Worker(Job("embedded:scenes", None, torch.float32, "", [str(folder)]), attempts)
    part = {"path": ["a.png", "b.png"], "size": np.ones(2, int), "changed": np.ones(2, int), "part": np.full(2, 3)}
    (error,) = worker(part)["contents"]
    assert isinstance(error, DataError)
    assert str(error).startswith("a.png, or at one of the 1 files after it: 5 workers died here")
    worker = Worker(Job("embedded:scenes", None, torch.float32, "", [str(folder / "nowhere")]), attempts)
    (error,) = worker({**part, "part": np.zeros(2, int)})["contents"]
    assert "all machines must see it at this path" in str(error)


def test_wrong_engines(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = ua.Index(tmp_path / "my.index", "embedded:scenes")
    with pytest.raises(UsageError, match="engine is 'spark'; there are plain and ray"):
        index.add(folder, engine="spark")
    command = ["index", str(folder), "--index", str(tmp_path / "other.index")]
    for more, said in (
        (["--workers", "2"], "give --engine ray with them"),
        (["--engine", "ray", "--worker-gpus", "nan"], "--worker-gpus"),
        (["--engine", "spark"], "--engine is 'spark'"),
    ):
        assert main([*command, *more]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*command, "--engine", "ray"]) == 2
    error = capsys.readouterr().err
    assert 'pip install "uniadapter[ray]"' in error
    assert error.count("\n") == 1
