"""Retrieval between texts and pictures or videos: contrastive and matching losses, and recall in both directions."""

from __future__ import annotations

import copy
import logging
import math

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import DataConfig, ModelConfig, ObjectiveConfig, RunConfig
from uniadapter.data.batches import Batch
from uniadapter.data.captions import load_retrieval
from uniadapter.data.splits import FIRST_LOOK, RetrievalSplit, TrainingSet
from uniadapter.evaluation.recall import FEWEST, is_at_chance
from uniadapter.evaluation.rerank import Progress
from uniadapter.evaluation.retrieval import evaluate_retrieval
from uniadapter.model.dispatch import backbone
from uniadapter.model.encoding import contrast_of, loss_scalars, similarity
from uniadapter.model.tokens import TokenBatch, tokenize, warn_of_truncation
from uniadapter.objectives.contrastive import FeatureQueue, contrastive_loss, ramped_alpha
from uniadapter.objectives.gathering import fetch_visuals, gather_texts
from uniadapter.objectives.matching import draw_negatives, matching_loss, matching_pairs, negative_uniforms
from uniadapter.objectives.momentum import AdapterMomentum, ModelMomentum, Momentum
from uniadapter.objectives.pretrained import pretrained_contrast
from uniadapter.objectives.row_blocks import mean_over_rows
from uniadapter.processes import seeds as draws
from uniadapter.processes.distributed import RowCounts, gather_row_counts, gather_rows
from uniadapter.tasks.base import Result, is_distributed, visuals_loader
from uniadapter.tasks.in_parts import EncodedPairs, encode_pairs, match_pairs
from uniadapter.tasks.preparing import Prepared, autocast
from uniadapter.tasks.temperature import contrastive_temperature
from uniadapter.training.loss import StepInfo, TrainingLoss

logger = logging.getLogger(__name__)

TEMPERATURE_RANGE = (0.001, 0.5)  # BLIP's clamp


