"""What the stages' runs share: rates, checkpoints, the log; and the loop of the second and later ones.

Any run goes on from where it broke off.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from uniadapter.app.memory import keep_freed_memory
from uniadapter.files.writing import atomic_file

LOG = logging.getLogger("stage")
Losses = Callable[[int], tuple[dict[str, Tensor], dict[str, float]]]  # of a step, and figures for the log


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that require a gradient, with their names."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


Parameters = dict[str, nn.Parameter]


def optimisers(
    model: nn.Module, lr: float, muon: float, shares: dict[str, float] | None = None
) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for all else; each group remembers its peak rate.

    Args:
        model: of which all that requires a gradient is trained.
        lr: AdamW's rate.
        muon: Muon's rate.
        shares: of both rates, by what a parameter's name begins with.
    """
    parts: dict[float, Parameters] = {}
    for name, parameter in trained(model):
        share = next((s for start, s in (shares or {}).items() if name.startswith(start)), 1.0)
        parts.setdefault(share, {})[name] = parameter
    plain, inner = [], []
    for share, named in parts.items():
        layers = {n: p for n, p in named.items() if p.ndim == 2 and (".layer." in n or ".layers." in n)}
        rest = {n: p for n, p in named.items() if n not in layers}
        decayed = [p for n, p in rest.items() if p.ndim == 2 and "embedding" not in n]
        others = [p for n, p in rest.items() if p.ndim != 2 or "embedding" in n]
        plain += [{"params": p, "lr": share * lr, "weight_decay": d} for p, d in ((decayed, 0.05), (others, 0.0)) if p]
        inner += [{"params": list(layers.values()), "lr": share * muon}] if layers else []
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(plain, lr=lr, betas=(0.9, 0.98), fused=True),
        torch.optim.Muon(inner, lr=muon, weight_decay=0.01, momentum=0.95),
    ]
    for group in (g for optimiser in found for g in optimiser.param_groups):
        group["peak"] = group["lr"]
    return found


def set_rates(optimisers: list[torch.optim.Optimizer], step: int, args: argparse.Namespace) -> None:
    """A step's rates: up over the first hundred steps, down over the last `args.decay` of the run."""
    left = 1 - step / args.steps
    for group in (g for optimiser in optimisers for g in optimiser.param_groups):
        group["lr"] = group["peak"] * min(1, (step + 1) / 100) * min(1, max(0.01, left / args.decay))


