"""Tiny video sets in the layouts that circulate, through `train` and `evaluate` on the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from squares import COLOURS
from test_commands import base, write_run  # noqa: F401 - a fixture
from uniadapter.app.cli import main

NAMES = list(COLOURS)[:6]
FRAMES = 6


def film(file: Path, colour: tuple[int, int, int]) -> None:
    """A clip that starts black and turns to a colour."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=6)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(FRAMES):
            picture = np.full((32, 48, 3), colour, np.uint8) * (number > 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8))))
        container.mux(stream.encode())


def films(folder: Path, name: Callable[[int, str], str]) -> list[str]:
    """A clip of each colour; their names."""
    names = [name(number, colour) for number, colour in enumerate(NAMES)]
    for file, colour in zip(names, NAMES, strict=True):
        film(folder / file, COLOURS[colour])
    return names


def dump(file: Path, rows: Any) -> str:
    """Write JSON, or a line each where the name says so."""
    lines = file.suffix == ".jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows) if lines else json.dumps(rows))
    return str(file)


def msrvtt(folder: Path) -> dict[str, str]:
    """The list of training videos with `MSRVTT_data.json`, and the 1k-A test file with its own sentences."""
    names = films(folder, lambda number, _: f"video{number}.mp4")
    ids = [Path(name).stem for name in names]
    sentences = [{"video_id": i, "caption": f"a {c} thing", "sen_id": n} for n, (i, c) in enumerate(zip(ids, NAMES))]  # noqa: B905
    captions = dump(folder / "MSRVTT_data.json", {"videos": [{"video_id": i} for i in ids], "sentences": sentences})
    train, test = folder / "MSRVTT_train.9k.csv", folder / "MSRVTT_JSFUSION_test.csv"
    train.write_text("video_id\n" + "\n".join(ids))
    with test.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "vid_key", "video_id", "sentence"])
        writer.writerows([f"ret{n}", f"msr{n}", i, f"a {c} thing"] for n, (i, c) in enumerate(zip(ids, NAMES)))  # noqa: B905
    return {"train": str(train), "test": str(test), "captions": captions}


def alpro(folder: Path) -> dict[str, str]:
    """`clip_name` and `caption`, a line each."""
    films(folder, lambda number, _: f"video{number}.mp4")
    rows = [{"clip_name": f"video{number}", "caption": f"a {colour} thing"} for number, colour in enumerate(NAMES)]
    return {split: dump(folder / f"{split}.jsonl", rows) for split in ("train", "test")}


def didemo(folder: Path) -> dict[str, str]:
    """Two sentences a video, and one video that is in no copy."""
    names = films(folder, lambda number, colour: f"{number}@N00_{colour}.avi")
    rows = [
        {"video": name, "description": text, "times": [[0, 0]]}
        for name, colour in zip(names, NAMES, strict=True)
        for text in ("it starts black", f"it turns {colour}")
    ]
    rows.append({"video": "gone@N00_1.mp4", "description": "nobody knows", "times": [[0, 0]]})
    files = {}
    for split in ("train", "test"):
        files[split] = dump(folder / f"{split}_data.json", rows)
        (folder / f"{split}_list.txt").write_text("\n".join([*names, "gone@N00_1.mp4"]))
    return files


def lavis(folder: Path) -> dict[str, str]:
    """`video` and `caption`, a list of them for evaluation."""
    names = films(folder, lambda number, _: f"video{number}.mp4")
    train = [{"video": name, "caption": f"a {colour} thing"} for name, colour in zip(names, NAMES, strict=True)]
    test = [{**row, "caption": [row["caption"], "a clip of " + row["caption"]]} for row in train]
    return {
        "train": dump(folder / "retrieval_train.json", train),
        "test": dump(folder / "retrieval_test.json", test),
    }


def umt(folder: Path) -> dict[str, str]:
    """Videos under the name `image`."""
    names = films(folder, lambda number, _: f"video{number}.webm".replace("webm", "mkv"))
    rows = [{"image": name, "caption": f"a {colour} thing"} for name, colour in zip(names, NAMES, strict=True)]
    return {split: dump(folder / f"msrvtt_ret_{split}.json", rows) for split in ("train", "test")}


def own(folder: Path) -> dict[str, str]:
    """One's own CSV of `video, caption`."""
    names = films(folder, lambda number, _: f"clips/{number}.mp4")
    text = "video,caption\n" + "\n".join(f"{n},a {c} thing" for n, c in zip(names, NAMES, strict=True))
    for split in ("train", "test"):
        (folder / f"{split}.csv").write_text(text)
    return {split: str(folder / f"{split}.csv") for split in ("train", "test")}


@pytest.mark.parametrize("layout", [msrvtt, alpro, didemo, lavis, umt, own])
def test_video_layouts_through_train_and_evaluate(
    tmp_path: Path,
    base: Path,  # noqa: F811
    layout: Callable[[Path], dict[str, str]],
) -> None:
    files = layout(tmp_path)
    data = {"frames": 3, "eval_frames": 4, "on_error": "skip", "flip": False, "augment": False}
    run = write_run(tmp_path, base, files, data=data, train={"epochs": 1})
    model = ["--model.adapter.frame_aware", "true", "--model.adapter.temporal_frames", "3"]
    assert main(["train", str(run), *model]) == 0
    out = tmp_path / "run"
    metrics = json.loads((out / "metrics.json").read_text())
    rows = {row["method"]: row for row in metrics["rows"]}
    for row in rows.values():
        assert set(row["text_to_video"]) == set(row["video_to_text"])
        assert row["text_to_video"]["mean_rank"] >= 1
    page = (out / "report.html").read_text()
    assert "data:image/webp" in page
    assert "weights of the frames" in page
    again = ["--output", str(tmp_path / "again"), "--adapter", str(out / "adapter")]
    assert main(["evaluate", str(run), *model, *again]) == 0
    measured = json.loads((tmp_path / "again/metrics.json").read_text())["rows"][0]
    assert measured["text_to_video"] == rows["uniadapter"]["text_to_video"]
    log = (out / "train.log").read_text()
    if layout is didemo:
        assert "7 listed, 6 found" in log
        assert any("7 listed, 6 found" in text for text in metrics["splits"].values())
    if layout is msrvtt:
        assert "9k" in log
        assert "9k" in metrics["splits"]["train"]


def test_frames_that_were_not_weighed_get_no_bars(tmp_path: Path, base: Path) -> None:  # noqa: F811
    run = write_run(tmp_path, base, own(tmp_path), data={"frames": 3}, train={"epochs": 1})
    assert main(["train", str(run)]) == 0
    assert "weights of the frames" not in (tmp_path / "run/report.html").read_text()


def test_dual_softmax_rows_are_marked(tmp_path: Path, base: Path) -> None:  # noqa: F811
    run = write_run(tmp_path, base, own(tmp_path), data={"frames": 2}, evaluate={"dual_softmax": True})
    assert main(["evaluate", str(run), "--output", str(tmp_path / "again")]) == 0
    row = json.loads((tmp_path / "again/metrics.json").read_text())["rows"][0]
    assert "transductive" in row["setting"]


def test_a_broken_video_is_named_in_one_line_or_left_out(
    tmp_path: Path,
    base: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = own(tmp_path)
    broken = tmp_path / "clips/2.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    run = write_run(tmp_path, base, files, data={"frames": 2}, train={"epochs": 1})
    assert main(["train", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "clips/2.mp4" in error
    assert "train.csv:4" in error
    assert main(["train", str(run), "--data.on_error", "skip"]) == 0
