"""Values checked wherever a config is made, from Python as from a file: ranges stand in the fields' annotations."""

from __future__ import annotations

import os
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, TypeAlias, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from uniadapter.errors import ConfigError
from uniadapter.files.messages import shortened
from uniadapter.files.schema import first_fault


def as_path(name: str) -> str:
    """A path with one's home in the place of `~`; ValueError for what no path can hold."""
    if "\0" in name:
        raise ValueError("no path has a null byte")
    return os.path.expanduser(name)


def _plain(value: Any) -> Any:
    """A `Path` as text and numpy's scalars as numbers, as Python's callers have them; all else as it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    scalar = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
    return value.item() if scalar else value


def _writable(name: str) -> str:
    name.encode()  # half an emoji raises UnicodeEncodeError, which is a ValueError
    return name


def _as_tuple(values: Any) -> Any:
    return tuple(values) if isinstance(values, list) else values


Text: TypeAlias = Annotated[str, Field(max_length=2000), AfterValidator(_writable)]
File: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=4000), AfterValidator(_writable), AfterValidator(as_path)
]  # `~` is one's home
Part: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Interval: TypeAlias = Annotated[tuple[Part, Part], BeforeValidator(_as_tuple)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=100_000_000)]


def check(config: Any, where: str) -> None:
    """Check every field of a config against its annotation, and put in the values as they are understood.

    A whole number does for a fraction, a list for a tuple, a `Path` for a text, numpy's scalars for numbers; nothing
    else is converted: true is no number, "1" is none either, and NaN and infinity are refused.

    Args:
        config: an instance of one of the config dataclasses, as its `__post_init__` finds it.
        where: what its keys start with in an error: "train".

    Raises:
        ConfigError: names the first field that is wrong, and what it may be.
    """
    kind: Any = type(config)
    values = {one.name: _plain(getattr(config, one.name)) for one in fields(kind)}
    try:
        found = _fields_of(kind).model_validate(values)
    except ValidationError as error:
        raise ConfigError(shortened(first_fault(error, kind, where))) from None
    for name in values:
        setattr(config, name, getattr(found, name))


def require(right: bool, message: str) -> None:
    """Raise `ConfigError` with a message, in one short line, unless something holds."""
    if not right:
        raise ConfigError(shortened(message))


@cache
def _fields_of(kind: Any) -> type[BaseModel]:
    hints = get_type_hints(kind, include_extras=True)
    # Under other names where pydantic keeps one for itself; `protected_namespaces` lets "model" be one of ours.
    rules = ConfigDict(strict=True, allow_inf_nan=False, protected_namespaces=(), arbitrary_types_allowed=False)
    wanted: dict[str, Any] = {one.name: (hints[one.name], ...) for one in fields(kind)}
    return create_model(f"{kind.__name__}Fields", __config__=rules, **wanted)
