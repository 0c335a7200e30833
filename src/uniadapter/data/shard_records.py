"""What is written of a picture or video into a shard: its file as it is, and a `.json` with its texts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from uniadapter.data.layouts.records import DataError
from uniadapter.data.media.file_kinds import HEAD, has_picture_suffix, has_video_suffix, kind_of_bytes, open_file
from uniadapter.data.media.images import DatasetPicture, VisualSource
from uniadapter.data.media.paths import error_text, printable_path
from uniadapter.data.questions import QuestionSplit
from uniadapter.data.splits import RetrievalSplit


def file_of(source: VisualSource, origin: str) -> tuple[str, bytes]:
    """The suffix and content of a visual's file; a picture without a file becomes a PNG."""
    value: Any = source.rows[source.row][source.column] if isinstance(source, DatasetPicture) else source
    if isinstance(value, Image.Image):
        stream = io.BytesIO()
        value.save(stream, "PNG")
        return "png", stream.getvalue()
    content = value.get("bytes") if isinstance(value, dict) else None
    path = Path(value.get("path") or "") if isinstance(value, dict) else Path(value)
    if content is None:
        if path.is_dir():
            raise DataError(
                f"{origin}: {printable_path(path)} is a folder of frames, and a shard holds files: make it a video",
                "folder of frames",
            )
        try:
            with open_file(path) as stream_of_file:
                content = stream_of_file.read()
        except OSError as error:
            raise DataError(f"{origin}: {printable_path(path)} {error_text(error)}", "missing file") from None
    suffix = path.suffix.lower()
    if not has_picture_suffix(suffix and f"a{suffix}") and not has_video_suffix(suffix and f"a{suffix}"):
        suffix = ".mp4" if kind_of_bytes(content[:HEAD]) == "video" else ".jpg"
    return suffix[1:], content


def row_of(split: RetrievalSplit, visual: int, own: Sequence[int]) -> dict[str, Any]:
    """What the `.json` of a record says."""
    row: dict[str, Any] = {"id": split.visual_ids[visual]}
    groups = {split.text_group[text] for text in own} - {None} if split.text_group else set()
    if len(groups) == 1:
        row["group"] = groups.pop()
    if isinstance(split, QuestionSplit):
        row["questions"] = [_question(split, text) for text in own]
    else:
        row["caption"] = [split.texts[text] for text in own]
    return row


def _question(split: QuestionSplit, text: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "question": split.texts[text], "answer": list(split.annotators[text]), "question_id": split.question_ids[text],
    }  # fmt: skip
    weight = sum(split.answers[text].values())
    named = {"answer_type": split.kinds[text], "question_type": split.question_types[text]}
    more: dict[str, Any] = {"weight": round(weight, 6)} if abs(weight - 1) > 1e-6 else {}
    return row | {key: value for key, value in named.items() if value} | more
