"""An index of a folder: what is new, renamed, gone or broken; kept through interruptions; and what a search finds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import uniadapter as ua
from uniadapter.app.cli import main
from uniadapter.checkpoints.locating import locate_adapter
from uniadapter.embedded import resolve_embedded
from uniadapter.errors import CheckpointError, DataError, UsageError
from uniadapter.search import contents, store
from uniadapter.search.places import Folder
from uniadapter.search.store import Store

pytest.importorskip("lancedb")


@pytest.fixture(scope="session")
def drawn() -> list[dict[str, Any]]:
    """Rows of pictures, with absolute paths, and their captions."""
    file = Path(resolve_embedded("embedded:drawn/test"))
    return [{**row, "image": str(file.parent / row["image"])} for row in json.loads(file.read_text())]


@pytest.fixture(scope="session")
def loaded() -> ua.Pretrained:
    return ua.from_pretrained("embedded:scenes")


@pytest.fixture
def folder(tmp_path: Path, drawn: list[dict[str, Any]]) -> Path:
    """Twelve pictures in two folders, and a video."""
    out = tmp_path / "media"
    for number, row in enumerate(drawn[:12]):
        place = out / ("first" if number < 8 else "second")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(row["image"], place / f"{number:02d}.png")
    clips = Path(resolve_embedded("embedded:clips/test")).parent
    shutil.copy(sorted((clips / "videos" / "test").glob("*.mp4"))[0], out / "first" / "clip.mp4")
    return out


def write_video(path: Path, frames: list[np.ndarray], rate: int) -> None:
    """A film of RGB frames, uint8 [H, W, 3]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def state(index: ua.Index) -> dict[str, Any]:
    """All that an index holds, by path, without times of files."""
    frames = index.store.frames()
    of = {row.path: (row.digest, row.kind, row.seconds) for row in index.files()}
    vectors = {
        (digest, int(number)): (float(at), vector.tolist())
        for digest, number, at, vector in zip(frames.digests, frames.numbers, frames.times, frames.vectors, strict=True)
    }
    return {"files": of, "frames": vectors}


def test_what_is_new_renamed_changed_and_gone(tmp_path: Path, folder: Path, loaded: ua.Pretrained) -> None:
    index = ua.Index(tmp_path / "my.index", loaded)
    first = index.add(folder)
    assert str(first) == "13 added"
    assert len(index) == 13
    video = next(row for row in index.files() if row.kind == "video")
    assert video.seconds > 5
    assert str(index.add()) == "13 unchanged"
    (folder / "first/00.png").rename(folder / "second/other.png")
    (folder / "first/01.png").unlink()
    shutil.copy(folder / "first/03.png", folder / "first/copy.png")
    Image.new("RGB", (60, 60)).save(folder / "first/02.png")
    encoded: list[int] = []
    original = index.encoder.frames
    index.encoder.frames = lambda pictures: encoded.append(len(pictures)) or original(pictures)  # type: ignore[method-assign,func-returns-value]
    second = index.add()
    assert (second.added, second.renamed, second.removed, second.unchanged) == (1, 1, 1, 10)
    assert [problem.reason for problem in second.problems] == ["it: a picture of one colour"]
    assert not any(encoded), "a name is new, no content is"
    names = {Path(row.path).name for row in index.files()}
    assert {"other.png", "copy.png"} <= names
    assert not {"00.png", "01.png", "02.png"} & names
    again = ua.Index(tmp_path / "my.index")
    assert state(again) == state(index)
    fresh = ua.Index(tmp_path / "fresh.index", loaded)
    fresh.add(folder)
    assert state(fresh)["files"] == state(index)["files"]
    assert state(fresh)["frames"].keys() == state(index)["frames"].keys()


def test_broken_files_are_listed_with_their_reasons(tmp_path: Path, folder: Path, loaded: ua.Pretrained) -> None:
    (folder / "text.mp4").write_text("no video at all")
    (folder / "empty.jpg").touch()
    (folder / "page.png").write_text("<html>not found</html>")
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "first/00.png", folder / ".hidden/00.png")
    (folder / "notes.txt").write_text("not media")
    index = ua.Index(tmp_path / "my.index", loaded)
    update = index.add(folder)
    assert update.added == 13
    reasons = {Path(problem.path).name: problem.reason for problem in update.problems}
    assert set(reasons) == {"text.mp4", "empty.jpg", "page.png", "bomb.png", "gone.jpg"}
    assert "0 bytes" in reasons["empty.jpg"]
    assert "web page" in reasons["page.png"]
    assert "pixels" in reasons["bomb.png"]
    assert all(str(folder) not in reason and "data.on_error" not in reason for reason in reasons.values())
    again = index.add()
    assert {Path(problem.path).name for problem in again.problems} == set(reasons)
    assert again.added == 0
    shutil.copy(folder / "first/00.png", folder / "empty.jpg")
    assert index.add().added == 1, "mended"


