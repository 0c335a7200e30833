"""Pre-training, fourth stage: all jointly, the visual encoder too, on canvases that are painted for each step.

    python -m world.stages.stage4 --out .cache/world/stage4 --base world/stages/stage2.safetensors \
        --decoder world/stages/stage3.safetensors

The losses of the second and third stages together. The visual encoder moves at an eighth of the decoder's rate, the
text encoder at half of it: here it learns to speak of "above" and "below" too.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from world.stages.bank import COUNTS, Bank, Drawings, layout
from world.stages.loop import arguments as common
from world.stages.loop import autocast, prepare, restore, run
from world.stages.stage2 import WEIGHTS, Learner, Texts
from world.stages.stage2 import losses_of as losses_of_texts
from world.stages.stage3 import Speaker
from world.stages.stage3 import losses_of as losses_of_speech
from world.stages.subject import Subject, read
from world.stages.vision import encode
from world.texts.captions import BOTH
from world.texts.truths import Scene

ANEW = 200  # steps after which the variants of the drawings are drawn anew
VARIANTS = 6
SHARES = {"learner.base.vision_model.": 0.125, "learner.": 0.5}  # of the rates


class Joint(nn.Module):
    """Everything that is trained.

    Args:
        subject: the base of the second stage.
        decoder: weights of the third.
    """

    def __init__(self, subject: Subject, decoder: dict[str, Tensor]) -> None:
        super().__init__()
        self.learner: Learner = subject.learner
        self.speaker = Speaker(subject)
        restore(self.speaker, decoder)
        self.requires_grad_(True)
        self.learner.base.vision_model.embeddings.patch_embedding.requires_grad_(False)


class Live(Texts):
    """Canvases painted for each step.

    Args:
        batch: canvases a step.
        more: further canvases for contrast.
        seed: of everything.
    """

    def __init__(self, batch: int, more: int, seed: int) -> None:
        self.drawings = Drawings(seed + 17)
        super().__init__(self.drawings.lexicon, self.drawings.seen, BOTH)
        self.batch, self.more, self.seed = batch, more, seed
        self.number = -1

    def bank(self, learner: Learner, step: int, rng: random.Random) -> Bank:
        """A step's canvases, encoded with a gradient."""
        if step // ANEW != self.number:
            self.number = step // ANEW
            self.painter = self.drawings.paint(VARIANTS, self.seed * 1_000_003 + 900_000 + self.number)
        counts = rng.choices((1, 2, 3, 4), COUNTS, k=self.batch + self.more)
        canvases = self.painter([layout(self.writer.among, self.writer.lexicon, count, rng) for count in counts], rng)
        tokens = encode(learner.base.vision_model, canvases.normalised())
        scenes = [Scene(things, name) for things, name in zip(canvases.things, canvases.colours, strict=True)]
        return Bank(tokens, torch.from_numpy(canvases.owner), scenes)


def losses(joint: Joint, live: Live, step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """A step's losses, and what was right."""
    rng = random.Random(f"stage4 {live.seed} step {step}")
    bank = live.bank(joint.learner, step, rng)
    rows = list(range(live.batch))
    found, right = losses_of_texts(joint.learner, live, bank, rows, list(range(live.batch, len(bank))), rng)
    spoken, spoken_right = losses_of_speech(joint.speaker, joint.learner, live, bank, rows, rng)
    named = {f"speech {name}": loss for name, loss in spoken.items()}
    return found | named, right | {f"speech {name}": share for name, share in spoken_right.items()}


def begin(base: Path, decoder: Path) -> Joint:
    """The second stage's base and the third's decoder."""
    return Joint(read(base), load_file(decoder))


def train(args: argparse.Namespace, joint: Joint, live: Live) -> None:
    """Run, or go on with, the stage."""
    joint.train()

    def step(number: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        with autocast(args.bf16):
            return losses(joint, live, number)

    run(args, joint, step, WEIGHTS, SHARES)


def arguments() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = common(__doc__, steps=1600, lr=1e-3, muon=0.01)
    parser.add_argument("--more", type=int, default=32, help="further canvases for contrast")
    parser.add_argument("--base", type=Path, required=True, help="weights of the second stage")
    parser.add_argument("--decoder", type=Path, required=True, help="weights of the third stage")
    return parser


def main() -> None:
    """Parse and run."""
    args = arguments().parse_args()
    prepare(args)
    train(args, begin(args.base, args.decoder), Live(args.batch, args.more, args.seed + 2))


if __name__ == "__main__":
    main()
