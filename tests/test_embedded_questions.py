"""Embedded questions: correct answers, balanced against guessing, and reproducible on every machine."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from uniadapter.app.demo import DEMOS
from uniadapter.app.parsing import read_config
from uniadapter.config import ConfigError, DataConfig
from uniadapter.data.loaders import train_loader, visual_loader
from uniadapter.data.questions import load_questions
from uniadapter.embedded import easy_vqa, emoji_clips, emoji_scenes
from uniadapter.embedded.questions import Question, balance, clip_questions, question_rows, read_kinds, scene_questions
from uniadapter.files.assets import package_path

NUMBERS = {"two": 2, "three": 3, "four": 4}
HASHES = {
    "scenes/train": "97499d6dc7dfebbb",
    "scenes/val": "01a302fa98664fc6",
    "scenes/test": "e7f095b93cb1e3bb",
    "scenes/test_novel": "7167291b422930da",
    "clips/train": "8f4d1d5f409aaceb",
    "clips/val": "e45ce3e929d15c36",
    "clips/test": "7ee4424c275b81a5",
    "clips/test_novel": "f9ec20a3971eddda",
}
SPLITS = emoji_scenes.SPLITS


@pytest.fixture(scope="module")
def kinds() -> dict[str, str]:
    return read_kinds()


@pytest.fixture(scope="module")
def asked(kinds: dict[str, str]) -> dict[str, list[Question]]:
    of_scenes = {
        f"scenes/{s}": scene_questions(emoji_scenes.read_specifications(s), kinds, f"scenes/{s}") for s in SPLITS
    }
    of_clips = {f"clips/{s}": clip_questions(emoji_clips.read_sequences(s), kinds, f"clips/{s}") for s in SPLITS}
    return of_scenes | of_clips


def test_they_are_the_same_everywhere(asked: dict[str, list[Question]]) -> None:
    found = {}
    for name, questions in asked.items():
        rows = json.dumps(question_rows(questions, "visual", "{}"), sort_keys=True)
        found[name] = hashlib.sha256(rows.encode()).hexdigest()[:16]
    assert found == HASHES


def of_scene(text: str, objects: list[tuple[str, int, int]]) -> str:
    """The answer, read off the picture's specification by rules of this test's own."""
    shown = [kind for kind, *_ in objects]
    if re.search(r"how many|number of", text):
        return next(word for word, number in NUMBERS.items() if number == len(objects))
    side = re.search(r"what kind|which kind", text)
    if side:
        far = [
            (r"on the left|furthest left", lambda o: o[1]), (r"on the right|furthest right", lambda o: -o[1]),
            (r"at the top|highest up", lambda o: o[2]), (r"at the bottom|lowest", lambda o: -o[2]),
        ]  # fmt: skip
        key = next(key for pattern, key in far if re.search(pattern, text))
        return min(objects, key=key)[0]
    related = re.search(
        r"the (\w+) (?:that is )?(?:to the )?(left of|right of|above|higher than|below|lower than) the (\w+)\?", text
    )
    if related:
        one, relation, other = related.groups()
        (a,), (b,) = ([o for o in objects if o[0] == kind] for kind in (one, other))
        true = {"left of": a[1] < b[1], "right of": a[1] > b[1], "above": a[2] < b[2], "higher than": a[2] < b[2],
                "below": a[2] > b[2], "lower than": a[2] > b[2]}[relation]  # fmt: skip
        return "yes" if true else "no"
    presence = re.search(r"\b(any|no) (\w+)\?", text)
    assert presence, text
    return "yes" if (presence[2] in shown) == (presence[1] == "any") else "no"


def of_clip(text: str, shown: list[str]) -> str:
    """The same of a clip."""
    if re.search(r"how many|number of", text):
        return next(word for word, number in NUMBERS.items() if number == len(shown))
    order = re.search(r"the (\w+) (?:come before|shown before|earlier than) the (\w+)\?", text)
    if order:
        return "yes" if shown.index(order[1]) < shown.index(order[2]) else "no"
    after = re.search(r"(?:after|follows) the (\w+)\?", text)
    if after:
        return shown[shown.index(after[1]) + 1]
    if re.search(r"first|start", text):
        return shown[0]
    if re.search(r"last|end\?", text):
        return shown[-1]
    presence = re.search(r"any (\w+)", text)
    assert presence, text
    return "yes" if presence[1] in shown else "no"


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_is_true(split: str, asked: dict[str, list[Question]], kinds: dict[str, str]) -> None:
    specified = {scene["id"]: scene["objects"] for scene in emoji_scenes.read_specifications(split)}
    for one in asked[f"scenes/{split}"]:
        objects = [(kinds.get(code, ""), x, y) for code, x, y, _ in specified[one.visual_id]]
        assert of_scene(one.text, objects) == one.answer, one
    followed = {clip["id"]: clip["parts"] for clip in emoji_clips.read_sequences(split)}
    for one in asked[f"clips/{split}"]:
        assert of_clip(one.text, [kinds.get(code, "") for code in followed[one.visual_id]]) == one.answer, one


@pytest.mark.parametrize("name", ["scenes/train", "scenes/test", "clips/train", "clips/test"])
def test_answers_cannot_be_guessed_without_the_picture(name: str, asked: dict[str, list[Question]]) -> None:
    """Yes and no are equally frequent about each kind, and no answer stands out in any group."""
    groups: dict[str, Counter[str]] = {}
    for one in asked[name]:
        groups.setdefault(one.group, Counter())[one.answer] += 1
    for group, answers in groups.items():
        assert len(answers) > 1, group
        if group.startswith("is there"):
            assert answers["yes"] == answers["no"]
    by_kind: dict[str, Counter[str]] = {}
    for one in asked[name]:
        by_kind.setdefault(one.kind, Counter())[one.answer] += 1
    most = {kind: max(answers.values()) / answers.total() for kind, answers in by_kind.items()}
    assert all(share <= 0.5 for share in most.values()), most
    assert max(most[kind] for kind in most if kind in ("what is where", "first or last", "after")) < 0.2
    assert most["how many"] < 0.5


def test_balancing_drops_groups_with_one_answer(kinds: dict[str, str]) -> None:
    import random

    rows = [Question(str(n), "q", "yes" if n % 5 else "no", "k", "g") for n in range(20)]
    kept = balance(rows, random.Random(0))
    assert Counter(one.answer for one in kept) == {"yes": 4, "no": 4}
    assert [int(one.visual_id) for one in kept] == sorted(int(one.visual_id) for one in kept)
    assert balance([row for row in rows if row.answer == "yes"], random.Random(0)) == []


def test_every_picture_is_replaced_by_a_blank_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / f"{name}.png")
    rows = [{"image": f"{name}.png", "question": "what?", "answer": name} for name in ("a", "b")]
    (tmp_path / "q.json").write_text(json.dumps(rows))
    config = DataConfig(workers=0, augment=False)
    split = load_questions(tmp_path / "q.json", config, "train")
    for blank in (False, True):
        chosen = replace(config, blank=blank)
        for loader in (train_loader(split, chosen, size=32, batch_size=2, seed=0),
                       visual_loader(split, chosen, size=32, batch_size=2)):  # fmt: skip
            (batch,) = loader
            assert batch.frames.shape == (2, 1, 3, 32, 32)
            assert bool(torch.all(batch.frames == 0)) == blank


@pytest.mark.parametrize("task", [task for task in DEMOS])
def test_configs_of_methods_differ_only_in_method_and_learning_rate(task: str) -> None:
    """Same data, order, steps and augmentation: a fair comparison."""
    one, other = (
        read_config(package_path("configs") / f"{DEMOS[task].configs[m]}.yaml")
        for m in ("uniadapter", "full_fine_tuning")
    )
    assert one.model.method == "uniadapter"
    assert other.model.method == "full"
    assert (one.data, one.objective, one.evaluate) == (other.data, other.objective, other.evaluate)
    assert replace(one.train, lr=1) == replace(other.train, lr=1)
    same = ("base", "image_size", "max_tokens", "prompt")
    assert [getattr(one.model, name) for name in same] == [getattr(other.model, name) for name in same]


def test_easy_vqa_is_read_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "package"
    written: dict[str, list[Any]] = {"train": [], "test": []}
    for part, pictures in (("train", (0, 3599, 3600)), ("test", (0,))):
        (source / part / "images").mkdir(parents=True)
        for number in pictures:
            Image.new("RGB", (64, 64), (0, 0, 255)).save(source / part / "images" / f"{number}.png")
            written[part] += [["what color is the shape?", "blue", number], ["is there a circle?", "no", number]]
        (source / part / "questions.json").write_text(json.dumps(written[part]))
    monkeypatch.setattr(easy_vqa, "package_data", lambda: source)
    folder = easy_vqa.prepare_easy_vqa(tmp_path)
    found = {
        name: load_questions(folder / f"{name}.json", DataConfig(workers=0), name) for name in ("train", "val", "test")
    }
    assert [len(split.texts) for split in found.values()] == [4, 2, 2]
    assert [len(split.visuals) for split in found.values()] == [2, 1, 1]
    assert found["test"].kinds == ["color", "yes/no"]


def test_missing_easy_vqa_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install .uniadapter\[easy-vqa\]"):
        easy_vqa.package_data()
