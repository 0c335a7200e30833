"""The data cards of scenes and clips, written from the facts of their making."""

# ruff: noqa: E501, RUF001 - prose of the cards is not wrapped, and × is meant
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from uniadapter.files.writing import file_hash
from world.pictures.concepts import TWINS
from world.pictures.sources import ANIMATED, CLDR, CLDR_DERIVED, EMOJIBASE, EMOJILIB, FLAT, HELD_OUT, NEW_STYLE
from world.pictures.sources import DRAWN as DRAWN_STYLES
from world.shipping.licences import sources_table, table
from world.tasks.claims import GAP, OFF, SLACK
from world.tasks.references import REFERENCES
from world.tasks.telling import CAPTIONS

SCENE_KINDS = {
    "its": "“a cat with a dog to its left”: grammar that pre-training never had",
    "beside": "“a cat left of a dog”",
    "above": "“a cat above a dog”",
    "both": "both axes at once, “above and to the left of”",
    "chain": "two relations, “a cat left of a dog and above a fox”",
    "line": "three in a row or column, “between”",
    "size": "“a big cat left of a small dog”",
    "places": "sides and corners of the picture",
    "alone": "what else there is to say of one thing: “only”, its size, place or ground",
}
CLIP_KINDS = {
    "all": "all parts in order", "order": "the order of two parts", "ends": "what comes first and last",
    "next": "what comes right after what", "often": "how often something comes",
}  # fmt: skip
PRE_TRAINING = """## What pre-training has seen of this

| | seen in pre-training | new here |
|---|---|---|
| style | {pre_trained} drawn styles ([base card](../backbone/README.md)) | the 3-D style, in {place} |
| concepts | {seen} of the {concepts}, drawn | {novel} `novel` ones, neither drawn nor named, nor emoji of the same family |
{rows}

This shift is designed. Which grammar the tasks should teach was settled on validation, before any adapted run: relations that pre-training knows (left, right, above, below), in a way of speaking that it does not; one task, `easy_vqa`, was made by others. A concept is *novel* by a hash of its code point. Concepts are one a family of emoji (tones, genders, joined variants are one), so no family is on both sides; no two are nearer than {twins} of 64 bits of a difference hash, in 3-D and in `{held_out}`. Alike in kind they may be: of the novel dog there is a seen poodle.
"""
SCENES = """# Scenes of 3-D emoji

Pictures of one to four things in the 3-D style, 96 × 96 pixels: captions of who is where, questions, and references for captioning; the tasks `embedded:scenes`, `embedded:vqa` and `embedded:captions` that the embedded base is adapted to.

The pictures are not stored. `sprites.webp` holds one 64-pixel cell a concept, a line of `<split>.jsonl` says what is drawn where, and `uniadapter.embedded` renders them on first use. Written by `python -m world` from seed {seed}.

{counts}

A *twin* shows the same things, two of them exchanged, on another ground: its captions use the same names and differ in the relation alone. Of a scene and its twin both are in one split.

| file | holds |
|---|---|
| `<split>.jsonl` | `id`; `background`: two colours and the angle of the gradient; `ground`: its colour's name; `objects`: code, x, y of the middle, side, in pixels; `captions` and what decides each (`about`); `references`; `partner`: id of the twin |
| `vqa_<split>.jsonl` | `about`: id of the scene; `question`, `answer`, `kind` |
| `sprites.webp`, `sprites.json` | the atlas (WebP with alpha); code → cell, label, kind, novel |
| `names.json` | the names by which texts call each concept, the usual one first |
| `leakage.json` | the comparison below |
| `SPLIT_SHA256` | hashes of the files above, as results quote them |
| `licences/` | texts |

Hashes of everything that ships are in `../SHA256SUMS`, and those of the splits below.

## Captions

Composed, not written by people: names in templates, {captions} a scene, {references} references. How many captions of a split are decided by what:

{kinds}

- Every text was read back by a second program with a grammar of its own (`world/tasks/reading.py`) and found true of its scene and false of the twin; the build fails otherwise, and `tests/test_world_tasks.py` does it again.
- No caption is true of another scene of its split.
- "left of" means: middles at least {gap} pixels apart in that direction; a side of the picture: {off} pixels off its middle. What is to be false is false by {slack} pixels more.

## Questions

{questions}

Of yes-or-no questions the same text is asked of two scenes, with "yes" for one and "no" for the other, so who cannot see is at chance. Numbers and kinds are balanced within what looks alike to who cannot see.

{pre_training}
## Leakage

The 3-D pictures of all {concepts} concepts beside the drawn ones: the median of 64-bit perceptual hashes' distance between two pictures of one concept (32 is chance), how many of the 3-D pictures have one within {near_bits} bits in a style, and for how many the nearest picture of the style is of the same concept, by that hash and as 16 × 16 colours. Pictures of one thing look alike, so these are not expected to be at chance.

{leakage}

`{flat}` is by the artists of the 3-D style: the same drawings, flattened. With it in pre-training the 3-D style would not be new, so it is left out; its row says by how much.

## Origin and licences

{sources}

Licences are those that each package's `package.json` declares; the build fails if one declares another. `{new_style}` has no licence file of its own: its `package.json` and README say MIT, and the drawings are Microsoft's Fluent Emoji, published under MIT. The drawn styles served pre-training and measures only; of their pictures only `{held_out}`'s ship, in [drawn](../drawn/README.md). Texts and specifications: Apache-2.0, as the repository, over names under the licences above.

## Limits

Composed pictures on plain grounds, English by template: a task for methods that must fit into minutes on a CPU, not a measure of how a model sees photographs. {bare_novel}

## Hashes of the splits

```
{hashes}
```
"""
CLIPS = """# Clips of animated emoji

Films of two to five animated things behind one another, 96 × 96 pixels, some of which come again: captions of order and number, and questions; the tasks `embedded:clips` and `embedded:videoqa` that the embedded base is adapted to.

`single/` holds each animation once, as an H.264 file of 24 frames at 8 frames a second on a ground of its own. A line of `<split>.jsonl` says which follow which, and `uniadapter.embedded` puts their packets behind one another on first use: real encoded films, nothing encoded anew. Written by `python -m world` from seed {seed}.

{counts}

Every clip has a *twin* in its split that shows the same in another order. {animated} of the concepts move.

| file | holds |
|---|---|
| `single/<code>.mp4` | one animation: the middles of 24 equal segments of the original, one keyframe |
| `clips.json` | code → label, novel |
| `<split>.jsonl` | `id`; `parts`: codes in order; `captions` and what each tells (`about`); `partner`: id of the twin |
| `vqa_<split>.jsonl` | `about`: id of the clip; `question`, `answer`, `kind` |
| `SPLIT_SHA256` | hashes of the files above, as results quote them |
| `licences/` | texts |

Hashes of everything that ships are in `../SHA256SUMS`, and those of the splits below. The films' own are of one build of x264; another writes other bytes.

## Captions

{captions} a clip, composed; how many of a split tell what:

{kinds}

Every caption is true of its clip and false of every other clip of its split, the twin too; a second program (`world/tasks/reading_clips.py`) reads each back, and the build fails if it finds otherwise.

## Questions

{questions}

{pre_training}
## Origin and licences

{sources}

The animations are Microsoft's Fluent Emoji as packaged by LobeHub. The packages' `package.json` and README say MIT; they carry no licence file, and their README's link to one leads nowhere inside the package. The upstream repository of the still drawings is published under MIT; a licence of the animations themselves could not be found beyond what the packages say.

## Limits

Composed, on plain grounds, hard cuts at multiples of three seconds: a task for methods that must fit into minutes on a CPU, not a measure of how a model sees film. {bare_novel}

## Hashes of the splits

```
{hashes}
```
"""
DRAWN = """# Scenes of drawn emoji

What the embedded base knows before it is adapted: pictures of two to four things in a flat drawn style, told and asked as pre-training tells and asks; the test sets `embedded:drawn/test`, `embedded:drawn_vqa/test` and `embedded:drawn_captions/test`. They show what a model that was adapted to the 3-D scenes has forgotten. There is nothing to train on here.

{counts}

Every scene has a *twin* that shows the same things, two of them exchanged. The style, `{held_out}`, is the drawn one that pre-training never saw; the things are {concepts} of those that it saw, in other styles. Captions say what lies left of, right of, above or below what, or in which corner; none says "a cat with a dog to its left". Questions are of kinds that pre-training asked. Files, checks and coordinates are those of the [scenes](../scenes/README.md); written by `python -m world` from seed {seed}.

## Captions

{kinds}

## Questions

{questions}

## Origin and licences

{sources}

Texts and specifications: Apache-2.0, as the repository, over names under the licences above. `sprites.webp` is under CC-BY-4.0, as the drawings that it holds ([licences/{held_out}.txt](licences/{held_out}.txt)).

## Limits

Few scenes, so that they ship: a difference of R@1 below about 3 points cannot be told from chance by one run.

## Hashes of the splits

```
{hashes}
```
"""
BARE_NOVEL = "A novel concept's name is a word that the base has never read, so what `test_novel` can show is bounded by how well the rest of a caption tells its visual."


