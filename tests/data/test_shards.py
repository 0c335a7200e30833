"""Training batches from tar shards: the same as from files, whatever the processes, workers and resumes."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from data_pictures import picture
from shard_files import caption_files, png, question_files, settings, write_set, write_tar

from uniadapter.config import ConfigError
from uniadapter.data.captions import load_retrieval
from uniadapter.data.layouts.records import DataError
from uniadapter.data.loaders import train_loader
from uniadapter.data.media.video import load_frames
from uniadapter.data.sharded import load_shards


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


def test_settings_that_need_all_rows_and_parts_of_a_set(tmp_path: Path) -> None:
    write_set(tmp_path, (3, 4), lambda numbers: caption_files(numbers, said=2))
    with pytest.raises(ConfigError, match=r"no record of .* has a field 'group'"):
        load_shards(str(tmp_path), settings(hard_negatives=0.5), "retrieval")
    few = load_shards(str(tmp_path), settings(max_train_visuals=4), "retrieval")
    assert (few.visual_count, few.samples) == (4, 8)
    assert [few.sample(row).text.split()[1] for row in range(8)] == ["0", "0", "1", "1", "2", "2", "3", "3"]


def test_the_digest_tells_other_shards_and_not_another_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_set(tmp_path / name, (3, 4))
    write_set(tmp_path / "other", (3, 5))
    digests = [load_shards(str(tmp_path / name), settings(), "retrieval").digest for name in ("one", "two", "other")]
    assert digests[0] == digests[1] != digests[2]


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
