"""Pre-train the embedded BLIP from scratch on drawn emoji.

    python -m embedded.pretrain --steps 3000 --out .cache/embedded/run
    python -m embedded.pretrain --out .cache/embedded/run --export assets/backbone

Contrastive, matching and captioning losses, as BLIP's. The new (3-D) style and the ``novel``
families are never seen. Every draw is a function of (seed, step), so a resumed run goes on as if
it had not stopped. ``--steps`` sets the schedule: how long drawings stay easy, when matching begins,
when the learning rate falls.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer, BertTokenizerFast

from embedded import evaluate
from embedded.backbone import PretrainingBlip, blip_config, export, train_tokenizer
from embedded.canvas import draw, half_size, premultiply
from embedded.captions import Captioner, truth_of
from embedded.concepts import Concept, phrase_counts
from embedded.fast_attention import use_fast_attention

LOG = logging.getLogger("pretrain")
CACHE = Path(__file__).resolve().parent.parent / ".cache" / "embedded"
NEW_STYLE = "fluent-3d"
TEMPERATURE = 0.07
PROMPT = "a picture of "
HARD_FROM = 0.5  # share of the run after which drawings are as small as they get
MATCH_FROM = 0.2  # share of the run after which matching is trained: it needs features first


@dataclass
class Pictures:
    """Pictures of one or more styles, at two sizes, with the concept of each."""

    large: Tensor
    small: Tensor
    concept: Tensor

    @classmethod
    def read(cls, concepts: list[Concept], keep: set[str], new_style: bool) -> Pictures:
        """Pictures of the concepts ``keep`` in the drawn styles, or in the new one."""
        index = {c.hexcode: i for i, c in enumerate(concepts)}
        with np.load(CACHE / "pictures.npz") as file:
            styles, codes = file["styles"], file["codes"]
            rows = [
                i
                for i, (style, code) in enumerate(zip(styles, codes, strict=True))
                if (style == NEW_STYLE) == new_style and str(code) in keep
            ]
            large = premultiply(torch.from_numpy(file["pictures"][rows]))
        concept = torch.tensor([index[str(codes[i])] for i in rows])
        return cls(large, half_size(large), concept)


@dataclass
class Batch:
    """One step's canvases and texts."""

    pixels: Tensor  # [B, 3, 96, 96]
    concept: Tensor  # [B]
    text: dict[str, Tensor]  # true captions, then the falsified ones: [B + K, L]
    false_rows: Tensor  # [K] row of each falsified caption
    told: dict[str, Tensor]  # decoder texts of the first rows [D, L]


class Stream:
    """Batches by step: every draw comes from (seed, step)."""

    def __init__(
        self,
        pictures: Pictures,
        captioner: Captioner,
        tokenizer: BertTokenizerFast,
        batch: int,
        decoded: int,
        seed: int,
    ) -> None:
        self.pictures, self.captioner, self.tokenizer = pictures, captioner, tokenizer
        self.batch, self.decoded, self.seed = batch, decoded, seed

    def rows(self, step: int) -> Tensor:
        """Every picture once an epoch; the last, incomplete batch of an epoch is left out."""
        per_epoch = len(self.pictures.concept) // self.batch
        epoch, place = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + 7 * epoch + 3)
        order = torch.randperm(len(self.pictures.concept), generator=generator)
        return order[place * self.batch : (place + 1) * self.batch]

    def encode(self, texts: list[str], first: str = "[CLS]") -> dict[str, Tensor]:
        """Token ids and mask, padded to the longest, with ``first`` in place 0."""
        out = self.tokenizer(texts, padding=True, truncation=True, max_length=32)
        ids, mask = torch.tensor(out["input_ids"]), torch.tensor(out["attention_mask"])
        ids[:, 0] = self.tokenizer.convert_tokens_to_ids(first)
        return {"input_ids": ids, "attention_mask": mask}

    def __call__(self, step: int, hardness: float = 1.0) -> Batch:
        """The batch of one step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + 1_000 + step)
        rng = random.Random(self.seed * 1_000_003 + step)
        rows = self.rows(step)
        drawn = draw(self.pictures.large, self.pictures.small, rows, generator, hardness=hardness)
        concept = self.pictures.concept[rows]
        true, false, false_rows, told = [], [], [], []
        for i, (c, scale, (x, y), colour) in enumerate(
            zip(
                concept.tolist(),
                drawn.scale.tolist(),
                drawn.centre.tolist(),
                drawn.colour,
                strict=True,
            )
        ):
            truth = truth_of(scale, x, y, colour)
            text, wrong = self.captioner.caption(c, truth, rng)
            true.append(text)
            if wrong:
                false.append(wrong)
                false_rows.append(i)
            if i < self.decoded:
                told.append(PROMPT + self.captioner.told(c, truth, rng))
        return Batch(
            drawn.pixels,
            concept,
            self.encode(true + false),
            torch.tensor(false_rows, dtype=torch.long),
            self.encode(told, "[DEC]"),
        )


def soft_cross_entropy(logits: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy against a target spread evenly over each row's positives."""
    target = positive.float() / positive.sum(1, keepdim=True).clamp(min=1)
    return -(target * F.log_softmax(logits.float(), dim=1)).sum(1).mean()