def take_step(model: nn.Module, optimisers: list[torch.optim.Optimizer]) -> None:
    """Move what is trained along its gradients, which are clipped to norm 1 and then dropped."""
    nn.utils.clip_grad_norm_([p for _, p in trained(model)], 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def autocast(bf16: bool) -> torch.autocast:
    """Bfloat16 where it is asked for."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16)


def settings(args: argparse.Namespace, step: int) -> dict[str, Any]:
    """The log's first line of a sitting: from which step it goes on, and with what."""
    kept = {k: v for k, v in vars(args).items() if isinstance(v, (bool, int, float)) and "every" not in k}
    return {"step": step, "settings": kept}


def write(file: Path, record: dict[str, Any]) -> None:
    """A line of the log, rounded."""
    rounded = json.loads(json.dumps(record), parse_float=lambda text: round(float(text), 4))
    with file.open("a") as stream:
        stream.write(json.dumps(rounded) + "\n")
    LOG.info("%s", json.dumps(rounded))


def arguments(about: str | None, steps: int, lr: float, muon: float) -> argparse.ArgumentParser:
    """What every stage's command line has.

    Args:
        about: the stage's docstring.
        steps: of the whole run, by default.
        lr: AdamW's peak rate, by default.
        muon: Muon's.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--export", type=Path, default=None, help="write the weights there when all steps are done")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--stop", type=int, default=0, help="break off after this step, to go on in another sitting")
    parser.add_argument("--batch", type=int, default=48, help="canvases a step")
    parser.add_argument("--round", type=int, default=12288, help="canvases drawn at once")
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--muon", type=float, default=muon)
    parser.add_argument("--decay", type=float, default=0.4, help="share of the run over which the rate falls")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log_every", type=int, default=50)
    parser.add_argument("--save_every", type=int, default=500)
    return parser


def prepare(args: argparse.Namespace) -> None:
    """What a stage's process begins with."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    torch.manual_seed(args.seed)


def run(
    args: argparse.Namespace,
    model: nn.Module,
    losses: Losses,
    weights: dict[str, float],
    shares: dict[str, float] | None = None,
) -> None:
    """Train a model, or go on with it.

    Args:
        args: from `arguments`.
        model: with all that is trained; what requires no gradient stays as it is and is not saved.
        losses: of a step; a function of its number and the model's weights.
        weights: of losses that don't weigh 1.
        shares: of the rates, as `optimisers` takes them.
    """
    optimisers_ = optimisers(model, args.lr, args.muon, shares)
    args.out.mkdir(parents=True, exist_ok=True)
    step, spent = load(args.out, model, optimisers_)
    write(args.out / "log.jsonl", settings(args, step))
    started = time.process_time() - spent
    sums: dict[str, list[float]] = {}
    last = min(args.steps, args.stop or args.steps)
    while step < last:
        set_rates(optimisers_, step, args)
        found, figures = losses(step)
        sum(weights.get(name, 1.0) * loss for name, loss in found.items()).backward()  # type: ignore[union-attr]
        take_step(model, optimisers_)
        step += 1
        for name, value in {**{n: loss.item() for n, loss in found.items()}, **figures}.items():
            sums.setdefault(name, []).append(value)
        if step % args.log_every == 0 or step == last:
            spent = time.process_time() - started
            means = {name: sum(values) / len(values) for name, values in sums.items()}
            write(args.out / "log.jsonl", {"step": step, "cpu_seconds": round(spent), **means})
            sums = {}
        if step % args.save_every == 0 or step == last:
            save(args.out, model, optimisers_, step, spent)
    if args.export and step == args.steps:
        export(model, args.export)


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What begins with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def learnt(model: nn.Module) -> dict[str, Tensor]:
    """The state without what is frozen: that is in an earlier stage's file."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def restore(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load what `learnt` gave.

    Raises:
        ValueError: the state is of another model.
    """
    missing, unexpected = model.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    frozen |= {name for name in missing if name.endswith("position_ids")}
    if unexpected or set(missing) - frozen:
        raise ValueError(f"the weights are of another model: {[*unexpected, *sorted(set(missing) - frozen)][:4]}")


def export(model: nn.Module, file: Path) -> None:
    """What was trained, in float16, without the optimisers."""
    state = {name: value.half().contiguous().clone() for name, value in learnt(model).items()}
    with atomic_file(file) as temporary:
        save_file(state, temporary)


def save(out: Path, model: nn.Module, optimisers: list[torch.optim.Optimizer], step: int, spent: float) -> None:
    """The checkpoint, all or nothing, and the weights of this step beside it."""
    state = {
        "model": learnt(model), "optimisers": [o.state_dict() for o in optimisers], "step": step, "cpu_seconds": spent,
    }  # fmt: skip
    with atomic_file(out / "checkpoint.pt") as temporary:
        torch.save(state, temporary)
    export(model, out / f"step{step}.safetensors")


def load(out: Path, model: nn.Module, optimisers: list[torch.optim.Optimizer]) -> tuple[int, float]:
    """Take up the checkpoint, if there is one; the step and CPU seconds so far. Peak rates are this run's."""
    file = out / "checkpoint.pt"
    if not file.exists():
        return 0, 0.0
    state = torch.load(file, weights_only=True)
    restore(model, state["model"])
    for optimiser, values in zip(optimisers, state["optimisers"], strict=True):
        peaks = [group["peak"] for group in optimiser.param_groups]
        optimiser.load_state_dict(values)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["peak"] = peak
    LOG.info("going on at step %d", state["step"])
    return state["step"], state["cpu_seconds"]
