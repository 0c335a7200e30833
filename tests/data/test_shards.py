"""Training batches from tar shards: every sample once, whatever the processes, workers and resumes."""

from __future__ import annotations

import json
import logging
import pickle
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from data_pictures import picture
from shard_files import caption_files, png, question_files, settings, write_set, write_tar

from uniadapter.config import ConfigError
from uniadapter.data.block_order import ShardBatchSampler, epoch_blocks, most_shards
from uniadapter.data.captions import load_retrieval
from uniadapter.data.layouts.records import DataError
from uniadapter.data.loaders import train_loader
from uniadapter.data.media import limits
from uniadapter.data.media.video import load_frames
from uniadapter.data.sharded import load_shards
from uniadapter.data.shards.index import Shard, ShardIndex, parse_index
from uniadapter.data.shards.names import expand_braces, find_shards, names_shards
from uniadapter.data.shards.places import LostShard

SIZES = (5, 8, 1, 13, 6, 9, 2, 7)


def fake_index(sizes: tuple[int, ...] = SIZES, texts: int = 1) -> ShardIndex:
    each = [None if texts == 1 else np.array([1 + n % texts for n in range(size)], np.uint16) for size in sizes]
    shards = [
        Shard(f"{n}.tar", size, size if one is None else int(one.sum()), texts=one)
        for n, (size, one) in enumerate(zip(sizes, each, strict=True))
    ]
    return ShardIndex("/nowhere", "captions", "pictures", tuple(shards))


def rows(batches: ShardBatchSampler) -> list[list[int]]:
    return [[row for load in batch for row in load.group[load.start : load.stop]] for batch in batches]


@pytest.mark.parametrize("buffer", [1, 10, 1000])
@pytest.mark.parametrize("size, texts", [(4, 1), (7, 3), (50, 2)])
def test_an_epoch_has_every_sample_once_on_any_number_of_processes(buffer: int, size: int, texts: int) -> None:
    index = fake_index(texts=texts)
    count = int(index.first_samples[-1])
    one = rows(ShardBatchSampler(index, size, 3, buffer=buffer, epoch=2))
    assert sorted(chain.from_iterable(one)) == list(range(count))
    assert rows(ShardBatchSampler(index, size, 3, buffer=buffer, epoch=2)) == one
    assert rows(ShardBatchSampler(index, size, 3, buffer=buffer, epoch=3)) != one
    for world in (2, 3):
        several = [ShardBatchSampler(index, size, 3, buffer=buffer, epoch=2, rank=k, world=world) for k in range(world)]
        for sampler in several:
            sampler.keep_batches(len(one)) if len(one[-1]) >= world else None
        together = [list(chain.from_iterable(parts)) for parts in zip(*map(rows, several), strict=True)]
        assert list(chain.from_iterable(together)) == list(chain.from_iterable(one))


