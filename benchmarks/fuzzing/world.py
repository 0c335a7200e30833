"""What is mutated: tiny bases, adapters, original checkpoints, annotations of every layout, pictures and clips."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import yaml
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering
from transformers.utils import logging as transformers_logging

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # the tests' own tiny world

from reference import ParityCase
from squares import COLOURS, save_base, save_tokenizer
from tiny import tiny_config
from uniadapter.app.cli import main

NAMES = list(COLOURS)[:4]
FORMATS = {
    "png": {}, "jpg": {}, "gif": {}, "webp": {"lossless": True}, "bmp": {}, "tiff": {}, "ico": {}, "ppm": {}
}  # fmt: skip
CONTAINERS = {
    "h264.mp4": ("libx264", "yuv420p"), "h264.mkv": ("libx264", "yuv420p"), "h264.ts": ("libx264", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"), "mpeg4.avi": ("mpeg4", "yuv420p"), "mpeg2.mpg": ("mpeg2video", "yuv420p"),
}  # fmt: skip


@dataclass
class Annotated:
    """An annotation file to be mutated.

    Args:
        content: of the file; None for CSV and text, which are mutated by cell and line.
        file: its name.
        data: of the run's config; "HERE" stands for the folder that the mutated file is in.
        task: that reads it.
        field: the setting that names it.
        lines: an object a line.
        rows: of CSV.
    """

    file: str
    task: str
    field: str
    content: Any = None
    data: dict[str, Any] = field(default_factory=dict)
    lines: bool = False
    rows: list[list[str]] | None = None


@dataclass
class World:
    """Where all of it is."""

    folder: Path
    annotations: list[Annotated] = field(default_factory=list)

    @property
    def pictures(self) -> Path:
        """Folder of four pictures, and of four folders of frames."""
        return self.folder / "pictures"

    def base(self, task: str) -> Path:
        """A base of transformers files."""
        return self.folder / f"base-{task}"

    def adapter(self, task: str) -> Path:
        """An adapter folder."""
        return self.folder / f"run-{task}" / "adapter"


def build(folder: Path) -> World:
    """Make the world, and by training and measuring in it load all that a command needs."""
    world = World(folder)
    folder.mkdir(parents=True)
    transformers_logging.disable_progress_bar()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it has threads, which a fork would not
    for task, cls in (("vqa", BlipForQuestionAnswering), ("caption", BlipForConditionalGeneration)):
        torch.manual_seed(0)
        cls(tiny_config()).save_pretrained(world.base(task))
        save_tokenizer(world.base(task))
    save_base(world.base("retrieval"))
    for index, name in enumerate(NAMES, start=1):
        (world.pictures / name).mkdir(parents=True)
        Image.new("RGB", (40, 30), COLOURS[name]).save(world.pictures / f"{name}.png")
        Image.new("RGB", (40, 30), COLOURS[name]).save(world.pictures / f"{index:012d}.jpg")  # COCO's way
        for number in range(2):
            Image.new("RGB", (40, 30), COLOURS[name]).save(world.pictures / name / f"{number}.png")
    _checkpoints(folder)
    _shown(folder / "shown")
    world.annotations = layouts()
    (folder / "answers.json").write_text(json.dumps(NAMES))
    _warm_up(world)
    return world


def _checkpoints(folder: Path) -> None:
    for name, case in (("theirs", "retrieval_image"), ("vqa", "vqa_image")):
        torch.save({"model": ParityCase(case).group("weights")}, folder / f"{name}.pth")
    weights = ParityCase("retrieval_image").group("weights")
    kept = {key: value for key, value in weights.items() if "adapter" not in key and "_m." not in key}
    torch.save({"model": kept}, folder / "blip.pth")


def _shown(folder: Path) -> None:
    folder.mkdir()
    rows, columns = np.mgrid[:48, :64]
    frames = []
    for number in range(16):
        waves = [128 + 100 * np.sin((columns * k + rows + 5 * number) / 17) for k in (1, 2, 3)]
        frames.append(np.stack(waves, -1).clip(0, 255).astype(np.uint8))
    for suffix, options in FORMATS.items():
        Image.fromarray(frames[0]).save(folder / f"picture.{suffix}", **options)
    pictures = [Image.fromarray(frame) for frame in frames]
    for suffix in ("gif", "webp", "png"):
        pictures[0].save(folder / f"moving.{suffix}", save_all=True, append_images=pictures[1:], duration=40)
    Image.fromarray(frames[0]).convert("RGBA").save(folder / "clear.png")
    Image.fromarray(frames[0][..., 0].astype(np.uint16) * 256).save(folder / "deep.png")
    for name, (codec, pixels) in CONTAINERS.items():
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=24)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
            stream.codec_context.gop_size = 6
            for frame in frames:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            out.mux(stream.encode(None))


def _said(name: str) -> str:
    return f"a {name} square"


def layouts() -> list[Annotated]:
    """A small file of each layout."""
    pairs = [{"image": f"{n}.png", "caption": [_said(n), f"the {n} square"], "image_id": n} for n in NAMES]
    asked = [{"image": f"{n}.png", "question": "what square?", "answer": [n, n, "red"], "question_id": i,
              "dataset": "vqa"} for i, n in enumerate(NAMES)]  # fmt: skip
    table = [["image", "caption"], *([f"{n}.png", _said(n)] for n in NAMES)]
    msrvtt = {"videos": [{"video_id": n} for n in NAMES],
              "sentences": [{"video_id": n, "caption": _said(n), "id": i} for i, n in enumerate(NAMES)]}  # fmt: skip
    official = {"data_subtype": "", "questions": [
        {"question_id": i, "image_id": i + 1, "question": "what square?"} for i in range(4)]}  # fmt: skip
    given = {"annotations": [
        {"question_id": i, "image_id": i + 1, "question_type": "what", "answer_type": "other",
         "answers": [{"answer": n, "answer_id": 1}] * 3} for i, n in enumerate(NAMES)]}  # fmt: skip
    karpathy = {"dataset": "coco", "images": [
        {"filename": f"{n}.png", "filepath": "", "split": "test", "imgid": i, "sentids": [i],
         "sentences": [{"raw": _said(n), "tokens": _said(n).split(), "sentid": i, "imgid": i}]}
        for i, n in enumerate(NAMES)]}  # fmt: skip
    coco = {"images": [{"id": i, "file_name": f"{n}.png"} for i, n in enumerate(NAMES)],
            "annotations": [{"id": i, "image_id": i, "caption": _said(n)} for i, n in enumerate(NAMES)]}  # fmt: skip
    clips = [{"video": n, "caption": [_said(n)]} for n in NAMES]
    alpro = [{"clip_name": n, "caption": _said(n)} for n in NAMES]
    didemo = [{"video": n, "description": _said(n), "times": [[0, 0]]} for n in NAMES]
    qa = [{"video_id": n, "question": "what square?", "answer": n, "answer_type": "what"} for n in NAMES]
    frames: dict[str, Any] = {"frames": 2}
    return [
        Annotated("pairs.json", "retrieval", "test", pairs),
        Annotated("pairs.jsonl", "retrieval", "test", pairs, lines=True),
        Annotated("captions.json", "caption", "test", pairs),
        Annotated("pairs.csv", "retrieval", "test", rows=table),
        Annotated("pairs.tsv", "retrieval", "test", rows=table),
        Annotated("clips.json", "retrieval", "test", clips, frames),
        Annotated("alpro.jsonl", "retrieval", "test", alpro, frames, lines=True),
        Annotated("didemo_data.json", "retrieval", "test", didemo, {**frames, "layout": "didemo"}),
        Annotated("list.csv", "retrieval", "test", data={**frames, "captions": "HERE/MSRVTT_data.json"},
                  rows=[["video_id"], *([n] for n in NAMES)]),
        Annotated("MSRVTT_data.json", "retrieval", "captions", msrvtt, {**frames, "test": "HERE/list.csv"}),
        Annotated("jsfusion.csv", "retrieval", "test", data=frames,
                  rows=[["key", "vid_key", "video_id", "sentence"], *([n, n, n, _said(n)] for n in NAMES)]),
        Annotated("dataset_coco.json", "retrieval", "test", karpathy),
        Annotated("captions_val2014.json", "retrieval", "test", coco),
        Annotated("flickr.token", "retrieval", "test", rows=[[f"{n}.png#0", _said(n)] for n in NAMES]),
        Annotated("metadata.jsonl", "retrieval", "test",
                  [{"file_name": f"{n}.png", "text": _said(n)} for n in NAMES], lines=True),
        Annotated("vqa.json", "vqa", "test", asked),
        Annotated("vqa.jsonl", "vqa", "test", asked, lines=True),
        Annotated("vqa.csv", "vqa", "test",
                  rows=[["image", "question", "answer"], *([f"{n}.png", "what square?", n] for n in NAMES)]),
        Annotated("qa.json", "vqa", "test", qa, frames),
        Annotated("questions.json", "vqa", "test", official, {"annotations": {"test": "HERE/answers_of.json"}}),
        Annotated("answers_of.json", "vqa", "annotations", given, {"test": "HERE/questions.json"}),
        Annotated("answer_list.json", "vqa", "answer_list", [*NAMES, "a square"], {"test": "HERE/vqa.json"}),
        Annotated("ans2label.json", "vqa", "answer_list", {n: i for i, n in enumerate(NAMES)},
                  {"test": "HERE/vqa.json"}),
    ]  # fmt: skip


def written(one: Annotated) -> bytes:
    """The sound file."""
    from fuzzing.values import as_json

    return as_csv(one.rows, "\t" if one.file.endswith(("tsv", "token")) else ",") if one.rows else as_json(
        one.content, one.lines
    )  # fmt: skip


def as_csv(rows: list[list[str]], delimiter: str = ",") -> bytes:
    """Rows as CSV; what UTF-8 cannot hold is kept as it is."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def config(world: World, task: str, output: str, **data: Any) -> dict[str, Any]:
    """A run's config in plain values."""
    return {
        "task": task,
        "output": output,
        "model": {"base": str(world.base(task)), "adapter": {"bottleneck": 8, "key_value": 4, "temporal_frames": 2}},
        "data": {"root": str(world.pictures), "workers": 0, "augment": False, **data},
        "objective": {"queue_size": 16},
        "train": {"epochs": 1, "max_steps": 2, "batch_size": 4, "lr": 1e-3, "log_every": 1, "seed": 1},
        "evaluate": {"k": 2, "batch_size": 4, "block": 16, "beams": 1, "longest": 8, "shortest": 1},
    }


