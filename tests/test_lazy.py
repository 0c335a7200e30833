"""What a person waits for: nothing that only says how a command is called imports torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import uniadapter

HEAVY = {"torch", "transformers", "accelerate", "numpy", "PIL", "av", "matplotlib", "safetensors"}


def test_public_names_are_one_list() -> None:
    """The names for type checkers, those found at run time and `__all__` are the same, and each is there."""
    tree = ast.parse(Path(uniadapter.__file__).read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    stated = {alias.name: node.module for node in imports for alias in node.names}
    assert stated == {name: f"uniadapter.{home}" for name, home in uniadapter._MODULE_OF.items()}
    assert set(uniadapter.__all__) == set(stated)
    assert set(uniadapter.__all__) <= set(dir(uniadapter))
    for name in uniadapter.__all__:
        assert getattr(uniadapter, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        uniadapter.nothing_of_ours  # noqa: B018


def test_help_of_every_command_imports_nothing_heavy() -> None:
    """In one process of its own, and so for the list of verbs, what is misspelt, and `import uniadapter`."""
    script = """
import sys, time
import uniadapter
from uniadapter.app.cli import COMMANDS, main
for command in [["--help"], ["--version"], ["trian"], ["train", "scenes", "--train.lrr", "1"],
                *([name, "--help"] for name in COMMANDS)]:
    try:
        main(command)
    except SystemExit as end:
        assert end.code == 0, command
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
print("seconds:", time.process_time())
"""
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}  # a terminal that knows no ellipsis
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, env=ascii_only
    )
    loaded, seconds = (line.split()[1:] for line in done.stdout.splitlines()[-2:])
    assert not HEAVY & set(loaded)
    assert float(seconds[0]) < 2  # all of them together; one takes a quarter of a second
