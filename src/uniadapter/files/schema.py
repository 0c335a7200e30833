"""Content of files checked against the dataclass it should be, before anything else looks at it.

JSON and YAML that parse may still be of any shape: lists for objects, floats for integers, null for a text, a
document of ten thousand levels, an alias that unfolds to gigabytes. Everything read from a file goes through
`read_json` or `read_yaml` and, where the project says what it should hold, through `checked`.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import re
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from uniadapter.files.messages import did_you_mean, shortened

T = TypeVar("T")

MAX_LEVELS = 100  # of nesting: no file of ours has ten
MAX_NODES = 1_000_000  # of a YAML document once its aliases are unfolded

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SchemaError(ValueError):
    """Content that is not what it should be: one line of at most 300 characters, naming the place."""

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


def whole_number(name: str, value: object, least: int | None = None) -> int:
    """A whole number of any kind, numpy's and torch's too, that a Python call was given.

    Raises:
        TypeError: it is none; names it.
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
        SchemaError: it is not JSON, has half a surrogate pair, or nests too deep.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8-sig"))
        _check_shape(content)
    except RecursionError:
        raise SchemaError(f"{file}: nests deeper than {MAX_LEVELS} levels") from None
    except ValueError as error:  # UnicodeDecodeError is one too
        raise SchemaError(f"{file}: not JSON ({error}); is it complete?") from None
    return content


def read_yaml(file: Path | str) -> Any:
    """The content of a YAML file in UTF-8; see `parse_yaml`.

    Raises:
        SchemaError: as there.
        OSError: it cannot be read.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SchemaError(f"{file}: not YAML ({error})") from None
    return parse_yaml(text, str(file))


def parse_yaml(text: str, where: str) -> Any:
    """The content of a YAML text, of plain values only, by YAML 1.2's rules: 1e-5 is a number, and "no" is a text.

    Raises:
        SchemaError: it is not YAML, says a key twice, nests too deep, or unfolds to more than a million values.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
        _check_shape(content, MAX_NODES)
    except RecursionError:
        raise SchemaError(f"{where}: nests deeper than {MAX_LEVELS} levels") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SchemaError(f"{where}: not YAML ({error})") from None
    except (MemoryError, OverflowError) as error:
        raise SchemaError(f"{where}: holds a value that cannot be represented ({error})") from None
    return content


def write_yaml(content: Any) -> str:
    """Plain values as YAML that `parse_yaml`, and YAML 1.1, read back as the same."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: no dates, no base 60, no yes and no, no merging of keys; a key stands once."""

    # The reader's time grows with the square of the levels, so that it must not come to the end of ten thousand.
    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        """Raise for brackets in too many brackets."""
        if self.flow_level >= MAX_LEVELS:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        """Raise for blocks in too many blocks."""
        if len(self.indents) > MAX_LEVELS:
            raise RecursionError
        return super().add_indent(column)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raise for a key that stands twice, where YAML's reader would keep the last."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(getattr(key, "value", None) if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern, _starts in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?\d+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
     list("-+.0123456789")),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), _starts)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))


def checked(values: object, kind: type[T], where: str) -> T:
    """Plain values as a dataclass (or any type that pydantic knows), strictly: no coercion, no unknown key.

    Args:
        values: as a file or a caller gave them.
        kind: what they should be; ranges stand in its annotations (`Annotated[int, Field(ge=1)]`).
        where: what is being read, for the error: "adapter/uniadapter_config.json", say; "" for a command line.

    Returns:
        An instance of `kind`.

    Raises:
        SchemaError: names the key and says what it should be.
    """
    start = f"{where}: " if where else ""
    try:
        # In JSON's mode strictness is of the kind meant here: an object for a dataclass, a list for a tuple, but no
        # text for a number; in Python's own it would ask for instances.
        return cast(T, _adapter_of(cast(Any, kind)).validate_json(json.dumps(values)))
    except (TypeError, RecursionError) as error:
        raise SchemaError(f"{start}holds a value that JSON cannot hold ({error})") from None
    except ValidationError as error:
        raise SchemaError(f"{start}{_half_a_pair(values) or first_fault(error, kind)}") from None


def _half_a_pair(values: object, key: str = "") -> str:
    """Where a text holds half of a surrogate pair, which JSON can escape but no encoding knows; "" if none does."""
    if isinstance(values, str):
        try:
            values.encode()
        except UnicodeEncodeError:
            return f"{shortened(key, 80) or 'its content'} is {_shown(values)}: half of a surrogate pair is no text"
    items: Iterable[tuple[object, object]] = ()
    if isinstance(values, dict):
        items = [*((name, name) for name in values), *values.items()]
    elif isinstance(values, list):
        items = enumerate(values)
    found = (_half_a_pair(value, f"{key}.{name}" if key else str(name)) for name, value in items)
    return next((where for where in found if where), "")


def first_fault(error: ValidationError, kind: Any = None, within: str = "") -> str:
    """The first thing that is wrong, in words: "train.epochs is 0: it must be at least 1".

    Args:
        error: pydantic's.
        kind: the dataclass that was wanted; an unknown key is then answered by the most similar known one.
        within: what the keys start with: "train".
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
    return f"{key} is {given}: {_wanted(sort, fault)}{more}"


_WANTED = {
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
    "string_type": "a text",
    "string_unicode": "a text of whole characters",
    "list_type": "a list",
    "dict_type": "an object of keys and values",
    "dataclass_type": "an object of keys and values",
    "dataclass_exact_type": "a {class_name}",
    "string_too_short": "at least {min_length} character long",
    "string_too_long": "at most {max_length} characters long",
    "tuple_type": "a list",
    "none_required": "null",
}


def _wanted(sort: str, fault: Any) -> str:
    """What a value must be, in words."""
    context = {key: f"{value:g}" if isinstance(value, float) else value for key, value in fault.get("ctx", {}).items()}
    if sort == "literal_error":
        choices = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        return f"it must be one of {', '.join(choices)}{did_you_mean(str(fault['input']), choices)}"
    if sort in _WANTED:
        return f"it must be {_WANTED[sort].format(**context)}"
    return f"{fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _shown(value: object) -> str:
    """A value as it stands in a file, cut to what is read."""
    names: dict[object, str] = {None: "null", True: "true", False: "false"}
    return names[value] if value is None or isinstance(value, bool) else shortened(repr(value), 60)


def _kind_at(kind: Any, place: Sequence[Any]) -> Any:
    """The type of the field that a path of keys leads to; None where it leads nowhere that is known."""
    for part in place:
        if not is_dataclass(kind):
            return None
        kind = get_type_hints(kind).get(part)
    return kind


def _keys(kind: Any, place: Sequence[Any]) -> list[str]:
    """The names of the fields of the dataclass that a path of keys leads to."""
    found = _kind_at(kind, place)
    return [one.name for one in fields(found)] if is_dataclass(found) else []


@functools.cache
def _adapter_of(kind: Any) -> TypeAdapter[Any]:
    if hasattr(kind, "__dataclass_fields__") and not hasattr(kind, "__pydantic_config__"):
        kind.__pydantic_config__ = _STRICT  # how pydantic is told of a plain dataclass
        return TypeAdapter(kind)
    return TypeAdapter(kind, config=None if hasattr(kind, "__pydantic_config__") else _STRICT)


def _check_shape(content: object, most: float = math.inf) -> None:
    """Raise for what nests too deep or holds more values than `most`, aliases unfolded; without recursing."""
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
