"""Licence texts of what ships, and the tables of sources in the cards."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from world.pictures.sources import ANIMATED, CLDR, DRAWN, EMOJIBASE, EMOJILIB, HELD_OUT, NEW_STYLE, Package, fetch

FLUENT = """MIT License

Copyright (c) Microsoft Corporation (Fluent Emoji, github.com/microsoft/fluentui-emoji)
Copyright (c) 2023 LobeHub (packaging, npm {package})

"""


TWEMOJI = """Twemoji, copyright Twitter, Inc. and other contributors (github.com/jdecked/twemoji), as packaged in npm
{package} {version}, licensed under Creative Commons Attribution 4.0 International:
https://creativecommons.org/licenses/by/4.0/legalcode

Changed here: drawn as pixels, cropped, scaled to 64 pixels, put into one file, and laid on coloured grounds.
"""


def copy_licences(scenes: Path, clips: Path, drawn: Path) -> None:
    """Write `licences/` into the data folders: the texts of everything of which something is there.

    The texts of emojibase-data, emojilib and CLDR are their packages' own. Those of Fluent Emoji and Twemoji name the
    licence that the packages declare, since they carry no file.
    """
    for folder in (scenes, clips, drawn):
        (folder / "licences").mkdir(parents=True, exist_ok=True)
        for words in (EMOJIBASE, EMOJILIB, CLDR):
            shutil.copyfile(fetch(words) / "LICENSE", folder / "licences" / f"{words.name}.txt")
    twemoji = DRAWN[HELD_OUT]
    terms = TWEMOJI.format(package=twemoji.name, version=twemoji.version)
    (drawn / "licences" / f"{HELD_OUT}.txt").write_text(terms)
    for folder, package in ((scenes, NEW_STYLE.name), (clips, ANIMATED[0].name.removesuffix("-1"))):
        terms = (fetch(EMOJIBASE) / "LICENSE").read_text().split("\n\n", 2)[2]  # of MIT, below title and copyright
        name = package.partition("/")[2]
        (folder / "licences" / f"{name}.txt").write_text(FLUENT.format(package=package) + terms)


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; floats with one digit, None as a hyphen."""

    def cell(value: object) -> str:
        return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)

    lines = [list(header), ["---"] * len(list(header)), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sources_table(packages: Iterable[Package]) -> str:
    """Packages with versions, licences, authors and what is taken from each."""
    rows = [
        (f"`{p.name}` {p.version}", p.licence, f"{p.author}, {p.home}" if p.author else None, p.role,
         "yes" if p.shipped else "no")
        for p in packages
    ]  # fmt: skip
    return table(("npm package", "licence", "drawings by", "used for", "ships"), rows)
