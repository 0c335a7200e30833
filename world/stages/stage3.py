"""Pre-training, third stage: a decoder that writes captions and answers, on what the earlier stages left.

    python -m world.stages.stage3 --out .cache/world/stage3 --base world/stages/stage2.safetensors

One text decoder, as in BLIP's two classes: for captions it attends to the visual tokens, for answers to a question's
fused states. It begins as the text encoder. The base itself stays as it is.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel

from world.stages.bank import Bank, Source, read_vision
from world.stages.dense import RELATING, looked
from world.stages.fused import fuse
from world.stages.loop import arguments as common
from world.stages.loop import autocast, part, prepare, restore, run
from world.stages.stage2 import Batches, Learner, Texts
from world.stages.subject import Subject, read
from world.stages.vision import WIDTH

PROMPT = "a picture of"
LONGEST = 24  # tokens of a caption
QUESTIONS = 2  # a canvas


class Speaker(nn.Module):
    """The decoder.

    Args:
        subject: the base of the second stage.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        text = subject.learner.base.text_encoder
        self.decoder = BlipTextLMHeadModel(text.config)
        predictions = self.decoder.cls.predictions
        predictions.decoder.weight = self.decoder.bert.embeddings.word_embeddings.weight
        predictions.decoder.bias = predictions.bias
        self.decoder.bert.load_state_dict(
            {name: value.clone() for name, value in text.state_dict().items() if not name.startswith("pooler.")}
        )
        self.requires_grad_(True)

    def logits(self, ids: Tensor, mask: Tensor, states: Tensor, seen: Tensor) -> Tensor:
        """Of the next word [S, L, vocabulary] after each of the words [S, L], attending to states [S, K, 192]."""
        return self.decoder(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=states, encoder_attention_mask=seen
        ).logits

    def looking(self, ids: Tensor, mask: Tensor, states: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """`logits`, and where a layer's heads look [S, heads, L, K], each row of sum 1."""
        out = self.decoder(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=states, encoder_attention_mask=seen,
            output_attentions=True,
        )  # fmt: skip
        return out.logits, out.cross_attentions[RELATING]


def read_joint(file: Path) -> tuple[Subject, Speaker]:
    """The joint stage's base and decoder as exported."""
    subject = read(file)
    speaker = Speaker(subject)
    restore(speaker, part(load_file(file), "speaker."))
    return subject, speaker.eval().requires_grad_(False)


def next_words(logits: Tensor, ids: Tensor, mask: Tensor, given: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the words of texts that stand behind the `given` first ones, and the share that is right."""
    wanted = torch.where(mask[:, 1:] > 0, ids[:, 1:], -100)
    wanted[:, : given - 1] = -100
    found = logits[:, :-1].float()
    loss = F.cross_entropy(found.flatten(0, 1), wanted.flatten(), ignore_index=-100)
    told = wanted != -100
    return loss, (found.argmax(-1) == wanted)[told].float().mean()


def spoken(batches: Texts, texts: list[list[str]]) -> tuple[Tensor, Tensor]:
    """Ids and mask of texts that begin with [DEC]."""
    ids, mask = batches.vocabulary.encode(texts)
    ids[:, 0] = batches.vocabulary.id["[DEC]"]
    return ids, mask


def losses(
    speaker: Speaker, subject: Subject, batches: Batches, step: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """A step's losses, and the share of words that were right."""
    bank, rows, _ = batches.rows(step)
    rng = random.Random(f"stage3 {batches.source.seed} step {step}")
    return losses_of(speaker, subject.learner, batches, bank, rows, rng)


def losses_of(
    speaker: Speaker, learner: Learner, batches: Texts, bank: Bank, rows: list[int], rng: random.Random
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """`losses` of these rows of a bank."""
    caption, caption_right, look = captions(speaker, batches, bank, rows, rng)
    answer, answer_right = answers(speaker, learner, batches, bank, rows, rng)
    return {"caption": caption, "answer": answer, "look": look}, {
        "caption_right": float(caption_right), "answer_right": float(answer_right),
    }  # fmt: skip


def captions(
    speaker: Speaker, batches: Texts, bank: Bank, rows: list[int], rng: random.Random
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of a caption of each canvas after the prompt.

    What is to be named next is looked at before it is named: without that, a thing is named again and again.
    """
    captioner, texts, words = batches.writer.captioner, [], []
    for number, row in enumerate(rows):
        claim = captioner.claim(bank.scenes[row], rng)
        assert claim is not None
        saying = captioner.word(claim, rng, opener="")
        texts.append([*PROMPT.split(), *saying.words][: LONGEST - 2])
        before = len(PROMPT.split())  # a word is foretold at the place before its own, and [DEC] stands first
        named = enumerate(saying.named[: LONGEST - 2 - before], before)
        words += [(number, 0, place, concept) for place, concept in named if concept >= 0]
    ids, mask = spoken(batches, texts)
    tokens = bank.tokens[rows].float()
    logits, looks = speaker.looking(ids, mask, tokens, torch.ones(tokens.shape[:2], dtype=torch.long))
    marks = torch.tensor(words, dtype=torch.long).view(-1, 4)
    patches = bank.owner[rows][marks[:, 0]] == marks[:, 3:]
    look = looked(looks.float().clamp(min=1e-6).log().unsqueeze(2), marks, patches)
    return *next_words(logits, ids, mask, 1 + len(PROMPT.split())), look


def answers(
    speaker: Speaker, learner: Learner, batches: Texts, bank: Bank, rows: list[int], rng: random.Random
) -> tuple[Tensor, Tensor]:
    """Loss of the answers to questions on each canvas."""
    asker = batches.writer.asker
    asked = [asker(bank.scenes[row], rng) for row in rows for _ in range(QUESTIONS)]
    questions = [question for question in asked if question is not None]
    ids, mask = batches.vocabulary.encode([question.saying.words for question in questions])
    shape = (len(rows), QUESTIONS, -1)
    with torch.no_grad():
        fused = fuse(learner.base, ids.view(shape), mask.view(shape), bank.tokens[rows].float())
    states = fused.layers[-1].view(len(questions), -1, WIDTH)
    said, said_mask = spoken(batches, [asker.answers[question.answer].split() for question in questions])
    return next_words(speaker.logits(said, said_mask, states, mask), said, said_mask, 1)


def train(args: argparse.Namespace, source: Source, subject: Subject) -> None:
    """Run, or go on with, the stage."""
    batches, speaker = Batches(source, args.batch, 0), Speaker(subject)

    def step(number: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        with autocast(args.bf16):
            return losses(speaker, subject, batches, number)

    run(args, speaker, step, {})


def arguments() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = common(__doc__, steps=2100, lr=1e-3, muon=0.01)
    parser.add_argument("--base", type=Path, required=True, help="weights of the second stage")
    return parser


def main() -> None:
    """Parse and run."""
    args = arguments().parse_args()
    prepare(args)
    subject = read(args.base)
    train(args, Source(read_vision()[0], args.round, args.seed + 1, args.bf16), subject)


if __name__ == "__main__":
    main()
