"""Writing of shards: the same bytes each time, what is there is kept, other programs read them."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
import webdataset
from data_pictures import picture
from shard_files import caption_files, settings, write_set

from uniadapter.app.cli import main
from uniadapter.config import ConfigError
from uniadapter.data import shard_writing
from uniadapter.data.layouts.records import DataError
from uniadapter.data.loaders import train_loader
from uniadapter.data.questions import load_questions
from uniadapter.data.shard_writing import ShardSize, load_whole, write_shards
from uniadapter.data.sharded import load_shards


@pytest.fixture
def listed(tmp_path: Path, write: Any) -> Path:
    """Eleven pictures, one to three captions each, as people write them."""
    rows = []
    for number in range(11):
        write(f"files/{number}.png", picture(number))
        rows.append(
            {"image": f"{number}.png", "caption": [f"Picture {number}: take {n}!" for n in range(number % 3 + 1)]}
        )
    write("files/train.json", rows)
    return tmp_path / "files" / "train.json"


def shards_of(listed: Path, output: str, size: int = 4, **changes: Any) -> Any:
    config = settings(**changes)
    return write_shards(load_whole(listed, config, "retrieval", "train"), output, "retrieval", config, ShardSize(size))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_shards_have_the_same_bytes_each_time_and_hold_texts_as_written(listed: Path, tmp_path: Path) -> None:
    index = shards_of(listed, str(tmp_path / "one"))
    shards_of(listed, str(tmp_path / "two"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert list(contents(tmp_path / "one")) == ["shards.json", *(f"train-00000{n}.tar" for n in range(3))]
    assert [(one.records, one.samples) for one in index.shards] == [(4, 7), (4, 8), (3, 6)]
    with tarfile.open(tmp_path / "one" / "train-000000.tar") as archive:
        members = archive.getmembers()
        assert [one.name for one in members[:3]] == ["000000000.png", "000000000.json", "000000001.png"]
        assert {(one.mtime, one.uid, one.mode) for one in members} == {(0, 0, 0o644)}
        said = json.load(archive.extractfile("000000001.json"))  # type: ignore[arg-type]
        picture_file = archive.extractfile("000000001.png").read()  # type: ignore[union-attr]
    assert said == {"id": "1.png", "caption": ["Picture 1: take 0!", "Picture 1: take 1!"]}
    assert picture_file == (listed.parent / "1.png").read_bytes()


def test_what_is_written_is_what_files_give(listed: Path, tmp_path: Path) -> None:
    shards_of(listed, str(tmp_path / "out"))
    config = settings()
    split = load_shards(str(tmp_path / "out"), config, "retrieval")
    batches = list(train_loader(split, config, size=16, batch_size=4, seed=0))
    texts = sorted(text for one in batches for text in one.captions)
    assert texts == sorted(f"picture {number} take {n}" for number in range(11) for n in range(number % 3 + 1))


def test_the_library_of_the_convention_reads_them(listed: Path, tmp_path: Path) -> None:
    shards_of(listed, str(tmp_path / "out"))
    files = sorted(str(file) for file in (tmp_path / "out").glob("*.tar"))
    rows = list(webdataset.WebDataset(files, shardshuffle=False).decode("pil"))
    assert [row["json"]["id"] for row in rows] == [f"{n}.png" for n in range(11)]
    assert [row["png"].size for row in rows] == [(40, 30)] * 11


def test_what_the_library_of_the_convention_writes_is_read(tmp_path: Path) -> None:
    for number in range(2):
        with webdataset.TarWriter(str(tmp_path / f"{number:06d}.tar")) as writer:
            for one in range(3):
                key = f"{number}-{one}"
                writer.write({"__key__": key, "png": picture(one), "json": {"caption": f"named {key}"}})
    split = load_shards(str(tmp_path / "{000000..000001}.tar"), settings(), "retrieval")
    assert [split.sample(row).text for row in range(6)] == [f"named {n}-{one}" for n in range(2) for one in range(3)]


def test_questions_keep_annotators_weights_and_the_list_of_answers(tmp_path: Path, write: Any) -> None:
    rows = []
    for number in range(5):
        write(f"{number}.png", picture(number))
        rows += [{"image": f"{number}.png", "question": f"What is {number}?", "question_id": number,
                  "answer": ["Red", "red", "blue"]},
                 {"image": f"{number}.png", "question": "Where?", "answer": "here", "dataset": "vg"}]  # fmt: skip
    file = write("train.json", rows)
    config = settings()
    write_shards(load_whole(file, config, "vqa", "train"), str(tmp_path / "out"), "vqa", config, ShardSize(2))
    plain = load_questions(file, config, "train")
    split = load_shards(str(tmp_path / "out"), config, "vqa")
    assert [split.sample(row).text for row in range(10)] == plain.texts
    for row in range(10):
        assert split.sample(row).answers == pytest.approx(plain.answers[row])
    assert json.loads((tmp_path / "out" / "answers.json").read_text()) == ["red", "blue", "here"]
    with pytest.raises(DataError, match="hold questions, and the task is retrieval"):
        load_shards(str(tmp_path / "out"), config, "retrieval")


def test_files_that_cannot_be_decoded_are_named_or_left_out(listed: Path, tmp_path: Path, caplog: Any) -> None:
    (listed.parent / "2.png").write_bytes(b"\x89PNG cut")
    (listed.parent / "6.png").unlink()
    with pytest.raises(DataError, match=r"6.png does not exist"):
        shards_of(listed, str(tmp_path / "out"))
    (listed.parent / "6.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2.png cannot be read"):
        shards_of(listed, str(tmp_path / "out"))
    index = shards_of(listed, str(tmp_path / "out"), on_error="skip")
    assert index.skipped == {"corrupt picture": 2}
    assert [one.records for one in index.shards] == [3, 3, 3]
    assert "left out 2.png (corrupt picture), 6.png (corrupt picture)" in caplog.text
    assert json.loads((tmp_path / "out" / "shards.json").read_text())["left_out"] == {"corrupt picture": 2}


def test_a_run_that_was_killed_keeps_whole_shards(listed: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (listed.parent / "1.png").write_bytes(b"\x89PNG cut")
    whole = shards_of(listed, str(tmp_path / "whole"), on_error="skip")
    original, calls = shard_writing._write_shard, list[str]()

    def killed(split: Any, rows: Any, name: str, *rest: Any) -> Any:
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(split, rows, name, *rest)

    monkeypatch.setattr(shard_writing, "_write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        shards_of(listed, str(tmp_path / "parts"), on_error="skip")
    assert {"shards.json"}.isdisjoint(contents(tmp_path / "parts"))
    kept = os.stat(tmp_path / "parts" / "train-000000.tar").st_mtime_ns
    index = shards_of(listed, str(tmp_path / "parts"), on_error="skip")
    assert calls[3:] == ["train-000002.tar"]
    assert os.stat(tmp_path / "parts" / "train-000000.tar").st_mtime_ns == kept
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert index.skipped == whole.skipped == {"corrupt picture": 1}
    shards_of(listed, str(tmp_path / "parts"), on_error="skip")  # all is there
    assert len(calls) == 4
    with pytest.raises(ConfigError, match="holds shards of other data"):
        shards_of(listed, str(tmp_path / "parts"), size=5)


def test_sizes_in_bytes_and_a_folder_at_an_address(listed: Path, tmp_path: Path) -> None:
    sizes = [(listed.parent / f"{number}.png").stat().st_size for number in range(11)]
    config = settings()
    split = load_whole(listed, config, "retrieval", "train")
    index = write_shards(split, "memory://bucket/folder", "retrieval", config, ShardSize(1000, sum(sizes[:3])))
    assert len(index.shards) > 2
    assert all(sum(sizes[:3]) > 0 and one.records >= 1 for one in index.shards)
    there = {name.rpartition("/")[2] for name in fsspec.filesystem("memory").ls("/bucket/folder", False)}
    assert there == {"shards.json", *(one.name for one in index.shards)}
    again = write_shards(split, "memory://bucket/folder", "retrieval", config, ShardSize(1000, sum(sizes[:3])))
    assert again.digest == index.digest
    for name in ("memory://bucket/folder", f"memory://bucket/folder/train-{{000000..{len(index.shards) - 1:06d}}}.tar"):
        streamed = load_shards(name, settings(cache=str(tmp_path / "cache")), "retrieval")
        batches = list(train_loader(streamed, settings(), size=8, batch_size=4, seed=0))
        assert sum(map(len, batches)) == streamed.samples == 21


def test_the_command(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--data.train", str(listed), "--data.workers", "1"]
    assert main(["shard", "pictures", *common]) == 2
    assert "where to? add --output" in capsys.readouterr().err
    assert main(["shard", "pictures", *common, "--size", "many", "--output", str(tmp_path / "out")]) == 2
    assert "neither a number of records nor like 500MB" in capsys.readouterr().err
    assert main(["shard", "pictures", *common, "--size", "4", "--output", str(tmp_path / "out")]) == 0
    assert "11 pictures with 21 captions in 3 shards" in capsys.readouterr().out
    assert main(["shard", "pictures", "--data.train", str(tmp_path / "out"), "--output", str(tmp_path / "b")]) == 2
    assert "shards or a stream already" in capsys.readouterr().err
    assert main(["shard", "pictures", "--data.val", str(tmp_path / "out"), "--split", "dev"]) == 2
    write_set(tmp_path / "others", (2, 3), lambda numbers: caption_files(numbers, said=2))
    assert main(["shard", "pictures", "--data.train", str(tmp_path / "others"), "--index_only"]) == 0
    made = json.loads((tmp_path / "others" / "shards.json").read_text())
    assert (made["records"], made["samples"], made["split"]) == (5, 10, "train")
    assert [len(one["sha256"]) for one in made["shards"]] == [64, 64]
    assert main(["evaluate", "pictures", "--data.test", str(tmp_path / "out"), "--model.base", "embedded"]) == 2
    assert "evaluation needs all of its pictures" in capsys.readouterr().err


def test_data_are_checked_before_anyone_trains_on_them(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(name: str) -> tuple[int, str]:
        none = ("--data.val", "null", "--data.test", "null", "--data.extra_tests", "{}")
        status = main(["check-data", "pictures", "--data.train", name, *none])
        return status, " ".join(capsys.readouterr().out.split())

    shards_of(listed, str(tmp_path / "out"))
    status, said = check(str(tmp_path / "out"))
    assert status == 0
    assert "train: 11 pictures, 21 captions" in said
    with (tmp_path / "out" / "train-000001.tar").open("r+b") as file:
        file.seek(600)
        file.write(b"changed")
    (tmp_path / "out" / "train-000002.tar").unlink()
    with pytest.raises(SystemExit, match="1"):
        check(str(tmp_path / "out"))
    said = " ".join(capsys.readouterr().out.split())
    assert "1 shard unlike its index train-000001.tar" in said
    assert "1 lost shard train-000002.tar: there is no such file" in said
    status, said = check("hf://somebody/something")
    assert "is a stream" in said