class Objective:
    """The losses of one batch: BLIP's three, and which concept is drawn.

    The last gives a small model from scratch its first footing; its head is not exported.
    """

    def __init__(self, model: PretrainingBlip, encoder_id: int, matched: int) -> None:
        self.model, self.encoder_id, self.matched = model, encoder_id, matched
        prompt_words = len(PROMPT.split())
        self.prompt = 1 + prompt_words  # [DEC] and the prompt carry no loss

    def contrast(self, batch: Batch, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and similarities [B, B + K]; falsified captions are extra negatives."""
        same = batch.concept.unsqueeze(1) == batch.concept.unsqueeze(0)
        rows = len(batch.concept)
        sims = image @ text.t() / TEMPERATURE
        # A falsified caption is a negative for its own canvas; for another canvas of the same
        # concept it may be true, so those pairs say nothing.
        own = torch.arange(rows).unsqueeze(1) == batch.false_rows.unsqueeze(0)
        unknown = (batch.concept.unsqueeze(1) == batch.concept[batch.false_rows]) & ~own
        padded = torch.cat([sims[:, :rows], sims[:, rows:].masked_fill(unknown, -1e4)], dim=1)
        positive = torch.cat([same, torch.zeros_like(own)], dim=1)
        loss = soft_cross_entropy(padded, positive)
        loss = (loss + soft_cross_entropy(sims[:, :rows].t(), same)) / 2
        return loss, sims.detach()

    def match(self, batch: Batch, states: Tensor, sims: Tensor, generator: torch.Generator) -> Tensor:
        """True pairs, hard images for texts, hard or falsified texts for images."""
        rows, count = len(batch.concept), self.matched
        same = batch.concept.unsqueeze(1) == batch.concept.unsqueeze(0)
        weights = sims[:, :rows].float().masked_fill(same, -torch.inf)
        chosen = torch.randperm(rows, generator=generator)[:count]
        images = torch.multinomial(weights.t()[chosen].softmax(1), 1, generator=generator)[:, 0]
        texts = torch.multinomial(weights[chosen].softmax(1), 1, generator=generator)[:, 0]
        falsified = torch.full((rows,), -1, dtype=torch.long)
        falsified[batch.false_rows] = torch.arange(len(batch.false_rows)) + rows
        texts = torch.where(falsified[chosen] >= 0, falsified[chosen], texts)
        text_rows = torch.cat([chosen, chosen, texts])
        image_rows = torch.cat([chosen, images, chosen])
        ids = batch.text["input_ids"][text_rows].clone()
        ids[:, 0] = self.encoder_id
        fused = self.model.retrieval.text_encoder(
            input_ids=ids,
            attention_mask=batch.text["attention_mask"][text_rows],
            encoder_hidden_states=states[image_rows],
        ).last_hidden_state[:, 0]
        label = torch.zeros(3 * count, dtype=torch.long)
        label[:count] = 1
        return F.cross_entropy(self.model.retrieval.itm_head(fused).float(), label)

    def tell(self, batch: Batch, states: Tensor) -> Tensor:
        """Captioning loss; the prompt is given."""
        ids, mask = batch.told["input_ids"], batch.told["attention_mask"]
        hidden = self.model.decoder.bert(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=states[: len(ids)],
            is_decoder=True,
        ).last_hidden_state[:, self.prompt - 1 : -1]
        target, keep = ids[:, self.prompt :], mask[:, self.prompt :].bool()
        logits = self.model.decoder.cls(hidden[keep])
        return F.cross_entropy(logits.float(), target[keep], label_smoothing=0.1)

    def __call__(self, batch: Batch, generator: torch.Generator, matching: bool = True) -> dict[str, Tensor]:
        """Each loss by name."""
        net = self.model.retrieval
        with torch.autocast("cpu", torch.bfloat16):
            states = net.vision_model(pixel_values=batch.pixels).last_hidden_state
            image = F.normalize(net.vision_proj(states[:, 0]).float(), dim=-1)
            hidden = net.text_encoder(**batch.text).last_hidden_state[:, 0]
            text = F.normalize(net.text_proj(hidden).float(), dim=-1)
        with torch.autocast("cpu", enabled=False):
            itc, sims = self.contrast(batch, image, text)
            named = self.model.concepts(states[:, 0].float())
            concept = F.cross_entropy(named, batch.concept, label_smoothing=0.1)
        with torch.autocast("cpu", torch.bfloat16):
            itm = self.match(batch, states, sims, generator) if matching else itc.detach() * 0
            lm = self.tell(batch, states)
        return {"itc": itc, "itm": itm, "lm": lm, "concept": concept}


def rate(step: int, steps: int, warm: int, decay: float) -> float:
    """Warm-up, constant, then linear to zero over the last share ``decay``."""
    start = int(steps * (1 - decay))
    if step < warm:
        return (step + 1) / warm
    return 1.0 if step < start else max(0.0, (steps - step) / (steps - start))


def hardness(step: int, steps: int) -> float:
    """From large centred drawings to small ones anywhere over the first `HARD_FROM` of the run.

    Without it, 250 steps of 256 left the concept loss at 7.0 (chance is 7.4).
    """
    return min(1.0, step / (HARD_FROM * steps))


def optimiser(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """AdamW without decay on biases, norms and positions."""
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        flat = parameter.ndim < 2 or "position" in name or "class_embedding" in name
        (plain if flat else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": 0.05},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-8, fused=True)


def save_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Whole or not at all: written beside, then renamed."""
    partial = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step},
               partial)  # fmt: skip
    os.replace(partial, path)


