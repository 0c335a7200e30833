"""Tar shards and indexes that are broken, lie or are gone: one line, or left out and counted."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_files import caption_files, fake_index, png, settings, write_set, write_tar

from uniadapter.data.layouts.records import DataError
from uniadapter.data.loaders import train_loader
from uniadapter.data.media import limits
from uniadapter.data.sharded import load_shards
from uniadapter.data.shards.index import parse_index
from uniadapter.data.shards.places import LostShard

BAD: list[tuple[str, list[tuple[str, bytes]], str, str]] = [
    ("no picture", [("a.txt", b"alone")], "no picture or video", "record without a picture"),
    ("no caption", [("a.png", png(0))], "no caption", "missing field"),
    ("an empty caption", [("a.png", png(0)), ("a.txt", b" .. ")], "empty once cleaned", "empty caption"),
    ("a repeated key", [*caption_files([7]), ("b.png", png(0)), ("b.txt", b"b"), *caption_files([7])], "there before",
     "repeated key"),
    ("a name twice", [("a.png", png(0)), ("a.png", png(1)), ("a.txt", b"a")], "there before", "repeated key"),
    ("broken JSON", [("a.png", png(0)), ("a.json", b"{")], "cannot be read", "unusable json"),
    ("JSON in Latin-1", [("a.png", png(0)), ("a.json", b'{"caption": "\xe4"}')], "not in UTF-8", "unusable json"),
    ("text in Latin-1", [("a.png", png(0)), ("a.txt", "ä".encode("latin1"))], "not in UTF-8", "unusable json"),
    ("a list", [("a.png", png(0)), ("a.json", b"[1]")], "not an object", "unusable json"),
    ("deep JSON", [("a.png", png(0)), ("a.json", b"[" * 100_000)], "cannot be read", "unusable json"),
    ("a caption of numbers", [("a.png", png(0)), ("a.json", b'{"caption": [1]}')], "should be a string",
     "unusable caption"),
    ("another task", [("a.png", png(0)), ("a.json", b'{"question": "what?", "answer": "a"}')], "another task",
     "missing field"),
    ("a lone surrogate", [("a.png", png(0)), ("a.json", b'{"caption": "\\ud800"}')], "lone surrogate",
     "broken caption"),
]  # fmt: skip


@pytest.mark.parametrize("files, said, kind", [one[1:] for one in BAD], ids=[one[0] for one in BAD])
def test_bad_records_are_one_line_or_left_out(
    tmp_path: Path, files: list[tuple[str, bytes]], said: str, kind: str
) -> None:
    shard = write_tar(tmp_path / "train-000000.tar", [*caption_files([1, 2]), *files, *caption_files([3])])
    with pytest.raises(DataError, match=said) as failed:
        load_shards(str(shard), settings(), "retrieval")
    assert "\n" not in str(failed.value)
    assert failed.value.kind == kind
    split = load_shards(str(shard), settings(on_error="skip"), "retrieval")
    assert kind in split.skipped
    texts = [split.sample(row).text for row in range(split.samples)]
    assert {"picture 1 take 0", "picture 2 take 0", "picture 3 take 0"} <= set(texts)
    ids = [
        int(one) for batch in train_loader(split, settings(), size=8, batch_size=2, seed=0) for one in batch.sample_ids
    ]
    assert sorted(ids) == list(range(split.samples))


@pytest.mark.parametrize(
    "content, said",
    [
        (b"<!DOCTYPE html><html>not found</html>" + b" " * 1000, "not a tar archive .it is a web page.: download"),
        (b"", "is empty"),
        (b"PK\x03\x04" + b"\0" * 2000, "ZIP"),
        (b"x" * 5000, "not a tar archive: get it again"),
    ],
)
def test_a_file_that_is_no_archive(tmp_path: Path, content: bytes, said: str) -> None:
    good = write_set(tmp_path, (3, 3))
    good[1].write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_shards(str(tmp_path), settings(), "retrieval")
    split = load_shards(str(tmp_path), settings(on_error="skip"), "retrieval")
    assert split.samples == 3
    assert len(split.index.shards) == 1


def test_a_shard_that_is_cut_gives_its_whole_records(tmp_path: Path) -> None:
    good = write_set(tmp_path, (3, 6))
    content = good[1].read_bytes()
    good[1].write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="is cut"):
        load_shards(str(tmp_path), settings(), "retrieval")
    split = load_shards(str(tmp_path), settings(on_error="skip"), "retrieval")
    assert 3 < split.samples < 9
    assert [split.sample(row).text.split()[1] for row in range(split.samples)] == [str(n) for n in range(split.samples)]


def test_pictures_that_cannot_be_decoded_are_replaced_and_counted(tmp_path: Path, monkeypatch: Any) -> None:
    files = [
        *caption_files(range(4)),
        ("bad.png", b"\x89PNG broken"),
        ("bad.txt", b"broken"),
        *caption_files(range(5, 8)),
    ]
    big = [("big.png", png(3, 300, 200)), ("big.txt", b"large")]
    shard = write_tar(tmp_path / "train-000000.tar", [*files, *big])
    monkeypatch.setenv(limits.PIXELS_SETTING, "20000")
    split = load_shards(str(shard), settings(), "retrieval")
    with pytest.raises(DataError, match=r"train-000000.tar\[4\]: picture .png cannot be read|300 x 200"):
        list(train_loader(split, settings(), size=8, batch_size=3, seed=0))
    loader = train_loader(split, settings(on_error="skip"), size=8, batch_size=3, seed=0)
    found = [text for batch in loader for text in batch.captions]
    assert len(found) == 9
    assert not {"broken", "large"} & set(found)
    assert loader.skipped == {"corrupt picture": 1, "picture too large": 1}


def damaged(path: Path, index: dict[str, Any]) -> None:
    (path / "shards.json").write_text(json.dumps(index))


@pytest.fixture
def indexed(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    write_set(tmp_path, (3, 4), lambda numbers: caption_files(numbers, said=2))
    content = load_shards(str(tmp_path), settings(), "retrieval").index.to_json()
    (tmp_path / "shards.json").write_bytes(content)
    return tmp_path, json.loads(content)


CHANGES: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("no version", lambda index: index.pop("version"), "version"),
    ("no list", lambda index: index.update(shards=3), "shards"),
    ("another task", lambda index: index.update(holds="questions"), "hold questions, and the task is retrieval"),
    ("another split", lambda index: index.update(split="val"), "of the split val, not train"),
    ("a path", lambda index: index["shards"][0].update(name="../train-000000.tar"), "beside it"),
    ("other numbers", lambda index: index["shards"][0].update(samples=7), "contradict"),
    ("a shard less", lambda index: index["shards"].pop(), "does not list train-000001.tar"),
    ("a checksum of letters", lambda index: index["shards"][0].update(sha256="x"), "sha256"),
    ("nothing", lambda index: [one.update(records=0, samples=0, texts=[]) for one in index["shards"]], "no shard has"),
]  # fmt: skip


@pytest.mark.parametrize("change, said", [one[1:] for one in CHANGES], ids=[one[0] for one in CHANGES])
def test_a_broken_index_is_one_line(
    indexed: tuple[Path, dict[str, Any]], change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    path, index = indexed
    change(index)
    damaged(path, index)
    with pytest.raises(DataError, match=said) as failed:
        load_shards(str(path / "train-{000000..000001}.tar"), settings(), "retrieval")
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"bytes": 99}, "99"),
        ({"records": 9, "samples": 18, "texts": 2}, "index says 9"),
        ({"samples": 9, "texts": 3}, "index says 3"),
    ],
)
def test_an_index_unlike_its_shard_is_one_line_when_it_is_read(
    indexed: tuple[Path, dict[str, Any]], change: dict[str, Any], said: str
) -> None:
    path, index = indexed
    index["shards"][0].update(change)
    damaged(path, index)
    split = load_shards(str(path), settings(), "retrieval")
    with pytest.raises(DataError, match=said):
        list(train_loader(split, settings(), size=8, batch_size=2, seed=0))


def test_a_shard_that_is_gone_ends_the_run_or_is_left_out_up_to_a_number(
    indexed: tuple[Path, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    path, _ = indexed
    (path / "train-000000.tar").unlink()
    split = load_shards(str(path), settings(), "retrieval")
    with pytest.raises(LostShard, match=r"train-000000.tar: there is no such file"):
        list(train_loader(split, settings(), size=8, batch_size=3, seed=0))
    skip = settings(on_error="skip", most_lost_shards=1, workers=2)
    split = load_shards(str(path), skip, "retrieval")
    loader = train_loader(split, skip, size=8, batch_size=3, seed=0)
    with caplog.at_level(logging.WARNING):
        batches = list(loader)
    loader.close()
    texts = [text for one in batches for text in one.captions]
    assert len(texts) == 14
    assert {int(text.split()[1]) for text in texts} <= {3, 4, 5, 6}
    assert len(set(texts)) == 8  # those of the other shard, and its samples once more in place of the lost ones
    assert loader.skipped == {"lost shard": 1}
    assert len(loader.lost) == 1
    assert "shard 1 of at most 1 is left out" in caplog.text
    none = settings(on_error="skip", most_lost_shards=0)
    with pytest.raises(LostShard, match=r"1 shards cannot be read, and data.most_lost_shards is 0"):
        list(train_loader(load_shards(str(path), none, "retrieval"), none, size=8, batch_size=3, seed=0))


def test_an_index_is_read_as_it_was_written() -> None:
    index = fake_index(texts=3)
    again = parse_index("/nowhere", index.to_json())
    assert again.shards == index.shards
    assert all(np.array_equal(a.texts, b.texts) for a, b in zip(again.shards, index.shards, strict=True))
    draw = random.Random(0)
    content = index.to_json()
    for _ in range(200):
        broken = bytearray(content)
        broken[draw.randrange(len(broken))] = draw.randrange(256)
        with suppress(DataError):  # and nothing else
            parse_index("/nowhere", bytes(broken))
