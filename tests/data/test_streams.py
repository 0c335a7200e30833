"""Streaming data sets of Hugging Face, from files: one order, whatever the processes, workers and resumes."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from shard_files import png, settings

from uniadapter.config import ConfigError
from uniadapter.data.layouts.records import DataError
from uniadapter.data.loaders import train_loader
from uniadapter.data.streamed import StreamedSplit, open_stream
from uniadapter.data.training_sets import make_training_set

FEATURES = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four Parquet files of ten rows."""
    datasets.disable_progress_bars()
    for file in range(4):
        numbers = range(10 * file, 10 * file + 10)
        rows = {
            "image": [{"bytes": png(n), "path": f"{n}.png"} for n in numbers],
            "text": [f"row {n}" for n in numbers],
        }
        datasets.Dataset.from_dict(rows, features=FEATURES).to_parquet(tmp_path / "set" / f"train-{file}.parquet")
    return tmp_path / "set"


def batches(split: StreamedSplit, config: Any, **place: Any) -> list[Any]:
    loader = train_loader(split, config, size=16, batch_size=6, seed=1, **place)
    found = list(loader)
    loader.close()
    return found


def texts(found: list[Any]) -> list[str]:
    return [text for one in found for text in one.captions]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_once_in_one_order(folder: Path, workers: int) -> None:
    config = settings(samples=40, workers=workers)
    split = open_stream(f"hf://{folder}", config, "retrieval")
    assert split.summary() == "train: 40 pictures, 40 captions"
    whole = batches(split, config)
    assert sorted(texts(whole)) == sorted(f"row {n}" for n in range(40))
    assert texts(whole) != [f"row {n}" for n in range(40)]
    again = batches(
        open_stream(f"hf://{folder}", settings(samples=40), "retrieval"), settings(samples=40), start_batch=3
    )
    assert texts(again) == texts(whole[3:])
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(again, whole[3:], strict=True))
    assert len(set(torch.cat([one.ids for one in whole]).tolist())) == 40
    shares = [batches(split, config, rank=rank, world=3) for rank in range(3)]
    assert list(chain.from_iterable(texts(list(parts)) for parts in zip(*shares, strict=True))) == texts(whole)
    other = batches(split, config, epoch=1)
    assert sorted(texts(other)) == sorted(texts(whole))
    assert texts(other) != texts(whole)
    assert set(torch.cat([one.ids for one in other]).tolist()).isdisjoint(
        torch.cat([one.ids for one in whole]).tolist()
    )


def test_rows_in_memory_lists_of_captions_and_questions() -> None:
    rows = [{"image": {"bytes": png(n)}, "caption": [f"{n} a", f"{n} b"], "question": f"what {n}?", "answer": "red"}
            for n in range(8)]  # fmt: skip
    stream = datasets.Dataset.from_list(rows).to_iterable_dataset(num_shards=2)
    config = settings(samples=8)
    split = make_training_set(stream, "caption", config)
    assert isinstance(split, StreamedSplit)
    said = [{text for epoch in range(12) for text in texts(batches(split, config, epoch=epoch)) if text[0] == "3"}]
    assert said == [{"3 a", "3 b"}]  # one of them is drawn in each epoch
    asked = make_training_set({"train": stream}, "vqa", config)
    (first, *_) = batches(asked, config)  # type: ignore[arg-type]
    assert first.answers == [{"red": 1.0}] * 6
    assert asked.head(3).texts == ["what 0?", "what 1?", "what 2?"] or len(asked.head(3).texts) == 3


def test_rows_that_cannot_be_used_are_one_line_or_replaced() -> None:
    rows = [{"image": {"bytes": png(n)}, "caption": f"row {n}"} for n in range(12)]
    rows[3]["image"], rows[5]["caption"], rows[7]["image"] = {"bytes": b"broken"}, "", None  # type: ignore[assignment]
    stream = datasets.Dataset.from_list(rows).to_iterable_dataset()
    with pytest.raises(DataError, match=r"it\[5\]: no usable caption"):
        batches(StreamedSplit("train", "it", stream, "caption", settings(samples=12)), settings(samples=12))
    alone = settings(samples=4, shuffle_buffer=1)
    with pytest.raises(DataError, match=r"it\[3\]: picture in memory cannot be read"):
        batches(StreamedSplit("train", "it", stream, "caption", alone), alone)
    config = settings(samples=12, on_error="skip")
    split = StreamedSplit("train", "it", stream, "caption", config)
    loader = train_loader(split, config, size=8, batch_size=6, seed=0)
    found = texts(list(loader))
    assert len(found) == 12
    assert not {"row 3", "", "row 7"} & set(found)
    assert loader.skipped == {"corrupt picture": 1}
    assert split.skipped == {"empty caption": 1, "record without a picture": 1}


def test_streams_that_cannot_be_trained_on_are_one_line(folder: Path) -> None:
    with pytest.raises(ConfigError, match="does not say how many rows"):
        open_stream(f"hf://{folder}", settings(), "retrieval")
    with pytest.raises(DataError, match="no_such"):
        open_stream("hf:///tmp/no_such_folder", settings(samples=3), "retrieval")
    with pytest.raises(ConfigError, match="max_train_visuals"):
        open_stream(f"hf://{folder}", settings(samples=40, max_train_visuals=3), "retrieval")
    with pytest.raises(ConfigError, match="hard_negatives"):
        open_stream(f"hf://{folder}", settings(samples=40, hard_negatives=0.5), "retrieval")
    config = settings(samples=41)
    with pytest.raises(DataError, match="ended after 40 rows, and an epoch should have 41"):
        batches(open_stream(f"hf://{folder}", config, "retrieval"), config)
    fewer = settings(samples=15)
    assert len(texts(batches(open_stream(f"hf://{folder}", fewer, "retrieval"), fewer))) == 15
    rows = [{"image": {"bytes": png(n)}, "caption": f"row {n}"} for n in range(12)]
    first = StreamedSplit(
        "train", "it", datasets.Dataset.from_list(rows).to_iterable_dataset(), "caption", settings(samples=5)
    )
    assert sorted(texts(batches(first, settings(samples=5)))) == [f"row {n}" for n in range(5)]
    (folder / "train-2.parquet").write_bytes(b"PAR1 broken PAR1")
    broken = settings(samples=40)
    with pytest.raises(DataError, match=r"the stream broke|check the name"):
        batches(open_stream(f"hf://{folder}", broken, "retrieval"), broken)
