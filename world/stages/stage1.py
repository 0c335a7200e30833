"""Pre-training, first stage: the visual encoder alone learns to name what is on each patch. No text.

    python -m world.stages.stage1 --out .cache/world/stage1      # goes on from its checkpoint by itself
    python -m world.stages.stage1 --out .cache/world/stage1 --export world/stages/stage1.safetensors

Losses: the concept on each patch that shows one, thing or ground on the others, which concepts a canvas shows, and
how many. Muon for the layers' matrices, AdamW for the rest, bfloat16 where the CPU has it. For the first part of the
run only some patches of each canvas are encoded. Every draw is a function of (seed, step), so a run taken up again
goes on as if it had not stopped.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BlipVisionModel

from uniadapter.app.memory import keep_freed_memory
from uniadapter.files.writing import atomic_file
from world.pictures.canvas import Canvases, Painter, arrange
from world.pictures.concepts import read_concepts
from world.pictures.grounds import grounds
from world.pictures.sources import HELD_OUT, NEW
from world.pictures.sprites import STILL, make_sprites, read_pictures
from world.stages.bank import Drawings
from world.stages.loop import autocast, optimisers, set_rates, settings, take_step, write
from world.stages.vision import WIDTH, build_vision, encode, prime

LOG = logging.getLogger("stage1")
COUNTS = (0.15, 0.2, 0.25, 0.4)  # canvases of one to four things
ANEW = 400  # steps after which the variants of the drawings are drawn anew
VARIANTS = 16


class Canvas(Drawings):
    """Training canvases by step."""

    def __init__(self, patch: int, batch: int, seed: int) -> None:
        super().__init__(seed)
        self.patch, self.batch, self.seed = patch, batch, seed
        self.round = -1
        self.painter: Painter | None = None

    def __call__(self, step: int) -> Canvases:
        """The canvases of a step."""
        if step // ANEW != self.round:
            self.round = step // ANEW
            self.painter = self.paint(VARIANTS, self.seed * 1_000_003 + self.round, self.patch)
        assert self.painter is not None
        rng = random.Random(f"{self.seed} {step}")
        return self.painter(layouts(self.seen, self.batch, rng), rng)


def layouts(concepts: list[int], count: int, rng: random.Random) -> list[list[tuple[int, float, float]]]:
    """Layouts of one to four different things."""
    return [arrange(rng.sample(concepts, rng.choices((1, 2, 3, 4), COUNTS)[0]), rng) for _ in range(count)]


def held_out(style: str, which: list[int], patch: int, count: int = 512) -> Canvases:
    """Canvases of a style that is not trained on, its drawings as they are."""
    concepts = read_concepts()
    sprites = make_sprites(*read_pictures(concepts, (style,)), len(concepts), 4, STILL, 1)
    rng = random.Random(f"test {style}")
    return Painter(sprites, grounds(500, 99), patch)(layouts(which, count, rng), rng)


class Heads(nn.Module):
    """What is read off the states: none of it is kept after pre-training but as a start for word embeddings."""

    def __init__(self, concepts: int) -> None:
        super().__init__()
        self.patch = nn.Linear(WIDTH, concepts + 1)
        self.canvas = nn.Linear(WIDTH, concepts)
        self.count = nn.Linear(WIDTH, 5)


def losses(heads: Heads, states: Tensor, owner: Tensor, canvases: Canvases) -> dict[str, Tensor]:
    """The losses of a batch: states [B, 1 + K, 192] and the concept of each of the K patches [B, K]."""
    named = heads.patch(states[:, 1:])
    ground = owner < 0
    wanted = torch.where(ground, named.shape[-1] - 1, owner)
    shown = torch.zeros(len(canvases), heads.canvas.out_features)
    for row, things in enumerate(canvases.things):
        shown[row, [concept for concept, _, _ in things]] = 1
    found = heads.canvas(states[:, 0])
    return {
        "named": F.cross_entropy(named[~ground], wanted[~ground], label_smoothing=0.05),
        "ground": F.cross_entropy(named[ground], wanted[ground]),
        "shown": -(shown / shown.sum(1, keepdim=True) * found.log_softmax(1)).sum(1).mean(),
        "each": F.binary_cross_entropy_with_logits(found, shown, reduction="none").sum(1).mean(),
        "count": F.cross_entropy(heads.count(states[:, 0]), shown.sum(1).long()),
    }


WEIGHTS = {"named": 1.0, "ground": 0.2, "shown": 1.0, "each": 0.1, "count": 0.1}


@torch.no_grad()
def evaluate(
    model: BlipVisionModel, heads: Heads, tests: dict[str, Canvases], bf16: bool
) -> dict[str, dict[str, float]]:
    """Per cent right by test set: patches named, thing or ground, canvas's concepts recalled, things counted."""
    out = {}
    for name, canvases in tests.items():
        with autocast(bf16):
            states = torch.cat([encode(model, part) for part in canvases.normalised().split(128)]).float()
        owner = torch.from_numpy(canvases.owner)
        things, logits = owner >= 0, heads.patch(states[:, 1:])
        right = (logits[..., :-1].argmax(-1) == owner)[things].float().mean()
        apart = ((logits.argmax(-1) == logits.shape[-1] - 1) == ~things).float().mean()
        found, recalled, counted = heads.canvas(states[:, 0]), [], []
        for row, on in enumerate(canvases.things):
            best = set(found[row].topk(len(on)).indices.tolist())
            recalled.append(len(best & {concept for concept, _, _ in on}) / len(on))
            counted.append(float(heads.count(states[row, 0]).argmax() == len(on)))
        figures = (float(right), float(apart), sum(recalled) / len(recalled), sum(counted) / len(counted))
        out[name] = {
            key: round(100 * value, 1)
            for key, value in zip(("patches", "thing_or_ground", "shown", "counted"), figures, strict=True)
        }
    return out


