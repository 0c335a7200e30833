"""Captions that do not belong to their pictures are noticed before a run is wasted on them, and after an evaluation."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from uniadapter.app.cli import main
from uniadapter.embedded import resolve_embedded
from uniadapter.evaluation.recall import is_at_chance, is_coin_toss

MIXED = "do not belong together"


def rows(folder: Path, shuffled: bool) -> Path:
    """Some embedded scenes with their own captions, or with others'."""
    file = Path(resolve_embedded("embedded:scenes/val"))
    content = [row for row in json.loads(file.read_text()) if isinstance(row["caption"], str) or row["caption"]][:400]
    seen = [{"image": str(file.parent / row["image"]), "caption": row["caption"]} for row in content]
    seen = list({row["image"]: row for row in seen}.values())[:100]
    if shuffled:
        said = [row["caption"] for row in seen]
        random.Random(0).shuffle(said)
        seen = [{**row, "caption": text} for row, text in zip(seen, said, strict=True)]
    out = folder / f"rows-{shuffled}.json"
    out.write_text(json.dumps(seen))
    return out


@pytest.mark.parametrize("shuffled", [False, True])
def test_pairs_that_were_mixed_up_are_noticed_before_training(tmp_path: Path, shuffled: bool) -> None:
    file = rows(tmp_path, shuffled)
    given = ["scenes", f"--data.train={file}", "--data.val=null", "--data.test=null", "--data.extra_tests={}",
             "--data.hard_negatives=0", "--train.max_steps=1", "--train.batch_size=4", "--train.warmup_steps=0",
             f"--output={tmp_path}/run"]  # fmt: skip
    assert main(["train", *given]) == 0
    assert (MIXED in (tmp_path / "run/train.log").read_text()) == shuffled


@pytest.mark.parametrize("shuffled", [False, True])
def test_captions_to_be_written_too(tmp_path: Path, shuffled: bool) -> None:
    file = rows(tmp_path, shuffled)
    given = ["caption", f"--data.train={file}", "--data.val=null", "--data.test=null", "--data.extra_tests={}",
             "--train.max_steps=1", "--train.batch_size=4", "--train.warmup_steps=0",
             f"--output={tmp_path}/run"]  # fmt: skip
    assert main(["train", *given]) == 0
    assert (MIXED in (tmp_path / "run/train.log").read_text()) == shuffled


@pytest.mark.parametrize("shuffled", [False, True])
def test_and_where_they_are_scored(tmp_path: Path, shuffled: bool) -> None:
    pytest.importorskip("pycocoevalcap")
    file = rows(tmp_path, shuffled)
    given = [
        "caption",
        f"--data.test={file}",
        "--data.extra_tests={}",
        "--evaluate.beams=1",
        f"--output={tmp_path}/out",
    ]
    assert main(["evaluate", *given]) == 0
    assert ("no more than another's" in (tmp_path / "out/evaluate.log").read_text()) == shuffled


@pytest.mark.parametrize("shuffled", [False, True])
def test_and_in_an_evaluation(tmp_path: Path, shuffled: bool) -> None:
    file = rows(tmp_path, shuffled)
    given = ["scenes", f"--data.test={file}", "--data.extra_tests={}", "--evaluate.k=0", f"--output={tmp_path}/out"]
    assert main(["evaluate", *given]) == 0
    assert ("no better than by chance" in (tmp_path / "out/evaluate.log").read_text()) == shuffled


def test_a_coin_is_told_from_little_knowledge() -> None:
    generator = torch.Generator().manual_seed(0)
    tossed = [is_coin_toss(torch.rand(64, generator=generator) < 0.5) for _ in range(200)]
    assert sum(tossed) >= 195
    known = [is_coin_toss(torch.rand(64, generator=generator) < 0.85) for _ in range(200)]
    assert sum(known) <= 2
    assert is_coin_toss(torch.zeros(0, dtype=torch.bool))


def test_chance_is_told_from_little_knowledge() -> None:
    generator = torch.Generator().manual_seed(0)
    by_chance = [is_at_chance(torch.randint(1, 101, (100,), generator=generator), 100) for _ in range(200)]
    assert sum(by_chance) >= 195
    better = [is_at_chance(torch.randint(1, 71, (100,), generator=generator), 100) for _ in range(200)]
    assert sum(better) <= 2
    assert not is_at_chance(torch.ones(3), 1)
    assert is_at_chance(torch.tensor([100, 100]), 100)
