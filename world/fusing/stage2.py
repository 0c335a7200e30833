"""Pre-training, second stage: texts, contrast, matching and answers on the tokens of the frozen visual encoder.

    python -m world.fusing.stage2 --steps 8000 --out .cache/world/stage2      # goes on from its checkpoint by itself
    python -m world.fusing.stage2 --steps 8000 --out .cache/world/stage2 --export world/fusing/stage2.safetensors

Losses: matching against falsehoods by construction, answers, contrast, and the dense ones of `dense.py`. Muon for the
text layers' matrices, AdamW for the rest. Every draw is a function of (seed, step).
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
from transformers import BlipForImageTextRetrieval

from uniadapter.files import written_atomically
from uniadapter.memory import keep_freed_memory
from world.fusing.bank import Bank, Source, read_vision
from world.fusing.dense import DenseHeads, Words, dense_losses, places
from world.fusing.fused import build, fuse, start_words, text_feature, unit_rows, visual_feature
from world.fusing.stage1 import autocast, write
from world.fusing.texts import TEXTS, Writer
from world.fusing.vision import WIDTH
from world.fusing.vocabulary import Vocabulary, word_starts

LOG = logging.getLogger("stage2")
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

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """What this stage trains."""
        return [(name, p) for name, p in self.named_parameters() if p.requires_grad]


class Batches:
    """Batches by step.

    Args:
        source: of canvases.
        batch: canvases a step.
        more: further canvases for contrast.
    """

    def __init__(self, source: Source, batch: int, more: int) -> None:
        self.source, self.batch, self.more = source, batch, more
        self.writer, self.vocabulary = Writer(source.lexicon, source.seen), Vocabulary()
        self.per_epoch = source.size // batch
        self.number, self.bank = -1, None

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
    rng = random.Random(f"stage2 {batches.source.seed} step {step}")
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
    at = places(scenes, len(batches.source.lexicon))
    found |= dense_losses(learner.dense, fused, bank.owner[rows], at, Words.of(texts.sayings))
    found["contrast"] = contrast(learner, batches, bank, rows + further, rng)
    right = {
        "match_right": float((matched.argmax(1) == truth).float().mean()),
        "answer_right": float((answered.argmax(1) == answers).float().mean()),
    }
    return found, right


def contrast(learner: Learner, batches: Batches, bank: Bank, rows: list[int], rng: random.Random) -> Tensor:
    """Each canvas against the captions of all, both ways."""
    captions = [batches.writer.caption(bank.scenes[row], rng).words for row in rows]
    text = text_feature(learner.base, *batches.vocabulary.encode(captions))
    visual = visual_feature(learner.base, bank.tokens[rows].float())
    similarity, own = visual @ text.t() / TEMPERATURE, torch.arange(len(rows))
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.t(), own)) / 2


def optimisers(learner: Learner, lr: float, muon: float) -> list[torch.optim.Optimizer]:
    """Muon for the text layers' matrices, AdamW for all else; each group remembers its peak rate."""
    named = learner.trained()
    inner = [p for n, p in named if p.ndim == 2 and ".layer." in n]
    rest = [(n, p) for n, p in named if not (p.ndim == 2 and ".layer." in n)]
    groups = [
        {"params": [p for n, p in rest if p.ndim == 2 and "embedding" not in n], "weight_decay": 0.05},
        {"params": [p for n, p in rest if p.ndim < 2 or "embedding" in n], "weight_decay": 0.0},
    ]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True),
        torch.optim.Muon(inner, lr=muon, weight_decay=0.01, momentum=0.95),
    ]
    for group in (g for optimiser in found for g in optimiser.param_groups):
        group["peak"] = group["lr"]
    return found


def train(args: argparse.Namespace, source: Source) -> None:
    """Run, or go on with, the stage."""
    torch.manual_seed(args.seed)
    batches = Batches(source, args.batch, args.more)
    learner = Learner(len(batches.writer.asker.answers))
    optimisers_ = optimisers(learner, args.lr, args.muon)
    args.out.mkdir(parents=True, exist_ok=True)
    step, spent = load(args.out, learner, optimisers_)
    started, sums = time.process_time() - spent, {}
    parameters = [p for _, p in learner.trained()]
    last = min(args.steps, args.stop or args.steps)
    while step < last:
        done = step / args.steps
        for group in (g for o in optimisers_ for g in o.param_groups):
            group["lr"] = group["peak"] * min(1, (step + 1) / 100) * min(1, max(0.01, (1 - done) / args.decay))
        with autocast(args.bf16):
            found, right = losses(learner, batches, step)
        sum(WEIGHTS.get(name, 1.0) * loss for name, loss in found.items()).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers_:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        step += 1
        for name, value in [*found.items(), *right.items()]:
            sums.setdefault(name, []).append(float(value.detach() if isinstance(value, Tensor) else value))
        if step % args.log_every == 0 or step == last:
            spent = time.process_time() - started
            means = {name: sum(values) / len(values) for name, values in sums.items()}
            write(args.out / "log.jsonl", {"step": step, "cpu_seconds": round(spent), **means})
            sums = {}
        if step % args.save_every == 0 or step == last:
            save(args.out, learner, optimisers_, step, spent, vars(args))
    if args.export and step == args.steps:
        export(learner, args.export)


def export(learner: Learner, file: Path) -> None:
    """All of the learner in float16 without the optimisers: the base under "base.", then the heads."""
    state = {name: value.half().contiguous() for name, value in learner.state_dict().items()}
    with written_atomically(file) as temporary:
        save_file(state, temporary)


def save(out: Path, learner: Learner, optimisers: Any, step: int, spent: float, args: dict[str, Any]) -> None:
    """The checkpoint, all or nothing, and the weights of this step beside it."""
    state = {
        "learner": learner.state_dict(), "optimisers": [o.state_dict() for o in optimisers],
        "step": step, "cpu_seconds": spent, "args": {k: str(v) for k, v in args.items()},
    }  # fmt: skip
    with written_atomically(out / "checkpoint.pt") as temporary:
        torch.save(state, temporary)
    export(learner, out / f"step{step}.safetensors")


def load(out: Path, learner: Learner, optimisers: Any) -> tuple[int, float]:
    """Take up the checkpoint, if there is one; the step and CPU seconds so far."""
    file = out / "checkpoint.pt"
    if not file.exists():
        return 0, 0.0
    state = torch.load(file, weights_only=True)
    learner.load_state_dict(state["learner"])
    for optimiser, values in zip(optimisers, state["optimisers"], strict=True):
        peaks = [group["peak"] for group in optimiser.param_groups]
        optimiser.load_state_dict(values)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["peak"] = peak
    LOG.info("going on at step %d", state["step"])
    return state["step"], state["cpu_seconds"]


def arguments() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--export", type=Path, default=None, help="write the weights there when all steps are done")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--stop", type=int, default=0, help="break off after this step, to go on in another sitting")
    parser.add_argument("--batch", type=int, default=48, help="canvases a step, six texts each")
    parser.add_argument("--more", type=int, default=80, help="further canvases for contrast")
    parser.add_argument("--round", type=int, default=12288, help="canvases drawn at once")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--muon", type=float, default=0.01)
    parser.add_argument("--decay", type=float, default=0.4, help="share of the run over which the rate falls")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log_every", type=int, default=50)
    parser.add_argument("--save_every", type=int, default=500)
    return parser


def main() -> None:
    """Parse and run."""
    args = arguments().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    train(args, Source(read_vision()[0], args.round, args.seed, args.bf16))


if __name__ == "__main__":
    main()
