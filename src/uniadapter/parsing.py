"""Configs from YAML files and command lines; whatever no field knows is an error of one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser

from uniadapter.assets import shipped
from uniadapter.config import RunConfig
from uniadapter.errors import ConfigError, UsageError


class Parser(ArgumentParser):
    """A parser with errors in one line instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
        """Raise `UsageError` with the message in one line."""
        lines = [line.strip() for line in str(message).splitlines() if line.strip()]
        raise UsageError("; ".join(lines))


def config_path(name: str) -> Path:
    """A config by path, or by the name of one that comes with the package."""
    path = Path(name)
    if path.is_file():
        return path
    beside = shipped("configs") / f"{name}.yaml"
    if beside.is_file():
        return beside
    names = ", ".join(sorted(p.stem for p in shipped("configs").glob("*.yaml")))
    raise UsageError(f"{name}: no such file, and no config of that name comes with the package (there is {names})")


def parse_run(command: str, arguments: list[str], extra: Callable[[ArgumentParser], None]) -> tuple[RunConfig, Any]:
    """The run's config from a file and overrides, and the command's own options.

    Raises:
        UsageError: an unknown key, a value of the wrong kind, or a file that is no YAML; names the file and the key.
    """
    parser = Parser(prog=f"uniadapter {command} CONFIG", description=f"{command} as a config says")
    parser.add_argument("--config", action=ActionConfigFile, help="the YAML file; it may stand first instead")
    extra(parser)
    parser.add_class_arguments(RunConfig)
    if arguments and not arguments[0].startswith("-"):
        file = config_path(arguments[0])
        _check_yaml(file)
        try:  # alone first, so that an error names the file
            parser.parse_args(["--config", str(file)])
        except UsageError as error:
            raise UsageError(f"{file}: {error}") from None
        arguments = ["--config", str(file), *arguments[1:]]
    namespace = parser.parse_args(arguments)
    try:
        made = parser.instantiate(namespace)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    values = {name: getattr(made, name) for name in RunConfig.__dataclass_fields__}
    return RunConfig(**values), made


def read_config(file: Path) -> RunConfig:
    """The run that a YAML file describes."""
    return parse_run("read", [str(file)], lambda parser: None)[0]


def _check_yaml(file: Path) -> None:
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(loaded, dict):
        raise UsageError(f"{file}: not a config, its top level has no keys")
