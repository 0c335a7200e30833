"""Data card and licences of the scenes: ``python -m world.card``, after compose and leakage."""

# ruff: noqa: E501 - lines of tables
from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

from world import sources
from world.compose import SPLIT_OF
from world.gather import CACHE

OUT = CACHE.parent.parent / "assets" / "scenes"
FLUENT_LICENCE = """MIT License

Copyright (c) Microsoft Corporation (Fluent Emoji, github.com/microsoft/fluentui-emoji)
Copyright (c) 2023 LobeHub (packaging, npm @lobehub/fluent-emoji-3d)

"""

CARD = """# Scenes of 3-D emoji

Pictures of two to four emoji in the 3-D style, 96 x 96 pixels, each with three captions that say
what is where. The retrieval task that the embedded backbone is adapted to: it was pre-trained on
emoji in other styles, one or several on a canvas, and never saw the 3-D style or a sentence that
says where one thing is from another.

The pictures are not stored. `sprites.webp` holds one 64-pixel cell an emoji, a line of
`<split>.jsonl` says what is drawn where, and `uniadapter.embedded.emoji_scenes.prepare_scenes` renders them on
first use. Everything is written by `python -m world.compose` from a seed (0).

| split | scenes | captions | with 2 / 3 / 4 emoji | with a twin | concepts |
|---|---|---|---|---|---|
{counts}

A *twin* is a scene with the same emoji, two of them swapped, on another background: its captions
use the same names and differ in the relation only.

| file | holds |
|---|---|
| `<split>.jsonl` | `id`; `background`: two colours and the angle of the gradient; `objects`: hexcode, centre x, centre y, side, in pixels; `captions`; `partner`: id of the twin |
| `sprites.webp`, `sprites.json` | the atlas (WebP with alpha, quality 80); hexcode -> cell, label, family, split |
| `names.json` | the names by which captions call each concept |
| `kinds.json` | hexcode -> kind of thing (face, vehicle …), from emojibase's subgroups; the questions of `embedded:vqa` and `embedded:videoqa` ask for these |
| `leakage.json` | the measurements below, in full |
| `SPLIT_SHA256` | sha256 of every split and of the atlas, committed before any model was adapted |
| `licences/` | texts |

## Captions

Composed, not written by people: names that people gave the emoji (label, CLDR name, shortcodes;
{names:.2f} a concept) in templates about left, right, above, below, corners, rows, columns and
what is between what. A name is used only if no other concept has it as a name or keyword.
Keywords ("diet" for a red apple) are not used. A name containing a word of place is not used.

- No caption is true of another scene of its split: no two concepts meet in two scenes (but twins),
  and what a caption claims was tested on the twin.
- Every caption was read back by a second program with a grammar of its own (`world/check.py`)
  and found true of its scene and false of the twin; `tests/test_embedded.py` does it again.
- "left of" means: centres at least 12 pixels apart in that direction, and further apart in it than
  across. "above and to the left of": at least 12 pixels both ways. A side or corner of the picture:
  more than 14 pixels off the middle. Of a twin a caption is false by 4 pixels more.

## Which concepts, and who has seen them

Skin tones, genders and joined variants of an emoji are one *family*; families, not emoji, are
split, by a hash of their key. Only one un-toned base picture a family is drawn. 10% of the
families are `test_novel`: no picture and no caption of them was in pre-training, the tokenizer
included. The others were in pre-training as drawn styles, never in 3-D; about 65% of them are
train, 10% val, 25% test. So in `test` the concepts were seen in other styles and never in a scene,
in `test_novel` they were never seen at all. Left out: flags (they look the same in every style),
keycaps and lettered signs, clock faces at the hours, {ambiguous} concepts whose every name has a word
of place or belongs to another emoji too.

In pre-training: {drawn} pictures of {concepts} concepts (un-toned; genders and joined variants
included) in six styles.

## Leakage

Of the {sprites} sprites, compared with the drawn styles of pre-training: for how many is the
nearest picture (16 x 16 colours) of a style the same concept, and how many have a picture within
6 of 64 bits of perceptual hash in it. Two pictures of one concept look alike, so the first is not
expected to be zero; the last line is what the same artists' flat drawings, which were left out of
pre-training for that reason, would give.

| style | concepts shared | nearest is the same concept | median hash distance to the same concept | within 6 bits |
|---|---|---|---|---|
{leakage}

## Origin and licences

| package | version | licence | what is taken | in this folder |
|---|---|---|---|---|
{packages}

Licences are those declared in each package's `package.json`. `@lobehub/fluent-emoji-3d` has no
licence file of its own: its `package.json` and README say MIT, and the drawings are Microsoft's
Fluent Emoji, published under MIT. The drawn styles were used for pre-training only; none of their
pictures ship. The composed captions and specifications: Apache-2.0, as the rest of this
repository, over names under the licences above.

## Limits

Composed pictures on plain backgrounds, names in American English, relations by template: a task
for methods that must fit into minutes on a CPU, not a measure of how a model sees photographs.

## Hashes

```
{hashes}
```
"""


