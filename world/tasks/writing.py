"""Composes the task sets and writes them as specifications."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from world.tasks import asking, asking_clips, reading, reading_clips, sequences
from world.tasks import captions as captions_of_scenes
from world.tasks.answering import answer
from world.tasks.asking import Question
from world.tasks.names import Names
from world.tasks.references import refer
from world.tasks.scene import SPLITS, Counts, Dealer, Scene, draw_scenes
from world.tasks.sequences import Clip, draw_clips
from world.texts.names import KINDS

LOG = logging.getLogger(__name__)
DRAWN, DRAWN_CONCEPTS = 200, 96  # scenes of the drawn style, and how many things they show: few, since all ships
DRAWN_COUNTS: Counts = ((2, 3, 4), (0.4, 0.4, 0.2))
DRAWN_CAPTIONS = {"beside": 0.5, "above": 0.35, "places": 0.15}
DRAWN_QUESTIONS = ("is there", "left of", "above", "how many", "what is left", "what is above")


@dataclass
class Scenes:
    """A split's scenes with their texts, and the questions about them."""

    scenes: list[Scene]
    questions: list[Question]


@dataclass
class Clips:
    """A split's clips with their texts, and the questions about them."""

    clips: list[Clip]
    questions: list[Question]


def compose_scenes(split: str, names: Names, seed: int, total: int | None = None) -> Scenes:
    """The scenes of a split: a function of split and seed.

    Args:
        split: one of `scene.SPLITS`.
        names: of things.
        seed: of all draws.
        total: how many; as many as the split has where it isn't given.
    """
    rng = random.Random(f"{seed}:scenes {split}")
    novel = names.novel if split == "test_novel" else []
    scenes = draw_scenes(total or SPLITS[split], Dealer(names.seen, novel, rng), set(novel), rng)
    captions_of_scenes.caption(scenes, names, set(novel), rng)
    refer(scenes, names, rng)
    return Scenes(scenes, asking.ask(scenes, names, rng))


def compose_drawn(names: Names, seed: int, total: int = DRAWN) -> Scenes:
    """Scenes of the base's own domain: said and asked as pre-training has it, of things that it saw.

    Args:
        names: of things.
        seed: of all draws.
        total: how many; even, since each has a twin.
    """
    rng = random.Random(f"{seed}:drawn")
    dealer = Dealer(rng.sample(names.seen, DRAWN_CONCEPTS), [], rng)
    scenes = draw_scenes(total, dealer, set(), rng, DRAWN_COUNTS)
    captions_of_scenes.caption(scenes, names, set(), rng, DRAWN_CAPTIONS)
    refer(scenes, names, rng)
    return Scenes(scenes, [one for one in asking.ask(scenes, names, rng) if one.kind in DRAWN_QUESTIONS])


def compose_clips(split: str, names: Names, moving: set[str], seed: int, total: int | None = None) -> Clips:
    """The clips of a split: a function of split, seed and what is animated.

    Args:
        split: one of `sequences.SPLITS`.
        names: of things.
        moving: codes of what is animated.
        seed: of all draws.
        total: how many; as many as the split has where it isn't given.
    """
    rng = random.Random(f"{seed}:clips {split}")
    novel = [code for code in names.novel if code in moving] if split == "test_novel" else []
    seen = [code for code in names.seen if code in moving]
    clips = draw_clips(total or sequences.SPLITS[split], seen, novel, rng, split)
    sequences.caption(clips, names, set(novel), rng)
    return Clips(clips, asking_clips.ask(clips, names, rng))


def asked_for(names: Names) -> dict[str, str]:
    """The word for the kind of each concept that has one: "animal", "garment" and so on."""
    return {code: KINDS[kind][0] if kind else "" for code, kind in names.kind.items()}


def check_scenes(found: Scenes, names: Names) -> None:
    """Read every text back: true here, false of the twin, and answered as it says.

    Raises:
        ValueError: one is not.
    """
    rows, kinds = {scene.id: scene.row() for scene in found.scenes}, asked_for(names)
    for row in rows.values():
        for text in (*row["captions"], *row["references"]):
            if not reading.is_true(text, row, names.of):
                raise ValueError(f"scene {row['id']}: not true: {text!r}")
            if row["partner"] and reading.is_true(text, rows[row["partner"]], names.of):
                raise ValueError(f"scene {row['id']}: true of its twin too: {text!r}")
    for question in found.questions:
        if answer(question.text, rows[question.about], names.of, kinds) != question.answer:
            raise ValueError(f"scene {question.about}: {question.answer!r} does not answer {question.text!r}")


