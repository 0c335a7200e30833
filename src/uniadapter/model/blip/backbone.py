"""BLIP as a `Backbone`: retrieval, question answering and captions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor, nn

from uniadapter.errors import ConfigError
from uniadapter.model.backbone import CLIP_MEAN, CLIP_STD, DecodingBackbone, FusingBackbone, Layout, Read
from uniadapter.model.blip import decoder, fusion, inject, ranking, vision
from uniadapter.model.features import AnswerTree, Context, FusionCache, Texts, Visuals
from uniadapter.model.shape import BackboneShape
from uniadapter.model.store import AdapterStore


class BlipBackbone(FusingBackbone, DecodingBackbone):
    """One of transformers' three BLIP task models, or a wrapper that has the same submodules."""

    heads: ClassVar[dict[str, str]] = {name: name for name in ("vision_proj", "text_proj", "itm_head")}
    words_attend: ClassVar[bool] = True

    @property
    def task(self) -> str | None:
        """By the submodules that the model has, whatever its class is."""
        return inject.task_of(self.model)

    @property
    def layout(self) -> Layout:
        """From `BlipConfig`."""
        config = self.model.config
        vision, text = config.vision_config, config.text_config
        return Layout(
            family="blip",
            vision_layers=vision.num_hidden_layers,
            vision_width=vision.hidden_size,
            text_layers=text.num_hidden_layers,
            text_width=text.hidden_size,
            feed_forward=text.intermediate_size,
            feature_width=config.image_text_hidden_size,
            vocabulary=text.vocab_size,
            positions=int(text.max_position_embeddings),
            image_size=int(vision.image_size),
            patch_size=int(vision.patch_size),
            mean=CLIP_MEAN,
            std=CLIP_STD,
            fuses=hasattr(self.model, "text_encoder"),
            decodes=hasattr(self.model, "text_decoder"),
            packs=True,
        )

    @property
    def shape(self) -> BackboneShape:
        """Sizes of the visual encoder and the text encoder or decoder, which share adapters."""
        if not hasattr(self.model, "vision_model") or not inject.text_stacks(self.model):
            raise self.task_error()
        return inject.backbone_shape(self.model)

    def inject(self, store: AdapterStore) -> None:
        """See `Backbone`: visual layers, the layers of the text encoder and decoder, and heads."""
        inject.inject(self.model, self.base_heads(), store)

    def vision_layers(self) -> list[nn.Module]:
        """The ViT's."""
        return [*self.model.vision_model.encoder.layers]

    def transformer_stacks(self) -> Iterable[nn.Module]:
        """The layers of the ViT, the text encoder and the text decoder."""
        text = (stack.layer for stack in inject.text_stacks(self.model).values())
        return itertools.chain([self.model.vision_model.encoder.layers], text)  # type: ignore[list-item]

    def checkpoint_vision(self) -> None:
        """By transformers' `gradient_checkpointing_enable`."""
        self.model.vision_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def config_warnings(self) -> list[str]:
        """Settings of some configs on the hub that differ from the original checkpoints'."""
        text, vision = self.model.config.text_config, self.model.config.vision_config
        lines = []
        if text.hidden_size == 768 and text.num_attention_heads != 12:
            lines.append(f"text_config.num_attention_heads is {text.num_attention_heads}; BERT-base has 12")
        if vision.layer_norm_eps != 1e-6:
            lines.append(f"vision_config.layer_norm_eps is {vision.layer_norm_eps}; BLIP has 1e-6")
        if not text.is_decoder:
            raise ConfigError("text_config.is_decoder is false, so this model has no cross-attention to adapt")
        return lines

    def encode_visual(self, frames: Tensor, chunk: int = 0, stem: vision.Stem | None = None) -> Visuals:
        """The feature is the projected CLS state; for a video, that of the mean over its frames."""
        return vision.encode_visual(self.model, frames, chunk, stem)

    def visual_feature(self, frames: Tensor, chunk: int = 0, stem: vision.Stem | None = None) -> Tensor:
        """The last layer computes the CLS token alone."""
        return vision.visual_feature(self.model, frames, chunk, stem)

    def visual_stem(self, frames: Tensor, chunk: int = 0) -> vision.Stem | None:
        """The first visual layer without its adapter."""
        return vision.visual_stem(self.model, frames, chunk)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Texts:
        """The text encoder without cross-attention, on texts packed without padding."""
        return fusion.encode_text(self.model, ids, mask)

    def fused_ids(self, ids: Tensor) -> Tensor:
        """[ENC] in place of the first token, as BLIP was trained."""
        return fusion.fused_ids(self.model, ids)

    def begin_fusion(self, texts: Texts) -> FusionCache:
        """The self-attention of the first fused layer."""
        return fusion.begin_fusion(self.model, texts)

    def fuse(
        self, texts: Texts, visuals: Visuals, pairs: Tensor, read: Read = "all", cache: FusionCache | None = None
    ) -> Tensor:
        """The text encoder with cross-attention; a visual's keys and values are computed once in each layer."""
        return fusion.fuse(self.model, texts, visuals, pairs, read, cache)

    def fuse_with_weights(self, texts: Texts, visuals: Visuals, pairs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Attention is computed explicitly, with its weights."""
        return fusion.fuse_with_weights(self.model, texts, visuals, pairs)

    def match(self, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None) -> Tensor:
        """The matching head on the state of [ENC]."""
        return fusion.match(self.model, texts, visuals, pairs, cache)

    @property
    def start_token(self) -> int:
        """[DEC]."""
        return int(self.model.config.text_config.bos_token_id)

    @property
    def end_token(self) -> int:
        """[SEP]."""
        return int(self.model.config.text_config.sep_token_id)

    def question_context(self, visuals: Visuals, ids: Tensor, mask: Tensor, rows: Tensor) -> Context:
        """The states of the fused question encoder."""
        return decoder.question_context(self.model, visuals, ids, mask, rows)

    def visual_context(self, visuals: Visuals) -> Context:
        """All visual tokens, with the temporal embedding."""
        return decoder.visual_context(self.model, visuals)

    def text_nll(self, context: Context, rows: Tensor, ids: Tensor, mask: Tensor, given: int = 1) -> Tensor:
        """Label-smoothed, as BLIP's decoder is trained."""
        return decoder.text_nll(self.model, context, rows, ids, mask, given)

    def rank_answers(self, context: Context, tree: AnswerTree, k: int) -> tuple[Tensor, Tensor]:
        """On the tree of answers: a shared prefix is computed once for each question."""
        return ranking.rank_answers(self.model, context, tree, k)

    def generate(self, start: Tensor, context: Context, beams: int, longest: int, shortest: int) -> Tensor:
        """By transformers' `generate`."""
        ids: Tensor = self.model.text_decoder.generate(
            input_ids=start.expand(len(context), -1).to(context.states.device),
            encoder_hidden_states=context.states,
            encoder_attention_mask=context.mask,
            num_beams=beams,
            do_sample=False,
            max_length=longest,
            min_length=shortest,
            eos_token_id=self.end_token,
            pad_token_id=self.model.config.text_config.pad_token_id,
        )
        return ids
