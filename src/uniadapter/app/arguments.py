"""The parser of command lines: options by their full names, errors in one line with suggestions."""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from uniadapter.errors import UsageError
from uniadapter.files.messages import did_you_mean, shortened

_MOST_RECORDS = 1_000_000  # of a shard


class _Help(argparse.HelpFormatter):
    """Does not break words at hyphens, so that the help can be searched."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage; options cannot be abbreviated."""

    def __init__(self, prog: str, description: str, **more: Any) -> None:
        super().__init__(prog, description=description, allow_abbrev=False, formatter_class=_Help, **more)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` with a message of one line."""
        raise UsageError(shortened(message))

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse arguments.

        Raises:
            UsageError: an option does not exist, lacks its value, or the value is invalid; suggests a similar one.
        """
        return super().parse_args(self.joined(list(args or [])), namespace)

    def joined(self, args: list[str]) -> list[str]:
        """Join options and their values, `--lr=-1e-5`, so that a value may start with a dash."""
        joined: list[str] = []
        while args:
            name = args.pop(0)
            if name == "--":
                return [*joined, name, *args]
            if not name.startswith("--"):
                joined.append(name)
                continue
            name, given, value = name.partition("=")
            action = self._option_string_actions.get(name)
            if action is None:
                raise UsageError(f"there is no option {shortened(name, 80)}{self._advice(name)}")
            if action.nargs == 0 or given:
                joined.append(f"{name}{given}{value}")
            elif not args or args[0].partition("=")[0] in self._option_string_actions:
                raise UsageError(f"{name} has no value: write {name} VALUE")
            else:
                joined.append(f"{name}={args.pop(0)}")
        return joined

    def _advice(self, name: str) -> str:
        known = [option for option in self._option_string_actions if option.startswith("--")]
        return did_you_mean(name, known) or f" (`{self.prog.split(' CONFIG')[0]} --help` lists them)"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = action.option_strings[0] if action.option_strings else action.dest
            choices = [str(one) for one in action.choices]
            advice = did_you_mean(str(value), choices)
            raise UsageError(shortened(f"{name} is {value!r}: it must be one of {', '.join(choices)}{advice}"))


def int_between(low: int, high: int) -> Callable[[str], int]:
    """The `type` of an option that takes integers from `low` to `high`."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[-+]?\d{1,20}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{shortened(text, 40)!r} is not a whole number from {low} to {high}")
        return int(text)

    return number


def shard_size(text: str) -> tuple[int, int]:
    """The `type` of a shard's size: most records, and most bytes, 0 for any; "1000" or "500MB"."""
    found = re.fullmatch(r"(\d{1,12})(?:([kMGT])i?B)?", text.strip())
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{shortened(text, 40)!r} is neither a number of records nor like 500MB")
    if found[2] is None:
        return int(found[1]), 0
    return _MOST_RECORDS, int(found[1]) * 1000 ** ("kMGT".index(found[2]) + 1)


def path_option(text: str) -> str:
    """The `type` of an option that takes a path; `~` is expanded, and URLs are errors."""
    from uniadapter.config.checks import expand_path

    if re.match(r"[a-z]+://", text):
        raise argparse.ArgumentTypeError(f"{shortened(text, 80)} is a URL: download it, and name the file")
    try:
        return expand_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def adapter_option(text: str) -> str:
    """The `type` of an option that names an adapter: a path, `embedded:NAME`, or an address to pull it from."""
    return text if "://" in text else path_option(text)


def documented(kind: type[Any]) -> dict[str, str]:
    """The description of each field of a dataclass, from "Args:" in its docstring."""
    explained = (inspect.getdoc(kind) or "").partition("Args:\n")[2]
    entries = re.split(r"^ {4}(\w+): ", explained, flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)}
