"""Pre-training, second stage: texts, contrast, matching and answers on the tokens of the frozen visual encoder.

    python -m world.stages.stage2 --out .cache/world/stage2      # goes on from its checkpoint by itself
    python -m world.stages.stage2 --out .cache/world/stage2 --export world/stages/stage2.safetensors

Losses: matching against falsehoods by construction, answers, contrast, and the dense ones of `dense.py`. Muon for the
text layers' matrices, AdamW for the rest. Every draw is a function of (seed, step).
"""

from __future__ import annotations

import argparse
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval

from world.stages.bank import Bank, Source, read_vision
from world.stages.dense import DenseHeads, Words, dense_losses, kinds_of, places
from world.stages.fused import build, fuse, start_words, text_feature, unit_rows, visual_feature
from world.stages.loop import arguments as common
from world.stages.loop import autocast, prepare, run
from world.stages.vision import WIDTH
from world.texts.captions import PRETRAINING, Captioner, Style
from world.texts.names import Lexicon
from world.texts.vocabulary import Vocabulary, word_starts
from world.texts.writer import TEXTS, Writer

TEMPERATURE = 0.07
EPOCHS = 2  # times that a round's canvases are used, with other texts each time
WEIGHTS = {"shown": 0.5}  # of losses that don't weigh 1


class Learner(nn.Module):
    """The base, its visual encoder frozen, with the heads that only pre-training reads.

    Args:
        answers: how many there are.
    """

    def __init__(self, answers: int) -> None:
        super().__init__()
        vision, heads = read_vision()
        vocabulary = Vocabulary()
        self.base: BlipForImageTextRetrieval = build()
        self.base.vision_model = vision
        self.answer = nn.Linear(WIDTH, answers)
        self.dense = DenseHeads()
        start_words(self.base, heads, word_starts(vocabulary, unit_rows(heads["patch.weight"][:-1])))


class Texts:
    """What writes a step's texts.

    Args:
        lexicon: names.
        seen: concepts that may be named.
        style: what captions may say.
    """

    def __init__(self, lexicon: Lexicon, seen: list[int], style: Style = PRETRAINING) -> None:
        self.writer, self.vocabulary = Writer(lexicon, seen, Captioner(lexicon, style)), Vocabulary()
        self.kinds = kinds_of(lexicon)


class Batches(Texts):
    """Batches by step.

    Args:
        source: of canvases.
        batch: canvases a step.
        more: further canvases for contrast.
    """

    def __init__(self, source: Source, batch: int, more: int) -> None:
        super().__init__(source.lexicon, source.seen)
        self.source, self.batch, self.more = source, batch, more
        self.per_epoch = source.size // batch
        self.number = -1
        self.bank: Bank | None = None

    def rows(self, step: int) -> tuple[Bank, list[int], list[int]]:
        """A step's bank, its rows, and the rows that contrast has beside them."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch // EPOCHS != self.number:
            self.number = epoch // EPOCHS
            self.bank = self.source.round(self.number)
        assert self.bank is not None
        order = torch.randperm(len(self.bank), generator=torch.Generator().manual_seed(self.source.seed + 7919 * epoch))
        rows = order.roll(-place * self.batch).tolist()
        return self.bank, rows[: self.batch], rows[self.batch : self.batch + self.more]


def losses(learner: Learner, batches: Batches, step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """A step's losses, and what of its matching and answers was right."""
    bank, rows, further = batches.rows(step)
    return losses_of(learner, batches, bank, rows, further, random.Random(f"stage2 {batches.source.seed} step {step}"))


def losses_of(
    learner: Learner, batches: Texts, bank: Bank, rows: list[int], further: list[int], rng: random.Random
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """`losses` of these rows of a bank; `further` ones are for contrast alone."""
    scenes = [bank.scenes[row] for row in rows]
    texts = batches.writer.step(scenes, rng)
    ids, mask = batches.vocabulary.encode([saying.words for some in texts.sayings for saying in some])
    tokens = bank.tokens[rows].float()
    fused = fuse(learner.base, ids.view(len(rows), TEXTS, -1), mask.view(len(rows), TEXTS, -1), tokens)
    first = fused.first.float()
    matched = learner.base.itm_head(first[:, :4]).float().flatten(0, 1)
    truth = torch.tensor([1, 0, 1, 0]).repeat(len(rows))
    answered, answers = learner.answer(first[:, 4:]).float().flatten(0, 1), torch.tensor(texts.answers).flatten()
    found = {"match": F.cross_entropy(matched, truth), "answer": F.cross_entropy(answered, answers)}
    at = places(scenes, len(batches.writer.lexicon))
    found |= dense_losses(learner.dense, fused, bank.owner[rows], at, Words.of(texts.sayings), batches.kinds)
    found["contrast"] = contrast(learner, batches, bank, rows + further, rng)
    right = {
        "match_right": float((matched.argmax(1) == truth).float().mean()),
        "answer_right": float((answered.argmax(1) == answers).float().mean()),
    }
    return found, right


def contrast(learner: Learner, batches: Texts, bank: Bank, rows: list[int], rng: random.Random) -> Tensor:
    """Each canvas against the captions of all, both ways."""
    captions = [batches.writer.caption(bank.scenes[row], rng).words for row in rows]
    text = text_feature(learner.base, *batches.vocabulary.encode(captions))
    visual = visual_feature(learner.base, bank.tokens[rows].float())
    similarity, own = visual @ text.t() / TEMPERATURE, torch.arange(len(rows))
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.t(), own)) / 2


def train(args: argparse.Namespace, source: Source) -> None:
    """Run, or go on with, the stage."""
    batches = Batches(source, args.batch, args.more)
    learner = Learner(len(batches.writer.asker.answers))

    def step(number: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        with autocast(args.bf16):
            return losses(learner, batches, number)

    run(args, learner, step, WEIGHTS)


def arguments() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = common(__doc__, steps=2200, lr=1e-3, muon=0.01)
    parser.add_argument("--more", type=int, default=80, help="further canvases for contrast")
    return parser


def main() -> None:
    """Parse and run."""
    args = arguments().parse_args()
    prepare(args)
    train(args, Source(read_vision()[0], args.round, args.seed, args.bf16))


if __name__ == "__main__":
    main()
