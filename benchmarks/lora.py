"""PEFT's LoRA on transformers' own BLIP, with the same losses, queue and momentum (an EMA of its LoRA weights)."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval
from usual import Usual, pair_losses

from uniadapter.objectives.contrastive import FeatureQueue

RANK = 37  # 4.99 M parameters at BLIP-base size, as many as the adapters with heads
TARGETS = r".*(self_attn\.(qkv|projection)|(attention|crossattention)\.self\.(query|value))"


class LoraPeer(nn.Module):
    """A BLIP with two LoRA adapters, the second the first's slow copy.

    Args:
        model: transformers' retrieval model, frozen.
        queue: momentum features kept.
    """

    def __init__(self, model: BlipForImageTextRetrieval, queue: int) -> None:
        super().__init__()
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, init_lora_weights="gaussian")
        self.peft = get_peft_model(model, config)
        self.peft.add_adapter("momentum", config)
        self.peft.set_adapter("default")
        for name, parameter in self.peft.named_parameters():
            parameter.requires_grad_(".default." in name)
        self.peer = Usual(model, cut=True)
        self.queue = FeatureQueue(queue, model.config.image_text_hidden_size)
        named = dict(self.peft.named_parameters())
        self.twins = [(named[n.replace(".default.", ".momentum.")], p) for n, p in named.items() if ".default." in n]

    def losses(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """ITC and ITM of visuals [2, T, 3, H, W], whose hard negatives are each other."""
        encoded, text = self.peer.video(pixels), self.peer.text(ids, mask)
        with torch.no_grad():
            for slow, fast in self.twins:
                slow.mul_(0.995).add_(fast, alpha=0.005)
            self._select("momentum")
            slow_features = self.peer.video(pixels)[1], self.peer.text(ids, mask)
            self._select("default")
        return pair_losses(self.peer, encoded, text, slow_features, self.queue, ids, mask, 0.4)

    def _select(self, name: str) -> None:
        """Switch the adapter; PEFT sets gradients by it, and they are to stay on the first one's weights."""
        self.peft.set_adapter(name)
        for slow, fast in self.twins:
            slow.requires_grad_(False)
            fast.requires_grad_(True)
