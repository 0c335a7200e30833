"""Reading of JSON with a limit on depth, and validation of plain values against dataclasses.

A file that parses may still hold anything: a list for an object, a float for an integer, null for a string, thousands
of levels of nesting, an alias that expands to gigabytes. All files are read by `read_json` or `yaml_files.read_yaml`;
where their content has a fixed schema, it is then checked by `validated`.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from uniadapter.files.messages import did_you_mean, shortened

T = TypeVar("T")

MAX_LEVELS = 100  # of nesting; this package's own files have fewer than ten
MAX_NODES = 1_000_000  # values of a YAML document once its aliases are expanded

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SchemaError(ValueError):
    """Invalid content of a file; the message is one line of at most 300 characters that names the key."""

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


def as_int(name: str, value: object, least: int | None = None) -> int:
    """An argument as a Python int; numpy's and torch's integers are accepted.

    Args:
        name: of the argument, for errors.
        value: what was passed.
        least: the smallest allowed number; None allows any.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is less than `least`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        shown = shortened(reprlib.repr(value), 80)
        raise TypeError(f"{name} is {shown} ({type(value).__name__}): it must be a whole number") from None
    if least is not None and number < least:
        raise ValueError(f"{name} is {shortened(str(number), 40)}: it must be at least {least}")
    return number


def read_json(file: Path | str) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        SchemaError: it is not JSON, or nests too deep.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8-sig"))
        check_shape(content)
    except RecursionError:
        raise SchemaError(f"{file}: nests deeper than {MAX_LEVELS} levels") from None
    except ValueError as error:  # UnicodeDecodeError is one too
        raise SchemaError(f"{file}: not JSON ({error}); is it complete?") from None
    return content


def validated(values: object, kind: type[T], where: str) -> T:
    """Validate plain values as a dataclass (or any type that pydantic knows): no coercion, no unknown key.

    Args:
        values: from a file or a caller.
        kind: the expected type; its annotations give the ranges (`Annotated[int, Field(ge=1)]`).
        where: the source, for errors: "adapter/uniadapter_config.json"; "" for a command line.

    Returns:
        An instance of `kind`.

    Raises:
        SchemaError: names the key and says what it should be.
    """
    start = f"{where}: " if where else ""
    try:
        # Pydantic's strict JSON mode takes an object for a dataclass and a list for a tuple, but no string for a
        # number. Its strict Python mode would require instances.
        return cast(T, _type_adapter(cast(Any, kind)).validate_json(json.dumps(values)))
    except (TypeError, RecursionError) as error:
        raise SchemaError(f"{start}holds a value that JSON cannot hold ({error})") from None
    except ValidationError as error:
        raise SchemaError(f"{start}{_lone_surrogate(values) or first_error(error, kind)}") from None


def _lone_surrogate(values: object, key: str = "") -> str:
    """The key of a string with a lone surrogate, which JSON can escape but UTF-8 cannot encode; "" if there is none."""
    if isinstance(values, str):
        try:
            values.encode()
        except UnicodeEncodeError:
            return f"{shortened(key, 80) or 'its content'} is {_shown(values)}: a lone surrogate is not valid text"
    items: Iterable[tuple[object, object]] = ()
    if isinstance(values, dict):
        items = [*((name, name) for name in values), *values.items()]
    elif isinstance(values, list):
        items = enumerate(values)
    found = (_lone_surrogate(value, f"{key}.{name}" if key else str(name)) for name, value in items)
    return next((where for where in found if where), "")


def first_error(error: ValidationError, kind: Any = None, within: str = "") -> str:
    """The first validation error as text: "train.epochs is 0: it must be at least 1".

    Args:
        error: pydantic's.
        kind: the expected dataclass, from which a similar key is suggested for an unknown one.
        within: prefix of the keys: "train".
    """
    faults = error.errors(include_url=False)
    fault = faults[0]
    start = [within] if within else []
    key = shortened(".".join(str(part) for part in [*start, *fault["loc"]]), 80) or "its content"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    sort, given = fault["type"], _shown(fault["input"])
    if sort in ("extra_forbidden", "unexpected_keyword_argument"):
        known = [".".join(map(str, [*start, *fault["loc"][:-1], name])) for name in _keys(kind, fault["loc"][:-1])]
        return f"unknown key {key!r}{did_you_mean(key, known)}{more}"
    if sort in ("missing", "missing_argument"):
        return f"{key} is missing{more}" if isinstance(fault["loc"][-1], int) else f"no key {key!r}{more}"
    if sort == "value_error":  # of a dataclass's own check, which names its keys itself, or of a single value's
        said = fault["msg"].removeprefix("Value error, ")
        return f"{said}{more}" if is_dataclass(_kind_at(kind, fault["loc"])) else f"{key} is {given}: {said}{more}"
    return f"{key} is {given}: {_expectation(sort, fault)}{more}"


_EXPECTED = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "string_unicode": "a string of valid characters",
    "list_type": "a list",
    "dict_type": "an object of keys and values",
    "dataclass_type": "an object of keys and values",
    "dataclass_exact_type": "a {class_name}",
    "string_too_short": "at least {min_length} character long",
    "string_too_long": "at most {max_length} characters long",
    "tuple_type": "a list",
    "none_required": "null",
}


def _expectation(sort: str, fault: Any) -> str:
    """What a value must be, as text."""
    context = {key: f"{value:g}" if isinstance(value, float) else value for key, value in fault.get("ctx", {}).items()}
    if sort == "literal_error":
        choices = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        return f"it must be one of {', '.join(choices)}{did_you_mean(str(fault['input']), choices)}"
    if sort in _EXPECTED:
        return f"it must be {_EXPECTED[sort].format(**context)}"
    return f"{fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _shown(value: object) -> str:
    """A value as written in a file, shortened."""
    names: dict[object, str] = {None: "null", True: "true", False: "false"}
    return names[value] if value is None or isinstance(value, bool) else shortened(repr(value), 60)


def _kind_at(kind: Any, place: Sequence[Any]) -> Any:
    """The type of the field at a path of keys; None if there is no such field."""
    for part in place:
        if not is_dataclass(kind):
            return None
        kind = get_type_hints(kind).get(part)
    return kind


def _keys(kind: Any, place: Sequence[Any]) -> list[str]:
    """The field names of the dataclass at a path of keys."""
    found = _kind_at(kind, place)
    return [one.name for one in fields(found)] if is_dataclass(found) else []


@functools.cache
def _type_adapter(kind: Any) -> TypeAdapter[Any]:
    if hasattr(kind, "__dataclass_fields__") and not hasattr(kind, "__pydantic_config__"):
        kind.__pydantic_config__ = _STRICT  # pydantic's way to configure a standard dataclass
        return TypeAdapter(kind)
    return TypeAdapter(kind, config=None if hasattr(kind, "__pydantic_config__") else _STRICT)


def check_shape(content: object, most: float = math.inf) -> None:
    """Check the depth and size of a file's content, with aliases expanded.

    Raises:
        RecursionError: it nests deeper than `MAX_LEVELS`.
        ValueError: it holds more than `most` values.
    """
    waiting: list[tuple[object, int]] = [(content, 1)]
    nodes = 0
    while waiting:
        value, level = waiting.pop()
        if not isinstance(value, (dict, list)):
            continue
        if level > MAX_LEVELS:
            raise RecursionError
        inner = value.values() if isinstance(value, dict) else value
        nodes += len(inner)
        if nodes > most:
            raise ValueError(f"it holds more than {MAX_NODES:,} values once its aliases are unfolded")
        waiting.extend((one, level + 1) for one in inner if isinstance(one, (dict, list)))
