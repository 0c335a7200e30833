"""Validation of config dataclasses, whether created in Python or from a file; annotations hold the ranges."""

from __future__ import annotations

import os
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, TypeAlias, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from uniadapter.errors import ConfigError
from uniadapter.files.messages import shortened
from uniadapter.files.schema import first_error


def expand_path(name: str) -> str:
    """A path with `~` expanded.

    Raises:
        ValueError: it has a null byte.
    """
    if "\0" in name:
        raise ValueError("no path has a null byte")
    return os.path.expanduser(name)


def _to_plain(value: Any) -> Any:
    """`Path` objects as strings and numpy's scalars as numbers; other values unchanged."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dict):
        return {key: _to_plain(inner) for key, inner in value.items()}
    scalar = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
    return value.item() if scalar else value


def _writable(name: str) -> str:
    name.encode()  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
    return name


def _as_tuple(values: Any) -> Any:
    return tuple(values) if isinstance(values, list) else values


Text: TypeAlias = Annotated[str, Field(max_length=2000), AfterValidator(_writable)]
File: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=4000), AfterValidator(_writable), AfterValidator(expand_path)
]  # `~` is expanded
Fraction: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Interval: TypeAlias = Annotated[tuple[Fraction, Fraction], BeforeValidator(_as_tuple)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=100_000_000)]


def validate_fields(config: Any, where: str) -> None:
    """Validate every field of a config against its annotation, and store the converted values.

    Integers are accepted for floats, lists for tuples, `Path` objects for strings and numpy's scalars for numbers.
    Nothing else is converted: `True` and "1" are not numbers, and NaN and infinity are rejected.

    Args:
        config: an instance of one of the config dataclasses, in its `__post_init__`.
        where: prefix of its keys in errors: "train".

    Raises:
        ConfigError: names the first invalid field and its allowed values.
    """
    kind: Any = type(config)
    values = {one.name: _to_plain(getattr(config, one.name)) for one in fields(kind)}
    try:
        found = _fields_of(kind).model_validate(values)
    except ValidationError as error:
        raise ConfigError(shortened(first_error(error, kind, where))) from None
    for name in values:
        setattr(config, name, getattr(found, name))


def require(right: bool, message: str) -> None:
    """Raise `ConfigError` with a message, shortened to one line, unless `right` is true."""
    if not right:
        raise ConfigError(shortened(message))


@cache
def _fields_of(kind: Any) -> type[BaseModel]:
    hints = get_type_hints(kind, include_extras=True)
    # Empty `protected_namespaces` allow a field called "model", which pydantic reserves otherwise.
    rules = ConfigDict(strict=True, allow_inf_nan=False, protected_namespaces=(), arbitrary_types_allowed=False)
    wanted: dict[str, Any] = {one.name: (hints[one.name], ...) for one in fields(kind)}
    return create_model(f"{kind.__name__}Fields", __config__=rules, **wanted)
