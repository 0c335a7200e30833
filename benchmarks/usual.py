"""The usual way, as a peer: transformers' own BLIP layers, untouched, driven as BLIP's and UniAdapter's scripts do.

Adapters are attached by hooks with the same equations and the same weights. Features are repeated for every candidate,
texts are padded to 35, both directions are scored apart, and the momentum encoder is a full copy of the backbone.
Visual tokens have no padding, so the cross-attention mask that transformers loses does not matter here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval

from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.blip.fusion import enc_token_id
from uniadapter.model.frame_attention import frame_weights
from uniadapter.objectives.contrastive import FeatureQueue, contrastive_loss

LONGEST = 35


class Frames:
    """Frame-aware attention as the paper has it: each pair's patch keys, multiplied by their frame's weight."""

    factor: Tensor | None = None  # [P, T * N, 1]

    def weigh(self, text_feature: Tensor, frames: Tensor, patches: int) -> None:
        """Set the weights of the pairs to come: texts [P, e], frames [P, T, e], N tokens a frame."""
        weights = frame_weights(text_feature, frames)[..., None].expand(-1, -1, patches).clone()
        weights[..., 0] = 1  # CLS
        self.factor = weights.flatten(1)[..., None]

    def __call__(self, key: Tensor) -> Tensor:
        """Keys [P, T * N, d], weighed where they are those of frames."""
        return key if self.factor is None else key * self.factor


class _State:
    """What the hooks of one text layer hand to one another."""

    attended: Tensor | None = None
    crossed: Tensor | None = None


def attach(model: BlipForImageTextRetrieval, adapters: AdapterSet, frames: Frames | None = None) -> None:
    """Hook the set's equations onto transformers' own layers, heads included."""
    frames = frames or Frames()
    for index, layer in enumerate(model.vision_model.encoder.layers):
        _attach_vision(layer, adapters.adapter("vision", index, "vision"))
    for index, layer in enumerate(model.text_encoder.encoder.layer):
        _attach_text(layer, adapters, index, frames)
    for name, head in adapters.heads.items():
        setattr(model, name, head)


def _attach_vision(layer: nn.Module, adapter: nn.Module | None) -> None:
    if adapter is None:
        return
    seen: list[Tensor] = []
    layer.layer_norm2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    layer.mlp.register_forward_hook(lambda _, args, out: out + adapter(seen.pop(), "vision"))


def _attach_text(layer: nn.Module, adapters: AdapterSet, index: int, frames: Frames) -> None:
    state = _State()
    text, cross = adapters.adapter("encoder", index, "text"), adapters.adapter("encoder", index, "cross")

    def attended(_: nn.Module, args: tuple[Tensor, ...], out: tuple[Tensor, Tensor]) -> None:
        state.attended, state.crossed = out[0], None

    def crossed(_: nn.Module, args: tuple[Tensor, ...], out: tuple[Tensor, Tensor]) -> None:
        state.crossed = out[0]

    def finish(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        out = out + text(state.attended, "text")
        return out if state.crossed is None else out + cross(state.crossed, "cross")

    layer.attention.register_forward_hook(attended)
    layer.crossattention.register_forward_hook(crossed)
    layer.output.register_forward_hook(finish)
    if hasattr(adapters, "key"):
        attention = layer.crossattention.self
        attention.key.register_forward_hook(lambda _, args, out: frames(out + adapters.key(args[0])))
        attention.value.register_forward_hook(lambda _, args, out: out + adapters.value(args[0]))


def attach_strong(model: BlipForImageTextRetrieval, frames: Frames) -> None:
    """The same weights on the keys of layers that use SDPA."""

    def weighed(inner: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
        def keys_values(states: Tensor, *deltas: Tensor | None) -> tuple[Tensor, Tensor]:
            key, value = inner(states, *deltas)
            return key if frames.factor is None else key * frames.factor[:, None].to(key.dtype), value

        return keys_values

    for layer in model.text_encoder.encoder.layer:
        layer.crossattention.self.keys_values = weighed(layer.crossattention.self.keys_values)


@dataclass
class Usual:
    """A hooked model and what its scripts compute with it.

    Args:
        model: transformers' BLIP with hooks; for the strong peer re-typed to SDPA, with an adapter.
        cut: cut padding to the batch's longest text.
        frames: of videos, what weighs their keys; None for pictures.
    """

    model: BlipForImageTextRetrieval
    cut: bool = False
    frames: Frames | None = None

    def visual(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, N, d] and unit features [B, e] of pictures [B, 3, H, W]."""
        states = self.model.vision_model(pixel_values=pixels).last_hidden_state
        return states, F.normalize(self.model.vision_proj(states[:, 0]), dim=-1)

    def video(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States [B, T * N, d], unit features [B, e] and those of the frames [B, T, e] of videos [B, T, 3, H, W]."""
        states = self.model.vision_model(pixel_values=pixels.flatten(0, 1)).last_hidden_state
        states = states.unflatten(0, pixels.shape[:2])
        cls = states[:, :, 0]
        frames = F.normalize(self.model.vision_proj(cls), dim=-1)
        return states.flatten(1, 2), F.normalize(self.model.vision_proj(cls.mean(1)), dim=-1), frames

    def text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit features [S, e]."""
        ids, mask = self._cut(ids, mask)
        states = self.model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return F.normalize(self.model.text_proj(states[:, 0]), dim=-1)

    def match(self, ids: Tensor, mask: Tensor, states: Tensor) -> Tensor:
        """Matching logits [P, 2] of texts against one state row each."""
        ids, mask = self._cut(ids, mask)
        ids = ids.clone()
        ids[:, 0] = enc_token_id(self.model)
        seen = torch.ones(states.shape[:2], dtype=torch.long)
        fused = self.model.text_encoder(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=states, encoder_attention_mask=seen
        )
        return self.model.itm_head(fused.last_hidden_state[:, 0])

    def _cut(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        longest = int(mask.sum(1).max()) if self.cut else mask.shape[1]
        return ids[:, :longest], mask[:, :longest]

    @torch.no_grad()
    def rerank(self, ids: Tensor, mask: Tensor, states: Tensor, itc: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Candidates' scores text by text [S, V] and picture by picture [V, S]; NaN where a pair was no candidate."""
        by_text, by_visual = torch.full_like(itc, torch.nan), torch.full_like(itc.T, torch.nan)
        for row, similarity in enumerate(itc):
            top = similarity.topk(min(k, itc.shape[1])).indices
            repeated = (len(top), 1)
            by_text[row, top] = self.match(ids[row].repeat(repeated), mask[row].repeat(repeated), states[top])[:, 1]
        for row, similarity in enumerate(itc.T):
            top = similarity.topk(min(k, itc.shape[0])).indices
            by_visual[row, top] = self.match(ids[top], mask[top], states[row].repeat(len(top), 1, 1))[:, 1]
        return by_text, by_visual


def training_loss(
    online: Usual, momentum: Usual, queue: FeatureQueue, pixels: Tensor, ids: Tensor, mask: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """ITC and ITM of two visuals [2, T, 3, H, W], whose hard negatives are each other: no draw to differ by."""
    encoded = online.video(pixels)
    text = online.text(ids, mask)
    with torch.no_grad():
        for slow, fast in zip(momentum.model.parameters(), online.model.parameters(), strict=True):
            slow.mul_(0.995).add_(fast, alpha=0.005)
        _, slow_visual, _ = momentum.video(pixels)
        slow_text = momentum.text(ids, mask)
    return pair_losses(online, encoded, text, (slow_visual, slow_text), queue, ids, mask, alpha)


def pair_losses(
    online: Usual,
    encoded: tuple[Tensor, Tensor, Tensor],
    text: Tensor,
    slow: tuple[Tensor, Tensor],
    queue: FeatureQueue,
    ids: Tensor,
    mask: Tensor,
    alpha: float,
) -> tuple[Tensor, Tensor]:
    """ITC and ITM of what `video` and `text` gave, and of the momentum encoder's features of visuals and texts."""
    states, visual, frames = encoded
    own = torch.arange(len(ids))
    itc = contrastive_loss(visual, text, *slow, queue, own, 0.07, alpha)
    other = own.flip(0)
    patches = states.shape[1] // frames.shape[1]
    if online.frames is not None:
        online.frames.weigh(text, frames, patches)
    positive = online.match(ids, mask, states)
    if online.frames is not None:
        online.frames.weigh(torch.cat([text, text[other]]), torch.cat([frames[other], frames]), patches)
    negative = online.match(
        torch.cat([ids, ids[other]]), torch.cat([mask, mask[other]]), torch.cat([states[other], states])
    )
    labels = torch.cat([torch.ones(len(ids)), torch.zeros(2 * len(ids))]).long()
    return itc, F.cross_entropy(torch.cat([positive, negative]), labels)