def check_clips(found: Clips, names: Names) -> None:
    """The same for clips.

    Raises:
        ValueError: a text is not true, is true of the twin too, or is not answered as it says.
    """
    parts = {clip.id: clip.parts for clip in found.clips}
    for clip in found.clips:
        for text in clip.captions:
            if not reading_clips.is_true(text, clip.parts, names.of):
                raise ValueError(f"clip {clip.id}: not true: {text!r}")
            if clip.partner and reading_clips.is_true(text, parts[clip.partner], names.of):
                raise ValueError(f"clip {clip.id}: true of its twin too: {text!r}")
    for question in found.questions:
        if reading_clips.answer(question.text, parts[question.about], names.of) != question.answer:
            raise ValueError(f"clip {question.about}: {question.answer!r} does not answer {question.text!r}")


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A line of JSON a row."""
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows), encoding="utf-8")


def write_scenes(out: Path, names: Names, seed: int) -> dict[str, Any]:
    """Write all splits of the scenes into `out`; returns their counts."""
    out.mkdir(parents=True, exist_ok=True)
    facts = {split: _write_scenes(out, split, compose_scenes(split, names, seed), names) for split in SPLITS}
    (out / "names.json").write_text(json.dumps(names.of, sort_keys=True).replace('], "', '],\n"') + "\n")
    return facts


def write_drawn(out: Path, names: Names, seed: int) -> dict[str, Any]:
    """Write the scenes of the base's own domain, a test split alone, into `out`; returns its counts."""
    out.mkdir(parents=True, exist_ok=True)
    return {"test": _write_scenes(out, "test", compose_drawn(names, seed), names)}


def _write_scenes(out: Path, split: str, found: Scenes, names: Names) -> dict[str, Any]:
    """Check and write a split, and count what is in it."""
    check_scenes(found, names)
    write_lines(out / f"{split}.jsonl", (scene.row() for scene in found.scenes))
    write_lines(out / f"vqa_{split}.jsonl", (question.row() for question in found.questions))
    facts = {
        "scenes": len(found.scenes),
        "with a twin": sum(scene.partner is not None for scene in found.scenes),
        "things": dict(sorted(Counter(len(scene.things) for scene in found.scenes).items())),
        "concepts": len({thing.code for scene in found.scenes for thing in scene.things}),
        "captions": dict(Counter(kind for scene in found.scenes for kind in scene.about)),
        "questions": _answers(found.questions),
    }
    LOG.info("%s %s: %s", out.name, split, facts)
    return facts


def write_clips(out: Path, names: Names, moving: set[str], seed: int) -> dict[str, Any]:
    """Write all splits of the clips into `out`; returns their counts."""
    out.mkdir(parents=True, exist_ok=True)
    facts = {}
    for split in sequences.SPLITS:
        found = compose_clips(split, names, moving, seed)
        check_clips(found, names)
        write_lines(out / f"{split}.jsonl", (clip.row() for clip in found.clips))
        write_lines(out / f"vqa_{split}.jsonl", (question.row() for question in found.questions))
        facts[split] = {
            "clips": len(found.clips),
            "parts": dict(sorted(Counter(len(clip.parts) for clip in found.clips).items())),
            "concepts": len({code for clip in found.clips for code in clip.parts}),
            "captions": dict(Counter(kind for clip in found.clips for kind in clip.about)),
            "questions": _answers(found.questions),
        }
        LOG.info("clips %s: %s", split, facts[split])
    return facts


def _answers(questions: list[Question]) -> dict[str, dict[str, float]]:
    """Of each kind of question: how many, how many answers there are, and the share of the most frequent one."""
    kinds: dict[str, Counter[str]] = {}
    for question in questions:
        kinds.setdefault(question.kind, Counter())[question.answer] += 1
    return {
        kind: {
            "questions": sum(answers.values()), "answers": len(answers),
            "majority": round(100 * max(answers.values()) / sum(answers.values()), 1),
        }
        for kind, answers in sorted(kinds.items())
    }  # fmt: skip
