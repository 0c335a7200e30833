"""What the pre-trained base can do before anything is adapted, with controls.

    python -m world.measures.fusion world/stages/stage2.safetensors world/stages/stage2.json

Styles: one drawn style that no pre-training step saw, and the 3-D style of the tasks; drawings as they are, layouts,
grounds and texts of their own seeds. Matching is told from falsehoods by construction (per cent of decisions, chance
50); questions by the answer head that stays behind after pre-training; retrieval among 500 twin scenes: each pair of
them shows the same two things exchanged, so that a bag of words tops out near 50.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from uniadapter.files.writing import atomic_file
from world.pictures.canvas import Placed
from world.pictures.concepts import read_concepts
from world.pictures.sources import HELD_OUT, NEW
from world.stages.bank import COUNTS, Bank, encoded, layout, still_painter
from world.stages.fused import text_feature, visual_feature
from world.stages.subject import Subject, read
from world.texts.captions import ABOVE, REVERSED, Captioner, Style
from world.texts.names import Lexicon
from world.texts.questions import KINDS_ASKED, Asker
from world.texts.truths import Claim, Scene
from world.texts.writer import Writer

LOG = logging.getLogger("measure")
CANVASES, TWINS, RERANKED = 800, 500, 16
# (name, frame, how it is made false, ways of wording)
FALSEHOODS = [
    ("object", "objects", "object", None),
    ("swapped in a relation", "relation", "swapped", None),
    ("relation turned", "relation", "turned", None),
    ("things exchanged", "relation", "exchanged", None),
    ("place moved", "places", "moved", None),
    ("places exchanged", "places", "exchanged", None),
    ("count", "count", "count", None),
    ("ground", "objects", "ground", None),
    ("above swapped", "relation", "swapped", ABOVE),
    ("above turned", "relation", "turned", ABOVE),
    ("above exchanged", "relation", "exchanged", ABOVE),
    ("left out: its turned", "relation", "turned", REVERSED),
]
ASKED = {kind: (kind, "x") for kind in KINDS_ASKED} | {"above": ("relation", "y"), "what is above": ("beside", "y")}
RETRIEVED = {"left and right": Style(), "above and below": ABOVE, "left out: its": REVERSED}
See = Callable[[Tensor], Tensor]  # what a control makes of the canvases' tokens


def percent(right: Tensor) -> float:
    """Share of true ones, in per cent, with one digit."""
    return round(100 * float(right.float().mean()), 1)


def falsehoods(
    subject: Subject, bank: Bank, among: list[int], see: See, order: bool = False, count: int = 600
) -> dict[str, float]:
    """Per cent of decisions "belongs" or "doesn't" that are right, by kind of falsehood.

    Args:
        subject: the base.
        bank: canvases of a style.
        among: concepts that may be named.
        see: what becomes of their tokens.
        order: which of a true and a false text belongs more, instead of each by itself: a control that always says the
            same would be right half the time by that alone.
        count: decisions of a kind, in pairs.
    """
    out = {}
    tokens = see(bank.tokens)
    for name, frame, how, style in FALSEHOODS:
        writer = Writer(subject.lexicon, among, Captioner(subject.lexicon, style) if style else None)
        rng = random.Random(f"falsehoods {name}")
        bare = how not in ("ground",)
        found = [(row, writer.pair(scene, rng, frame, how, bare)) for row, scene in enumerate(bank.scenes)]
        rows = [row for row, pair in found if pair is not None][:count]
        texts = [[pair[0].words, pair[1].words] for _, pair in found if pair is not None][:count]
        margins = subject.first_states(tokens[rows], texts)[1]
        right = margins[:, 0] > margins[:, 1] if order else torch.cat([margins[:, 0] > 0, margins[:, 1] < 0])
        out[name] = percent(right)
    return out


def questions(subject: Subject, bank: Bank, among: list[int], see: See, say: str = "") -> dict[str, float]:
    """Per cent of answers that are right, by kind of question; with `say`, all are asked in these words instead."""
    out = {}
    tokens = see(bank.tokens)
    for name, (kind, axes) in ASKED.items():
        asker, rng = Asker(subject.lexicon, among, axes), random.Random(f"questions {name}")
        found = [(row, asker(scene, rng, kind)) for row, scene in enumerate(bank.scenes)]
        rows = [row for row, question in found if question is not None]
        asked = [question for _, question in found if question is not None]
        words = [[say.split() if say else question.saying.words] for question in asked]
        logits = subject.learner.answer(subject.first_states(tokens[rows], words)[0][:, 0])
        out[name] = percent(logits.argmax(1) == torch.tensor([question.answer for question in asked]))
    return out


def twin_scenes(lexicon: Lexicon, among: list[int], count: int, style: Style, seed: str) -> tuple[list, list]:
    """Layouts and captions: of each pair of layouts the second has the two named things exchanged."""
    rng = random.Random(seed)
    captioner = Captioner(lexicon, style)
    layouts: list[list[Placed]] = []
    captions: list[list[str]] = []
    while len(layouts) < count:
        things = layout(among, lexicon, rng.choice((2, 2, 3, 4)), rng)
        claim = captioner.claim(Scene(things), rng, "relation", bare=True)
        if claim is None:
            continue
        a, b = claim.things[:2]
        place = {concept: (x, y) for concept, x, y in things}
        place[a], place[b] = place[b], place[a]
        layouts += [things, [(concept, *place[concept]) for concept, _, _ in things]]
        turned: Claim = replace(claim, things=(b, a, *claim.things[2:]))
        captions += [captioner.word(said, rng).words for said in (claim, turned)]
    return layouts[:count], captions[:count]


@torch.no_grad()
def retrieval(subject: Subject, tokens: Tensor, captions: list[list[str]]) -> dict[str, float]:
    """Text to picture among twin scenes: by similarity, and with the best 16 reranked by matching."""
    base = subject.learner.base
    ids, mask = subject.vocabulary.encode(captions)
    similarity = text_feature(base, ids, mask) @ visual_feature(base, tokens.float()).t()
    own = torch.arange(len(captions))
    best = similarity.topk(RERANKED, 1).indices
    pairs = [[words] for words in captions for _ in range(RERANKED)]
    margins = subject.first_states(tokens[best.flatten()], pairs)[1].view(-1, RERANKED)
    first = best.gather(1, margins.argmax(1, keepdim=True))[:, 0]
    plain = similarity.argmax(1)
    return {
        "similarity": percent(plain == own),
        "similarity, either twin": percent(plain // 2 == own // 2),
        "among the best 16": percent((best == own[:, None]).any(1)),
        "reranked": percent(first == own),
        "reranked, either twin": percent(first // 2 == own // 2),
    }


def style_bank(subject: Subject, style: str, layouts: list[list[Placed]], seed: str) -> Bank:
    """Layouts in a style, encoded in float32."""
    vision = subject.learner.base.vision_model
    return encoded(vision, still_painter(style), layouts, random.Random(seed), bf16=False)


def measure(subject: Subject, style: str, canvases: int = CANVASES, twins: int = TWINS) -> dict:
    """All figures of a style."""
    concepts = read_concepts()
    seen = [number for number, concept in enumerate(concepts) if not concept.novel]
    novel = [number for number, concept in enumerate(concepts) if concept.novel]
    rng = random.Random(f"layouts {style}")
    layouts = [layout(seen, subject.lexicon, rng.choices((1, 2, 3, 4), COUNTS)[0], rng) for _ in range(canvases)]
    bank = style_bank(subject, style, layouts, f"paint {style}")
    mean = bank.tokens.float().mean(0)
    controls: dict[str, See] = {
        "text alone": lambda tokens: mean.expand_as(tokens),
        "shuffled pairs": lambda tokens: tokens.roll(1, 0),
    }
    out: dict = {"matching": falsehoods(subject, bank, seen, lambda tokens: tokens)}
    out["matching, order"] = falsehoods(subject, bank, seen, lambda tokens: tokens, True)
    out["questions"] = questions(subject, bank, seen, lambda tokens: tokens)
    out["controls"] = {
        name: {
            "matching, order": falsehoods(subject, bank, seen, see, True),
            "questions": questions(subject, bank, seen, see),
        }
        for name, see in controls.items()
    }
    out["controls"]["picture alone"] = {"questions": questions(subject, bank, seen, lambda tokens: tokens, "?")}
    for name, way in RETRIEVED.items():
        scenes, captions = twin_scenes(subject.lexicon, seen, twins, way, f"twins {name}")
        out[f"retrieval, {name}"] = retrieval(
            subject, style_bank(subject, style, scenes, f"twins {style}").tokens, captions
        )
    layouts = [layout(novel, subject.lexicon, rng.randint(1, 3), rng) for _ in range(canvases // 2)]
    unseen = falsehoods(subject, style_bank(subject, style, layouts, f"novel {style}"), novel, lambda tokens: tokens)
    out["novel concepts"] = {name: unseen[name] for name in ("object", "relation turned", "count")}
    return out


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=None, help="JSON file; printed where it isn't given")
    parser.add_argument("--canvases", type=int, default=CANVASES)
    parser.add_argument("--twins", type=int, default=TWINS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    subject = read(args.weights)
    found = {style: measure(subject, style, args.canvases, args.twins) for style in (HELD_OUT, NEW)}
    text = json.dumps({"canvases": args.canvases, "twin scenes": args.twins, "styles": found}, indent=1) + "\n"
    if args.out:
        with atomic_file(args.out) as temporary:
            temporary.write_text(text)
    LOG.info("%s", text)


if __name__ == "__main__":
    main()
