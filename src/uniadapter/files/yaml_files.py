"""Reading and writing of YAML by the rules of YAML 1.2, with limits on size and depth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from uniadapter.files.schema import MAX_LEVELS, MAX_NODES, SchemaError, check_shape


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
    """The content of a YAML document of plain values, by the rules of YAML 1.2: 1e-5 is a number, "no" is a string.

    Args:
        text: the document.
        where: its file, for errors.

    Raises:
        SchemaError: it is not YAML, repeats a key, nests too deep, or expands to more than a million values.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
        check_shape(content, MAX_NODES)
    except RecursionError:
        raise SchemaError(f"{where}: nests deeper than {MAX_LEVELS} levels") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SchemaError(f"{where}: not YAML ({error})") from None
    except (MemoryError, OverflowError) as error:
        raise SchemaError(f"{where}: holds a value that cannot be represented ({error})") from None
    return content


def write_yaml(content: Any) -> str:
    """Plain values as YAML that parses to the same values by YAML 1.1 and 1.2."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """A loader of YAML 1.2's plain values: no dates, base 60, yes/no or merge keys; repeated keys are errors."""

    # PyYAML's time grows with the square of the depth, so the limit must hold while it reads, not only afterwards.
    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        """Raise for brackets nested too deep."""
        if self.flow_level >= MAX_LEVELS:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        """Raise for blocks nested too deep."""
        if len(self.indents) > MAX_LEVELS:
            raise RecursionError
        return super().add_indent(column)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raise for a repeated key, of which PyYAML would silently keep the last."""
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