def bomb() -> bytes:
    """A PNG whose header promises 60,000 by 60,000 pixels."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_an_interrupted_run_goes_on(
    tmp_path: Path, folder: Path, loaded: ua.Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "BATCH", 3)
    whole = ua.Index(tmp_path / "whole.index", loaded)
    whole.add(folder)
    index = ua.Index(tmp_path / "my.index", loaded)
    for _ in range(20):
        left, puts = [2], Store.put_files

        def dying(self: Store, rows: Any, left: list[int] = left, puts: Any = puts) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            puts(self, rows)

        with monkeypatch.context() as patched:
            patched.setattr(Store, "put_files", dying)
            try:
                index.add(folder)
                break
            except KeyboardInterrupt:
                index = ua.Index(tmp_path / "my.index", loaded)
    assert state(index)["files"] == state(whole)["files"]
    assert state(index)["frames"].keys() == state(whole)["frames"].keys()


def test_a_write_does_not_grow_with_what_is_there(
    tmp_path: Path, drawn: list[dict[str, Any]], loaded: ua.Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "BATCH", 1)
    monkeypatch.setattr(store, "_WRITES", 6)
    (tmp_path / "media").mkdir()
    for number, row in enumerate(drawn[:30]):
        shutil.copy(row["image"], tmp_path / "media" / f"{number:02d}.png")
    index = ua.Index(tmp_path / "my.index", loaded)
    most: list[int] = []

    def on_progress(done: int, every: int) -> None:
        tables = [index.store._table(name) for name in ("files", "frames")]
        most.extend(table.stats()["fragment_stats"]["num_fragments"] for table in tables)

    assert str(index.add(tmp_path / "media", on_progress=on_progress)) == "30 added"
    assert max(most) <= 8, "LanceDB looks into every fragment at each write"
    assert len(index.store.frames().digests) == 30


def test_one_process_writes(tmp_path: Path, folder: Path, loaded: ua.Pretrained) -> None:
    one, other = (ua.Index(tmp_path / "my.index", loaded) for _ in range(2))
    with one.place.writing(), pytest.raises(UsageError, match="another process is indexing into it"):
        other.add(folder)
    other.add(folder)
    assert len(one.search("a cat", top=3)) == 3, "a reader sees what another has written"


def test_another_model_is_refused_and_the_same_under_another_name_is_not(
    tmp_path: Path, folder: Path, loaded: ua.Pretrained
) -> None:
    index = ua.Index(tmp_path / "my.index", "embedded:scenes")
    index.add(folder)
    with pytest.raises(CheckpointError, match=r"made with another adapter than embedded; build it again: .*--rebuild"):
        ua.Index(tmp_path / "my.index", "embedded")
    shutil.copytree(locate_adapter("embedded:scenes"), tmp_path / "copied")
    assert len(ua.Index(tmp_path / "my.index", tmp_path / "copied")) == 13
    assert len(ua.Index(tmp_path / "my.index")) == 13
    with pytest.raises(CheckpointError, match="made for vqa; searching needs retrieval"):
        ua.Index(tmp_path / "other.index", "embedded:vqa")
    described = json.loads((tmp_path / "my.index/index.json").read_text())
    described["fingerprint"]["frames"] = "another rule"
    described["fingerprint"]["digest"] = "another"
    (tmp_path / "my.index/index.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="another choice of frames"):
        ua.Index(tmp_path / "my.index")
    assert main(["index", "--index", str(tmp_path / "my.index"), "--rebuild"]) == 0
    assert len(ua.Index(tmp_path / "my.index")) == 13


def test_a_folder_that_is_no_index(tmp_path: Path, folder: Path, loaded: ua.Pretrained) -> None:
    with pytest.raises(DataError, match="a folder of other files, no index"):
        ua.Index(folder, loaded)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="a file, no index"):
        ua.Index(tmp_path / "file", loaded)
    with pytest.raises(DataError, match="no such folder"):
        ua.Index(tmp_path / "my.index", loaded).add(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert main(["index", str(tmp_path / "empty"), "--index", str(tmp_path / "e.index")]) == 0
    assert ua.Index(tmp_path / "e.index").search("a cat") == []
    with Folder(tmp_path / "killed.index").writing():
        pass
    assert len(ua.Index(tmp_path / "killed.index", loaded)) == 0, "killed before it was described: none yet"
    (tmp_path / "broken.index").mkdir()
    (tmp_path / "broken.index/index.json").write_text("{")
    with pytest.raises(DataError, match="broken; build the index again"):
        ua.Index(tmp_path / "broken.index")


@pytest.mark.slow
def test_searching_has_the_recall_of_the_evaluation(
    tmp_path: Path, drawn: list[dict[str, Any]], loaded: ua.Pretrained
) -> None:
    rows = drawn[:40]
    (tmp_path / "test.json").write_text(json.dumps([{"image": r["image"], "caption": r["caption"]} for r in rows]))
    command = ["evaluate", "scenes", "--adapter", "embedded:scenes", "--data.test", str(tmp_path / "test.json")]
    assert main([*command, "--data.extra_tests", "{}", "--output", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out/metrics.json").read_text())["rows"]
    (tmp_path / "media").mkdir()
    for number, one in enumerate(rows):
        shutil.copy(one["image"], tmp_path / f"media/{number:02d}.png")
    index = ua.Index(tmp_path / "my.index", loaded)
    index.add(tmp_path / "media")
    for rerank, name in ((0, "r@1_itc"), (None, "r@1")):
        right = [
            Path(index.search(text, top=1, rerank=rerank)[0].path).stem == f"{number:02d}"
            for number, one in enumerate(rows)
            for text in one["caption"]
        ]
        assert 100 * sum(right) / len(right) == pytest.approx(row["text_to_image"][name])


def test_the_moment_of_a_video(tmp_path: Path, drawn: list[dict[str, Any]], loaded: ua.Pretrained) -> None:
    pictures = [Image.open(row["image"]).convert("RGB").resize((96, 96)) for row in drawn[:40:10]]
    shown = [np.asarray(picture) for picture in pictures for _ in range(16)]
    dark = [np.zeros((96, 96, 3), np.uint8)] * 16
    (tmp_path / "media").mkdir()
    write_video(tmp_path / "media/film.mp4", [*dark, *shown], 8)
    index = ua.Index(tmp_path / "my.index", loaded)
    index.add(tmp_path / "media")
    times = index.store.frames().times
    assert times.tolist() == [3.0, 5.0, 7.0, 9.0], "one in two seconds, without the dark ones"
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / "asked.png")
        (found,) = index.search(f"{tmp_path}/asked.png")
        assert found.time == times[number]
        assert (found.kind, found.matching) == ("video", None)
    assert index.search("a cat")[0].matching is not None


def test_filters(tmp_path: Path, folder: Path, loaded: ua.Pretrained) -> None:
    old = datetime.now() - timedelta(days=900)
    os.utime(folder / "second/08.png", (old.timestamp(), old.timestamp()))
    index = ua.Index(tmp_path / "my.index", loaded)
    index.add(folder)

    def names(**filters: Any) -> set[str]:
        return {Path(found.path).name for found in index.search("a cat", 100, ua.Filters(**filters), rerank=0)}

    assert names(kind="video") == {"clip.mp4"}
    assert names(under=folder / "second") == {"08.png", "09.png", "10.png", "11.png"}
    assert names(before=datetime.now() - timedelta(days=800)) == {"08.png"}
    assert len(names(after=datetime.now() - timedelta(days=800))) == 12
    assert names(kind="picture", under=folder / "nowhere") == set()


def test_weighed_terms_and_pictures(tmp_path: Path, folder: Path, loaded: ua.Pretrained) -> None:
    index = ua.Index(tmp_path / "my.index", loaded)
    index.add(folder)
    picture = str(folder / "first/05.png")
    assert index.search(picture)[0].path == picture
    assert index.search(picture)[0].similarity == pytest.approx(1, abs=1e-5)
    assert index.search(f"5: {picture} + a cat")[0].path == picture
    assert index.search(f"a cat - {picture}", 100)[-1].path == picture

    def vector(file: Path | str) -> np.ndarray:
        return index.encoder.frames([index.encoder.transform(Image.open(file).convert("RGB"))])[0]

    text, frame = index.encoder.text("a cat"), vector(picture)
    wanted = 2 * text - 0.5 * frame
    similar = {row.path: row.similarity for row in index.search(f"2: a cat - 0.5: {picture}", 100)}
    other = vector(folder / "first/06.png")
    assert similar[str(folder / "first/06.png")] == pytest.approx(
        float(other @ wanted / np.linalg.norm(wanted)), abs=1e-5
    )


def test_the_approximate_index_finds_the_same(tmp_path: Path, folder: Path, loaded: ua.Pretrained) -> None:
    index = ua.Index(tmp_path / "my.index", loaded)
    index.add(folder)
    exact = [found.path for found in index.search("a cat", rerank=0)]
    assert [found.path for found in index.search("a cat", rerank=0, exact=False)] == exact, "all of so few"


def test_a_file_that_is_gone_since(tmp_path: Path, folder: Path, loaded: ua.Pretrained) -> None:
    index = ua.Index(tmp_path / "my.index", loaded)
    index.add(folder)
    (folder / "first/05.png").unlink()
    found = index.search("a cat", 100)
    assert len(found) == 13
    lost = next(one for one in found if one.path.endswith("05.png"))
    assert lost.matching is None
    assert lost.thumbnail.startswith(b"\xff\xd8")


@pytest.mark.slow
def test_nothing_found_is_an_answer(tmp_path: Path, drawn: list[dict[str, Any]], loaded: ua.Pretrained) -> None:
    (tmp_path / "media").mkdir()
    for number, one in enumerate(drawn[:60]):
        shutil.copy(one["image"], tmp_path / f"media/{number:02d}.png")
    index = ua.Index(tmp_path / "my.index", loaded)
    index.add(tmp_path / "media")
    pairs = [(row["caption"][0], tmp_path / f"media/{number:02d}.png") for number, row in enumerate(drawn[:40])]
    found = index.calibrate(pairs)
    assert found["matching: found, %"] > 60
    assert found["matching: not found, %"] > 60
    there = [bool(index.search(row["caption"][1])) for row in drawn[:60]]
    absent = [bool(index.search(row["caption"][1])) for row in drawn[140:200]]  # of other pictures
    assert sum(there) > 2 * sum(absent)
    assert all(len(index.search(row["caption"][1], cut_off=False)) == 10 for row in drawn[140:150])
    again = ua.Index(tmp_path / "my.index")
    assert [bool(again.search(row["caption"][1])) for row in drawn[:20]] == there[:20]
    with pytest.raises(DataError, match="none of the files is in the index"):
        index.calibrate([("a cat", tmp_path / "elsewhere.png")])


def test_the_commands(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = folder / "first/<img src=x onerror=alert(1)>.png"
    (folder / "first/00.png").rename(odd)
    where = str(tmp_path / "my.index")
    assert main(["index", str(folder), "--index", where, "--model", "embedded:scenes"]) == 0
    assert "13 added; 13 files in all" in capsys.readouterr().out
    assert main(["search", where, "a cat", "--top", "3"]) == 0
    paths = capsys.readouterr().out.splitlines()
    assert len(paths) == 3
    assert all(Path(path).is_file() for path in paths), "in a pipe, paths alone"
    sheet = tmp_path / "sheet.html"
    assert main(["search", where, f"./{os.path.relpath(odd)}", "--json", "--html", str(sheet)]) == 0
    said = capsys.readouterr().out
    found = json.loads(said[said.index("[") :])
    assert found[0]["path"] == str(odd)
    assert set(found[0]) == {"path", "kind", "time", "similarity", "matching", "taken"}
    page = sheet.read_text()
    assert "<img src=x" not in page
    assert page.count("data:image/jpeg;base64,") == 10
    assert main(["search", where, "a cat", "--type", "video", "--paths"]) == 0
    assert capsys.readouterr().out.endswith("clip.mp4\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["index"], "name the folders to index"),
        (["index", "--index", "nowhere.index"], "no index yet"),
        (["search", "nowhere.index", "a cat"], "make one with uniadapter index"),
        (["search", "x", "a cat", "--after", "yesterday"], "is not a date like 2024-01-31"),
        (["search", "x", "a cat", "--json", "--paths"], "keep one"),
        (["search", "x", "a cat", "--type", "film"], "--type is 'film'"),
        (["search", "x", "a cat", "--top", "0"], "top"),
    ],
)
def test_wrong_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_killed_process_loses_a_batch_at_most(tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    (tmp_path / "media").mkdir()
    for number in range(180):
        shutil.copy(drawn[number]["image"], tmp_path / f"media/{number:03d}.png")
    where = tmp_path / "my.index"
    command = [sys.executable, "-m", "uniadapter", "index", str(tmp_path / "media"), "--index", str(where)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 100
    while time.monotonic() < until and process.poll() is None:
        if (where / "tables/files.lance").is_dir() and Store(Folder(where), 64).files():
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    before = len(Store(Folder(where), 64).files())
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.endswith("180 files in all\n")
    index = ua.Index(where)
    assert len(index) == 180
    assert len(index.store.frames().digests) == 180
    assert before % contents.BATCH in (0, 180 % contents.BATCH)
