"""BLIP-2 as a `Backbone`: retrieval by the largest similarity over its queries, and matching."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from uniadapter.model.backbone import CLIP_MEAN, CLIP_STD, FusingBackbone, Layout, Read
from uniadapter.model.blip2 import encoding, fusion, inject
from uniadapter.model.features import FusionCache, Texts, Visuals
from uniadapter.model.shape import BackboneShape
from uniadapter.model.store import AdapterStore


class Blip2Backbone(FusingBackbone):
    """A `Blip2ForImageTextRetrieval` whose Q-Former has a text path (`use_qformer_text_input`)."""

    heads: ClassVar[Mapping[str, str]] = {name: name for name in ("vision_projection", "text_projection", "itm_head")}

    @property
    def layout(self) -> Layout:
        """From `Blip2Config`; the text model is the Q-Former."""
        config = self.model.config
        vision, text = config.vision_config, config.qformer_config
        return Layout(
            family="blip2",
            vision_layers=vision.num_hidden_layers,
            vision_width=vision.hidden_size,
            text_layers=text.num_hidden_layers,
            text_width=text.hidden_size,
            feed_forward=text.intermediate_size,
            feature_width=config.image_text_hidden_size,
            features=config.num_query_tokens,
            vocabulary=text.vocab_size,
            positions=int(text.max_position_embeddings),
            image_size=int(vision.image_size),
            patch_size=int(vision.patch_size),
            mean=CLIP_MEAN,
            std=CLIP_STD,
            contrast="softmax",
            fuses=True,
            packs=True,
        )

    @property
    def shape(self) -> BackboneShape:
        """Vision layers by themselves, and Q-Former layers, every n-th of which has a cross-attention."""
        config = self.model.config
        if self.task is None:
            raise self.task_error()
        if not config.qformer_config.use_qformer_text_input:
            raise TypeError(
                "this BLIP-2 reads no texts (qformer_config.use_qformer_text_input is false): use one that was "
                "converted for retrieval, such as Salesforce/blip2-itm-vit-g"
            )
        layout = self.layout
        return BackboneShape(
            vision_layers=layout.vision_layers,
            vision_width=layout.vision_width,
            text_layers=layout.text_layers,
            text_width=layout.text_width,
            queries=True,
            cross_every=config.qformer_config.cross_attention_frequency,
        )

    def inject(self, store: AdapterStore) -> None:
        """Vision layers, the Q-Former's layers and cross-attentions, and heads."""
        inject.inject(self.model, self.base_heads(), store)

    def vision_layers(self) -> list[nn.Module]:
        """The ViT's."""
        return list(self.model.vision_model.encoder.layers)

    def transformer_stacks(self) -> Iterable[nn.Module]:
        """The ViT's layers alone: transformers keeps the Q-Former in float32 where the rest is in half precision."""
        layers: nn.Module = self.model.vision_model.encoder.layers
        return [layers]

    def checkpoint_vision(self) -> None:
        """By transformers' own switch."""
        self.model.vision_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def encode_visual(self, frames: Tensor, chunk: int = 0, stem: Any = None) -> Visuals:
        """Several features a row, one a query; a video's are the means over its frames."""
        return encoding.encode_visual(self.model, frames, chunk)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Texts:
        """The Q-Former's text path, packed, without padding; the first token is projected."""
        return encoding.encode_text(self.model, ids, mask)

    def similarity(self, text: Tensor, visual: Tensor, frames: Tensor | None = None) -> Tensor:
        """The largest over the queries."""
        return encoding.similarity(text, visual)

    def begin_fusion(self, texts: Texts) -> FusionCache:
        """The first layer, as far as it has seen no picture."""
        return fusion.begin_fusion(self.model, texts)

    def fuse(
        self, texts: Texts, visuals: Visuals, pairs: Tensor, read: Read = "all", cache: FusionCache | None = None
    ) -> Tensor:
        """The queries' states, [P, q, d], or the first query's, [P, d]; texts' own states are read by nobody."""
        states = fusion.fuse(self.model, texts, visuals, pairs, cache)
        return states[:, 0] if read == "first" else states

    def match(self, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None) -> Tensor:
        """The matching head's logits, averaged over the queries."""
        return fusion.match(self.model, texts, visuals, pairs, cache)
