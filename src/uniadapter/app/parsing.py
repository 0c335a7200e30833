"""Configs from YAML files and command lines; unknown keys are errors of one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from uniadapter.app.arguments import Parser, documented
from uniadapter.config import CompareConfig, ConfigError, RunConfig
from uniadapter.errors import UsageError
from uniadapter.files.assets import package_path
from uniadapter.files.messages import shortened, suggestion
from uniadapter.files.schema import SchemaError, validated
from uniadapter.files.yaml_files import parse_yaml, read_yaml, write_yaml

LARGEST = 100_000  # most bytes of a config file


@dataclass(frozen=True)
class Setting:
    """A field or section of a config as a command-line option.

    Args:
        key: path of the field, "train.lr".
        kind: its type: `float`, `str | None`, or a dataclass.
        default: of the field.
        help: its description in the dataclass's docstring.
    """

    key: str
    kind: Any
    default: Any
    help: str

    def read(self, text: str) -> Any:
        """Parse a value of the command line: strings as they are, all else as YAML."""
        if self.is_text:
            return None if text == "null" and type(None) in get_args(self.kind) else text
        value = parse_yaml(text, f"--{self.key}")
        words = {"yes": True, "on": True, "no": False, "off": False}
        return words.get(text.lower(), value) if self.kind is bool else value

    @property
    def is_text(self) -> bool:
        """Whether the field is a string, or one of several."""
        union = get_origin(self.kind) not in (None, dict, tuple) and str in get_args(self.kind)
        return union or self.kind is str or get_origin(self.kind) is Literal

    @property
    def metavar(self) -> str:
        """Placeholder of the value in the help."""
        if get_origin(self.kind) is Literal:
            return "{" + ",".join(map(str, get_args(self.kind))) + "}"
        kinds = [one for one in get_args(self.kind) or (self.kind,) if one is not type(None)]
        names = {int: "INT", float: "NUMBER", str: "TEXT", bool: "{true,false}"}
        several = {tuple: "[LOW, HIGH]", dict: "{NAME: FILE, …}"}
        return several.get(get_origin(self.kind)) or names.get(kinds[0], "YAML")


@cache
def all_settings() -> tuple[Setting, ...]:
    """Every section and field of a run's config."""
    return tuple(settings_of(RunConfig))


def settings_of(kind: type[Any], start: str = "") -> Iterator[Setting]:
    """Every section and field below a config dataclass, in order."""
    hints, explained = get_type_hints(kind), documented(kind)
    for one in fields(kind):
        key, inner = f"{start}{one.name}", hints[one.name]
        made = None if is_dataclass(inner) else one.default_factory  # sections show no default
        default = made() if made not in (None, MISSING) else one.default  # type: ignore[operator]
        yield Setting(key, inner, default, explained[one.name])
        if is_dataclass(inner):
            yield from settings_of(inner, f"{key}.")  # type: ignore[arg-type]


def config_path(name: str, folder: str = "configs") -> Path:
    """The file of a config, by its path or by the name of one in a folder of the package.

    Raises:
        UsageError: there is no such file and no such name.
    """
    path = Path(name).expanduser()
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise UsageError(f"{shortened(name, 120)} is a folder: name the file, {path / 'config.yaml'} say")
    except (OSError, ValueError):  # too long a name, say
        pass
    names = sorted(file.stem for file in package_path(folder).glob("*.yaml"))
    if name in names:
        return package_path(folder) / f"{name}.yaml"
    advice = suggestion(name.removesuffix(".yaml"), names)
    raise UsageError(f"{shortened(name, 60)}: no such file, and no config of that name comes with the package{advice}")


