"""Teach the fused encoder and the decoder, with all that retrieval's contrastive side uses kept as it is.

    python -m embedded.teach --weights .cache/embedded/run5/checkpoint.pt --out .cache/embedded/taught --steps 1500
    python -m embedded.teach --weights .cache/embedded/taught/checkpoint.pt --export assets/backbone

Trained are the text encoder's cross-attention, the matching head, and the decoder with copies of its own of what it
shared: matching, where words look, captions, and answers to questions about drawn canvases. Features for contrast come
out as before, to the bit, so what was measured by them stands.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertTokenizerFast

from embedded import evaluate
from embedded.asking import Asker, Question
from embedded.backbone import PretrainingBlip, blip_config, export
from embedded.captions import truth_of
from embedded.pretrain import CACHE, Batch, Objective, Pictures, Stream, prepare, rate, save_checkpoint, set_rates
from uniadapter.backbone import Visuals, encode_text, encode_visual
from uniadapter.decoder import question_context, text_nll
from uniadapter.memory import keep_freed_memory
from uniadapter.tokens import decoder_tokens, tokenize

LOG = logging.getLogger("teach")
TRAINED = ("retrieval.text_encoder.encoder.layer", "retrieval.itm_head", "captioner.text_decoder")


def untie(model: PretrainingBlip) -> None:
    """Give the decoder copies of its own of what it shared with the text encoder."""
    decoder = model.decoder
    decoder.bert.embeddings = copy.deepcopy(decoder.bert.embeddings)
    decoder.cls.predictions.decoder.weight = decoder.bert.embeddings.word_embeddings.weight
    for layer in decoder.bert.encoder.layer:
        for name in ("crossattention", "intermediate", "output"):
            setattr(layer, name, copy.deepcopy(getattr(layer, name)))


def choose(model: PretrainingBlip) -> list[nn.Parameter]:
    """Switch gradients on for what is trained, off for all else."""
    chosen = []
    for name, parameter in model.named_parameters():
        fused = "text_encoder" in name and "crossattention" in name
        parameter.requires_grad_(fused or name.startswith(TRAINED[1:]))
        if parameter.requires_grad:
            chosen.append(parameter)
    return chosen


class Teaching(Objective):
    """Matching, captions and answers over frozen visuals and texts."""

    def __init__(self, model: PretrainingBlip, matched: int, tokenizer: BertTokenizerFast, asker: Asker) -> None:
        super().__init__(model, matched)
        self.tokenizer, self.asker = tokenizer, asker

    def answer(self, visuals: Visuals, questions: list[Question]) -> Tensor:
        """Mean likelihood of the answers, a question a canvas."""
        asked = tokenize(self.tokenizer, [q.text for q in questions], 48)
        rows = torch.arange(len(questions))
        context = question_context(self.model.retrieval, visuals, asked.ids, asked.mask, rows)
        told = decoder_tokens(self.tokenizer, self.model.captioner, [q.answer for q in questions], 24)
        return text_nll(self.model.captioner, context, rows, told.ids, told.mask).mean()

    def teach(self, batch: Batch, questions: list[Question], generator: torch.Generator) -> dict[str, Tensor]:
        """Each loss by name."""
        net = self.model.retrieval
        with torch.no_grad():
            visuals = encode_visual(net, batch.pixels.unsqueeze(1))
            texts = encode_text(net, batch.ids, batch.mask)
            _, sims = self.contrast(batch, visuals.feature, texts.feature)
        itm, ground = self.match(batch, texts, visuals, sims, generator)
        return {
            "itm": itm,
            "ground": ground,
            "lm": self.tell(batch, visuals.tokens[:, 0]),
            "answer": self.answer(visuals.select(slice(0, len(questions))), questions),
        }


class AskingStream(Stream):
    """Batches with a question a canvas."""

    asker: Asker
    asked: int

    def questions(self, step: int) -> list[Question]:
        """Of the first canvases of a step; the same draws as the batch's, told by the same arrangement."""
        rng = random.Random(self.seed * 1_000_003 + step)
        canvases = [self.arrange(row, 1.0, rng) for row in self.rows(step).tolist()]
        own = random.Random(self.seed * 1_000_003 + 700_000 + step)
        found = []
        for spots in canvases[: self.asked]:
            concepts = [int(self.pictures.concept[s.picture]) for s in spots]
            spot = spots[0]
            # The background's colour is drawn later, with the pixels, so it is not asked for here.
            truth = truth_of(spot.side / 96, spot.x / 48 - 1, spot.y / 48 - 1, "") if len(spots) == 1 else None
            found.append(self.asker.ask(concepts, truth, own))
        return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="a checkpoint of pretrain; with --export, of this")
    parser.add_argument("--export", type=Path, help="write the transformers folder, then stop")
    parser.add_argument("--out", type=Path, default=CACHE / "taught")
    parser.add_argument("--scenes", type=Path, default=CACHE / "scenes")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--matched", type=int, default=64)
    parser.add_argument("--decoded", type=int, default=48)
    parser.add_argument("--asked", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--eval-every", type=float, default=400, help="seconds")
    args = parser.parse_args()
    keep_freed_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s",
                        handlers=[logging.FileHandler(args.out / "log.txt"), logging.StreamHandler()])  # fmt: skip
    torch.manual_seed(args.seed)
    concepts, captioner, tokenizer = prepare(args.out)
    model = PretrainingBlip(blip_config(tokenizer), len(concepts))
    weights = torch.load(args.weights, weights_only=True)["model"]
    if args.export:
        untie(model)
        model.load_state_dict(weights)
        export(model, tokenizer, args.export)
        return
    model.load_state_dict(weights)
    untie(model)
    parameters = choose(model)
    seen = {c.hexcode for c in concepts if c.split != "novel"}
    pictures = Pictures.read(concepts, seen, new_style=False)
    stream = AskingStream(pictures, captioner, tokenizer, args.batch, args.decoded, args.seed)
    stream.asker, stream.asked = Asker(captioner, concepts), args.asked
    teaching = Teaching(model, args.matched, tokenizer, stream.asker)
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.05, fused=True)
    LOG.info("%.2f M weights are taught, %s", sum(p.numel() for p in parameters) / 1e6, vars(args))
    begin = looked = saved = time.monotonic()
    sums = torch.zeros(4)
    for step in range(args.steps):
        factor = rate(step, args.steps, 50, 0.6)
        set_rates([optimizer], [args.lr * factor])
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + 500_000 + step)
        losses = teaching.teach(stream(step), stream.questions(step), generator)
        (torch.stack(list(losses.values())).sum() + losses["itm"]).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        sums += torch.stack([v.detach() for v in losses.values()])
        now, last = time.monotonic(), step + 1 == args.steps
        if (step + 1) % 50 == 0:
            means = " ".join(f"{k} {v:.3f}" for k, v in zip(losses, (sums / 50).tolist(), strict=True))
            left = (args.steps - step - 1) * (now - begin) / (step + 1) / 60
            LOG.info("step %d %s lr %.2e eta %.1f min", step + 1, means, args.lr * factor, left)
            sums.zero_()
        if now - saved > 300 or last:
            save_checkpoint(args.out / "checkpoint.pt", model, [optimizer], step + 1)
            saved = now
        if now - looked > args.eval_every or last:
            LOG.info(
                "step %d zero-shot %s", step + 1, json.dumps(evaluate.scenes(model, tokenizer, args.scenes, "val"))
            )
            looked = time.monotonic()


if __name__ == "__main__":
    main()
