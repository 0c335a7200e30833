"""The argument `adapter` of one call whose rows use different sets: names, and the settings that they must agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.mixed_sets import first_pairs
from uniadapter.model.sets import active_settings
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings
from uniadapter.model.store import store_of

T = TypeVar("T")
Adapter = str | Sequence[str | None] | None  # one set for all rows, or one for each; None takes what is active


def names_of_rows(model: PreTrainedModel, adapter: Adapter, count: int, noun: str) -> list[str | None] | None:
    """The name of each row's set; None where all rows use one set, or there are none.

    Args:
        model: holds the sets.
        adapter: the caller's argument.
        count: number of rows.
        noun: what the rows are, for the error.

    Raises:
        ValueError: there is another number of names than of rows.
    """
    if isinstance(adapter, str):
        return None
    store = store_of(model)
    mixed = store.mixed if adapter is None and store is not None else None
    names = list(adapter) if adapter is not None else mixed.row_names if mixed is not None else None
    if names is not None and len(names) != count:
        raise ValueError(f"adapter names {len(names)} sets for {count} {noun}: name one for each, or one for all")
    return names or None


def settings_of_rows(
    model: PreTrainedModel, adapter: Adapter, names: list[str | None] | None
) -> list[InferenceSettings]:
    """The settings of each row's set; of one where all rows use the same."""
    if names is None:
        return [active_settings(model, adapter) if isinstance(adapter, str) or adapter is None else NO_SETTINGS]
    return [NO_SETTINGS if name is None else active_settings(model, name) for name in names]


def agreed(names: list[str | None] | None, what: str, found: Sequence[T]) -> T:
    """What all rows of a batch must have alike.

    Args:
        names: of the rows' sets; None where all use one.
        what: name of the argument by which a caller states it for all.
        found: of each row, or of all.

    Raises:
        ValueError: two sets differ in it; names them.
    """
    other = next((row for row, one in enumerate(found) if one != found[0]), None)
    if other is not None and names is not None:
        one, two = (names[row] or "the base" for row in (0, other))
        raise ValueError(
            f"{what} is {found[0]} for {one} and {found[other]} for {two}, which one batch cannot be: pass {what}=, or "
            "call once for each"
        )
    return found[0]


def names_of_items(items: Tensor, names: Sequence[str | None], count: int, noun: str) -> list[str | None]:
    """The name of each item's set, as its pairs have it; None for one that is in no pair.

    Args:
        items: the item of each pair, [P].
        names: of the pairs' sets.
        count: number of items.
        noun: what they are, for the error.

    Raises:
        ValueError: an item is in pairs of different sets.
    """
    first = first_pairs(items.tolist(), names, noun)
    return [names[first[item]] if item in first else None for item in range(count)]