class RetrievalLoss(TrainingLoss):
    """The training loss of retrieval: image-text contrastive (ITC) plus image-text matching (ITM).

    Both compare the rows of a batch with one another: where memory is short, a whole batch is encoded and matched in
    parts, see `tasks.in_parts`.

    Args:
        model: a retrieval model of any family; its adapters, or all weights, are trained.
        tokenizer: the base's.
        settings: max_tokens and frame_chunk are used.
        objective: which losses, and their settings.
        adapter: name of the set that is trained; None trains the model's own weights.
        seed: of the queue's initial content.
    """

    compares = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        settings: ModelConfig,
        objective: ObjectiveConfig,
        adapter: str | None = "default",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.settings, self.objective = settings, objective
        if objective.matching and objective.negatives == "batch":
            self.bound_to_processes = "objective.negatives batch takes hard negatives from a process's own samples"
        self.contrast = contrast_of(model, objective.loss) if objective.contrastive else "momentum"
        queue_size = objective.queue_size if self.contrast == "momentum" else 0
        self.queue = FeatureQueue(queue_size, backbone(model).layout.feature_width, seed)
        self.temperature = contrastive_temperature(model, adapter, objective)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []  # enqueued after the last batch of a step
        self._moved = False  # whether the momentum encoder has moved in this step
        self._held = False  # whether it has moved in a step that was left out, or is done again
        self._momentum: list[Momentum] = []  # in a list, so that torch does not register its weights here
        if objective.momentum and objective.contrastive and self.contrast == "momentum":
            decay = objective.momentum
            self._momentum = [
                ModelMomentum(model, decay) if adapter is None else AdapterMomentum(model, decay, adapter)
            ]

    @property
    def momentum(self) -> Momentum | None:
        """The momentum encoder, or None."""
        return self._momentum[0] if self._momentum else None

    @property
    def scale(self) -> Tensor:
        """Factor on similarities, a scalar: the learned one of the family's loss, else 1 / temperature."""
        scalars = loss_scalars(self.model) if self.contrast != "momentum" else {}
        return scalars["logit_scale"].exp() if "logit_scale" in scalars else 1 / self.temperature

    @property
    def bias(self) -> Tensor:
        """Bias of scaled similarities in the sigmoid loss, a scalar; 0 for families without one."""
        scalars = loss_scalars(self.model) if self.contrast == "sigmoid" else {}
        return scalars.get("logit_bias", self.temperature.new_zeros(()))

    def forward(self, batch: Batch, step: StepInfo) -> dict[str, Tensor]:
        """Tokenise the captions and compute `losses`."""
        assert self.tokenizer is not None
        tokens = tokenize(self.tokenizer, batch.captions, self.settings.max_tokens)
        device = batch.frames.device
        return self.losses(
            batch.frames, TokenBatch(tokens.ids.to(device), tokens.mask.to(device)), batch.ids, batch.sample_ids, step
        )

    def losses(
        self, frames: Tensor, tokens: TokenBatch, ids: Tensor, sample_ids: Tensor, step: StepInfo
    ) -> dict[str, Tensor]:
        """Contrastive and matching loss; in training mode, momentum encoder and queue are updated once in each step.

        Args:
            frames: normalised pixels [B, T, 3, H, W].
            tokens: of the B texts.
            ids: [B]; equal ids mean the same visual.
            sample_ids: [B]; the draws of hard negatives depend on them.
            step: position of the batch in training.

        Returns:
            Scalars: "loss", to be minimised, and its parts "contrastive" and "matching", if they are on. They are
            scaled so that the mean over processes is the mean over all rows.
        """
        with torch.no_grad():
            self.temperature.clamp_(*TEMPERATURE_RANGE)
        if self.training and step.first:
            self._move()
        momentum = self.momentum if self.objective.contrastive else None
        encoded = encode_pairs(
            self.model, frames, tokens, momentum, self.settings.frame_chunk, step.at_once, self.objective.matching
        )
        rows = gather_row_counts(len(ids), ids.device)
        all_ids = gather_rows(ids)
        parts: dict[str, Tensor] = {}
        if self.objective.contrastive:
            parts["contrastive"] = self._contrastive(encoded, ids, all_ids, rows, step) * rows.weight
        if self.objective.matching:
            parts["matching"] = self._matching(encoded, ids, all_ids, sample_ids, rows, step)
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def _move(self) -> None:
        """Let the momentum encoder follow the weights, unless it has done so since their last change."""
        if self.momentum is not None and not self._held:
            self.momentum.update()
        self._moved, self._held = bool(self._momentum), False

    def _contrastive(
        self, encoded: EncodedPairs, ids: Tensor, all_ids: Tensor, rows: RowCounts, step: StepInfo
    ) -> Tensor:
        visuals, texts = encoded.visuals, encoded.texts
        if self.contrast != "momentum":
            return pretrained_contrast(
                self.model, self.contrast, texts, visuals, ids, all_ids, self.scale, self.bias, step.at_once
            )
        if encoded.targets is None:
            visual, text, alpha = gather_rows(visuals.feature, True), gather_rows(texts.feature, True), 0.0
        else:
            visual, text = map(gather_rows, encoded.targets)
            alpha = ramped_alpha(self.objective.alpha, step.epoch, step.batch, step.batches)
        queue = copy.deepcopy(self.queue) if step.at_once else self.queue  # what is recomputed meets it as it is now

        def loss(own: slice, feature: Tensor) -> Tensor:
            first, temperature = rows.first_row + own.start, self.temperature
            return contrastive_loss(
                feature, texts.feature[own], visual, text, queue, ids[own], temperature, alpha, all_ids, first
            )

        columns = len(all_ids) + self.queue.size
        found = mean_over_rows(self.model, loss, visuals.feature, columns, step.at_once)
        if self.training:
            self._enqueue(visual, text, all_ids, step)
        return found

    def _enqueue(self, visual: Tensor, text: Tensor, ids: Tensor, step: StepInfo) -> None:
        """Enqueue the features of a step's batches after the last one, so that all are compared with the same queue."""
        if step.first:
            self._waiting.clear()
        self._waiting.append((visual.detach(), text.detach(), ids))
        if step.last:
            self.queue.enqueue(*(torch.cat(rows) for rows in zip(*self._waiting, strict=True)))
            self._waiting.clear()

    def begin_step(self) -> None:
        """What the last step has enqueued stays in the queue."""
        self.queue.confirm()
        self._moved = False

    def forget_step(self) -> None:
        """Take the step's features out of the queue again; the weights are the same, so momentum has its next step."""
        self.queue.undo()
        self._held = self._held or self._moved

    def _matching(
        self,
        encoded: EncodedPairs,
        ids: Tensor,
        all_ids: Tensor,
        sample_ids: Tensor,
        rows: RowCounts,
        step: StepInfo,
    ) -> Tensor:
        visuals, texts = encoded.visuals, encoded.texts
        first, keys, ids_of_rows, feature = 0, sample_ids, ids, visuals.feature
        everywhere = self.objective.negatives == "all" and len(rows.counts) > 1
        if everywhere:
            texts, feature = gather_texts(texts), gather_rows(feature)
            ids, first, keys = all_ids, rows.first_row, gather_rows(sample_ids)
        own = slice(first, first + len(ids_of_rows))
        scale = float(self.scale.detach())
        with torch.no_grad(), torch.autocast(feature.device.type, enabled=False):
            # NaN, on this process or another: the loss becomes NaN here too, and all processes stop or go on together.
            sound = math.isfinite(scale) and all(bool(torch.isfinite(one).all()) for one in (texts.feature, feature))
            # This process's rows and columns alone: all against all are 4 GB for a batch of 32,000.
            of_texts = similarity(self.model, texts.feature[own], feature) * scale
            of_visuals = similarity(self.model, texts.feature, feature[own]).T * scale if everywhere else of_texts.T
            if not sound:
                of_texts, of_visuals = torch.zeros_like(of_texts), torch.zeros_like(of_visuals)
            uniforms = [
                negative_uniforms(step.seed, stream, step.epoch, sample_ids)
                for stream in (draws.NEGATIVE_VISUAL, draws.NEGATIVE_TEXT)
            ]
            negative_visual = draw_negatives(of_texts, ids_of_rows, ids, uniforms[0], keys)
            negative_text = draw_negatives(of_visuals, ids_of_rows, ids, uniforms[1], keys)
        chosen = matching_pairs(negative_visual, negative_text, first)
        pairs = chosen.pairs
        if everywhere:
            wanted, place = torch.unique(pairs[:, 1], return_inverse=True)
            visuals = fetch_visuals(visuals, feature, wanted, rows)
            pairs = torch.stack([pairs[:, 0], place], dim=1)
        # Weighted by pairs, not by rows: a row without another id in its batch has fewer pairs.
        weight = gather_row_counts(len(chosen.labels), ids.device).weight
        if not len(chosen.labels):  # the tokens of other processes must get their gradients
            return visuals.tokens.sum() * (0 if sound else math.nan)
        logits = match_pairs(self.model, texts, visuals, pairs, step.at_once)
        return matching_loss(logits, chosen.labels) * (weight if sound else math.nan)

    def release(self) -> None:
        """Remove the momentum encoder from the model."""
        for momentum in self._momentum:
            momentum.release()
        self._momentum.clear()

    def training_state(self) -> dict[str, dict[str, Tensor]]:
        """Queue and momentum encoder, for a checkpoint."""
        momentum = self.momentum
        state = {"queue": self.queue.state_dict(), "momentum": momentum.state() if momentum else {}}
        return {**state, "held": {}} if self._held else state

    def load_training_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Restore `training_state`."""
        self.queue.load_state_dict(state["queue"])
        self._held = "held" in state
        if self.momentum:
            self.momentum.load_state(state["momentum"])


class RetrievalTask:
    """Retrieval; evaluated by recall in both directions."""

    def load(self, path: str, config: DataConfig, which: str) -> RetrievalSplit:
        """Read a split from its file."""
        return load_retrieval(path, config, which)

    def training_loss(self, prepared: Prepared, split: TrainingSet, config: RunConfig) -> RetrievalLoss:
        """The training loss."""
        warn_of_truncation(prepared.tokenizer, split.head(FIRST_LOOK).texts, config.model.max_tokens, "captions")
        return RetrievalLoss(
            prepared.model, prepared.tokenizer, config.model, config.objective, prepared.adapter, config.train.seed
        )

    def evaluate(
        self, prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None
    ) -> Result:
        """Contrastive similarity, then reranking; the result's `detail` is a `RetrievalResult`."""
        loader = visuals_loader(prepared, split, config)
        precision = autocast(config.evaluate.precision, prepared.model.device)
        found = evaluate_retrieval(
            prepared.model, prepared.tokenizer, split, loader, config.model, config.evaluate, precision, progress,
            is_distributed(prepared, split),
        )  # fmt: skip
        if len(split.visuals) >= FEWEST and is_at_chance(found.text_ranks, len(split.visuals)):
            logger.warning(
                "%s: a caption's own is found no better than by chance: do captions and %s belong together?",
                split.name, split.noun,
            )  # fmt: skip
        text, visual, kind = found.text_to_visual, found.visual_to_text, split.visual_kind
        return Result(
            scores={f"text_to_{kind}": text, f"{kind}_to_text": visual},
            right=(found.text_ranks == 1).float(),
            headline=f"R@1: text to {kind} {text['r@1']:.2f}, {kind} to text {visual['r@1']:.2f}",
            main=text["r@1"],
            detail=found,
        )