@pytest.mark.parametrize("together", [1, 2])
def test_hard_negatives_of_a_block_share_its_batches(together: int) -> None:
    sizes = (12, 12, 12, 12, 12, 12)
    shards = [replace(one, groups=np.arange(12) // 2 + 1) for one in fake_index(sizes, texts=2).shards]
    shards = [replace(one, groups=one.groups + 100 * n) for n, one in enumerate(shards)]  # type: ignore[operator]
    index = replace(fake_index(), shards=tuple(shards))
    record = [int(index.first_records[n] + one) for n in range(6) for one in index.shards[n].record_numbers()]
    group = [one for n in range(6) for one in index.shards[n].groups.tolist()]  # type: ignore[union-attr]

    def met(share: float, **place: Any) -> tuple[float, list[list[int]]]:
        more = {"buffer": 30, "together": together, "hard_negatives": share, **place}
        found = rows(ShardBatchSampler(index, 7, 0, **more))
        beside = [
            any(group[record[a]] == group[record[b]] and record[a] != record[b] for b in batch)
            for batch in found for a in batch
        ]  # fmt: skip
        return sum(beside) / len(beside), found

    (few, _), (many, whole) = met(0.0), met(1.0)
    assert few + 0.2 < many
    assert sorted(chain.from_iterable(whole)) == list(range(len(record)))
    for start in (1, 5, 9):
        assert met(1.0, start_batch=start)[1] == whole[start:]


@pytest.mark.parametrize("together", [1, 2])
def test_a_resumed_epoch_goes_on_where_it_was(together: int) -> None:
    index = fake_index(texts=3)
    whole = rows(ShardBatchSampler(index, 6, 1, buffer=10, together=together))
    for start in range(len(whole) + 1):
        assert rows(ShardBatchSampler(index, 6, 1, buffer=10, together=together, start_batch=start)) == whole[start:]


def test_texts_of_a_record_follow_one_another_where_they_share_it() -> None:
    index = fake_index(texts=4)
    record = [
        int(index.first_records[shard] + one)
        for shard in range(len(SIZES)) for one in index.shards[shard].record_numbers()
    ]  # fmt: skip
    batches = list(ShardBatchSampler(index, 8, 0, buffer=20, together=2))
    groups = [load.group for batch in batches for load in batch]
    assert all(len({record[row] for row in group}) == 1 for group in groups)
    assert max(map(len, groups)) == 2
    assert sorted(row for load in set(chain.from_iterable(batches)) for row in load.group[load.start : load.stop]) == (
        list(range(len(record)))
    )


def test_blocks_mix_shards_and_hold_few() -> None:
    index = fake_index((100,) * 50)
    blocks = epoch_blocks(index, 350, seed=0, epoch=0)
    assert {len(one) for one in blocks.shards[:-1]} == {4}
    assert most_shards(index, 350) == 4
    assert sorted(chain.from_iterable(blocks.shards)) == list(range(50))
    order = list(chain.from_iterable(rows(ShardBatchSampler(index, 16, 0, buffer=350))))
    first = [row // 100 for row in order[:400]]
    assert len(set(first)) == 4
    assert all(first[:100].count(shard) > 10 for shard in set(first))  # mixed, not one after the other


def test_pictures_and_captions_are_those_of_the_same_files_on_disk(tmp_path: Path, write: Any) -> None:
    write_set(tmp_path / "shards", (4, 5))
    listed = []
    for number in range(9):
        write(f"files/{number}.png", picture(number))
        listed.append({"image": f"{number}.png", "caption": f"picture {number} take 0"})
    config = settings()
    plain = load_retrieval(write("files/train.json", listed), config, "train")
    shards = load_shards(str(tmp_path / "shards"), config, "retrieval")
    assert shards.summary() == "train: 9 pictures, 9 captions in 2 shards"

    def shown(split: Any) -> dict[str, torch.Tensor]:
        # The same augmentation needs the same (seed, epoch, sample): samples are in the same order in both.
        loader = train_loader(split, config, size=16, batch_size=4, seed=0)
        return {text: frame for batch in loader for text, frame in zip(batch.captions, batch.frames, strict=True)}

    one, other = shown(plain), shown(shards)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[text], other[text]) for text in one)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_on_neither_workers_nor_resumes(tmp_path: Path, workers: int) -> None:
    write_set(tmp_path, (4, 6, 3, 5), lambda numbers: caption_files(numbers, said=2))

    def batches(count: int, start: int = 0) -> list[Any]:
        config = settings(workers=count)
        loader = train_loader(
            load_shards(str(tmp_path), config, "retrieval"), config, size=16, batch_size=5, seed=4, start_batch=start
        )  # fmt: skip
        found = list(loader)
        loader.close()
        return found

    whole, again = batches(0), batches(workers, 3)
    assert len(whole) == 8
    for one, other in zip(whole[3:], again, strict=True):
        assert one.captions == other.captions
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.sample_ids, other.sample_ids)
    said = [(int(number), text.split()[1]) for one in whole for number, text in zip(one.ids, one.captions, strict=True)]
    assert all(number == int(name) for number, name in said)  # two captions of a record have one id


def test_questions_come_with_their_answers(tmp_path: Path) -> None:
    write_set(tmp_path, (4, 5), question_files)
    config = settings(together=2)
    split = load_shards(str(tmp_path), config, "vqa")
    assert (split.visual_count, split.samples, split.text_noun) == (9, 18, "questions")
    batches = list(train_loader(split, config, size=16, batch_size=6, seed=0))
    assert sorted(text for one in batches for text in one.captions) == sorted(
        f"what is {number} at {n}?" for number in range(9) for n in range(number % 3 + 1)
    )
    assert all(
        answers == {"red": pytest.approx(2 / 3), "blue": pytest.approx(1 / 3)}
        for one in batches
        for answers in one.answers
    )
    assert any(len(one.frames) < len(one) for one in batches)
    parts = batches[0].parts(2)
    assert [len(one.answers) for one in parts] == [2, 2, 2]
    assert split.head(3).texts == [
        "what is 0 at 0?",
        "what is 1 at 0?",
        "what is 1 at 1?",
        *(f"what is 2 at {n}?" for n in range(3)),
    ]


def test_records_as_img2dataset_and_others_write_them(tmp_path: Path) -> None:
    files = [
        ("00000.jpg", png(0)), ("00000.txt", b"from text"), ("00000.json", b'{"url": "x", "caption": null}'),
        ("00001.json", json.dumps({"caption": "from json", "url": "x"}).encode()), ("00001.jpg", png(1)),
        ("00001.txt", b"ignored"), ("00001.seg.png", png(9, 5, 5)),
        ("00002.txt", b"one\n\n two \n"), ("00002.webp", png(2)),
        ("deep/er/00003.TXT", b"\xef\xbb\xbfupper"), ("deep/er/00003.JPG", png(3)),
    ]  # fmt: skip
    write_tar(tmp_path / "00000.tar", files)
    split = load_shards(str(tmp_path / "00000.tar"), settings(), "caption")
    assert [split.sample(row).text for row in range(split.samples)] == [
        "from text", "from json", "one", "two", "upper",
    ]  # fmt: skip
    assert split.visual_count == 4
    assert split.head(4).visuals[1].suffix == "jpg"  # type: ignore[union-attr]
    renamed = write_tar(tmp_path / "b.tar", [("a.png", png(0)), ("a.json", b'{"said": "hello"}')])
    assert load_shards(str(renamed), settings(fields={"caption": "said"}), "caption").sample(0).text == "hello"


