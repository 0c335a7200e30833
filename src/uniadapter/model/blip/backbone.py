"""BLIP as a `Backbone`: retrieval, questions and captions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor, nn

from uniadapter.errors import ConfigError
from uniadapter.model.adapter_set import BackboneShape
from uniadapter.model.backbone import DecodingBackbone, FusingBackbone, Layout, Read
from uniadapter.model.blip import decoder, fusion, inject, ranking, vision
from uniadapter.model.features import AnswerTree, Context, FusionCache, Texts, Visuals
from uniadapter.model.store import AdapterStore

# CLIP's, which BLIP took over.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class BlipBackbone(FusingBackbone, DecodingBackbone):
    """One of transformers' three BLIP task models, or a model that is wrapped around one and has its parts."""

    heads: ClassVar[dict[str, str]] = {name: name for name in ("vision_proj", "text_proj", "itm_head")}

    @property
    def task(self) -> str | None:
        """By the parts that the model has, whatever its class is called."""
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
            mean=MEAN,
            std=STD,
            fuses=hasattr(self.model, "text_encoder"),
            decodes=hasattr(self.model, "text_decoder"),
            packs=True,
        )

    @property
    def shape(self) -> BackboneShape:
        """Vision, the text encoder with its cross-attention, and the decoder that shares its adapters."""
        if not hasattr(self.model, "vision_model") or not inject.text_stacks(self.model):
            raise self.no_task()
        return inject.backbone_shape(self.model)

    def inject(self, store: AdapterStore) -> None:
        """Vision layers, text layers of every stack, and heads."""
        inject.inject(self.model, self.base_heads(), store)

    def vision_layers(self) -> list[nn.Module]:
        """The ViT's."""
        return [*self.model.vision_model.encoder.layers]

    def stacks(self) -> Iterable[nn.Module]:
        """The ViT's layers and those of each text stack."""
        text = (stack.layer for stack in inject.text_stacks(self.model).values())
        return itertools.chain([self.model.vision_model.encoder.layers], text)  # type: ignore[list-item]

    def checkpoint_vision(self) -> None:
        """By transformers' own switch."""
        self.model.vision_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def oddities(self) -> list[str]:
        """Settings of hub configs that are not those of the original checkpoints."""
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
        """CLS states are projected; a video's is their mean's projection."""
        return vision.encode_visual(self.model, frames, chunk, stem)

    def visual_feature(self, frames: Tensor, chunk: int = 0, stem: vision.Stem | None = None) -> Tensor:
        """In the last layer nothing is computed but the class token."""
        return vision.visual_feature(self.model, frames, chunk, stem)

    def visual_stem(self, frames: Tensor, chunk: int = 0) -> vision.Stem | None:
        """The first visual layer but for its adapter."""
        return vision.visual_stem(self.model, frames, chunk)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Texts:
        """Packed, without padding."""
        return fusion.encode_text(self.model, ids, mask)

    def fused_ids(self, ids: Tensor) -> Tensor:
        """[ENC] in the place of the first token."""
        return fusion.fused_ids(self.model, ids)

    def begin_fusion(self, texts: Texts) -> FusionCache:
        """The first fused layer's self-attention."""
        return fusion.begin_fusion(self.model, texts)

    def fuse(
        self, texts: Texts, visuals: Visuals, pairs: Tensor, read: Read = "all", cache: FusionCache | None = None
    ) -> Tensor:
        """A visual's keys and values once a layer."""
        return fusion.fuse(self.model, texts, visuals, pairs, read, cache)

    def match(self, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None) -> Tensor:
        """By the matching head, on the fused [ENC]."""
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
        """The fused question's states."""
        return decoder.question_context(self.model, visuals, ids, mask, rows)

    def visual_context(self, visuals: Visuals) -> Context:
        """All visual tokens, with their time."""
        return decoder.visual_context(self.model, visuals)

    def text_nll(self, context: Context, rows: Tensor, ids: Tensor, mask: Tensor, given: int = 1) -> Tensor:
        """Label-smoothed, as BLIP's decoder is trained."""
        return decoder.text_nll(self.model, context, rows, ids, mask, given)

    def rank_answers(self, context: Context, tree: AnswerTree, k: int) -> tuple[Tensor, Tensor]:
        """As a tree: what precedes a token is computed once a question."""
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
