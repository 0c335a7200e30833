"""What names tar shards and what does not, and names inside of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from shard_files import caption_files, png, settings, write_set, write_tar

from uniadapter.data.layouts.records import DataError
from uniadapter.data.loaders import train_loader
from uniadapter.data.sharded import load_shards
from uniadapter.data.shards.names import expand_braces, find_shards, names_shards


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
        ("{5..5}.tar", ["5.tar"]),
        ("plain.tar", ["plain.tar"]),
    ],
)
def test_braces_are_ranges_and_choices(pattern: str, names: list[str]) -> None:
    assert list(expand_braces(pattern)) == names


@pytest.mark.parametrize(
    "pattern, said",
    [
        ("a-{9..1}.tar", "has 0 names"), ("a-{}.tar", "neither a range"), ("a-{x}.tar", "neither a range"),
        ("a-{0..99999999999}.tar", "names, and a set"), ("a-{0..1.tar", "not closed"), ("a-{1,}.tar", "neither"),
        ("{a,b}/1.tar", "braces stand"), ("x/{1,1}.tar", "twice"), ("a.tar.gz", "is packed"),
        ("{0..999}{0..999}{0..999}.tar", "a set has fewer"),
    ],
)  # fmt: skip
def test_patterns_that_name_nothing_are_one_line(pattern: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        find_shards(pattern)


def test_what_names_shards_and_what_does_not(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "metadata.jsonl").write_text("{}")
    (tmp_path / "pictures" / "more.tar").write_text("")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a-0.tar").write_text("")
    yes = [
        "x/a.tar",
        "a-{0..3}.tar",
        "s3://bucket/folder",
        "https://a.b/c/{0..1}.tar",
        "a.tar.gz",
        str(tmp_path / "shards"),
    ]
    no = ["train.json", "https://a.b/train.json", "s3://b/train.parquet", "hf://name", "embedded:scenes/train",
          str(tmp_path / "pictures"), str(tmp_path), "missing/folder"]  # fmt: skip
    assert [names_shards(one) for one in yes] == [True] * len(yes)
    assert [names_shards(one) for one in no] == [False] * len(no)


def test_folders_without_shards_and_with_those_of_two_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        load_shards(str(tmp_path / "none" / "a.tar"), settings(), "retrieval")
    write_set(tmp_path, (2, 2))
    write_tar(tmp_path / "val-000000.tar", caption_files([9]))
    with pytest.raises(DataError, match=r"several sets .train, val.: name those of one"):
        load_shards(str(tmp_path), settings(), "retrieval")
    assert load_shards(str(tmp_path / "train-{000000..000001}.tar"), settings(), "retrieval").samples == 4


def test_names_in_archives_are_never_paths(tmp_path: Path) -> None:
    files = [("../../evil.png", png(0)), ("../../evil.txt", b"outside"), ("/tmp/x\n\x1b[31m.png", png(1)),
             ("/tmp/x\n\x1b[31m.txt", b"odd"), ("a" * 90 + ".png", png(2)), ("a" * 90 + ".txt", b"long")]  # fmt: skip
    shard = write_tar(tmp_path / "in" / "a.tar", files)
    split = load_shards(str(shard), settings(), "retrieval")
    batches = list(train_loader(split, settings(), size=8, batch_size=3, seed=0))
    assert sorted(batches[0].captions) == ["long", "odd", "outside"]
    assert {one.name for one in tmp_path.rglob("*")} == {"in", "a.tar"}
