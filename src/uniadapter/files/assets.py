"""Paths of the files that ship with the package, in an installed wheel and in a checkout."""

from __future__ import annotations

from pathlib import Path

PREFIX = "embedded:"  # of the names of data and adapters that ship with the package


def package_path(name: str) -> Path:
    """The path of a folder or file that ships with the package.

    Args:
        name: "configs" or "assets/backbone", for example.

    Raises:
        FileNotFoundError: the package was installed without it.
    """
    package = Path(__file__).parents[1]
    inside = package / name
    if inside.exists():
        return inside
    checkout = package.parents[1] / name
    if checkout.exists():
        return checkout
    raise FileNotFoundError(f"{name} did not come with this installation of uniadapter: install its wheel, or clone it")


def asset_path(name: str) -> Path:
    """The path of a file or folder below `assets`."""
    return package_path("assets") / name
