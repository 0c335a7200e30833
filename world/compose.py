"""Compose the scenes: ``python -m world.compose`` writes ``assets/scenes``.

Every scene is a specification (which emoji, where, how large, on what) with captions that are true
of it and of no other scene of its split; the pictures are rendered from one atlas on first use by
``uniadapter.embedded.emoji_scenes``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from world import sources
from world.canvas import COLOURS
from world.check import is_true, skeleton_of
from world.concepts import Concept, in_scenes, phrase_counts
from world.gather import CACHE, square
from world.relations import Placed, Statement, Wording, holds

LOG = logging.getLogger(__name__)
SPLITS = {"train": 4000, "val": 400, "test": 500, "test_novel": 400}
SPLIT_OF = {"train": "train", "val": "val", "test": "test", "test_novel": "novel"}
CAPTIONS = 3
SLACK = 4  # pixels by which a caption must be false of a rival scene
PARTNERED = 0.35  # share of scenes that have a twin: the same emoji, two of them swapped
CELL, COLUMNS = 64, 32
# Words that a caption needs for itself: "left arrow above top hat" would read two ways.
RELATION_WORDS = {"left", "right", "above", "below", "over", "under", "between", "up", "down"}
STARTS = ["", "", "", "", "", "there is ", "we see ", "a picture of ", "a scene with "]
Slot = tuple[int, int]


@dataclass
class Scene:
    """A specification with its captions."""

    id: str
    background: list[str | int]  # two colours and the angle of the gradient between them
    objects: list[Placed]
    captions: list[str] = field(default_factory=list)
    partner: str | None = None
    statements: list[Statement] = field(default_factory=list)

    def row(self) -> dict[str, object]:
        """As written to disk."""
        return {
            "id": self.id,
            "background": self.background,
            "objects": [[o.hexcode, o.x, o.y, o.size] for o in self.objects],
            "captions": self.captions,
            "partner": self.partner,
        }

    def by_code(self) -> dict[str, Placed]:
        """Objects by concept."""
        return {o.hexcode: o for o in self.objects}


def scene_names(concepts: list[Concept]) -> dict[str, list[str]]:
    """Names by which each concept may be called in captions; first the label.

    Names, not keywords: a keyword such as "diet" (red apple) names a thought, not a thing. A name
    that any other concept also has, as a name or as a keyword, is left out.
    """
    counts = phrase_counts(concepts)
    labels = Counter(c.label for c in concepts)
    table: dict[str, list[str]] = {}
    for concept in concepts:
        names = [n for n in concept.names if counts[n] == 1 or n == concept.label]
        names = [
            n
            for n in names
            if labels[n] <= 1
            and len(n) <= 32
            and not any(c.isdigit() for c in n)
            and not RELATION_WORDS & set(n.split())
        ]
        if names:
            table[concept.hexcode] = names
    return table


def layout(count: int, rng: random.Random) -> tuple[list[Slot], int, int]:
    """Centres of ``count`` emoji and the range of their sides: nothing overlaps."""
    near, far, mid = 25, 71, 48
    if count == 2:
        kind = rng.random()
        if kind < 0.4:
            y = rng.randint(30, 66)
            return [(near, y), (far, y)], 40, 44
        if kind < 0.8:
            x = rng.randint(30, 66)
            return [(x, near), (x, far)], 40, 44
        corners = [(near, near), (far, far)] if rng.random() < 0.5 else [(far, near), (near, far)]
        return corners, 40, 44
    if count == 3:
        kind = rng.randrange(5)
        if kind == 0:
            y = rng.randint(34, 62)
            return [(17, y), (48, y), (79, y)], 30, 31
        if kind == 1:
            x = rng.randint(34, 62)
            return [(x, 17), (x, 48), (x, 79)], 30, 31
        if kind == 2:
            corners = [(near, near), (far, near), (near, far), (far, far)]
            return rng.sample(corners, 3), 38, 44
        first, second = (near, far) if kind == 3 else (far, near)
        if rng.random() < 0.5:
            return [(mid, first), (near, second), (far, second)], 38, 44
        return [(first, mid), (second, near), (second, far)], 38, 44
    return [(near, near), (far, near), (near, far), (far, far)], 38, 44


def place(codes: list[str], slots: list[Slot], sizes: list[int], rng: random.Random) -> list[Placed]:
    """Emoji in slots, each moved a little but kept whole."""
    objects = []
    for code, (x, y), size in zip(codes, slots, sizes, strict=True):
        half = size // 2 + 1
        shake = 1 if size < 32 else 3
        where = [min(max(v + rng.randint(-shake, shake), half), 96 - half) for v in (x, y)]
        objects.append(Placed(code, where[0], where[1], size))
    return objects


def background(rng: random.Random) -> list[str | int]:
    """Two shades of a colour, or two colours, and an angle."""
    first = rng.choice(list(COLOURS.values()))
    second = rng.choice(list(COLOURS.values())) if rng.random() < 0.25 else first

    def shade(colour: tuple[int, int, int], by: int) -> str:
        change = rng.randint(-by, by)
        return "".join(f"{min(255, max(0, c + change + rng.randint(-12, 12))):02x}" for c in colour)

    return [shade(first, 10), shade(second, 40), rng.randrange(0, 360, 5)]


class Composer:
    """Draws the scenes of one split."""

    def __init__(self, split: str, codes: list[str], names: dict[str, list[str]], seed: int) -> None:
        self.split, self.codes, self.names = split, codes, names
        self.rng = random.Random(f"{seed}:{split}")
        self.deck: list[str] = []
        self.met: set[frozenset[str]] = set()

    def deal(self, count: int) -> list[str]:
        """Concepts of which no two have met in an earlier scene.

        So a caption that names two of them can be true of this scene and its twin only.
        """
        for _ in range(100_000):
            hand = self.draw(count)
            pairs = {frozenset(p) for p in combinations(hand, 2)}
            if not pairs & self.met:
                self.met |= pairs
                return hand
            # a deck of a few leftovers may hold no fresh pair: more cards, another order
            self.deck += hand + (self.codes if len(self.deck) < len(self.codes) else [])
            self.rng.shuffle(self.deck)
        raise RuntimeError(f"{self.split}: {len(self.codes)} concepts have too few pairs for so many scenes")

    def draw(self, count: int) -> list[str]:
        """Distinct concepts; every concept comes up about equally often."""
        while len(self.deck) < count + 4:
            self.deck += self.rng.sample(self.codes, len(self.codes))
        hand: list[str] = []
        while len(hand) < count:
            code = self.deck.pop(0)
            if code in hand:
                self.deck.append(code)
            else:
                hand.append(code)
        return hand

    def scenes(self, total: int) -> list[Scene]:
        """``total`` specifications without captions; twins follow one another."""
        out: list[Scene] = []
        while len(out) < total:
            count = self.rng.choices([2, 3, 4], [0.6, 0.32, 0.08])[0]
            codes = self.deal(count)
            slots, low, high = layout(count, self.rng)
            sizes = [self.rng.randint(low, high) for _ in codes]
            first = Scene(f"{len(out):05d}", background(self.rng), place(codes, slots, sizes, self.rng))
            out.append(first)
            # a twin makes two scenes at once, so half the share of starts
            starts = PARTNERED / 2 / (1 - PARTNERED / 2)
            if len(out) < total and self.rng.random() < starts:
                i, j = self.rng.sample(range(count), 2)
                codes = list(codes)
                codes[i], codes[j] = codes[j], codes[i]
                twin = Scene(f"{len(out):05d}", background(self.rng), place(codes, slots, sizes, self.rng))
                first.partner, twin.partner = twin.id, first.id
                out.append(twin)
        return out

    def spell(self, statement: Statement) -> str:
        """A statement with names in its slots, a start in front."""
        words = []
        for code in statement.concepts:
            options = self.names[code]
            name = options[0] if self.rng.random() < 0.5 else self.rng.choice(options)
            words.append(self.with_article(name))
        text = statement.text.format(*words)
        plain_start = statement.text.startswith("{") and " is " not in text
        return (self.rng.choice(STARTS) if plain_start else "") + text

    def with_article(self, name: str) -> str:
        """Mostly ``a``/``an``, sometimes ``the`` or nothing; plurals without ``a``."""
        plural = name.endswith("s") and not name.endswith(("ss", "us", "is"))
        chance = self.rng.random()
        if chance < 0.35 or (plural and chance < 0.8):
            return name
        if plural or chance > 0.88:
            return f"the {name}"
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"

    def reads_one_way(self, text: str, statement: Statement, scene: Scene) -> bool:
        """Whether the names can be found again: not "saluting face with medical mask on its left".

        There "face with medical mask" is the name of one emoji, and not the one that is meant.
        """
        skeleton, order = skeleton_of(text, {o.hexcode: self.names[o.hexcode] for o in scene.objects})
        if set(order) != set(statement.concepts):
            return False
        marks = [f"<{order.index(code)}>" for code in statement.concepts]
        return skeleton == statement.text.format(*marks)

    def caption(self, scenes: list[Scene]) -> None:
        """Give every scene captions that are true of it and of no other scene of the split."""
        index: dict[str, list[Scene]] = {}
        for scene in scenes:
            for item in scene.objects:
                index.setdefault(item.hexcode, []).append(scene)
        taken: set[str] = set()
        for scene in scenes:
            wording = Wording(scene.objects, self.rng).statements()
            for _ in range(3000):
                if len(scene.captions) == CAPTIONS:
                    break
                statement = next(wording)
                rivals = set.intersection(*({s.id for s in index[code]} for code in statement.concepts)) - {scene.id}
                shared = [s for s in index[statement.concepts[0]] if s.id in rivals]
                if any(all(holds(c, s.by_code(), SLACK) for c in statement.claims) for s in shared):
                    continue
                text = self.spell(statement)
                if text in taken or any(s.text == statement.text for s in scene.statements):
                    continue
                if not self.reads_one_way(text, statement, scene):
                    continue
                taken.add(text)
                scene.captions.append(text)
                scene.statements.append(statement)
            if len(scene.captions) < CAPTIONS:
                raise RuntimeError(f"{self.split} {scene}: no unambiguous captions")


def check(scenes: list[Scene], names: dict[str, list[str]]) -> None:
    """Read every caption back with the independent grammar: true here, false of the twin."""
    by_id = {s.id: s for s in scenes}
    for scene in scenes:
        own = {o.hexcode: names[o.hexcode] for o in scene.objects}
        points = {o.hexcode: (float(o.x), float(o.y)) for o in scene.objects}
        for text in scene.captions:
            if not is_true(text, points, own):
                raise ValueError(f"{scene.id}: not true: {text!r}")
            if scene.partner is not None:
                twin = by_id[scene.partner]
                others = {o.hexcode: (float(o.x), float(o.y)) for o in twin.objects}
                if is_true(text, others, own):
                    raise ValueError(f"{scene} {twin.objects}: true of its twin too: {text!r}")


def write_atlas(used: list[Concept], out: Path, quality: int) -> None:
    """All sprites that the scenes need in one WebP, with an index."""
    folder = sources.fetch(sources.NEW_STYLE, CACHE / "pkg") / "assets"
    files = {p.stem.upper().replace("-FE0F", ""): p for p in folder.glob("*.webp")}
    rows = -(-len(used) // COLUMNS)
    atlas = np.zeros((rows * CELL, COLUMNS * CELL, 4), np.uint8)
    index = {}
    for number, concept in enumerate(used):
        row, column = divmod(number, COLUMNS)
        # a pixel of margin, so that no cell bleeds into the next when the atlas is compressed
        picture = np.pad(square(Image.open(files[concept.hexcode]), CELL - 2), ((1, 1), (1, 1), (0, 0)))
        atlas[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = picture
        index[concept.hexcode] = {
            "cell": number, "label": concept.label, "family": concept.family,
            "split": concept.split,
        }  # fmt: skip
    Image.fromarray(atlas).save(out / "sprites.webp", quality=quality, alpha_quality=90, method=6)
    header = {"cell": CELL, "columns": COLUMNS, "sprites": index}
    text = json.dumps(header, ensure_ascii=True, sort_keys=True)
    (out / "sprites.json").write_text(text.replace('}, "', '},\n"') + "\n")


def write_facts(
    concepts: list[Concept],
    names: dict[str, list[str]],
    pictured: set[str],
    styles: np.ndarray,
    codes: np.ndarray,
) -> None:
    """Counts for the data card that the written files don't tell."""
    seen = {c.hexcode for c in concepts if c.split != "novel"}
    shown = [str(code) for style, code in zip(styles, codes, strict=True) if style != "fluent-3d" and str(code) in seen]
    facts = {
        "pretraining_pictures": len(shown),
        "pretraining_concepts": len(set(shown)),
        "without_a_clear_name": sum(
            in_scenes(c) and c.hexcode in pictured and c.hexcode not in names for c in concepts
        ),
    }
    (CACHE / "facts.json").write_text(json.dumps(facts) + "\n")


