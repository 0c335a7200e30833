"""Settings of the training loss and of the optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from uniadapter.config.checks import Count, require, validate_fields

Precision = Literal["no", "bf16", "fp16"]
Schedule = Literal["epoch_cosine", "cosine", "linear", "constant"]
Size = Annotated[int, Field(ge=1, le=65_536)]

Keep = Literal["last", "best", "best_on_test"]


@dataclass
class ObjectiveConfig:
    """The training loss: ITC + ITM, each switchable.

    Args:
        contrastive: image-text contrastive loss (ITC).
        loss: kind of contrastive loss. "momentum" is BLIP's, with momentum features, queue and soft targets; "softmax"
            is CLIP's over the batches of all processes; "sigmoid" is SigLIP's over the same; "auto" is the one that the
            base's family was pre-trained with. `queue_size`, `momentum`, `alpha`, `temperature` and `train_temperature`
            apply to "momentum" only; the other two start from the base's logit scale and train it.
        matching: image-text matching loss (ITM) with hard negatives.
        queue_size: momentum features kept from earlier batches; 0 keeps none.
        momentum: decay of the momentum adapters (0.995 released); 0 turns the momentum encoder off, and the features of
            the batch are the gallery.
        alpha: weight of the momentum encoder's soft targets, ramped up over the first epoch.
        temperature: of the contrastive softmax (0.07).
        train_temperature: train the temperature, which is then counted and saved.
        negatives: where hard negatives come from: "batch", this process's, or "all", those of all processes.
    """

    contrastive: bool = True
    loss: Literal["auto", "momentum", "softmax", "sigmoid"] = "auto"
    matching: bool = True
    queue_size: Annotated[int, Field(ge=0, le=1_000_000)] = 57600
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.995
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.4
    temperature: Annotated[float, Field(ge=0.001, le=100)] = 0.07
    train_temperature: bool = False
    negatives: Literal["batch", "all"] = "all"

    def __post_init__(self) -> None:
        validate_fields(self, "objective")
        some = self.contrastive or self.matching
        require(some, "objective: contrastive and matching are both off, so there is nothing to train")
        kept = self.queue_size == 0 or self.momentum > 0
        require(kept, "objective.queue_size needs momentum features: set objective.momentum, or queue_size 0")


@dataclass
class TrainConfig:
    """The optimiser, its schedule, and when to save, evaluate and log.

    Args:
        epochs: passes over the training set.
        max_steps: stop after this many optimiser steps; 0 means no limit but the epochs.
        max_minutes: for the limit of a queue: after the first step that ends later than this many minutes after the
            start, the run is saved and stops with exit status 85; the same command with `--resume_or_start` goes on. It
            counts anew at each start. 0 means no limit.
        batch_size: samples per batch, over all processes.
        lr: peak learning rate.
        weight_decay: AdamW's, not applied to biases and norms.
        warmup_steps: steps of linear warm-up.
        schedule: "epoch_cosine" (released: constant within an epoch), "cosine" per step, "linear" or "constant".
        min_lr: learning rate at the end of the schedule.
        grad_clip: maximum gradient norm; 0 does not clip.
        accumulate: gradient accumulation: batches per optimiser step.
        micro_batch: samples that a process takes through the model at once, for less memory and the same losses and
            gradients. Retrieval, which compares all samples of a batch, computes activations of each part once more in
            the backward pass, so that batches may be as large as wanted, in 1.5 times the time at BLIP-base's size. 0
            takes whole batches, and if the memory is full on a single process, half as many from there on.
        fsdp: each of several processes holds a share of the frozen base, and gathers a layer's weights when it computes
            (PyTorch's FSDP2): for bases that do not fit beside what training needs. Slower; validation and
            the final evaluation gather the base. Not with micro_batch.
        precision: "no" is float32; "bf16" and "fp16" are autocast. If evaluation uses the same, the frozen base's
            matrices are stored in it: half the memory, no conversions, the same outputs.
        seed: of all random streams.
        skip_bad_steps: how many steps of the run may be left out because their loss or gradient is NaN or infinite.
            Each is logged, with its samples in `skipped_steps.jsonl`, and `metrics.json` counts them. The next one
            stops the run, as the first does with 0.
        save_every: steps between checkpoints; 0 saves at the end of each epoch.
        evaluate_every: epochs between evaluations on the validation split; 0 evaluates only at the end.
        keep: which weights are saved at the end: those after the "last" step, or the "best" on the validation split.
            "best_on_test" chooses on the test split, as some published video code does: for comparison with its figures
            alone, and every figure so made is marked.
        log_every: steps between log lines.
        trackers: experiment trackers that get the same lines, by Accelerate: "tensorboard" (into the run's folder),
            "wandb", "trackio" (on this machine, below TRACKIO_DIR); each is installed by its own name.
        project: name of the project for wandb and trackio; the run is called by its folder.
        compile_vision: run the visual encoder through torch.compile.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 6
    max_steps: Count = 0
    max_minutes: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    batch_size: Size = 32
    lr: Annotated[float, Field(gt=0, le=100)] = 1e-5
    weight_decay: Annotated[float, Field(ge=0, le=100)] = 0.05
    warmup_steps: Count = 0
    schedule: Schedule = "epoch_cosine"
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    grad_clip: Annotated[float, Field(ge=0)] = 0.0
    accumulate: Size = 1
    micro_batch: Annotated[int, Field(ge=0, le=65_536)] = 0
    fsdp: bool = False
    precision: Precision = "no"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    skip_bad_steps: Count = 0
    save_every: Count = 0
    evaluate_every: Count = 0
    keep: Keep = "last"
    log_every: Annotated[int, Field(ge=1)] = 10
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = field(default_factory=list)
    project: Annotated[str, Field(min_length=1, max_length=200)] = "uniadapter"
    compile_vision: bool = False

    def __post_init__(self) -> None:
        validate_fields(self, "train")
        falling = self.min_lr <= self.lr
        scaled = self.precision == "fp16" and self.skip_bad_steps > 0
        at_once = not (self.fsdp and self.micro_batch)
        require(
            at_once,
            "train.fsdp gathers layers in step on all processes, whose parts train.micro_batch may count "
            "differently: leave it at 0; model.checkpoint_vision takes less memory",
        )
        require(not scaled, "train.skip_bad_steps is for precision no and bf16: fp16's loss scaling skips on its own")
        require(falling, f"train.min_lr is {self.min_lr}, more than train.lr, {self.lr}: it must be at most that")