def film(file: Path, shades: range) -> Path:
    with av.open(str(file), "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in shades:
            frame = np.full((48, 64, 3), shade, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))
    return file


def test_videos_in_a_shard_are_read_as_their_files(tmp_path: Path) -> None:
    frames = [picture(n, 48, 32) for n in range(6)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)
    frames[0].save(tmp_path / "b.webp", save_all=True, append_images=frames[1:], duration=100, loop=0, lossless=True)
    film(tmp_path / "c.mp4", range(0, 250, 25))
    files = [tmp_path / name for name in ("a.gif", "b.webp", "c.mp4")]
    members = [(f"k{file.name}", file.read_bytes()) for file in files]
    texts = [(f"k{file.stem}.txt", file.name.encode()) for file in files]
    cut = [("kd.mp4", members[2][1][:300]), ("kd.txt", b"cut")]
    pairs = [one for both in zip(members, texts, strict=True) for one in both]
    write_tar(tmp_path / "v.tar", [*pairs, *cut])
    split = load_shards(str(tmp_path / "v.tar"), settings(), "retrieval")
    assert split.noun == "visuals"
    for row, file in enumerate(files):
        wanted = load_frames(file, "", 4, 0, random.Random(1))
        found = load_frames(split.sample(row).source, "", 4, 0, random.Random(1))
        assert [one.tobytes() for one in found] == [one.tobytes() for one in wanted]
        assert len({one.tobytes() for one in found}) > 2
        one = load_frames(split.sample(row).source, "", 1, 0)
        assert one[0].tobytes() == load_frames(file, "", 1, 0)[0].tobytes()
    with pytest.raises(DataError, match=r"v.tar\[3\]: video .mp4 ") as failed:
        list(train_loader(split, settings(frames=3), size=16, batch_size=4, seed=0))
    assert "uniadapter-" not in str(failed.value)
    batch = next(iter(train_loader(split, settings(frames=3, on_error="skip"), size=16, batch_size=4, seed=0)))
    assert batch.frames.shape == (4, 3, 3, 16, 16)


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


def test_settings_that_need_all_rows_and_parts_of_a_set(tmp_path: Path) -> None:
    write_set(tmp_path, (3, 4), lambda numbers: caption_files(numbers, said=2))
    with pytest.raises(ConfigError, match=r"no record of .* has a field 'group'"):
        load_shards(str(tmp_path), settings(hard_negatives=0.5), "retrieval")
    few = load_shards(str(tmp_path), settings(max_train_visuals=4), "retrieval")
    assert (few.visual_count, few.samples) == (4, 8)
    assert [few.sample(row).text.split()[1] for row in range(8)] == ["0", "0", "1", "1", "2", "2", "3", "3"]


def test_names_in_archives_are_never_paths(tmp_path: Path) -> None:
    files = [("../../evil.png", png(0)), ("../../evil.txt", b"outside"), ("/tmp/x\n\x1b[31m.png", png(1)),
             ("/tmp/x\n\x1b[31m.txt", b"odd"), ("a" * 90 + ".png", png(2)), ("a" * 90 + ".txt", b"long")]  # fmt: skip
    shard = write_tar(tmp_path / "in" / "a.tar", files)
    split = load_shards(str(shard), settings(), "retrieval")
    batches = list(train_loader(split, settings(), size=8, batch_size=3, seed=0))
    assert sorted(batches[0].captions) == ["long", "odd", "outside"]
    assert {one.name for one in tmp_path.rglob("*")} == {"in", "a.tar"}


def test_the_digest_tells_other_shards_and_not_another_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_set(tmp_path / name, (3, 4))
    write_set(tmp_path / "other", (3, 5))
    digests = [load_shards(str(tmp_path / name), settings(), "retrieval").digest for name in ("one", "two", "other")]
    assert digests[0] == digests[1] != digests[2]


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


def test_a_set_can_be_sent_to_processes_that_are_not_forked(tmp_path: Path) -> None:
    write_set(tmp_path, (3, 4))
    split = load_shards(str(tmp_path), settings(), "retrieval")
    split.ahead([1])
    again = pickle.loads(pickle.dumps(split))
    assert [again.sample(row).text for row in range(7)] == [split.sample(row).text for row in range(7)]


def test_memory_of_an_open_set_does_not_grow_with_its_records(tmp_path: Path) -> None:
    write_set(tmp_path, (20,) * 6)
    split = load_shards(str(tmp_path), settings(shuffle_buffer=20), "retrieval")
    list(train_loader(split, settings(shuffle_buffer=20), size=8, batch_size=8, seed=0))
    shelf = split._shelf
    assert len(shelf._spans) <= shelf.most == 3