def train(args: argparse.Namespace) -> None:
    """Run, or go on with, the stage."""
    torch.manual_seed(args.seed)
    source = Canvas(args.patch, args.batch, args.seed)
    model, heads = build_vision(args.patch), Heads(len(source.concepts))
    patches = (96 // args.patch) ** 2
    prime(model, torch.cat([source(step).normalised() for step in range(12)]))
    model.embeddings.patch_embedding.requires_grad_(False)
    model.encoder.layers.train()
    both = nn.ModuleDict({"vision": model, "heads": heads})
    optimisers_ = optimisers(both, args.lr, args.muon)
    novel = [n for n, c in enumerate(source.concepts) if c.novel]
    tests = {HELD_OUT: held_out(HELD_OUT, source.seen, args.patch), NEW: held_out(NEW, source.seen, args.patch)}
    LOG.info("%d concepts, %d kept out; %d pictures", len(source.concepts), len(novel), len(source.pictures[1]))
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "checkpoint.pt"
    step, spent = load(file, model, heads, optimisers_)
    write(args.out / "log.jsonl", settings(args, step))
    started = time.process_time() - spent
    sums: dict[str, float] = {}
    while step < args.steps:
        set_rates(optimisers_, step, args)
        canvases = source(step)
        owner, keep = torch.from_numpy(canvases.owner), None
        if step / args.steps < args.dropped_until:
            chance = torch.rand(owner.shape, generator=torch.Generator().manual_seed(step))
            keep = ((owner >= 0).float() + 0.5 * chance).argsort(1, descending=True)[:, : round(args.keep * patches)]
            owner = owner.gather(1, keep)
        with autocast(args.bf16):
            states = encode(model, canvases.normalised(), keep)
        found = losses(heads, states.float(), owner, canvases)
        sum(WEIGHTS[name] * loss for name, loss in found.items()).backward()  # type: ignore[union-attr]
        take_step(both, optimisers_)
        step += 1
        for name, loss in found.items():
            sums[name] = sums.get(name, 0.0) + float(loss.detach())
        if step % args.log_every == 0 or step == args.steps:
            spent = time.process_time() - started
            record = {"step": step, "cpu_seconds": round(spent), **{n: s / args.log_every for n, s in sums.items()}}
            sums = {}
            if step % args.evaluate_every == 0 or step == args.steps:
                record |= evaluate(model, heads, tests, args.bf16)
                save(file, model, heads, optimisers_, step, spent, vars(args))
            write(args.out / "log.jsonl", record)
    if args.export:
        export(model, heads, args.export)


def export(model: nn.Module, heads: nn.Module, file: Path) -> None:
    """What the next stage begins with: the encoder and the heads in float16, without the optimisers."""
    parts = {"vision": model, "heads": heads}
    state = {f"{part}.{k}": v.half().contiguous() for part, m in parts.items() for k, v in m.state_dict().items()}
    with atomic_file(file) as temporary:
        save_file(state, temporary)


def save(file: Path, model: nn.Module, heads: nn.Module, optimisers: Any, step: int, spent: float, args: Any) -> None:
    """The checkpoint, all or nothing."""
    state = {
        "vision": model.state_dict(), "heads": heads.state_dict(), "optimisers": [o.state_dict() for o in optimisers],
        "step": step, "cpu_seconds": spent, "args": {k: str(v) for k, v in args.items()},
    }  # fmt: skip
    with atomic_file(file) as temporary:
        torch.save(state, temporary)


def load(file: Path, model: nn.Module, heads: nn.Module, optimisers: Any) -> tuple[int, float]:
    """Take up the checkpoint, if there is one; the step and CPU seconds so far."""
    if not file.exists():
        return 0, 0.0
    state = torch.load(file, weights_only=True)
    model.load_state_dict(state["vision"])
    heads.load_state_dict(state["heads"])
    for optimiser, values in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(values)
    LOG.info("going on at step %d", state["step"])
    return state["step"], state["cpu_seconds"]


def arguments() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--export", type=Path, default=None, help="write the weights there when all steps are done")
    parser.add_argument("--steps", type=int, default=3800)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--muon", type=float, default=0.02)
    parser.add_argument("--decay", type=float, default=0.3, help="share of the run over which the rate falls")
    parser.add_argument("--keep", type=float, default=0.56, help="share of the patches that is encoded at first")
    parser.add_argument("--dropped_until", type=float, default=0.7, help="share of the run for which that holds")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log_every", type=int, default=50)
    parser.add_argument("--evaluate_every", type=int, default=500)
    return parser


def main() -> None:
    """Parse and run."""
    args = arguments().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    train(args)


if __name__ == "__main__":
    main()
