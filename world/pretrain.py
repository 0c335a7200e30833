"""Pre-train the embedded BLIP from scratch on drawn emoji.

    python -m world.pretrain --steps 4000 --out .cache/embedded/run
    python -m world.pretrain --out .cache/embedded/run --export assets/backbone

Contrastive, matching and captioning losses, as BLIP's, and for a footing two more whose heads are not kept: which
concepts a canvas shows, and which one shows on each patch. Canvases hold one drawing, with captions that may say where
it is, or two to four, with captions that name them and say nothing of where. The new (3-D) style and the ``novel``
families are never seen. Every draw is a function of (seed, step), so a resumed run goes on as if it had not stopped.
``--steps`` sets the schedule: how long drawings stay easy, when matching begins, when the learning rate falls.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer, BertTokenizerFast

from uniadapter.app.memory import keep_freed_memory
from uniadapter.model.encoding import encode_text, encode_visual, fuse
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.kernels.packing import pack_pairs
from world import evaluate
from world.backbone import PretrainingBlip, blip_config, export, train_tokenizer
from world.canvas import Spot, alone, draw, together
from world.captions import Caption, Captioner, truth_of
from world.concepts import Concept, phrase_counts
from world.styles import Pictures

LOG = logging.getLogger("pretrain")
CACHE = Path(__file__).resolve().parent.parent / ".cache" / "embedded"
TEMPERATURE = 0.07
PROMPT = "a picture of "
SEVERAL = 0.6  # share of canvases with more than one drawing, from then on
COUNTS = [0.5, 0.3, 0.2]  # of two, three and four
GROUNDED_LAYER = 1  # of the text encoder: its words know their neighbours, and one layer more reads what they found
GROUNDED_HEADS = 2  # of its cross-attention


@dataclass
class Batch:
    """One step's canvases and texts: a true caption a canvas, then the falsified ones."""

    pixels: Tensor  # [B, 3, 96, 96]
    shown: Tensor  # [B, C] 1 where a canvas shows a concept
    owner: Tensor  # [B, 36] concept on each patch, -1 where there is none
    ids: Tensor  # [B + K, L]
    mask: Tensor  # [B + K, L]
    true_of: Tensor  # [B, B + K] bool: a text is true of a canvas
    unknown: Tensor  # [B, B + K] bool: it may be
    false_rows: Tensor  # [K] canvas that each falsified caption belongs to
    meant: Tensor  # [B + K, L] concept that a token is of the name of, -1 where of none
    told: Tensor  # decoder texts of the first rows [D, L]
    told_mask: Tensor  # [D, L]


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

    def encode(self, texts: list[str], first: str = "[CLS]") -> tuple[Tensor, Tensor]:
        """Token ids and mask, padded to the longest, with ``first`` in place 0."""
        out = self.tokenizer(texts, padding=True, truncation=True, max_length=40)
        ids, mask = torch.tensor(out["input_ids"]), torch.tensor(out["attention_mask"])
        ids[:, 0] = self.tokenizer.convert_tokens_to_ids(first)
        return ids, mask

    def arrange(self, picture: int, hardness: float, rng: random.Random) -> list[Spot]:
        """One canvas around a picture: it alone, or others of other concepts beside it."""
        if rng.random() >= SEVERAL * hardness:
            return alone(picture, hardness, rng)
        concept = self.pictures.concept
        chosen = {int(concept[picture]): picture}
        count = rng.choices([2, 3, 4], COUNTS)[0]
        while len(chosen) < count:
            other = rng.randrange(len(concept))
            chosen.setdefault(int(concept[other]), other)
        return together(list(chosen.values()), rng)

    def describe(self, spots: list[Spot], colour: str, rng: random.Random, tell: bool) -> tuple[Caption, str]:
        """The caption of a canvas and, if it is wanted, what the decoder learns to say of it."""
        concepts = [int(self.pictures.concept[s.picture]) for s in spots]
        if len(spots) > 1:
            told = self.captioner.told_of_several(concepts, rng) if tell else ""
            return self.captioner.of_several(concepts, rng), told
        spot = spots[0]
        truth = truth_of(spot.side / 96, spot.x / 48 - 1, spot.y / 48 - 1, colour)
        told = self.captioner.told(concepts[0], truth, rng) if tell else ""
        return self.captioner.of_one(concepts[0], truth, rng), told

    def __call__(self, step: int, hardness: float = 1.0) -> Batch:
        """The batch of one step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + 1_000 + step)
        rng = random.Random(self.seed * 1_000_003 + step)
        pictures = self.pictures
        canvases = [self.arrange(row, hardness, rng) for row in self.rows(step).tolist()]
        drawn = draw(pictures.large, pictures.small, canvases, generator, mirrored=pictures.mirrored)
        shown = torch.zeros(len(canvases), len(self.captioner.labels))
        captions, told = [], []
        for row, (spots, colour) in enumerate(zip(canvases, drawn.colour, strict=True)):
            shown[row, [int(pictures.concept[s.picture]) for s in spots]] = 1
            caption, saying = self.describe(spots, colour, rng, row < self.decoded)
            captions.append(caption)
            if saying:
                told.append(PROMPT + saying)
        false_rows = [row for row, c in enumerate(captions) if c.false]
        ids, mask = self.encode([c.text for c in captions] + [captions[row].false for row in false_rows])
        true_of, unknown = truths(captions, false_rows, shown)
        owner = torch.where(drawn.owner >= 0, pictures.concept[drawn.owner], -1)
        said, said_mask = self.encode(told, "[DEC]")
        named = [(c.names, c.said) for c in captions]
        named += [(captions[row].false_names, captions[row].false_said) for row in false_rows]
        meant = self.meant(ids, named)
        rows = torch.tensor(false_rows, dtype=torch.long)
        return Batch(drawn.pixels, shown, owner, ids, mask, true_of, unknown, rows, meant, said, said_mask)

    def meant(self, ids: Tensor, named: list[tuple[tuple[int, ...], tuple[str, ...]]]) -> Tensor:
        """Which concept each token [B + K, L] is of the name of, -1 where of none."""
        meant = torch.full_like(ids, -1)
        words = [word for _, said in named for word in said]
        pieces = iter(self.tokenizer(words, add_special_tokens=False)["input_ids"])
        for row, (concepts, said) in enumerate(named):
            tokens = ids[row].tolist()
            for concept, _ in zip(concepts, said, strict=True):
                name = next(pieces)
                for start in range(1, len(tokens) - len(name) + 1):
                    if tokens[start : start + len(name)] == name:
                        meant[row, start : start + len(name)] = concept
        return meant


def truths(captions: list[Caption], false_rows: list[int], shown: Tensor) -> tuple[Tensor, Tensor]:
    """Of which canvases each text is true, and of which it may be: [B, B + K] both.

    A caption is true of every canvas that shows all it names; one that also says a place, or that was falsified,
    is sure for its own canvas alone.
    """
    names = [c.names for c in captions] + [captions[row].false_names for row in false_rows]
    named = torch.zeros(len(names), shown.shape[1])
    for column, concepts in enumerate(names):
        named[column, list(concepts)] = 1
    holds = shown @ named.t() == named.sum(1)
    own = torch.zeros_like(holds)
    own[torch.arange(len(captions)), torch.arange(len(captions))] = True
    unsure = torch.tensor([c.only_here for c in captions] + [True] * len(false_rows))
    true_of = own | (holds & ~unsure)
    of_own = torch.tensor([*range(len(captions)), *false_rows]).unsqueeze(0) == torch.arange(len(captions)).unsqueeze(1)
    return true_of, holds & unsure & ~of_own


def soft_cross_entropy(logits: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy against a target spread evenly over each row's positives."""
    target = positive.float() / positive.sum(1, keepdim=True).clamp(min=1)
    return -(target * F.log_softmax(logits, dim=1)).sum(1).mean()


