"""Every public function has an example in its docstring, and every example runs and prints what it says."""

from __future__ import annotations

import copy
import doctest
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import uniadapter as ua

PUBLIC = {name: getattr(ua, name) for name in ua.__all__}
FUNCTIONS = sorted(name for name, value in PUBLIC.items() if inspect.isfunction(value))
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    tasks = {"model": "retrieval", "asking": "vqa", "captioner": "caption"}
    return {**{name: ua.load_model("embedded", task) for name, task in tasks.items()}, "tokenizer": ua.load_tokenizer()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, found = tmp_path_factory.mktemp("pictures"), []
    for name, colour in (("red", (220, 30, 30)), ("blue", (40, 60, 220))):
        found.append(folder / f"{name}.png")
        Image.new("RGB", (64, 48), colour).save(found[-1])
    return found


def examples(name: str) -> doctest.DocTest:
    return doctest.DocTestParser().get_doctest(inspect.getdoc(PUBLIC[name]) or "", {}, name, "", 0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example_that_runs(
    name: str, models: dict[str, Any], pictures: list[Path], tmp_path: Path
) -> None:
    found = examples(name)
    assert any(f"{name}(" in example.source for example in found.examples), f"{name} has no example in its docstring"
    # What examples may use without a word: a model of each task, a tokenizer, two pictures and a folder.
    own = {key: copy.deepcopy(one) for key, one in models.items() if key in (found.docstring or "")}
    names = {"ua": ua, "torch": torch, "Image": Image, "pictures": pictures, "picture": pictures[0]}
    found.globs = {**names, "folder": tmp_path, **own}
    printed: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=FLAGS).run(found, out=printed.append)
    assert not failed, "".join(printed)


def test_functions_are_found() -> None:
    assert len(FUNCTIONS) >= 30
    assert {"ask", "train", "contrastive_loss", "from_pretrained"} <= set(FUNCTIONS)