def kinds_table(splits: dict[str, Any], labels: dict[str, str]) -> str:
    """A row a kind of caption, a column a split."""
    rows = [(text, *(facts["captions"].get(kind, 0) for facts in splits.values())) for kind, text in labels.items()]
    return table(("", *splits), rows)


def questions_table(splits: dict[str, Any]) -> str:
    """A row a kind of question, with the share of the most frequent answer of the test split."""
    kinds = sorted({kind for facts in splits.values() for kind in facts["questions"]})
    rows = [
        (kind, *(facts["questions"].get(kind, {}).get("questions", 0) for facts in splits.values()),
         splits["test"]["questions"].get(kind, {}).get("answers"), splits["test"]["questions"].get(kind, {}).get("majority"))
        for kind in kinds
    ]  # fmt: skip
    return table(("kind", *splits, "answers (test)", "majority, % (test)"), rows)


def counted(splits: dict[str, Any], what: str, parts: str, each: int) -> str:
    """A row a split: how many, of how many things, captions, questions."""
    rows = [
        (split, facts[what], " / ".join(str(facts[parts][size]) for size in sorted(facts[parts])), facts["concepts"],
         each * facts[what], sum(kind["questions"] for kind in facts["questions"].values()))
        for split, facts in splits.items()
    ]  # fmt: skip
    sizes = sorted(next(iter(splits.values()))[parts])
    return table(
        ("split", what, f"of {' / '.join(map(str, sizes))} {parts}", "concepts", "captions", "questions"), rows
    )


