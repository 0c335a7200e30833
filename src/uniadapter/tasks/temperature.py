"""The temperature of the contrastive loss, fixed or learned."""

from __future__ import annotations

import logging

import torch
from torch import nn
from transformers import PreTrainedModel

from uniadapter.config import ObjectiveConfig
from uniadapter.model.sets import adapter_set

logger = logging.getLogger(__name__)


def contrastive_temperature(model: PreTrainedModel, adapter: str | None, objective: ObjectiveConfig) -> nn.Parameter:
    """The temperature of the contrastive loss; a learned one is a parameter of the adapter set, and saved with it.

    If the set has learned one before, that is used, whether it is trained further or not.
    """
    built = None if adapter is None else adapter_set(model, adapter)
    if built is None or not (objective.train_temperature or built.temperature is not None):
        return nn.Parameter(torch.tensor(objective.temperature), objective.train_temperature)
    learnt = built.temperature is not None
    temperature = built.learn_temperature(objective.temperature)
    temperature.requires_grad_(objective.train_temperature)
    if learnt and abs(float(temperature.detach()) - objective.temperature) > 1e-6:
        logger.info("the temperature is the adapter's own, %.4f", float(temperature.detach()))
    return temperature
