"""Teach the decoder to answer, with all that retrieval uses kept as it is.

    python -m world.teach --weights .cache/embedded/run5/checkpoint.pt --out .cache/embedded/taught
    python -m world.teach --weights .cache/embedded/taught/checkpoint.pt --export assets/backbone

Trained are the decoder, with copies of its own of what it shared, and in a copy of the text encoder, which reads the
questions, the cross-attention and the upper feed-forward layers. That copy's changes ship as a file of their own, as
BLIP has a checkpoint for question answering. Pictures are encoded once: the visual encoder is frozen.
"""

from __future__ import annotations

import argparse
import copy
import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertTokenizerFast

from uniadapter.app.memory import keep_freed_memory
from uniadapter.model.blip.decoder import question_context, text_nll, visual_context
from uniadapter.model.decoding import decoder_tokens
from uniadapter.model.encoding import encode_visual
from uniadapter.model.features import Visuals
from uniadapter.model.tokens import tokenize
from world.asking import Asker, Question
from world.backbone import PretrainingBlip, blip_config, export
from world.captions import Truth, truth_of
from world.pretrain import CACHE, Stream, optimisers, prepare, rate, save_checkpoint, set_rates
from world.styles import Pictures

LOG = logging.getLogger("teach")
BATCH = 128
QUESTION_ENCODER = "question_encoder.safetensors"


class Taught(nn.Module):
    """The pre-trained model with an untied decoder, and the encoder of questions."""

    def __init__(self, model: PretrainingBlip) -> None:
        super().__init__()
        self.model = model
        decoder = model.decoder
        decoder.bert.embeddings = copy.deepcopy(decoder.bert.embeddings)
        decoder.cls.predictions.decoder.weight = decoder.bert.embeddings.word_embeddings.weight
        for layer in decoder.bert.encoder.layer:
            for name in ("crossattention", "intermediate", "output"):
                setattr(layer, name, copy.deepcopy(getattr(layer, name)))
        self.questions = copy.deepcopy(model.retrieval)
        self.questions.vision_model = None

    def choose(self) -> list[nn.Parameter]:
        """Switch gradients on for what is trained, off for all else."""
        for name, parameter in self.named_parameters():
            decoder = name.startswith("model.captioner.text_decoder.")
            reader = name.startswith("questions.text_encoder.encoder.layer.")
            upper = reader and ".layer.0." not in name and (".intermediate." in name or ".output." in name)
            parameter.requires_grad_(
                decoder or (reader and ".crossattention." in name) or (upper and ".attention." not in name)
            )
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def question_weights(self) -> dict[str, Tensor]:
        """What of the question encoder differs from the text encoder, by the name in transformers."""
        self.choose()
        return {name: p.detach() for name, p in self.questions.named_parameters() if p.requires_grad}


@dataclass
class Material:
    """Encoded canvases and what is known of them.

    Args:
        tokens: [N, 37, d] in float16.
        shown: concepts of each.
        truths: of canvases with one drawing.
        captions: one of each.
    """

    tokens: Tensor
    shown: list[list[int]]
    truths: list[Truth | None]
    captions: list[str]

    def visuals(self, rows: list[int]) -> Visuals:
        """Of these rows, without features."""
        tokens = self.tokens[rows].float().unsqueeze(1)
        return Visuals(tokens, tokens.new_zeros(len(rows), 0), tokens.new_zeros(len(rows), 1, 0))


@torch.no_grad()
def encode(model: PretrainingBlip, stream: Stream, steps: range, tokenizer: BertTokenizerFast) -> Material:
    """Draw and encode the canvases of some steps."""
    found = Material(torch.empty(0), [], [], [])
    tokens = []
    for step in steps:
        batch = stream(step)
        tokens.append(encode_visual(model.retrieval, batch.pixels.unsqueeze(1)).tokens[:, 0].half())
        rng = random.Random(stream.seed * 1_000_003 + step)  # the batch's own arrangement
        for spots in [stream.arrange(row, 1.0, rng) for row in stream.rows(step).tolist()]:
            found.shown.append([int(stream.pictures.concept[s.picture]) for s in spots])
            spot = spots[0]
            # The background's colour is drawn later, with the pixels, so it is not asked for.
            single = len(spots) == 1
            found.truths.append(truth_of(spot.side / 96, spot.x / 48 - 1, spot.y / 48 - 1, "") if single else None)
        found.captions += tokenizer.batch_decode(batch.ids[: len(batch.pixels)], skip_special_tokens=True)
    found.tokens = torch.cat(tokens)
    return found


