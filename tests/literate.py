"""A page of the documentation, carried out: its commands, its Python and the files that it shows, in their order."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from uniadapter.app.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r'^(?P<tab> *)```(?P<kind>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<text>.*?)^ *```$', re.MULTILINE | re.DOTALL)
ALOUD = ("pip ", "cd ", "mkdir ", "ls", "accelerate ", "git ", "make ")  # for the reader's machine alone


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    file: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(*one.group("kind", "file", "text")) for one in FENCE.finditer(page.read_text(encoding="utf-8"))]


def carry_out(page: Path, monkeypatch: pytest.MonkeyPatch, names: dict[str, Any] | None = None) -> int:
    """Carry out a page in the working directory; returns how many commands and pieces of Python were run.

    `bash` is run line by line (`uniadapter …` in this process, `python FILE …` too), `python` is run in one namespace
    for the page, and a block with a title is written to the file of that name. A block of another kind is output.
    """
    names, done = {"__name__": "__main__", **(names or {})}, 0
    for file in re.findall(r"\]\((\w+\.py)\)", page.read_text(encoding="utf-8")):
        shutil.copy(page.parent / file, file)
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            exec(compile(block.text, str(page), "exec"), names)
            done += 1
        elif block.kind == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                done += _command(line, monkeypatch)
    return done


def _command(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    words = shlex.split(line, comments=True)
    if not words or line.startswith(ALOUD):
        return 0
    if words[0] == "uniadapter":
        assert main(words[1:]) == 0, line
    else:
        assert words[0] == "python", f"the tests do not know how to run {line!r}"
        monkeypatch.setattr(sys, "argv", words[1:])
        runpy.run_path(words[1], run_name="__main__")
    return 1