def parse_run(command: str, arguments: list[str], extra: Callable[[Parser], None]) -> tuple[RunConfig, Any]:
    """Parse a config from a file and options, and the command's own options.

    With `--print_config` the config is printed as YAML and the process exits.

    Args:
        command: "train" or "evaluate".
        arguments: of the command line, after the command.
        extra: adds the command's own options to the parser.

    Returns:
        The config, and the parsed options; their attribute `stated` is the set of keys that the file or an option
        states ("model.image_size").

    Raises:
        UsageError: an unknown key, a value out of its range, or a file that is no YAML; names the file and the key.
    """
    parser, known = _run_parser(command, extra), {setting.key: setting for setting in all_settings()}
    _add_entry_options(parser, known, arguments)
    joined = parser.joined(arguments)
    files = [one for one in joined if not one.startswith("-")]
    if len(files) > 1:
        raise UsageError(
            shortened(f"one config is read, not {' and '.join(files)}; --config FILE puts another over it")
        )
    chosen = parser.parse_args([*(f"--config={file}" for file in files), *(one for one in joined if one not in files)])
    values: dict[str, Any] = {}
    try:
        for key, text in chosen.given:
            if key == "config":
                file = config_path(text)
                loaded = _read_file(file)
                validated(loaded, RunConfig, str(file))  # validated separately, so that an error names the file
                _merge(values, "", loaded, known)
            else:
                _merge(values, key, known[key].read(text), known)
        config = validated(values, RunConfig, "")
    except SchemaError as error:
        raise UsageError(str(error)) from None
    if chosen.print_config:
        sys.stdout.write(write_yaml(config.to_dict()))
        raise SystemExit(0)
    chosen.stated = set(_keys(values))
    return config, chosen


def read_config(file: Path | str) -> RunConfig:
    """Read a config from a YAML file.

    Raises:
        UsageError: as for `parse_run`.
    """
    try:
        return validated(_read_file(Path(file)), RunConfig, str(file))
    except SchemaError as error:
        raise UsageError(str(error)) from None


def read_comparison(name: str) -> CompareConfig:
    """Read a comparison, by its file or by the name of one in the package.

    Raises:
        UsageError: there is none, or it is broken; names the file and the key.
    """
    file = config_path(name, "configs/compare")
    try:
        return validated(_read_file(file), CompareConfig, str(file))
    except (SchemaError, ConfigError) as error:
        raise UsageError(str(error)) from None


def _run_parser(command: str, extra: Callable[[Parser], None]) -> Parser:
    usage = f"uniadapter {command} CONFIG [--FIELD VALUE …]"
    parser = Parser(f"uniadapter {command} CONFIG", f"{command} as a config says", usage=usage)
    parser.add_argument("--config", action=_Append, metavar="FILE", help="the YAML file; it may also stand alone")
    parser.add_argument("--print_config", action="store_true", help="print the config as YAML, and do nothing else")
    parser.set_defaults(given=[])
    extra(parser)
    group: Any = parser.add_argument_group("fields of the config")
    for setting in all_settings():
        if is_dataclass(setting.kind):
            group = parser.add_argument_group(setting.key, setting.help)
            group.add_argument(f"--{setting.key}", action=_Append, metavar="YAML", help="several of its fields at once")
            continue
        default = write_yaml(setting.default).strip().removesuffix("...").strip()
        text = f"{setting.help} (default: {default})".replace("%", "%%")
        group.add_argument(f"--{setting.key}", action=_Append, metavar=setting.metavar, help=text)
    return parser


class _Append(argparse.Action):
    """Collects options in their order, since later ones override earlier ones."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.given = [*namespace.given, (str(option_string)[2:], values)]


def _add_entry_options(parser: Parser, known: dict[str, Setting], arguments: list[str]) -> None:
    """Add options for single entries of dict fields: `--data.extra_tests.novel FILE`."""
    for argument in arguments:
        key = argument[2:].partition("=")[0]
        field = known.get(key.rpartition(".")[0])
        if argument.startswith("--") and field and get_origin(field.kind) is dict and key not in known:
            known[key] = Setting(key, get_args(field.kind)[1], None, "")
            parser.add_argument(argument.partition("=")[0], action=_Append, help=argparse.SUPPRESS)


def _read_file(file: Path) -> dict[str, Any]:
    if file.stat().st_size > LARGEST:
        raise UsageError(f"{file}: {file.stat().st_size:,} bytes are too many for a config")
    loaded = read_yaml(file)
    if not isinstance(loaded, dict):
        raise UsageError(f"{file}: not a config, its top level has no keys")
    return loaded


def _keys(values: dict[str, Any], start: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{start}{key}.")
        yield f"{start}{key}"


def _merge(values: dict[str, Any], key: str, value: Any, known: dict[str, Setting]) -> None:
    """Set a value: sections are merged field by field, other values replaced."""
    section = not key or (key in known and is_dataclass(known[key].kind))
    if section and isinstance(value, dict):
        for name, inner in value.items():
            _merge(values, f"{key}.{name}" if key else str(name), inner, known)
        return
    if section:
        raise UsageError(f"--{key} is {shortened(repr(value), 60)}: it must be an object of its fields")
    *outer, name = key.split(".")
    for part in outer:
        values = values.setdefault(part, {})
    values[name] = value
