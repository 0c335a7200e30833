"""Batches with hard negatives: their share, their order, several processes, resuming, and files without groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from data_pictures import picture

from uniadapter.config import ConfigError, DataConfig, RunConfig
from uniadapter.data import from_dataset
from uniadapter.data.batches import EpochBatchSampler, LoadRequest
from uniadapter.data.captions import load_retrieval
from uniadapter.data.in_memory import make_split
from uniadapter.data.loaders import train_loader
from uniadapter.data.questions import load_questions
from uniadapter.data.splits import RetrievalSplit
from uniadapter.processes.seeds import GROUPS, ORDER, PAIRS, permutation
from uniadapter.training.resume import data_hash, flatten_config

Write = Callable[[str, Any], Path]
Groups = Sequence[str | int | None]

# 60 visuals of three captions: 40 are twins, 6 are triplets, 14 have no hard negative, four of these no group either.
VISUALS = [sample // 3 for sample in range(180)]
GROUPED: list[str | int | None] = [
    visual // 2 if visual < 40 else f"three {(visual - 40) // 3}" if visual < 46 else visual if visual < 56 else None
    for visual in VISUALS
]


def sampler(**settings: Any) -> EpochBatchSampler:
    usual = {"batch_size": 16, "seed": 3, "sample_visuals": VISUALS, "sample_groups": GROUPED, "hard_negatives": 0.5}
    return EpochBatchSampler(180, **{**usual, **settings})


def rows(batches: Sequence[list[LoadRequest]]) -> list[list[int]]:
    return [[row for load in batch for row in load.group[load.start : load.stop]] for batch in batches]


def accompanied(batches: list[list[int]], visuals: Sequence[int] = VISUALS, groups: Groups = GROUPED) -> float:
    """Share of the samples that stand beside a hard negative in their batch."""
    found = 0
    for batch in batches:
        for place, row in enumerate(batch):
            near = batch[max(place - 1, 0) : place + 2]
            found += any(
                groups[row] is not None and groups[one] == groups[row] and visuals[one] != visuals[row] for one in near
            )
    return found / sum(map(len, batches))


def naive_order(settings: dict[str, Any], epoch: int, visuals: list[int], groups: Groups) -> list[int]:
    """The specification: quadratic loops over the same random permutations."""
    seed, size, together = settings["seed"], settings["batch_size"], settings.get("together", 1)
    shuffled = permutation(len(visuals), seed, ORDER, epoch)
    units = [[row] for row in shuffled]
    if together > 1:
        units = []
        for visual in dict.fromkeys(visuals[row] for row in shuffled):
            own = [row for row in shuffled if visuals[row] == visual]
            units += [own[low : low + together] for low in range(0, len(own), together)]
        units = [units[index] for index in permutation(len(units), seed, GROUPS, epoch)]
    pairs: list[list[list[int]]] = []
    for place, unit in enumerate(units):
        for before in units[:place]:
            kin = groups[unit[0]] is not None and groups[before[0]] == groups[unit[0]]
            if kin and visuals[before[0]] != visuals[unit[0]] and all(before not in pair for pair in pairs):
                pairs.append([before, unit])
                break
    drawn = [pairs[number] for number in permutation(len(pairs), seed, PAIRS, epoch, 0)]
    samples = [sum(len(unit) for pair in drawn[:count] for unit in pair) for count in range(len(drawn) + 1)]
    wanted = settings["hard_negatives"] * len(visuals)
    drawn = drawn[: next((count for count, length in enumerate(samples) if length >= wanted), len(drawn))]
    blocks = drawn + [[unit] for unit in units if all(unit not in pair for pair in drawn)]
    rest = [blocks[number] for number in permutation(len(blocks), seed, PAIRS, epoch, 1)]
    order: list[int] = []
    while rest:
        left = size - len(order) % size
        first = rest[0]
        if len(first) == 2 and sum(map(len, first)) > left < size:
            first = next((block for block in rest if len(block) == 1), first)
        rest.remove(first)
        order += chain.from_iterable(first)
    return order


@pytest.mark.parametrize("settings", [
    {}, {"batch_size": 7}, {"batch_size": 3, "hard_negatives": 1.0}, {"batch_size": 180}, {"hard_negatives": 0.01},
    {"together": 2}, {"together": 3, "batch_size": 10, "hard_negatives": 0.8}, {"together": 3, "batch_size": 4},
    {"batch_size": 1}, {"seed": 9, "hard_negatives": 0.25},
])  # fmt: skip
def test_the_order_is_that_of_the_naive_version(settings: dict[str, Any]) -> None:
    full = {"batch_size": 16, "seed": 3, "hard_negatives": 0.5, **settings}
    for epoch in (0, 4):
        expected = naive_order(full, epoch, VISUALS, GROUPED)
        assert list(chain.from_iterable(rows(list(sampler(**full, epoch=epoch))))) == expected


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("size", [8, 16, 45])
def test_the_asked_share_of_samples_has_its_partner_in_the_batch(share: float, size: int) -> None:
    for epoch in range(3):
        found = rows(list(sampler(batch_size=size, hard_negatives=share, epoch=epoch)))
        assert sorted(chain.from_iterable(found)) == list(range(180))
        assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
        assert share - 0.02 < accompanied(found) < share + 0.06  # some meet by chance


def test_not_more_than_have_a_partner_and_none_without() -> None:
    most = rows(list(sampler(hard_negatives=1.0)))
    assert sorted(chain.from_iterable(most)) == list(range(180))
    assert 0.68 < accompanied(most) < 0.77  # 138 of the 180 samples have a partner somewhere
    plain = rows(list(EpochBatchSampler(180, 16, 3)))
    assert rows(list(sampler(hard_negatives=0.0))) == plain
    assert accompanied(plain) < 0.1
    assert rows(list(sampler(sample_groups=None))) == plain


def test_pairs_are_anywhere_in_an_epoch_and_meet_other_captions_in_the_next() -> None:
    batches, places, met = sampler(hard_negatives=0.4), list[float](), set[tuple[int, int]]()
    for epoch in range(30):
        batches.set_epoch(epoch)
        for number, batch in enumerate(rows(list(batches))[:11]):
            places += [number / 10] * round(len(batch) * accompanied([batch]))
            met |= {(a, b) for a, b in pairwise(batch) if {a // 3, b // 3} == {0, 1}}
    assert sum(places) / len(places) == pytest.approx(0.5, abs=0.03)
    assert len(met) > 9  # of 18 ordered pairs of the first twins' captions


@pytest.mark.parametrize("size, world", [(16, 2), (9, 2), (13, 3), (179, 2), (3, 3)])
@pytest.mark.parametrize("together", [1, 3])
def test_processes_share_out_the_samples_of_one_and_resume(size: int, world: int, together: int) -> None:
    settings = {"batch_size": size, "together": together, "epoch": 2}
    one = rows(list(sampler(**settings)))
    shares = [rows(list(sampler(**settings, rank=rank, world=world))) for rank in range(world)]
    joined = [list(chain.from_iterable(parts)) for parts in zip(*shares, strict=True)]
    assert joined == ([*one[:-2], one[-2] + one[-1]] if 0 < 180 % size < world else one)
    again = sampler(batch_size=size, together=together)
    again.set_epoch(2, start_batch=2)
    assert rows(list(again)) == one[2:]


def picture_rows(write: Write) -> list[dict[str, Any]]:
    names = [f"{index}.png" for index in range(8)]
    for index, name in enumerate(names):
        write(name, picture(index, 32, 32))
    return [{"image": name, "caption": f"said of {name[0]}", "group": f"{int(name[0]) // 2:05}"} for name in names]


def test_groups_are_read_from_rows_of_captions_questions_and_datasets(write: Write, tmp_path: Path) -> None:
    listed = picture_rows(write)
    expected = [row["group"] for row in listed]
    file = write("train.json", listed)
    assert load_retrieval(file, DataConfig(), "train").text_group == expected
    other = write("other.json", [{"twin": row.pop("group"), **row} for row in picture_rows(write)])
    assert load_retrieval(other, DataConfig(), "train").text_group == []
    assert load_retrieval(other, DataConfig(fields={"group": "twin"}), "train").text_group == expected
    table = write("a.csv", "image,caption,group\n0.png,x,1\n1.png,y,\n2.png,z,1.0\n")
    assert load_retrieval(table, DataConfig(), "train").text_group == ["1", None, "1"]
    asked = [{"question": row.pop("caption"), "answer": "yes", **row} for row in picture_rows(write)]
    split = load_questions(write("asked.json", asked), DataConfig(), "train")
    assert split.text_group == expected
    split.drop_visuals({1, 2})
    assert split.text_group == [group for row, group in enumerate(expected) if row not in (1, 2)]
    config = DataConfig(root=str(tmp_path))
    assert make_split(listed, "retrieval", config).text_group == expected
    assert make_split(asked, "vqa", config).text_group == expected
    pictures = [{"image": picture(n), "caption": "x", "kin": 1.0 if n else [2]} for n in range(3)]
    assert from_dataset(pictures, group_column="kin").text_group == [None, 1, 1]


def test_a_dataset_with_columns_gives_groups_too() -> None:
    class Columns(list[dict[str, Any]]):
        column_names = ("image", "caption", "group")

        def __getitem__(self, key: Any) -> Any:
            return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    dataset = Columns({"image": picture(n), "caption": "x", "group": n // 2} for n in range(4))
    assert from_dataset(dataset, group_column="group").text_group == [0, 0, 1, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_puts_hard_negatives_into_a_batch(write: Write, workers: int) -> None:
    split = load_retrieval(write("train.json", picture_rows(write)), DataConfig(), "train")
    config = DataConfig(hard_negatives=1, workers=workers)
    for batch in train_loader(split, config, size=24, batch_size=2, seed=0):
        one, other = batch.ids.tolist()
        assert one != other
        assert one // 2 == other // 2


def test_a_file_without_groups_is_one_line(write: Write) -> None:
    for lacking, message in ((("group",), "has no field 'kin'"), ((), "has no two pictures of the same 'kin'")):
        listed = [{k: v for k, v in row.items() if k not in lacking} for row in picture_rows(write)[::2]]
        file = write("train.json", [{("kin" if k == "group" else k): v for k, v in row.items()} for row in listed])
        config = DataConfig(train=str(file), hard_negatives=0.5, fields={"group": "kin"})
        split = load_retrieval(file, config, "train")
        with pytest.raises(ConfigError, match=r"^data\.hard_negatives is 0\.5, but .*train\.json ") as error:
            train_loader(split, config, size=24, batch_size=2, seed=0)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    for wrong in (-0.1, 1.1, "all"):
        with pytest.raises(ConfigError, match=r"^data\.hard_negatives"):
            DataConfig(hard_negatives=wrong)  # type: ignore[arg-type]


def test_groups_are_part_of_what_resuming_compares() -> None:
    assert flatten_config(RunConfig())["data.hard_negatives"] == 0
    fields: dict[str, Any] = {"texts": ["a", "b"], "text_visual": [0, 1]}
    splits = [RetrievalSplit("train", **fields, text_group=groups) for groups in ([], [1, 1], [1, 2])]
    assert len({data_hash(split) for split in splits}) == 3
