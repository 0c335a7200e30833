"""Data card and licences of the clips: ``python -m world.clip_card``, after clips."""

# ruff: noqa: E501 - lines of tables
from __future__ import annotations

import json
import shutil
from collections import Counter

from world import sources
from world.card import FLUENT_LICENCE
from world.clips import FRAMES, RATE, SEQUENCES
from world.gather import CACHE

OUT = CACHE.parent.parent / "assets" / "clips"

CARD = """# Clips of animated emoji

Video of 96 x 96 pixels: single animated emoji in the 3-D style, and clips of two to four of them behind one another. The
video task that the embedded backbone, which was pre-trained on pictures in other styles, is adapted to.

`single/` holds every animation once, as an H.264 file of {frames} frames at {rate} frames a second on a background of its
own. A line of `<split>.jsonl` says which follow which, and `uniadapter.embedded.emoji_clips.prepare_clips` puts their packets
behind one another on first use: real encoded clips, nothing encoded anew. Everything is written by
`python -m world.clips` from a seed (0).

| split | clips | captions | concepts | clips with a twin | captions that name all parts | that name one part | told from another clip by order only | name what the middle frame does not show |
|---|---|---|---|---|---|---|---|---|
{table}

Beside them the {singles} single animations, with the names that people gave the emoji as captions ({names:.2f} a clip):
{single_splits}. Those of train are trained on with the composed clips; those of test are a test set of their own (`test_single`).

A *twin* shows the same emoji in another order. More than half of the captions name all parts in order (DiDeMo's form), the others
some of them where the clip has more than two (MSR-VTT's noise), or one that is in this clip only.

| file | holds |
|---|---|
| `single/<hexcode>.mp4` | one animation: 24 frames, the middles of equal segments of the original (most have 72 frames at 24 a second), one keyframe |
| `clips.json` | hexcode -> label, family, split, names |
| `<split>.jsonl` | `id`; `parts`: hexcodes in order; `captions`; `named`: for each caption the hexcodes it names, in the order in which they come; `partner`: id of the twin |
| `facts.json` | the counts above |
| `SPLIT_SHA256` | sha256 of every file, committed before any model was adapted |

## Captions

Names that people gave the emoji, in templates of order ("a fox, then the pizza", "pizza after fox"). No caption is true of
another clip of its split: no two concepts meet in two clips (but twins), and a concept that is named alone is in one clip
only. Every caption was read back by a second program (`world.sequences.read_back`); the tests do it again.

## Which concepts, and who has seen them

The families and splits are those of the scenes ([../scenes/README.md](../scenes/README.md)): concepts of test are in no clip
of train, and were in pre-training as still drawings in other styles; those of `test_novel` were in no picture at all.

## Origin and licences

| package | version | licence | what is taken |
|---|---|---|---|
{packages}

The animations are Microsoft's Fluent Emoji as packaged by LobeHub. The packages' `package.json` and README say MIT; they
carry no licence file, and their README's link to one leads nowhere inside the package. The upstream repository of the still
drawings is published under MIT; a licence of the animations themselves could not be found beyond what the packages say.

## Limits

Composed, on plain backgrounds, hard cuts at multiples of three seconds: a task for methods that must fit into minutes on a
CPU, not a measure of how a model sees film.
"""


def main() -> None:
    """Write the card from what `clips` wrote."""
    facts = json.loads((OUT / "facts.json").read_text())
    animations = json.loads((OUT / "clips.json").read_text())
    keys = ("clips", "captions", "concepts", "twins", "name_all_parts", "name_one_part", "told_by_order_only",
            "name_what_the_middle_frame_does_not_show")  # fmt: skip
    table = "\n".join(f"| {split} | " + " | ".join(str(facts[split][k]) for k in keys) + " |" for split in SEQUENCES)
    splits = Counter(a["split"] for a in animations.values())
    packages = [sources.describe(p, sources.fetch(p, CACHE / "pkg")) for p in sources.ANIMATED]
    card = CARD.format(
        frames=FRAMES,
        rate=RATE,
        table=table,
        singles=len(animations),
        names=sum(len(a["names"]) for a in animations.values()) / len(animations),
        single_splits=", ".join(f"{name} {count}" for name, count in sorted(splits.items())),
        packages="\n".join(f"| {p['name']} | {p['version']} | {p['licence']} | {p['role']} |" for p in packages),
    )
    (OUT / "README.md").write_text(card)
    (OUT / "licences").mkdir(exist_ok=True)
    scenes = OUT.parent / "scenes" / "licences"
    for file in scenes.glob("*.txt"):
        if not file.name.startswith("fluent"):
            shutil.copyfile(file, OUT / "licences" / file.name)
    mit = (scenes / "emojibase-data.txt").read_text().split("\n\n", 2)[2]
    text = FLUENT_LICENCE.replace("fluent-emoji-3d", "fluent-emoji-anim-1 to -4")
    (OUT / "licences" / "fluent-emoji-anim.txt").write_text(text + mit)


if __name__ == "__main__":
    main()
