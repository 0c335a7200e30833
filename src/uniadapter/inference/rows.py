"""The argument `adapter` of one call whose rows use different sets: names, and the settings that they must agree on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor
from transformers import PreTrainedModel

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
    store = store_of(model)
    if isinstance(adapter, str):
        return None
    names = list(adapter) if adapter is not None else store.row_names if store is not None else None
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


def agreed(
    stated: Sequence[InferenceSettings],
    names: list[str | None] | None,
    what: str,
    value: Callable[[InferenceSettings], T],
) -> T:
    """A setting that all rows of a batch must have alike.

    Args:
        stated: of `settings_of_rows`.
        names: of the rows' sets.
        what: name of the argument by which a caller states it for all.
        value: of the setting, by a set's settings.

    Raises:
        ValueError: two sets differ in it; names them.
    """
    found = [value(one) for one in stated]
    other = next((row for row, one in enumerate(found) if one != found[0]), None)
    if other is not None and names is not None:
        one, two = (names[row] or "the base" for row in (0, other))
        raise ValueError(
            f"{what} is {found[0]} for {one} and {found[other]} for {two}, which one batch cannot be: pass {what}=, or "
            "call once for each"
        )
    return found[0]


def rows_by(values: Sequence[T]) -> dict[T, list[int]]:
    """The rows that have each value, in the order in which the values come first."""
    found: dict[T, list[int]] = {}
    for row, value in enumerate(values):
        found.setdefault(value, []).append(row)
    return found


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
    found: dict[int, str | None] = {}
    for item, name in zip(items.tolist(), names, strict=True):
        if found.setdefault(item, name) != name:
            one, two = (given or "the base" for given in (found[item], name))
            raise ValueError(f"{noun} {item} is in pairs of {one} and of {two}: give it once for each of them")
    return [found.get(item) for item in range(count)]
