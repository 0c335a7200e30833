"""The page's section on how to use the trained weights, in Python and on the command line."""

from __future__ import annotations

import re
import shlex
from html import escape
from pathlib import Path

ADAPTER, MODEL, CARD = "adapter", "model", "README.md"
_HERE = "path/to/this/folder"  # placeholder in the model card
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def usage_section(folder: Path, task: str, base: str) -> str:
    """The section for a run's saved weights, as HTML; "" if it saved none.

    Args:
        folder: of the run.
        task: "retrieval", "vqa" or "caption".
        base: `model.base` of the run.
    """
    adapter, model = folder / ADAPTER, folder / MODEL
    saved = adapter if adapter.is_dir() else model if model.is_dir() else None
    if saved is None:
        return ""
    python = _from_card(adapter) if saved == adapter else _of_model(model, task)
    shell = _command(task, folder, f"--adapter {shlex.quote(str(adapter))}" if saved == adapter else "", saved)
    words = f"The adapter is in {adapter} and goes with the base {base}" if saved == adapter else f"It is in {model}"
    blocks = "".join(f"<pre>{escape(lines)}</pre>" for lines in (python, shell) if lines)
    title = "Use this adapter" if saved == adapter else "Use this model"
    note = f'<p class="note">{escape(words)}; its task is {escape(task)}.</p>'
    return f"<section><h2>{title}</h2>{note}{blocks}</section>"


def _from_card(adapter: Path) -> str:
    """The Python example in the adapter's model card, with the folder's path inserted."""
    try:
        found = _PYTHON.search((adapter / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return found.group(1).strip().replace(f'"{_HERE}"', repr(str(adapter))) if found else ""


def _of_model(model: Path, task: str) -> str:
    name = repr(str(model))
    return (
        "import uniadapter as ua\n\n"
        f"model, tokenizer = ua.load_model({name}, {task!r}), ua.load_tokenizer({name})"
    )  # fmt: skip


def _command(task: str, folder: Path, adapter: str, saved: Path) -> str:
    chosen = adapter or f"--base {shlex.quote(str(saved))}"
    if task == "vqa":
        return f"uniadapter ask picture.jpg 'what is in the picture?' {chosen}"
    if task == "caption":
        return f"uniadapter caption picture.jpg {chosen}"
    chosen = adapter or f"--model.base {shlex.quote(str(saved))}"
    return f"uniadapter evaluate {shlex.quote(str(folder / 'config.yaml'))} {chosen}"
