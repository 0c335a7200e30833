"""The embedded video dataset: animated emoji as H.264 files, and composed clips that concatenate several of them.

A composed clip is made on first use by concatenating the packets of its animations, without decoding or encoding.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

from uniadapter.embedded.annotations import (
    SPECIFICATIONS,
    SPLITS,
    Rows,
    caption_rows,
    question_rows,
    read_specifications,
    write_annotations,
)
from uniadapter.embedded.cached_folders import fingerprint, prepare_folder
from uniadapter.files.assets import asset_path

SECONDS = 3  # length of one animation
VERSION = "4"  # part of the fingerprint: raise it when the concatenation or the annotations' rows change


def read_clips(split: str, folder: Path | None = None) -> Rows:
    """The composed clips of a split.

    Each has an id, parts (hexcodes in order), its twin's id ("partner", the same parts in another order), captions, and
    what each of them tells ("about").
    """
    return read_specifications("clips", split, folder)


def concatenate(parts: list[Path], target: Path) -> None:
    """Concatenate clips of the same encoder and size; each starts with a keyframe.

    Args:
        parts: the files, in order.
        target: the file to write.
    """
    with av.open(str(target), "w") as out:
        stream = None
        for number, part in enumerate(parts):
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(video)
                shift = round(number * SECONDS / Fraction(video.time_base))
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:  # the empty packet at the end
                        continue
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = stream
                    out.mux(packet)


def _write_split(split: str, source: Path, target: Path) -> None:
    """Write the composed clips, captions and questions of one split."""
    (target / "videos" / split).mkdir(parents=True)
    captions: Rows = []
    clips = read_clips(split, source)
    for clip in clips:
        name = f"videos/{split}/{clip['id']}.mp4"
        concatenate([source / "single" / f"{code}.mp4" for code in clip["parts"]], target / name)
        captions += caption_rows(clip, clip["captions"], "video", name, split)
    asked = read_specifications("clips", f"vqa_{split}", source)
    questions = question_rows(asked, clips, "video", f"videos/{split}/{{}}.mp4")
    write_annotations(target, {split: captions, f"vqa_{split}": questions})


def prepare_clips(root: Path, source: Path | None = None) -> Path:
    """Write the embedded clips into `root/clips` unless it is up to date; returns that folder.

    Files: `train.json`, `val.json`, `test.json`, `test_novel.json` (captions), the same with the prefix `vqa_`
    (questions), and `videos/`.

    Args:
        root: folder to write to.
        source: folder of specifications and animations, if not the package's own.

    Raises:
        WriteError: the folder cannot be written.
    """
    folder = source or asset_path("clips")

    def write(target: Path) -> None:
        for split in SPLITS:
            _write_split(split, folder, target)

    singles = [f"single/{path.name}" for path in sorted((folder / "single").glob("*.mp4"))]
    stamp = fingerprint(folder, [*SPECIFICATIONS, *singles], VERSION)
    return prepare_folder(Path(root) / "clips", stamp, write)
