"""Every setting of the project as plain dataclasses: what is saved beside the weights, and what a run is told.

A YAML file maps one to one onto `RunConfig`; a key that no field knows is an error, never ignored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Init = Literal["identity", "released"]
Method = Literal["uniadapter", "full", "none"]
OnError = Literal["raise", "skip"]
Precision = Literal["no", "bf16", "fp16"]
Layout = Literal["auto", "pairs", "alpro", "msrvtt", "didemo"]


class ConfigError(ValueError):
    """A setting that cannot be used: says which, why, and what to do."""


@dataclass
class AdapterConfig:
    """The shape of one named set of adapters; saved as `adapter_config.json` beside its weights.

    Args:
        bottleneck: r, the width between down- and up-projection (128 or 512 in the paper).
        scale: s, the factor on every adapter's output (0.1 in the paper and the released code).
        init: "identity" starts at exactly the base model; "released" draws as the authors' code does,
            where only the text up-projection is zero.
        vision: adapters in the visual encoder.
        text: adapters after the feed-forward of the text encoder (the fused passes' query residual).
        cross: adapters on the cross-attention's output, sharing the text up-projection.
        key_value: width of the low-rank adapters on the keys and values of every cross-attention layer
            (64 in the released configs); 0 leaves them out.
        frame_aware: parameter-free frame-aware attention (paper, video).
        temporal_frames: length of the learned temporal embedding; 0 leaves it out.
        decoder: "shared" lets an answer decoder use the encoder's adapters (as released), "separate" gives it
            its own.
        heads: train a copy of the task's heads (projections, matching head) with the adapters.
    """

    bottleneck: int = 128
    scale: float = 0.1
    init: Init = "identity"
    vision: bool = True
    text: bool = True
    cross: bool = True
    key_value: int = 64
    frame_aware: bool = False
    temporal_frames: int = 0
    decoder: Literal["shared", "separate"] = "shared"
    heads: bool = True

    def __post_init__(self) -> None:
        for name, low in (("bottleneck", 1), ("key_value", 0), ("temporal_frames", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"adapter.{name} is {getattr(self, name)}: it must be at least {low}")
        if not (self.vision or self.text or self.cross or self.key_value):
            raise ConfigError("adapter: vision, text, cross and key_value are all off, so nothing would be adapted")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to `adapter_config.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdapterConfig:
        """The config from plain values; an unknown key raises `ConfigError`."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(f"unknown adapter setting {', '.join(unknown)}")
        return cls(**values)


@dataclass
class ModelConfig:
    """What is adapted, and how.

    Args:
        base: hub id, folder of transformers files, one of BLIP's `.pth` files, or `embedded`, the small BLIP
            that comes with this package.
        method: "uniadapter" trains adapters on a frozen base, "full" trains every weight, "none" trains nothing
            (zero-shot).
        adapter: the adapters' shape.
        image_size: side of the square pictures in pixels; null takes the base model's.
        max_tokens: texts are padded or cut to at most this many tokens.
        prompt: what the caption decoder starts with.
        checkpoint_vision: recompute the visual layers in the backward pass instead of keeping their activations.
        frame_chunk: frames that go through the visual encoder at once; 0 means all.
    """

    base: str = "embedded"
    method: Method = "uniadapter"
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    image_size: int | None = None
    max_tokens: int = 35
    prompt: str = "a picture of "
    checkpoint_vision: bool = False
    frame_chunk: int = 0

    @property
    def method_name(self) -> str:
        """The method as `metrics.json` calls it."""
        return {"uniadapter": "uniadapter", "full": "full_fine_tuning", "none": "zero_shot"}[self.method]


@dataclass
class DataConfig:
    """Where the pictures or videos and the captions are, and what is done to them.

    Args:
        train: annotation file of the training split, in one of the layouts below, or `embedded:TASK/SPLIT` for
            one that comes with this package.
        val: annotation file of the validation split.
        test: annotation file of the test split; read once, by the final evaluation.
        extra_tests: further test sets, name to annotation file; each becomes rows with that `test_set`.
        captions: file of the captions, where an annotation file only lists videos (`MSRVTT_data.json` beside
            `MSRVTT_train.9k.csv`).
        annotations: official files of VQA's answers, split to file, where `train`, `val` and `test` are official files
            of questions.
        answer_list: file of the answers that are ranked; null takes those of the training split.
        answer_count: of these, as many of the most frequent; 0 takes all.
        layout: of the annotation files. "pairs": rows of `image` or `video` and `caption`, a text or a list of texts
            (Karpathy JSON, LAVIS, UMT, VindLU, one's own JSONL or CSV); "alpro": lines of `clip_name` and `caption`
            (ALPRO, BLIP); "msrvtt": lists of `video_id`, with `sentence` or `captions`; "didemo": the sentences about
            a video are joined into one text. "auto" tells by the first row.
        root: folder that relative paths of pictures and videos start from; null means the annotation file's own
            folder.
        frames: frames of a video, in training and, unless `eval_frames` says another number, in evaluation; pictures
            have 1.
        eval_frames: frames of a video in evaluation; 0 means as many as in training.
        scale: area range of RandomResizedCrop.
        flip: horizontal flips; never for captions that speak of left and right.
        augment: the published RandAugment (N = 2, M = 5).
        blank: show a blank picture in the place of every picture and frame, in training and evaluation: the baseline
            that answers by the question alone.
        max_words: captions are cut to this many words; how many were is said in the log.
        on_error: "raise" stops at a record that cannot be read, "skip" leaves it out and counts it.
        workers: processes that load pictures or videos; 0 loads in the main process.
        together: samples of one visual that stand in a batch behind one another, for which it is loaded, augmented and
            encoded once (questions and captions; 1 mixes all samples).
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None
    extra_tests: dict[str, str] = field(default_factory=dict)
    captions: str | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    answer_list: str | None = None
    answer_count: int = 0
    layout: Layout = "auto"
    root: str | None = None
    frames: int = 1
    eval_frames: int = 0
    scale: tuple[float, float] = (0.5, 1.0)
    flip: bool = True
    augment: bool = True
    blank: bool = False
    max_words: int = 30
    on_error: OnError = "raise"
    workers: int = 2
    together: int = 1

    def __post_init__(self) -> None:
        for name, low in (("frames", 1), ("eval_frames", 0), ("max_words", 1), ("together", 1)):
            if getattr(self, name) < low:
                raise ConfigError(f"data.{name} is {getattr(self, name)}: it must be at least {low}")


@dataclass
class ObjectiveConfig:
    """The training loss: ITC + ITM, each switchable.

    Args:
        contrastive: image-text contrastive loss.
        matching: image-text matching loss with hard negatives.
        queue_size: momentum features kept from earlier batches; 0 keeps none.
        momentum: decay of the momentum set (0.995 released); 0 turns the momentum encoder off, and the batch's
            own features are the gallery.
        alpha: weight of the momentum encoder's soft targets, ramped up over the first epoch.
        temperature: of the contrastive softmax (0.07).
        train_temperature: let the temperature learn; it is then counted and saved.
        negatives: where hard negatives come from: this process's batch, or the batches of all processes.
    """

    contrastive: bool = True
    matching: bool = True
    queue_size: int = 57600
    momentum: float = 0.995
    alpha: float = 0.4
    temperature: float = 0.07
    train_temperature: bool = False
    negatives: Literal["batch", "all"] = "all"

    def __post_init__(self) -> None:
        if not (self.contrastive or self.matching):
            raise ConfigError("objective: contrastive and matching are both off, so there is nothing to train")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"objective.momentum is {self.momentum}: it must be in [0, 1)")
        if self.queue_size < 0:
            raise ConfigError(f"objective.queue_size is {self.queue_size}: it must be at least 0")
        if self.queue_size and not self.momentum:
            raise ConfigError("objective.queue_size needs momentum features: set objective.momentum, or queue_size 0")


@dataclass
class TrainConfig:
    """The optimisation.

    Args:
        epochs: passes over the training set.
        max_steps: stop after this many optimiser steps; 0 means after the epochs.
        batch_size: pairs a step, over all processes.
        lr: peak learning rate.
        weight_decay: AdamW's, not applied to biases and norms.
        warmup_steps: steps of linear warm-up.
        schedule: "epoch_cosine" (released: constant within an epoch), "cosine" per step, "linear" or "constant".
        min_lr: the schedule's end.
        grad_clip: largest gradient norm; 0 does not clip.
        accumulate: batches whose gradients are added up before a step.
        precision: "no" is float32; "bf16" and "fp16" are autocast. Where evaluation has the same, the frozen base's
            matrices are kept in it: half the memory, nothing to convert, the same outputs.
        seed: of every random draw.
        save_every: steps between checkpoints; 0 saves at the end of each epoch.
        evaluate_every: epochs between evaluations on the validation split; 0 evaluates only at the end.
        log_every: steps between log lines.
        compile_vision: run the visual encoder through torch.compile.
    """

    epochs: int = 6
    max_steps: int = 0
    batch_size: int = 32
    lr: float = 1e-5
    weight_decay: float = 0.05
    warmup_steps: int = 0
    schedule: Literal["epoch_cosine", "cosine", "linear", "constant"] = "epoch_cosine"
    min_lr: float = 0.0
    grad_clip: float = 0.0
    accumulate: int = 1
    precision: Precision = "no"
    seed: int = 0
    save_every: int = 0
    evaluate_every: int = 0
    log_every: int = 10
    compile_vision: bool = False

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 1), ("accumulate", 1), ("max_steps", 0), ("warmup_steps", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"train.{name} is {getattr(self, name)}: it must be at least {low}")


@dataclass
class EvaluateConfig:
    """The evaluation protocol.

    Args:
        k: candidates per query that are reranked by the matching head, clipped to the gallery; 0 reranks none.
        beta: score = matching logit + beta * contrastive similarity (0 released, 1 in BLIP's video evaluation).
        dual_softmax: replace similarities by the product of their softmax over the gallery and over all queries of
            the test set. Transductive: a query's result then depends on the other queries, so such rows are marked.
        answers: answers to questions are chosen from a list ("rank"), of which the k whose first token is likeliest are
            scored in full, or written ("generate").
        beams: of the search, where texts are written.
        longest: tokens of a written caption with its prompt, at most (20 in BLIP).
        shortest: the same, at least (5 in BLIP).
        batch_size: pictures or texts encoded at once.
        block: pairs fused at once; 0 takes what the device has room for.
        features: where visual tokens are kept for reranking: "memory", "disk" (a file in the temporary
            folder) or "auto", which takes the disk where they would fill more than half of the free memory.
        features_bf16: keep them in bfloat16, half the size; scores then differ in the third digit.
        precision: as in training.
    """

    k: int = 128
    beta: float = 0.0
    dual_softmax: bool = False
    answers: Literal["rank", "generate"] = "rank"
    beams: int = 3
    longest: int = 20
    shortest: int = 5
    batch_size: int = 64
    block: int = 0
    features: Literal["auto", "memory", "disk"] = "auto"
    features_bf16: bool = False
    precision: Precision = "no"

    def __post_init__(self) -> None:
        for name, low in (("k", 0), ("beams", 1), ("longest", 1), ("shortest", 0), ("batch_size", 1), ("block", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"evaluate.{name} is {getattr(self, name)}: it must be at least {low}")
        if self.shortest > self.longest:
            raise ConfigError(f"evaluate.shortest is {self.shortest}, more than evaluate.longest, {self.longest}")


@dataclass
class RunConfig:
    """One run: `uniadapter train CONFIG` reads exactly these keys from its YAML file.

    Args:
        task: what is trained and measured: "retrieval", "vqa" (questions about pictures or videos) or "caption".
        output: folder of the run.
        model: what is adapted, and how.
        data: the pictures and captions.
        objective: the training loss.
        train: the optimisation.
        evaluate: the evaluation protocol.
    """

    task: Literal["retrieval", "vqa", "caption"] = "retrieval"
    output: str = "runs/retrieval"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        if self.task == "retrieval" and self.data.together > 1:
            raise ConfigError(
                f"data.together is {self.data.together}: retrieval's batches want different visuals; leave it at 1"
            )