def answer_loss(taught: Taught, tokenizer: BertTokenizerFast, visuals: Visuals, asked: list[Question]) -> Tensor:
    """Mean likelihood of the answers, a question a canvas."""
    questions = tokenize(tokenizer, [q.text for q in asked], 48)
    rows = torch.arange(len(asked))
    context = question_context(taught.questions, visuals, questions.ids, questions.mask, rows)
    told = decoder_tokens(tokenizer, taught.model.captioner, [q.answer for q in asked], 24)
    return text_nll(taught.model.captioner, context, rows, told.ids, told.mask).mean()


def caption_loss(taught: Taught, tokenizer: BertTokenizerFast, visuals: Visuals, captions: list[str]) -> Tensor:
    """Mean over the tokens after the prompt, so that captioning isn't lost."""
    prompt = "a picture of "
    told = decoder_tokens(tokenizer, taught.model.captioner, [prompt + text for text in captions], 48)
    given = 1 + len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    captioner = taught.model.captioner
    nll = text_nll(
        captioner, visual_context(captioner, visuals), torch.arange(len(captions)), told.ids, told.mask, given
    )
    return nll.sum() / told.mask[:, given:].sum()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="a checkpoint of pretrain; with --export, of this")
    parser.add_argument("--export", type=Path, help="write the transformers folder, then stop")
    parser.add_argument("--out", type=Path, default=CACHE / "taught")
    parser.add_argument("--canvases", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--asked", type=int, default=192, help="questions a step")
    parser.add_argument("--told", type=int, default=24, help="captions a step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--muon-lr", type=float, default=0.02, help="of the matrices inside the layers")
    parser.add_argument("--seed", type=int, default=5)
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
        taught = Taught(model)
        taught.load_state_dict(weights)
        export(taught.model, tokenizer, args.export)
        changed = {k: v.to(torch.float16).contiguous() for k, v in taught.question_weights().items()}
        save_file(changed, args.export / QUESTION_ENCODER, metadata={"format": "pt"})
        (args.export / QUESTION_ENCODER).chmod(0o644)  # safetensors makes it readable by its owner only
        return
    model.load_state_dict(weights)
    taught = Taught(model)
    parameters = taught.choose()
    pictures = Pictures.read(concepts, {c.hexcode for c in concepts if c.split != "novel"}, new_style=False)
    stream = Stream(pictures, captioner, tokenizer, BATCH, 1, args.seed)
    material = encode(model, stream, range(args.canvases // BATCH), tokenizer)
    LOG.info(
        "%d canvases; %.2f M weights are taught, %s",
        len(material.shown),
        sum(p.numel() for p in parameters) / 1e6,
        vars(args),
    )
    asker, rng = Asker(captioner, concepts), random.Random(args.seed)
    optimizers = optimisers(taught, args.lr, args.muon_lr)
    begin = saved = time.monotonic()
    sums = torch.zeros(2)
    for step in range(args.steps):
        factor = rate(step, args.steps, 50, 0.5)
        set_rates(optimizers, [args.lr * factor, args.muon_lr * factor])
        rows = [rng.randrange(len(material.shown)) for _ in range(args.asked + args.told)]
        asked = [asker.ask(material.shown[row], material.truths[row], rng) for row in rows[: args.asked]]
        answer = answer_loss(taught, tokenizer, material.visuals(rows[: args.asked]), asked)
        rest = rows[args.asked :]
        lm = caption_loss(taught, tokenizer, material.visuals(rest), [material.captions[row] for row in rest])
        (answer + lm).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        sums += torch.stack([answer.detach(), lm.detach()])
        now, last = time.monotonic(), step + 1 == args.steps
        if (step + 1) % 100 == 0:
            left = (args.steps - step - 1) * (now - begin) / (step + 1) / 60
            LOG.info("step %d answer %.3f lm %.3f eta %.1f min", step + 1, *(sums / 100).tolist(), left)
            sums.zero_()
        if now - saved > 300 or last:
            save_checkpoint(args.out / "checkpoint.pt", taught, optimizers, step + 1)
            saved = now


if __name__ == "__main__":
    main()