def hashes(folder: Path) -> str:
    """A line a file of a split."""
    return "\n".join(f"{file_hash(path)}  {path.name}" for path in sorted(folder.glob("*.jsonl")))


def pre_training(leakage: dict[str, Any], place: str, rows: str) -> str:
    """The section on what was seen."""
    used = [style for style, row in leakage["styles"].items() if row["pre_trained"]]
    return PRE_TRAINING.format(
        pre_trained=len(used), seen=leakage["seen"], concepts=leakage["concepts"], place=place, rows=rows, twins=TWINS,
        novel=leakage["concepts"] - leakage["seen"], held_out=HELD_OUT,
    )  # fmt: skip


def leakage_table(leakage: dict[str, Any]) -> str:
    """A row a style."""
    rows = [
        (style, row["pre_trained"], row["concepts"], row["bits"], row["near"], row["by_hash"], row["by_colours"])
        for style, row in leakage["styles"].items()
    ]
    columns = (
        "pictures in pre-training",
        "concepts shared",
        "median distance, bits",
        "near ones",
        "nearest is the same, % by hash",
        "% by colours",
    )
    return table(("style", *columns), rows)


def scenes_card(folder: Path, facts: dict[str, Any], leakage: dict[str, Any]) -> str:
    """The card of the scenes in `folder`."""
    splits = facts["scenes"]
    new = '| grammar | "a cat left of a dog", "above", "on the left", counts, grounds | "a dog has a cat to its left", "between", "only", sizes, chains, both axes at once |\n| density | one to four things of 30 to 46 pixels, in quarters of the picture | 26 to 46 pixels, lines of three, diagonals |'
    return SCENES.format(
        seed=facts["seed"], counts=counted(splits, "scenes", "things", CAPTIONS) + "\n\n" + twins_line(splits),
        captions=CAPTIONS, references=REFERENCES, kinds=kinds_table(splits, SCENE_KINDS), gap=GAP, off=OFF,
        slack=SLACK, questions=questions_table(splits), pre_training=pre_training(leakage, "pictures", new),
        concepts=leakage["concepts"], near_bits=leakage["near_bits"], leakage=leakage_table(leakage),
        flat=FLAT.name.partition("/")[2], sources=sources_table((NEW_STYLE, EMOJIBASE, CLDR, CLDR_DERIVED, EMOJILIB)),
        new_style=NEW_STYLE.name, held_out=HELD_OUT, bare_novel=BARE_NOVEL, hashes=hashes(folder),
    )  # fmt: skip


def drawn_card(folder: Path, facts: dict[str, Any]) -> str:
    """The card of the drawn scenes in `folder`."""
    splits = facts["drawn"]
    named = {kind: text for kind, text in SCENE_KINDS.items() if kind in splits["test"]["captions"]}
    drawings = replace(DRAWN_STYLES[HELD_OUT], role="pictures of these scenes; measuring the base", shipped=True)
    return DRAWN.format(
        seed=facts["seed"], counts=counted(splits, "scenes", "things", CAPTIONS), held_out=HELD_OUT,
        concepts=splits["test"]["concepts"], kinds=kinds_table(splits, named), questions=questions_table(splits),
        sources=sources_table((drawings, EMOJIBASE, CLDR, CLDR_DERIVED, EMOJILIB)), hashes=hashes(folder),
    )  # fmt: skip


def twins_line(splits: dict[str, Any]) -> str:
    """How many scenes of each split have a twin."""
    return "With a twin: " + ", ".join(f"{facts['with a twin']} of {split}" for split, facts in splits.items()) + "."


def clips_card(folder: Path, facts: dict[str, Any], leakage: dict[str, Any]) -> str:
    """The card of the clips in `folder`."""
    splits = facts["clips"]
    new = '| time | still pictures alone | films; "then", "first", "last", "after", "before", "twice" |\n| size | things of 30 to 46 pixels among others | one thing at a time, 40 to 48 pixels, moving |'
    return CLIPS.format(
        seed=facts["seed"], counts=counted(splits, "clips", "parts", CAPTIONS),
        animated=facts["concepts"]["animated"], captions=CAPTIONS, kinds=kinds_table(splits, CLIP_KINDS),
        questions=questions_table(splits), pre_training=pre_training(leakage, "films", new),
        sources=sources_table((*ANIMATED, EMOJIBASE, CLDR, CLDR_DERIVED, EMOJILIB)), bare_novel=BARE_NOVEL,
        hashes=hashes(folder),
    )  # fmt: skip
