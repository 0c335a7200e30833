"""Where the rows of a batch use different adapter sets: which set the visuals of pairs have, and what weighs frames."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.dispatch import adapter_store, backbone
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.store import store_of


def arranged(model: PreTrainedModel, index: Tensor | slice) -> AbstractContextManager[None]:
    """As `AdapterStore.rows`, of a model that may have no sets at all."""
    store = store_of(model)
    return nullcontext() if store is None else store.rows(index)


def rows_of_items(model: PreTrainedModel, items: Tensor, noun: str) -> AbstractContextManager[None]:
    """A block in which the rows are the distinct items of pairs, ascending, where they were the pairs before.

    Args:
        model: with adapter sets.
        items: the text or the visual of each pair, [P].
        noun: what they are, for the error.

    Raises:
        ValueError: an item stands in pairs of different sets.
    """
    store = adapter_store(model)
    return nullcontext() if store.mixed is None else store.rows(store.mixed.owners_of(items, noun))


def pair_weights(
    model: PreTrainedModel, texts: Texts, visuals: Visuals, text_rows: Tensor, visual_rows: Tensor
) -> Tensor | None:
    """The weights of frame-aware attention for pairs of these rows, [P, T]; None where it is off."""
    active = adapter_store(model).active
    if active is None:
        return None
    default = backbone(model).default_frame_temperature
    return active.frame_weights(texts.feature[text_rows], visuals.frames[visual_rows], default)
