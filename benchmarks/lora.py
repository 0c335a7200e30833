"""PEFT's LoRA on transformers' own BLIP, with the same losses, queue and momentum (an EMA of its LoRA weights)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval

from uniadapter.backbone import enc_token_id
from uniadapter.objectives.contrastive import FeatureQueue, contrastive_loss

RANK = 37  # 4.99 M parameters at BLIP-base size, as many as the adapters with heads
TARGETS = r".*(self_attn\.(qkv|projection)|(attention|crossattention)\.self\.(query|value))"


class LoraPeer(nn.Module):
    """A BLIP with two LoRA adapters, the second the first's slow copy.

    Args:
        model: transformers' retrieval model, frozen.
        frames: of a visual; their tokens are put behind one another, their features averaged.
        queue: momentum features kept.
    """

    def __init__(self, model: BlipForImageTextRetrieval, frames: int, queue: int) -> None:
        super().__init__()
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, init_lora_weights="gaussian")
        self.peft = get_peft_model(model, config)
        self.peft.add_adapter("momentum", config)
        self.peft.set_adapter("default")
        for name, parameter in self.peft.named_parameters():
            parameter.requires_grad_(".default." in name)
        self.model, self.frames = model, frames
        self.queue = FeatureQueue(queue, model.config.image_text_hidden_size)
        named = dict(self.peft.named_parameters())
        self.twins = [(named[n.replace(".default.", ".momentum.")], p) for n, p in named.items() if ".default." in n]

    def _visual(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        states = self.model.vision_model(pixel_values=pixels.flatten(0, 1)).last_hidden_state
        cls = states[:, 0].unflatten(0, (-1, self.frames))
        feature = F.normalize(self.model.vision_proj(cls), dim=-1).mean(1)
        return states.unflatten(0, (-1, self.frames)).flatten(1, 2), F.normalize(feature, dim=-1)

    def _text(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return F.normalize(self.model.text_proj(states[:, 0]), dim=-1)

    def _match(self, ids: Tensor, mask: Tensor, states: Tensor) -> Tensor:
        ids = ids.clone()
        ids[:, 0] = enc_token_id(self.model)
        fused = self.model.text_encoder(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=states,
            encoder_attention_mask=torch.ones(states.shape[:2], dtype=torch.long),
        )  # fmt: skip
        return self.model.itm_head(fused.last_hidden_state[:, 0])

    def losses(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """ITC and ITM of a batch of two, whose hard negatives are each other."""
        longest = int(mask.sum(1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
        states, visual = self._visual(pixels)
        text = self._text(ids, mask)
        with torch.no_grad():
            for slow, fast in self.twins:
                slow.mul_(0.995).add_(fast, alpha=0.005)
            self._select("momentum")
            _, slow_visual = self._visual(pixels)
            slow_text = self._text(ids, mask)
            self._select("default")
        own = torch.arange(len(ids))
        itc = contrastive_loss(visual, text, slow_visual, slow_text, self.queue, own, 0.07, 0.4)
        other = own.flip(0)
        positive = self._match(ids, mask, states)
        negative = self._match(
            torch.cat([ids, ids[other]]), torch.cat([mask, mask[other]]), torch.cat([states[other], states])
        )
        labels = torch.cat([torch.ones(len(ids)), torch.zeros(2 * len(ids))]).long()
        return itc, F.cross_entropy(torch.cat([positive, negative]), labels)

    def _select(self, name: str) -> None:
        """Switch the adapter; PEFT sets gradients by it, and they are to stay on the first one's weights."""
        self.peft.set_adapter(name)
        for slow, fast in self.twins:
            slow.requires_grad_(False)
            fast.requires_grad_(True)