def compose(out: Path, seed: int, quality: int) -> None:
    """Write atlas, names, splits and their hashes."""
    out.mkdir(parents=True, exist_ok=True)
    concepts = [Concept(**row) for row in json.loads((CACHE / "concepts.json").read_text())]
    names = scene_names(concepts)
    with np.load(CACHE / "pictures.npz") as file:
        styles, codes = file["styles"], file["codes"]
    new = {str(c) for s, c in zip(styles, codes, strict=True) if s == "fluent-3d"}
    drawn = {str(c) for s, c in zip(styles, codes, strict=True) if s != "fluent-3d"}
    usable = [c for c in concepts if in_scenes(c) and c.hexcode in new & drawn and c.hexcode in names]
    write_facts(concepts, names, new & drawn, styles, codes)
    hashes, used = [], set()
    for split, total in SPLITS.items():
        own = [c.hexcode for c in usable if c.split == SPLIT_OF[split]]
        composer = Composer(split, own, names, seed)
        scenes = composer.scenes(total)
        composer.caption(scenes)
        check(scenes, names)
        used |= {o.hexcode for s in scenes for o in s.objects}
        lines = [json.dumps(s.row(), separators=(",", ":")) for s in scenes]
        data = ("\n".join(lines) + "\n").encode()
        (out / f"{split}.jsonl").write_bytes(data)
        hashes.append(f"{hashlib.sha256(data).hexdigest()}  {split}.jsonl")
        sizes = dict(sorted(Counter(len(s.objects) for s in scenes).items()))
        LOG.info("%s: %d scenes of %d concepts, objects %s, with a twin %d", split, total, len(own),
                 sizes, sum(s.partner is not None for s in scenes))  # fmt: skip
    shown = [c for c in usable if c.hexcode in used]
    write_atlas(shown, out, quality)
    table = {c.hexcode: names[c.hexcode] for c in shown}
    text = json.dumps(table, sort_keys=True).replace('], "', '],\n"')
    (out / "names.json").write_text(text + "\n")
    for file in ("sprites.webp", "sprites.json", "names.json"):
        hashes.append(f"{hashlib.sha256((out / file).read_bytes()).hexdigest()}  {file}")
    (out / "SPLIT_SHA256").write_text("\n".join(hashes) + "\n")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CACHE.parent.parent / "assets" / "scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quality", type=int, default=80)
    args = parser.parse_args()
    compose(args.out, args.seed, args.quality)
