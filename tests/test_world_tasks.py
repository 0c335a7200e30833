"""The world's task sets: true texts, twins, balanced questions, new grammar, and what is made of them at first use."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from uniadapter.embedded.emoji_clips import prepare_clips, read_clips
from uniadapter.embedded.emoji_scenes import Atlas, gradient, prepare_scenes, read_scenes
from uniadapter.files.assets import asset_path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
try:
    pytest.importorskip("world.tasks", reason="the world's scripts are in a checkout only")
    from world.pictures.concepts import read_concepts
    from world.stages.bank import layout
    from world.tasks import reading, reading_clips, scene, writing
    from world.tasks.answering import answer
    from world.tasks.names import Names, task_names
    from world.tasks.telling import CAPTIONS
    from world.texts.captions import BOTH, Captioner
    from world.texts.names import Lexicon
    from world.texts.truths import Scene as PretrainingScene
    from world.texts.vocabulary import FILE as VOCABULARY
finally:
    sys.path.remove(str(ROOT))

SPLITS = list(scene.SPLITS)
TOTALS = {"train": 600, "val": 400, "test": 500, "test_novel": 400}  # of training scenes and clips some are enough
CLIPS = {"train": 300, "val": 120, "test": 400, "test_novel": 100}


@pytest.fixture(scope="module")
def names() -> Names:
    return task_names()


@pytest.fixture(scope="module")
def scenes(names: Names) -> dict[str, writing.Scenes]:
    return {split: writing.compose_scenes(split, names, 0, TOTALS[split]) for split in SPLITS}


@pytest.fixture(scope="module")
def moving() -> set[str]:
    return set(json.loads((asset_path("clips") / "clips.json").read_text()))


@pytest.fixture(scope="module")
def clips(names: Names, moving: set[str]) -> dict[str, writing.Clips]:
    return {split: writing.compose_clips(split, names, moving, 0, CLIPS[split]) for split in SPLITS}


def rows_of(found: writing.Scenes) -> dict[str, dict[str, Any]]:
    return {one.id: one.row() for one in found.scenes}


@pytest.mark.parametrize("split", SPLITS)
def test_captions_and_references_are_true_and_false_of_the_twin(
    split: str, scenes: dict[str, writing.Scenes], names: Names
) -> None:
    rows = rows_of(scenes[split])
    captions = [text for row in rows.values() for text in row["captions"]]
    assert len(rows) == TOTALS[split]
    assert len(set(captions)) == len(captions) == 3 * len(rows)
    for row in rows.values():
        assert len(row["references"]) == 5
        for text in (*row["captions"], *row["references"]):
            assert reading.is_true(text, row, names.of), (row, text)
            if row["partner"]:
                assert not reading.is_true(text, rows[row["partner"]], names.of), (row, text)


@pytest.mark.parametrize("split", ["val", "test", "test_novel"])
def test_no_caption_is_true_of_another_scene(split: str, scenes: dict[str, writing.Scenes], names: Names) -> None:
    rows = rows_of(scenes[split])
    for row in rows.values():
        for text in row["captions"]:
            named = set(reading.Pictured(row, names.of).skeleton(text)[1])
            rivals = (r for r in rows.values() if r is not row and named <= {code for code, *_ in r["objects"]})
            assert not any(reading.is_true(text, rival, names.of) for rival in rivals), (row, text)


def test_the_reader_tells_true_from_false(names: Names) -> None:
    cat, dog, fox = names.seen[0], names.seen[1], names.seen[2]
    a, b, c = (names.of[code][0] for code in (cat, dog, fox))
    row = {"objects": [[cat, 24, 24, 44], [dog, 72, 24, 26], [fox, 72, 72, 36]], "ground": "red"}
    true = [
        f"a {a} to the left of a {b}",
        f"a {b} with a {a} on its left side",
        f"a {c} underneath the {b}",
        f"a {c} below and to the right of a {a}",
        f"a {a} and a {b} above a {c}",
        f"three things: a big {a} and a small {b}",
        f"the {a} at the top left and a {c} in the bottom right corner",
        f"a {a} over a {c} on a red ground",
    ]
    for text in true:
        assert reading.is_true(text, row, names.of), text
    false = [
        f"a {a} to the right of a {b}",
        f"a {b} with a {a} on its right side",
        f"a {c} higher than the {b}",
        f"a {b} above and to the right of a {a}",  # they stand level
        f"a {b} and a {a} above a {c}",  # things of a row are named from left to right
        f"two things: a big {a} and a small {b}",
        f"a small {a} and a big {b}",
        f"a {a} over a {c} on a blue ground",
        f"only a {a}, at the top left",
        f"a {a} between a {b} and a {c}",
    ]
    for text in false:
        assert not reading.is_true(text, row, names.of), text
    with pytest.raises(ValueError, match="cannot read"):
        reading.is_true(f"a {a} inside a {b}", row, names.of)


@pytest.mark.parametrize("split", SPLITS)
def test_twins_differ_in_who_is_where_only(split: str, scenes: dict[str, writing.Scenes]) -> None:
    by_id = {one.id: one for one in scenes[split].scenes}
    twins = [one for one in by_id.values() if one.partner]
    assert len(twins) > 0.9 * len(by_id)  # so that a bag of words is right about half the time
    for one in twins:
        other = by_id[one.partner or ""]
        assert other.partner == one.id
        assert other.ground == one.ground
        assert sorted(t.code for t in one.things) == sorted(t.code for t in other.things)
        changed = 0
        for mine, its in zip(one.things, other.things, strict=True):
            assert mine.size == its.size
            assert max(abs(mine.x - its.x), abs(mine.y - its.y)) <= 6
            changed += mine.code != its.code
        assert changed == 2


@pytest.mark.parametrize("split", SPLITS)
def test_things_lie_inside_and_apart(split: str, scenes: dict[str, writing.Scenes]) -> None:
    for one in scenes[split].scenes:
        boxes = [(t.x - t.size // 2, t.y - t.size // 2, t.x + t.size / 2, t.y + t.size / 2) for t in one.things]
        assert all(0 <= v <= 96 for box in boxes for v in box), one
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                assert min(width, height) <= 4, one


def test_novel_concepts_are_in_their_split_only_and_always_named(
    scenes: dict[str, writing.Scenes], clips: dict[str, writing.Clips], names: Names
) -> None:
    novel = set(names.novel)
    assert novel == {concept.code for concept in read_concepts() if concept.novel and concept.code in names.of}
    for split in SPLITS:
        for one in scenes[split].scenes:
            assert bool(novel & {t.code for t in one.things}) == (split == "test_novel")
            if split == "test_novel":
                row = one.row()
                assert all(novel & set(reading.Pictured(row, names.of).skeleton(t)[1]) for t in row["captions"])
        assert all(bool(novel & set(clip.parts)) == (split == "test_novel") for clip in clips[split].clips)
    answers = {q.answer for split in SPLITS for q in (*scenes[split].questions, *clips[split].questions)}
    assert not answers & {names.of[code][0] for code in novel}


def test_training_shows_every_concept_of_the_other_splits(scenes: dict[str, writing.Scenes]) -> None:
    shown = {split: {t.code for one in found.scenes for t in one.things} for split, found in scenes.items()}
    assert shown["val"] | shown["test"] <= shown["train"]


def texts_of(scenes: dict[str, writing.Scenes], clips: dict[str, writing.Clips]) -> list[str]:
    out = []
    for split in SPLITS:
        out += [text for one in scenes[split].scenes for text in (*one.captions, *one.references)]
        out += [text for clip in clips[split].clips for text in clip.captions]
        out += [f"{q.text} {q.answer}" for q in (*scenes[split].questions, *clips[split].questions)]
    return out


def test_all_words_have_a_row_in_the_base(scenes: dict[str, writing.Scenes], clips: dict[str, writing.Clips]) -> None:
    words = {word for text in texts_of(scenes, clips) for word in re.findall(r"[a-z0-9]+", text)}
    assert words <= set(VOCABULARY.read_text().splitlines())


def test_what_the_tasks_add_is_not_said_in_pretraining(scenes: dict[str, writing.Scenes]) -> None:
    concepts = read_concepts()
    lexicon, rng = Lexicon(concepts), random.Random(0)
    seen = [number for number, concept in enumerate(concepts) if not concept.novel]
    captioner, said = Captioner(lexicon, BOTH), set()
    for _ in range(3000):
        claim = captioner.claim(PretrainingScene(layout(seen, lexicon, rng.randint(1, 4), rng)), rng)
        if claim is not None:
            said |= set(captioner.word(claim, rng).words)
    new = {"its", "beneath", "underneath", "between", "only", "from", "next"}
    assert not new & said
    assert new <= {word for one in scenes["train"].scenes for text in one.captions for word in text.split()}
    kinds = Counter(kind for one in scenes["test"].scenes for kind in one.about)
    assert 0.4 < kinds["its"] / sum(kinds.values()) < 0.5  # a grammar that pre-training never had


@pytest.mark.parametrize("split", SPLITS)
def test_questions_have_the_answer_that_a_second_program_gives(
    split: str, scenes: dict[str, writing.Scenes], clips: dict[str, writing.Clips], names: Names
) -> None:
    rows, kinds = rows_of(scenes[split]), writing.asked_for(names)
    for question in scenes[split].questions:
        assert answer(question.text, rows[question.about], names.of, kinds) == question.answer, question
    parts = {clip.id: clip.parts for clip in clips[split].clips}
    for question in clips[split].questions:
        assert reading_clips.answer(question.text, parts[question.about], names.of) == question.answer, question


@pytest.mark.parametrize("split", SPLITS)
def test_who_cannot_see_stays_at_chance(
    split: str, scenes: dict[str, writing.Scenes], clips: dict[str, writing.Clips]
) -> None:
    for questions in (scenes[split].questions, clips[split].questions):
        by_text: dict[str, Counter[str]] = {}
        by_kind: dict[str, Counter[str]] = {}
        for question in questions:
            by_kind.setdefault(question.kind, Counter())[question.answer] += 1
            if question.answer in ("yes", "no"):
                by_text.setdefault(question.text, Counter())[question.answer] += 1
        assert by_text
        assert all(count["yes"] == count["no"] for count in by_text.values())
        for kind, answers in by_kind.items():
            most = max(answers.values()) / sum(answers.values())
            assert most <= {2: 0.5, 3: 0.5, 4: 0.5}.get(len(answers), 0.3), (kind, answers)


@pytest.mark.parametrize("split", SPLITS)
def test_captions_of_clips_are_true_of_no_other(split: str, clips: dict[str, writing.Clips], names: Names) -> None:
    found = {clip.id: clip for clip in clips[split].clips}
    assert len(found) == CLIPS[split]
    for clip in found.values():
        assert sorted(clip.parts) == sorted(found[clip.partner or ""].parts)
        assert len(clip.captions) == CAPTIONS
        for text in clip.captions:
            assert reading_clips.is_true(text, clip.parts, names.of), (clip, text)
            named = set(reading.Pictured({"objects": [], "ground": ""}, names.of).skeleton(text)[1])
            rivals = [other for other in found.values() if other is not clip and named <= set(other.parts)]
            assert clip.partner in {other.id for other in rivals}
            assert not any(reading_clips.is_true(text, other.parts, names.of) for other in rivals), (clip, text)


def test_composing_again_gives_the_same(names: Names, scenes: dict[str, writing.Scenes]) -> None:
    again = writing.compose_scenes("val", task_names(), 0)
    assert [one.row() for one in again.scenes] == [one.row() for one in scenes["val"].scenes]
    assert again.questions == scenes["val"].questions
    other = writing.compose_scenes("val", names, 1)
    assert [one.row() for one in other.scenes] != [one.row() for one in scenes["val"].scenes]


@pytest.mark.parametrize("broken", ["caption", "answer"])
def test_what_is_false_is_not_written(broken: str, names: Names) -> None:
    found = writing.compose_scenes("val", names, 0, 20)
    if broken == "caption":
        one, other = found.scenes[0].captions, found.scenes[-1].captions
        one[0], other[0] = other[0], one[0]
    else:
        question = next(q for q in found.questions if q.answer == "yes")
        found.questions[0] = type(question)(question.about, question.text, "no", question.kind)
    with pytest.raises(ValueError, match=r"not true|true of its twin|does not answer|cannot read"):
        writing.check_scenes(found, names)


def write_small(source: Path, compose: Callable[[str], Any]) -> None:
    """Specifications of a few scenes or clips of every split."""
    source.mkdir(exist_ok=True)
    for split in SPLITS:
        found = compose(split)
        shown = found.scenes if hasattr(found, "scenes") else found.clips
        writing.write_lines(source / f"{split}.jsonl", (one.row() for one in shown))
        writing.write_lines(source / f"vqa_{split}.jsonl", (question.row() for question in found.questions))


def test_scenes_are_rendered_as_specified(tmp_path: Path, names: Names) -> None:
    source = tmp_path / "source"
    write_small(source, lambda split: writing.compose_scenes(split, names, 3, 20))
    for name in ("sprites.webp", "sprites.json"):  # drawings of the same style, by the same codes
        shutil.copy(asset_path("scenes") / name, source / name)
    target = prepare_scenes(tmp_path, source)
    rows = {row["id"]: row for row in read_scenes("val", source)}
    written = json.loads((target / "val.json").read_text())
    assert [Path(row["image"]).stem for row in written] == list(rows)
    atlas = Atlas(source)
    for row in written:
        spec = rows[Path(row["image"]).stem]
        assert row["caption"] == spec["captions"]
        shown = np.asarray(Image.open(target / row["image"])).astype(float)
        ground = gradient(*spec["background"])
        assert shown.shape == (96, 96, 3)
        empty = np.ones((96, 96), bool)
        for code, x, y, size in spec["objects"]:
            sprite = atlas.sprite(code, size)
            window = np.s_[y - size // 2 : y - size // 2 + size, x - size // 2 : x - size // 2 + size]
            opaque = sprite[..., 3] == 255
            assert opaque.any()
            # the corner of another thing's square may lie over it
            assert (np.abs(shown[window] - sprite[..., :3])[opaque] <= 1).mean() > 0.95, (spec, code)
            empty[window] = False
        assert np.abs(shown - ground)[empty].max() <= 1
    train = json.loads((target / "train.json").read_text())
    assert len(train) == 3 * 20
    by_twin = Counter(row["group"] for row in train)
    assert set(by_twin.values()) <= {3, 6}  # a pair of twins has six captions
    references = json.loads((target / "captions_test.json").read_text())
    assert all(len(row["caption"]) == 5 for row in references)
    asked = json.loads((target / "vqa_test.json").read_text())
    assert asked
    assert all((target / row["image"]).is_file() for row in asked)
    assert {"question", "answer", "question_id", "answer_type"} <= asked[0].keys()


def test_clips_are_their_animations_behind_one_another(tmp_path: Path, names: Names, moving: set[str]) -> None:
    source = tmp_path / "source"
    write_small(source, lambda split: writing.compose_clips(split, names, moving, 3, 4))
    shutil.copytree(asset_path("clips") / "single", source / "single")
    target = prepare_clips(tmp_path, source)
    for row in read_clips("test", source):
        with av.open(str(target / f"videos/test/{row['id']}.mp4")) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert len(frames) == 24 * len(row["parts"])
        for number, code in enumerate(row["parts"]):
            with av.open(str(source / "single" / f"{code}.mp4")) as single:
                first = next(single.decode(video=0)).to_ndarray(format="rgb24")
            assert np.array_equal(frames[24 * number], first)
    assert json.loads((target / "val.json").read_text())[0].keys() == {"video", "caption", "group"}
