"""What a person waits for: nothing that only says how a command is called imports torch."""

from __future__ import annotations

import ast
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
    assert stated == {name: f"uniadapter.{home}" for name, home in uniadapter._HOME_OF.items()}
    assert set(uniadapter.__all__) == set(stated)
    assert set(uniadapter.__all__) <= set(dir(uniadapter))
    for name in uniadapter.__all__:
        assert getattr(uniadapter, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        uniadapter.nothing_of_ours  # noqa: B018