def _warm_up(world: World) -> None:
    """Train an adapter for each task and use it."""
    steps: list[Callable[[], object]] = []
    for task, file in (("retrieval", "pairs.json"), ("vqa", "vqa.json")):
        one = next(one for one in world.annotations if one.file == file)
        path = world.folder / file
        path.write_bytes(written(one))
        run = world.folder / f"{task}.yaml"
        values = config(world, task, str(world.folder / f"run-{task}"), train=str(path), test=str(path))
        run.write_text(yaml.safe_dump(values))
        steps.append(lambda run=run: main(["train", str(run)]))
    path = world.folder / "caption.json"
    path.write_text(json.dumps([{"image": f"{n}.png", "caption": _said(n)} for n in NAMES]))
    run = world.folder / "caption.yaml"
    run.write_text(yaml.safe_dump(config(world, "caption", str(world.folder / "run-caption"), train=str(path))))
    steps.append(lambda: main(["train", str(run)]))
    picture = str(world.folder / "shown/h264.mp4")
    steps.append(lambda: main(["ask", picture, "what square?", "--adapter", str(world.adapter("vqa"))]))
    steps.append(lambda: main(["caption", picture, "--adapter", str(world.adapter("caption"))]))
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        ended = [step() for step in steps]
    if any(ended):
        raise RuntimeError(f"the sound inputs are not accepted: {out.getvalue()[-1500:]}")
