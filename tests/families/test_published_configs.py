"""The configs of published benchmarks on CLIP, SigLIP 2 and BLIP-2: each value has its source, and fits its family."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from tiny_blip2 import tiny_blip2
from tiny_models import PLACES, save_family
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
)

from squares import COLOURS, karpathy, save_tokenizer
from test_video_commands import films
from uniadapter.app.cli import main
from uniadapter.app.parsing import config_path, read_config
from uniadapter.model.dispatch import backbone

BASES = {
    "msrvtt_clip_b16": "openai/clip-vit-base-patch16",
    "msrvtt_clip_b32": "openai/clip-vit-base-patch32",
    "coco_siglip2": "google/siglip2-base-patch16-256",
    "flickr30k_siglip2": "google/siglip2-base-patch16-256",
    "coco_blip2": "Salesforce/blip2-itm-vit-g",
    "flickr30k_blip2": "Salesforce/blip2-itm-vit-g-coco",
}
FILES = {"task", "output", "base", "method", "train", "captions", "val", "test", "root"}


@pytest.mark.parametrize("name", BASES)
def test_each_value_names_its_source(name: str) -> None:
    lines = config_path(name).read_text(encoding="utf-8").splitlines()
    head = " ".join(line for line in lines if line.startswith("#"))
    known = set(re.findall(r"\[(\w+)\]", head)) | {"openai/CLIP"}
    unsourced = []
    for line in lines:
        setting = re.match(r" *(\w+): *[^ #]", line)
        if setting and setting[1] not in FILES:
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


def published(name: str) -> PreTrainedModel:
    """A model of the base's sizes, without weights; transformers' defaults are CLIP's B/32 and BLIP-2's ViT-g."""
    if "clip" in name:
        patch = int(name.rpartition("b")[2])
        return CLIPModel(CLIPConfig(vision_config={"patch_size": patch}))
    if "siglip2" in name:
        return SiglipModel(SiglipConfig(vision_config={"image_size": 256}, text_config={"vocab_size": 256_000}))
    qformer = {"use_qformer_text_input": True, "vocab_size": 30_523}
    return Blip2ForImageTextRetrieval(
        Blip2Config(image_text_hidden_size=256, num_query_tokens=32, qformer_config=qformer)
    )


@pytest.mark.parametrize("name", BASES)
def test_it_says_how_much_it_trains(name: str) -> None:
    told = re.search(r"bottleneck: .*; ([\d.]+) M.* ([\d.]+)% of the base", config_path(name).read_text())
    assert told
    with torch.device("meta"):
        model = published(name)
        built = backbone(model).new_set(read_config(config_path(name)).model.adapter)
    count = sum(parameter.numel() for parameter in built.parameters())
    base = sum(parameter.numel() for parameter in model.parameters())
    assert told.groups() == (f"{count / 1e6:.2f}", f"{100 * count / base:.2f}")


def tiny_base(name: str, folder: Path) -> list[str]:
    """A base of the config's family, of the same proportions, and the options that its size asks for."""
    if "blip2" in name:
        tiny_blip2(positions=48).save_pretrained(folder)
        save_tokenizer(folder)
        return ["--model.base", str(folder), "--model.image_size", "32"]
    sizes = {"width": 48, "text_width": 32} if "clip" in name else {}
    save_family(folder, "clip" if "clip" in name else "siglip", **sizes)
    return ["--model.base", str(folder), "--model.max_tokens", str(PLACES)]


def data_options(name: str, folder: Path) -> list[str]:
    """Files of the benchmark's layout, and where they are."""
    if name.startswith("msrvtt"):
        names = films(folder, lambda number, colour: f"video{number}.mp4")
        rows = [(Path(file).stem, f"a {colour} square") for file, colour in zip(names, COLOURS, strict=False)]
        sentences = [{"video_id": video, "caption": caption, "sen_id": n} for n, (video, caption) in enumerate(rows)]
        videos = [{"video_id": video} for video, _ in rows]
        (folder / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
        (folder / "train.csv").write_text("video_id\n" + "".join(f"{video}\n" for video, _ in rows))
        tests = "".join(f"ret{n},msr{n},{video},{caption}\n" for n, (video, caption) in enumerate(rows))
        (folder / "test.csv").write_text("key,vid_key,video_id,sentence\n" + tests)
        files = {"train": "train.csv", "captions": "MSRVTT_data.json", "test": "test.csv"}
    else:
        files = karpathy(folder, "karpathy")
    given = [part for key, file in files.items() for part in (f"--data.{key}", str(folder / file))]
    return [*given, "--data.root", str(folder), "--data.workers", "0"]


@pytest.mark.parametrize("name", BASES)
def test_it_trains_and_evaluates_on_a_tiny_base_of_its_family(tmp_path: Path, name: str) -> None:
    """All its other values as they are, bfloat16 included; three steps of few pairs."""
    few = ["--train.batch_size", "4", "--train.max_steps", "3", "--train.warmup_steps", "1", "--train.epochs", "3"]
    given = [*tiny_base(name, tmp_path / "base"), *data_options(name, tmp_path), *few]
    assert main(["train", name, "--output", str(tmp_path / "run"), *given]) == 0
    rows = {row["method"]: row for row in json.loads((tmp_path / "run/metrics.json").read_text())["rows"]}
    direction = "text_to_video" if name.startswith("msrvtt") else "text_to_image"
    assert 0 <= rows["uniadapter"][direction]["r@1"] <= 100
    history = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert ("matching" in history[-1]) == ("blip2" in name)
    assert (tmp_path / "run/adapter/adapter_model.safetensors").stat().st_size > 0