class Objective:
    """The losses of one batch: BLIP's three, which concepts are drawn, and which on each patch."""

    def __init__(self, model: PretrainingBlip, matched: int) -> None:
        self.model, self.matched = model, matched
        self.prompt = 1 + len(PROMPT.split())  # [DEC] and the prompt carry no loss

    def contrast(self, batch: Batch, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and similarities [B, B + K]; falsified captions are extra negatives of canvases."""
        rows = len(image)
        sims = (image @ text.t() / TEMPERATURE).masked_fill(batch.unknown, -1e4)
        loss = soft_cross_entropy(sims, batch.true_of)
        loss = (loss + soft_cross_entropy(sims[:, :rows].t(), batch.true_of[:, :rows].t())) / 2
        return loss, sims.detach()

    def match(
        self, batch: Batch, texts: Texts, visuals: Visuals, sims: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Losses of matching and of where words look.

        True pairs, hard or any images for texts, falsified, hard or any texts for images.
        """
        rows, count = len(sims), self.matched
        excluded = (batch.true_of | batch.unknown)[:, :rows]
        chosen = torch.randperm(rows, generator=generator)[:count]
        # From hard negatives alone nothing was learnt in 600 steps; every other row has any negative.
        easy = torch.arange(count).unsqueeze(1) % 2 == 0

        def draw_one(scores: Tensor, wrong: Tensor) -> Tensor:
            scores = torch.where(easy, 0.0, scores[chosen]).masked_fill(wrong[chosen], -torch.inf)
            return torch.multinomial(scores.softmax(1), 1, generator=generator)[:, 0]

        images = draw_one(sims[:, :rows].t(), excluded.t())
        hard = draw_one(sims[:, :rows], excluded)
        falsified = torch.full((rows,), -1, dtype=torch.long)
        falsified[batch.false_rows] = torch.arange(len(batch.false_rows)) + rows
        wrong = torch.where((falsified[chosen] >= 0) & ~easy[:, 0], falsified[chosen], hard)
        pairs = torch.stack([torch.cat([chosen, chosen, wrong]), torch.cat([chosen, images, chosen])], dim=1)
        label = torch.zeros(3 * count, dtype=torch.long)
        label[:count] = 1
        net, queries = self.model.retrieval, []
        attention = net.text_encoder.encoder.layer[GROUNDED_LAYER].crossattention.self
        hook = attention.query.register_forward_hook(lambda _module, _inputs, output: queries.append(output))
        states = fuse(net, texts, visuals, pairs)
        hook.remove()
        groups = pack_pairs(pairs, texts.mask.sum(1), texts.ids.shape[1])
        query = groups.restore(groups.packing.pad(queries[0]))
        logits = net.itm_head(states[:, 0])
        return F.cross_entropy(logits, label), self.ground(batch, query, attention.key(visuals.tokens[:, 0]), pairs)

    def ground(self, batch: Batch, query: Tensor, key: Tensor, pairs: Tensor) -> Tensor:
        """Words [P, L, d] look at what they name [B, 37, d]: at its patches, or at the class token if it isn't there.

        Without it, matching was at 0.60 (chance 0.637) after 1,000 steps: a label a pair says too little of where.
        """
        pair, place = torch.nonzero(batch.meant[pairs[:, 0]] >= 0, as_tuple=True)
        text, image = pairs[pair].unbind(1)
        concept = batch.meant[text, place]
        target = F.pad((batch.owner[image] == concept[:, None]).float(), (1, 0))
        target[:, 0] = 1 - batch.shown[image, concept]
        known = target.sum(1) > 0  # not so, where it is shown but covers the most of no patch
        pair, place, image, target = pair[known], place[known], image[known], target[known]
        width = query.shape[-1] // self.model.retrieval.config.text_config.num_attention_heads
        asked = query[pair, place].unflatten(-1, (-1, width))[:, :GROUNDED_HEADS]
        seen = key.unflatten(-1, (-1, width))[:, :, :GROUNDED_HEADS]
        scores = torch.einsum("nhd,nkhd->nhk", asked, seen[image]) / width**0.5
        target = target / target.sum(1, keepdim=True)
        return -(target[:, None] * F.log_softmax(scores, dim=2)).sum(2).mean()

    def tell(self, batch: Batch, states: Tensor) -> Tensor:
        """Captioning loss; the prompt is given."""
        ids, mask = batch.told, batch.told_mask
        hidden = self.model.decoder.bert(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=states[: len(ids)],
            is_decoder=True,
        ).last_hidden_state[:, self.prompt - 1 : -1]
        target, keep = ids[:, self.prompt :], mask[:, self.prompt :].bool()
        logits = self.model.decoder.cls(hidden[keep])
        return F.cross_entropy(logits, target[keep], label_smoothing=0.1)

    def concepts(self, batch: Batch, states: Tensor) -> tuple[Tensor, Tensor]:
        """Which concepts a canvas shows, and which shows on each patch."""
        smoothed = 0.9 * batch.shown / batch.shown.sum(1, keepdim=True) + 0.1 / batch.shown.shape[1]
        canvas = F.cross_entropy(self.model.concepts(states[:, 0]), smoothed)
        taken = batch.owner >= 0
        patch = F.cross_entropy(self.model.patches(states[:, 1:][taken]), batch.owner[taken], label_smoothing=0.1)
        return canvas, patch

    def __call__(self, batch: Batch, generator: torch.Generator, matching: bool = True) -> dict[str, Tensor]:
        """Each loss by name."""
        net = self.model.retrieval
        visuals = encode_visual(net, batch.pixels.unsqueeze(1))
        texts = encode_text(net, batch.ids, batch.mask)
        states = visuals.tokens[:, 0]
        itc, sims = self.contrast(batch, visuals.feature, texts.feature)
        canvas, patch = self.concepts(batch, states)
        zero = itc.new_zeros(())
        itm, ground = self.match(batch, texts, visuals, sims, generator) if matching else (zero, zero)
        lm = self.tell(batch, states) if matching else zero
        return {"itc": itc, "itm": itm, "ground": ground, "lm": lm, "concept": canvas, "patch": patch}


def rate(step: int, steps: int, warm: int, decay: float) -> float:
    """Warm-up, constant, then linear to zero over the last share ``decay``."""
    start = int(steps * (1 - decay))
    if step < warm:
        return (step + 1) / warm
    return 1.0 if step < start else max(0.0, (steps - step) / (steps - start))


def hardness(step: int, steps: int, hard_from: float) -> float:
    """From large centred drawings to small ones anywhere over the first `hard_from` of the run.

    Without it, 250 steps of 256 left the concept loss at 7.0 (chance is 7.4). Canvases with several come in likewise.
    """
    return min(1.0, step / (hard_from * steps)) if hard_from else 1.0


def optimisers(model: PretrainingBlip, lr: float, muon_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for all else, without decay on biases, norms and positions.

    On 26,000 canvases Muon had brought the loss over concepts as far in 150 steps as AdamW in 200.
    """
    inner, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        if muon_lr and parameter.ndim == 2 and ".encoder.layer" in name:
            inner.append(parameter)
        else:
            flat = parameter.ndim < 2 or "position" in name or "class_embedding" in name
            (plain if flat else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": 0.05},
        {"params": plain, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-8, fused=True)
    if not inner:
        return [adamw]
    return [adamw, torch.optim.Muon(inner, lr=muon_lr, weight_decay=0.01, momentum=0.95)]


def save_checkpoint(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    """Whole or not at all: written beside, then renamed."""
    partial = path.with_suffix(".partial")
    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step}
    torch.save(state, partial)
    os.replace(partial, path)


def prepare(out: Path) -> tuple[list[Concept], Captioner, BertTokenizerFast]:
    """Concepts, captions of the seen ones, and the tokenizer (trained once, kept in ``out``)."""
    concepts = [Concept(**row) for row in json.loads((CACHE / "concepts.json").read_text())]
    captioner = Captioner(concepts, phrase_counts(concepts))
    folder = out / "tokenizer"
    if not folder.exists():
        train_tokenizer(captioner.corpus()).save_pretrained(folder)
    return concepts, captioner, AutoTokenizer.from_pretrained(folder)


def start(
    args: argparse.Namespace, model: PretrainingBlip, optimizers: list[torch.optim.Optimizer], checkpoint: Path
) -> int:
    """Take up another run's weights, or this run's checkpoint; returns the steps that are done."""
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        return int(state["step"])
    if args.weights:
        model.load_state_dict(torch.load(args.weights, weights_only=True)["model"])
    for name, parameter in model.named_parameters() if args.fresh else ():
        if re.search(args.fresh, name):
            nn.init.normal_(parameter, std=0.02) if parameter.ndim == 2 else nn.init.zeros_(parameter)
    return 0


def set_rates(optimizers: list[torch.optim.Optimizer], rates: list[float]) -> None:
    """Give each optimiser its learning rate."""
    for optimizer, value in zip(optimizers, rates, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = value


def train(args: argparse.Namespace) -> None:
    """The loop: log, checkpoint and evaluate by the clock."""
    torch.manual_seed(args.seed)
    concepts, captioner, tokenizer = prepare(args.out)
    model = PretrainingBlip(blip_config(tokenizer), len(concepts))
    seen = {c.hexcode for c in concepts if c.split != "novel"}
    pictures = Pictures.read(concepts, seen, new_style=False)
    held_out = {c.hexcode for c in concepts if c.split == "val" and c.group != "flags"}
    singles = Pictures.read(concepts, held_out, new_style=True)
    stream = Stream(pictures, captioner, tokenizer, args.batch, args.decoded, args.seed)
    objective = Objective(model, args.matched)
    optimizers = optimisers(model, args.lr, args.muon_lr)
    checkpoint = args.out / "checkpoint.pt"
    step = start(args, model, optimizers, checkpoint)
    weights = sum(p.numel() for p in model.parameters())
    LOG.info("%d pictures, %.2f M weights, from step %d to %d, %s",
             len(pictures.concept), weights / 1e6, step, args.steps, vars(args))  # fmt: skip
    begin = logged = saved = looked = time.monotonic()
    first, sums = step, torch.zeros(6)
    while step < args.steps:
        factor = rate(step, args.steps, args.warm, args.decay)
        set_rates(optimizers, [args.lr * factor, args.muon_lr * factor])
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + 500_000 + step)
        batch = stream(step, hardness(step, args.steps, args.hard_from))
        losses = objective(batch, generator, step >= args.steps * args.match_from)
        (torch.stack(list(losses.values())).sum() + (args.itm_weight - 1) * losses["itm"]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        sums += torch.stack([v.detach() for v in losses.values()])
        now = time.monotonic()
        if step % args.log_every == 0:
            means = " ".join(f"{k} {v:.3f}" for k, v in zip(losses, (sums / args.log_every).tolist(), strict=True))
            sums.zero_()
            speed = args.log_every * args.batch / (now - logged)
            eta = (args.steps - step) * (now - begin) / (step - first) / 60
            lr = args.lr * factor
            LOG.info("step %d %s lr %.2e %.0f samples/s eta %.1f min", step, means, lr, speed, eta)
            logged = now
        if now - saved > 300 or step == args.steps:
            save_checkpoint(checkpoint, model, optimizers, step)
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
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=CACHE / "run")
    parser.add_argument("--scenes", type=Path, default=CACHE / "scenes")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--matched", type=int, default=64, help="rows of matching")
    parser.add_argument("--decoded", type=int, default=64, help="rows of captioning")
    parser.add_argument("--itm-weight", type=float, default=1.0)
    parser.add_argument(
        "--hard-from",
        type=float,
        default=0.3,
        help="share of the run after which drawings are as small, and canvases as full, as they get",
    )
    parser.add_argument(
        "--match-from",
        type=float,
        default=0.35,
        help="share after which matching and captioning are trained: they need features first",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--muon-lr", type=float, default=0.02, help="0 leaves all to AdamW")
    parser.add_argument("--weights", type=Path, help="start from the weights of another run's checkpoint")
    parser.add_argument("--fresh", default="", help="draw the weights anew whose names this expression finds")
    parser.add_argument("--warm", type=int, default=200)
    parser.add_argument("--decay", type=float, default=0.3)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--eval-every", type=float, default=600, help="seconds")
    parser.add_argument("--export", type=Path, help="write the transformers folder, then stop")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
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
        export(model, tokenizer, args.export)
        LOG.info("exported step %d to %s", state["step"], args.export)
        return
    train(args)


if __name__ == "__main__":
    main()
