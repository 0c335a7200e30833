"""What the decoder says of styles that pre-training never saw.

    python -m world.measures.speech world/stages/stage4.safetensors [FILE.json]

Captions, written greedily after the prompt: per cent of the things named that are there; CIDEr and BLEU-4 against five
captions of each canvas in other wordings, where `pycocoevalcap` is installed. Answers, written: per cent that are the
right words, by kind of question.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from pathlib import Path
from typing import Any

import torch

from uniadapter.evaluation.captioning import can_score, caption_scores
from uniadapter.files.writing import atomic_file
from world.measures.fusion import ASKED, style_bank
from world.pictures.concepts import read_concepts
from world.pictures.sources import HELD_OUT, NEW
from world.stages.bank import COUNTS, Bank, layout
from world.stages.fused import fuse
from world.stages.stage3 import LONGEST, PROMPT, Speaker, read_joint
from world.stages.subject import Subject
from world.stages.vision import WIDTH
from world.texts.captions import BOTH, Captioner
from world.texts.names import Lexicon
from world.texts.questions import Asker
from world.texts.vocabulary import Vocabulary

LOG = logging.getLogger("measure_speech")
REFERENCES = 5


@torch.no_grad()
def speak(
    speaker: Speaker, vocabulary: Vocabulary, states: torch.Tensor, seen: torch.Tensor, prompt: list[str], longest: int
) -> list[list[str]]:
    """The likeliest next word again and again: words after the prompt for each row of states [Q, K, 192].

    Args:
        speaker: the decoder.
        vocabulary: words.
        states: what it attends to.
        seen: [Q, K], 1 for what may be attended to.
        prompt: words that every text begins with.
        longest: tokens with [DEC] and the prompt.
    """
    start = [vocabulary.id["[DEC]"], *(vocabulary.id[word] for word in prompt)]
    ids = torch.tensor([start]).repeat(len(states), 1)
    end = vocabulary.id["[SEP]"]
    while ids.shape[1] < longest and not bool((ids[:, 1:] == end).any(1).all()):
        ids = torch.cat([ids, speaker.logits(ids, torch.ones_like(ids), states, seen)[:, -1:].argmax(-1)], 1)
    rows = [row[len(start) :] for row in ids.tolist()]
    return [[vocabulary.words[i] for i in row[: row.index(end) if end in row else None]] for row in rows]


def named(words: list[str], lexicon: Lexicon) -> list[int]:
    """Concepts that a text names, by the longest names that stand in it."""
    table = {tuple(name): number for number, names in enumerate(lexicon.names) for name in names}
    found, place = [], 0
    while place < len(words):
        width = next((n for n in (5, 4, 3, 2, 1) if tuple(words[place : place + n]) in table), 0)
        if width:
            found.append(table[tuple(words[place : place + width])])
        place += max(1, width)
    return found


def captions(speaker: Speaker, subject: Subject, bank: Bank) -> dict[str, Any]:
    """Scores of the captions written, and the first of them."""
    tokens = bank.tokens.float()
    seen = torch.ones(tokens.shape[:2], dtype=torch.long)
    written = speak(speaker, subject.vocabulary, tokens, seen, PROMPT.split(), LONGEST)
    captioner, rng = Captioner(subject.lexicon, BOTH), random.Random("references")
    references = {}
    for row, scene in enumerate(bank.scenes):
        claims = [captioner.claim(scene, rng) for _ in range(REFERENCES)]
        references[row] = [captioner.word(claim, rng, opener="").text for claim in claims if claim]
    told = [
        (c, scene) for words, scene in zip(written, bank.scenes, strict=True) for c in named(words, subject.lexicon)
    ]
    right = sum(concept in scene.concepts for concept, scene in told) / max(1, len(told))
    scores: dict[str, Any] = {}
    if can_score():
        found = caption_scores({row: " ".join(words) for row, words in enumerate(written)}, references, "simple")
        scores = {"cider": round(found.cider, 1), "bleu@4": round(found.bleu4, 1)}
    return scores | {
        "named right": round(100 * right, 1),
        "names a caption": round(len(told) / len(bank), 2), "first": [" ".join(words) for words in written[:12]],
    }  # fmt: skip


@torch.no_grad()
def answers(speaker: Speaker, subject: Subject, bank: Bank, among: list[int]) -> dict[str, float]:
    """Per cent of written answers that are right, by kind of question."""
    out = {}
    for name, (kind, axes) in ASKED.items():
        asker, rng = Asker(subject.lexicon, among, axes), random.Random(f"questions {name}")
        asked = [(row, q) for row, scene in enumerate(bank.scenes) if (q := asker(scene, rng, kind)) is not None]
        ids, mask = subject.vocabulary.encode([question.saying.words for _, question in asked])
        tokens = bank.tokens[[row for row, _ in asked]].float()
        fused = fuse(subject.learner.base, ids[:, None], mask[:, None], tokens)
        states = fused.layers[-1].view(len(asked), -1, WIDTH)
        written = speak(speaker, subject.vocabulary, states, mask, [], 8)
        right = [" ".join(words) == asker.answers[q.answer] for words, (_, q) in zip(written, asked, strict=True)]
        out[name] = round(100 * sum(right) / len(right), 1)
    return out


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="of the joint stage")
    parser.add_argument("out", type=Path, nargs="?", default=None)
    parser.add_argument("--canvases", type=int, default=500)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    subject, speaker = read_joint(args.weights)
    seen = [number for number, concept in enumerate(read_concepts()) if not concept.novel]
    found = {}
    for style in (HELD_OUT, NEW):
        rng = random.Random(f"layouts {style}")
        layouts = [
            layout(seen, subject.lexicon, rng.choices((1, 2, 3, 4), COUNTS)[0], rng) for _ in range(args.canvases)
        ]
        bank = style_bank(subject, style, layouts, f"paint {style}")
        found[style] = {
            "captions": captions(speaker, subject, bank), "answers": answers(speaker, subject, bank, seen),
        }  # fmt: skip
    text = json.dumps({"canvases": args.canvases, "styles": found}, indent=1) + "\n"
    if args.out:
        with atomic_file(args.out) as temporary:
            temporary.write_text(text)
    LOG.info("%s", text)


if __name__ == "__main__":
    main()