def counts_table(rows: dict[str, list[dict]]) -> str:
    """One line a split."""
    lines = []
    for split, scenes in rows.items():
        sizes = Counter(len(s["objects"]) for s in scenes)
        concepts = {o[0] for s in scenes for o in s["objects"]}
        captions = sum(len(s["captions"]) for s in scenes)
        twins = sum(s["partner"] is not None for s in scenes)
        spread = " / ".join(str(sizes[n]) for n in (2, 3, 4))
        lines.append(f"| {split} | {len(scenes)} | {captions} | {spread} | {twins} | {len(concepts)} |")
    return "\n".join(lines)


def leakage_table(measured: dict[str, dict]) -> str:
    """One line a style."""
    return "\n".join(
        f"| {style} | {row['shared_concepts']} | {row['nearest_is_same_concept']:.0%} "
        f"| {row['median_hash_distance_same_concept']:.0f} | {row['hash_within_6_bits']} |"
        for style, row in measured.items()
    )


def copy_licences(out: Path) -> None:
    """Texts of everything of which something ships."""
    out.mkdir(exist_ok=True)
    for package in (sources.EMOJIBASE, sources.EMOJILIB, sources.CLDR):
        folder = sources.fetch(package, CACHE / "pkg")
        target = out / f"{package.name}.txt"
        shutil.copyfile(folder / "LICENSE", target)
    mit = (out / "emojibase-data.txt").read_text().split("\n\n", 2)[2]
    (out / "fluent-emoji-3d.txt").write_text(FLUENT_LICENCE + mit)


def main() -> None:
    """Write the card from what the other scripts wrote."""
    rows = {
        split: [json.loads(line) for line in (OUT / f"{split}.jsonl").read_text().splitlines()] for split in SPLIT_OF
    }
    names = json.loads((OUT / "names.json").read_text())
    leakage = json.loads((OUT / "leakage.json").read_text())
    facts = json.loads((CACHE / "facts.json").read_text())
    packages = "\n".join(
        f"| {p['name']} | {p['version']} | {p['licence']} | {p['role']} | {'yes' if p['shipped'] else 'no'} |"
        for p in json.loads((CACHE / "packages.json").read_text())
    )
    card = CARD.format(
        counts=counts_table(rows),
        names=sum(map(len, names.values())) / len(names),
        ambiguous=facts["without_a_clear_name"],
        drawn=facts["pretraining_pictures"],
        concepts=facts["pretraining_concepts"],
        sprites=leakage["sprites"],
        leakage=leakage_table(leakage["styles"]),
        packages=packages,
        hashes=(OUT / "SPLIT_SHA256").read_text().strip(),
    )
    (OUT / "README.md").write_text(card)
    copy_licences(OUT / "licences")


if __name__ == "__main__":
    main()