def prepare(out: Path) -> tuple[list[Concept], Captioner, BertTokenizerFast]:
    """Concepts, captions of the seen ones, and the tokenizer (trained once, kept in ``out``)."""
    concepts = [Concept(**row) for row in json.loads((CACHE / "concepts.json").read_text())]
    captioner = Captioner(concepts, phrase_counts(concepts))
    folder = out / "tokenizer"
    if not folder.exists():
        seen = [c for c in concepts if c.split != "novel"]
        corpus = Captioner(seen, phrase_counts(seen)).corpus()
        train_tokenizer(corpus).save_pretrained(folder)
    return concepts, captioner, AutoTokenizer.from_pretrained(folder)


def train(args: argparse.Namespace) -> None:
    """The loop: log, checkpoint and evaluate by the clock."""
    torch.manual_seed(args.seed)
    concepts, captioner, tokenizer = prepare(args.out)
    model = PretrainingBlip(blip_config(tokenizer), len(concepts))
    use_fast_attention(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # epochs are few and augmentation is strong
    seen = {c.hexcode for c in concepts if c.split != "novel"}
    pictures = Pictures.read(concepts, seen, new_style=False)
    held_out = {c.hexcode for c in concepts if c.split == "val" and c.group != "flags"}
    singles = Pictures.read(concepts, held_out, new_style=True)
    stream = Stream(pictures, captioner, tokenizer, args.batch, args.matched, args.seed)
    objective = Objective(model, tokenizer.convert_tokens_to_ids("[ENC]"), args.matched)
    optimizer = optimiser(model, args.lr)
    step, checkpoint = 0, args.out / "checkpoint.pt"
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    weights = sum(p.numel() for p in model.parameters())
    LOG.info("%d pictures, %.2f M weights, from step %d to %d, %s",
             len(pictures.concept), weights / 1e6, step, args.steps, vars(args))  # fmt: skip
    begin = logged = saved = looked = time.monotonic()
    first, sums = step, torch.zeros(4)
    while step < args.steps:
        factor = rate(step, args.steps, args.warm, args.decay)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * factor
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + 500_000 + step)
        losses = objective(stream(step, hardness(step, args.steps)), generator, step >= args.steps * MATCH_FROM)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        sums += torch.stack([v.detach() for v in losses.values()])
        now = time.monotonic()
        if step % args.log_every == 0:
            itc, itm, lm, concept = (sums / args.log_every).tolist()
            sums.zero_()
            speed = args.log_every * args.batch / (now - logged)
            eta = (args.steps - step) * (now - begin) / (step - first) / 60
            LOG.info("step %d itc %.3f itm %.3f lm %.3f concept %.3f lr %.2e %.0f samples/s eta %.1f min",
                     step, itc, itm, lm, concept, args.lr * factor, speed, eta)  # fmt: skip
            logged = now
        if now - saved > 300 or step == args.steps:
            save_checkpoint(checkpoint, model, optimizer, step)
            saved = now
        if now - looked > args.eval_every or step == args.steps:
            seconds = time.monotonic()
            scores = evaluate.singles(model, tokenizer, singles, captioner.labels)
            scores |= evaluate.scenes(model, tokenizer, args.scenes, "val")
            LOG.info("step %d zero-shot %s (%.0f s)", step, json.dumps(scores),
                     time.monotonic() - seconds)  # fmt: skip
            looked = logged = time.monotonic()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=CACHE / "run")
    parser.add_argument("--scenes", type=Path, default=CACHE / "demo" / "scenes")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--matched", type=int, default=96, help="rows of matching and captions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warm", type=int, default=200)
    parser.add_argument("--decay", type=float, default=0.2)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--eval-every", type=float, default=600, help="seconds")
    parser.add_argument("--export", type=Path, help="write the transformers folder, then stop")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s",
                        handlers=[logging.FileHandler(args.out / "log.txt"),
                                  logging.StreamHandler()])  # fmt: skip
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if args.export:
        concepts, _, tokenizer = prepare(args.out)
        model = PretrainingBlip(blip_config(tokenizer), len(concepts))
        state = torch.load(args.out / "checkpoint.pt", weights_only=True)
        model.load_state_dict(state["model"])
        seen = [c for c in concepts if c.split != "novel"]
        export(model, tokenizer, args.export, [PROMPT, *Captioner(seen, phrase_counts(seen)).texts()])
        LOG.info("exported step %d to %s", state["step"], args.export)
        return
    train(args)


if __name__ == "__main__":
    main()
