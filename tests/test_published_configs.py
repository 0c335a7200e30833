"""The configs of published benchmarks on CLIP, SigLIP 2 and BLIP-2: each value has its source, and fits its family."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from uniadapter.app.parsing import config_path, read_config

BASES = {
    "msrvtt_clip_b16": "openai/clip-vit-base-patch16",
    "msrvtt_clip_b32": "openai/clip-vit-base-patch32",
    "coco_siglip2": "google/siglip2-base-patch16-256",
    "flickr30k_siglip2": "google/siglip2-base-patch16-256",
    "coco_blip2": "Salesforce/blip2-itm-vit-g",
    "flickr30k_blip2": "Salesforce/blip2-itm-vit-g-coco",
}
PLACES = {"task", "output", "base", "method", "train", "captions", "val", "test", "root"}


@pytest.mark.parametrize("name", BASES)
def test_each_value_names_its_source(name: str) -> None:
    lines = config_path(name).read_text(encoding="utf-8").splitlines()
    head = " ".join(line for line in lines if line.startswith("#"))
    known = set(re.findall(r"\[(\w+)\]", head)) | {"openai/CLIP"}
    unsourced = []
    for line in lines:
        setting = re.match(r" *(\w+): *[^ #]", line)
        if setting and setting[1] not in PLACES:
            said = line.partition("#")[2]
            sources = re.findall(r"\[([\w/]+)\]", said)
            own = said.startswith((" not published: our choice", " the base's own", " the same"))
            if not (own or sources) or set(sources) - known:
                unsourced.append(line)
    assert not unsourced
    assert "Not run by us" in head


@pytest.mark.parametrize("name", BASES)
def test_it_asks_of_its_family_what_that_has(name: str) -> None:
    config = read_config(config_path(name))
    assert config.model.base == BASES[name]
    assert config.objective.loss == "auto"
    assert (config.objective.queue_size, config.objective.momentum, config.objective.alpha) == (0, 0, 0)
    fuses = "blip2" in name
    assert (config.objective.matching, config.model.adapter.cross, config.evaluate.k > 0) == (fuses, fuses, fuses)
    assert (config.model.adapter.key_value > 0) == fuses
    assert (config.data.frames > 1) == name.startswith("msrvtt")
    files = [config.data.train, config.data.val, config.data.test]
    assert all(file is None or not Path(file).is_absolute() for file in files)
