"""Where the files that come with the package are, in an installed wheel and in a checkout."""

from __future__ import annotations

from pathlib import Path


def shipped(name: str) -> Path:
    """The folder or file `name` ("configs", "assets/backbone") that comes with the package.

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


def asset(name: str) -> Path:
    """A file or folder below `assets`."""
    return shipped("assets") / name
