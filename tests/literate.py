"""A page of the documentation, carried out: its commands, its Python and the files that it shows, in their order."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from uniadapter.app.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
FENCE = re.compile(r'^```(?P<kind>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)
SCRIPT = re.compile(r"\]\(([\w./]+\.py)\)")  # a link to a script that the page has its reader save


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    file: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(*one.group("kind", "file", "text")) for one in FENCE.finditer(page.read_text(encoding="utf-8"))]


def carry_out(page: Path, monkeypatch: pytest.MonkeyPatch, changes: Sequence[tuple[str, str]] = ()) -> int:
    """Carry out a page in the working directory; returns how many commands and pieces of Python were run.

    `bash` is run line by line (`uniadapter …` and `python FILE …`, both in this process), `python` in one namespace for
    the page; a block with a title is written to the file of that name, and blocks of other kinds are output.
    `changes` are regular expressions and what to put in their place, to train for fewer steps than a reader would.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    done = 0
    for script in SCRIPT.findall(page.read_text(encoding="utf-8")):
        if (page.parent / script).parent.name == "tutorials":
            shutil.copy(page.parent / script, Path(script).name)
    for block in blocks(page):
        text = block.text
        for pattern, instead in changes:
            text = re.sub(pattern, instead, text)
        if block.file:
            Path(block.file).write_text(text, encoding="utf-8")
        elif block.kind == "python":
            exec(compile(text, str(page), "exec"), names)
            done += 1
        elif block.kind == "bash":
            done += sum(_command(line, monkeypatch) for line in text.replace("\\\n", " ").splitlines())
    return done


def _command(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    words = [os.path.expanduser(word) for word in shlex.split(line, comments=True)]
    if not words:
        return 0
    if words[0] == "uniadapter":
        assert main(words[1:]) == 0, line
        return 1
    assert words[0] == "python", f"a page's commands are uniadapter and python, not {line!r}"
    monkeypatch.setattr(sys, "argv", words[1:])
    runpy.run_path(words[1], run_name="__main__")
    return 1
