"""Conversations about a picture, in the formats of LLaVA, ShareGPT and chat templates.

{id, image, conversations: [{from: "human", value: "<image>…"}, {from: "gpt", value}, …]}
{images: [path], messages: [{role: "user", content}, {role: "assistant", content}, …]}; content may be a list of parts

Read as questions, each user turn and its reply is a row; read as captions, the first reply is the caption.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest
from uniadapter.errors import DataError

_TURNS = ("conversations", "messages", "conversation")
_MARK = re.compile(r"<(image|video|img|ImageHere|audio)>\s*")
_ASKS = {"human", "user"}
_REPLIES = {"gpt", "assistant", "model", "bot"}


def is_conversation(source: AnnotationFile) -> bool:
    """Whether a file's rows are conversations."""
    row = source.first or {}
    return source.form != "table" and any(isinstance(row.get(name), list) or name in row for name in _TURNS)


def conversation_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield a row per question and answer, or per caption, as `request.wanted` says."""
    for origin, row in request.source.rows(request.policy):
        if not isinstance(row, Mapping):
            yield origin, row
            continue
        try:
            found = list(_question_reply_pairs(origin, row))
        except DataError as error:
            request.policy.report(error)
            continue
        visual = _visual(row)
        if not visual:
            message = f"{origin}: the conversation has no picture: remove it, or set data.on_error to skip"
            request.policy.report(DataError(message, "conversation without a picture"))
            continue
        if request.wanted == "caption":
            request.policy.changed["further turns of conversations ignored"] += len(found) - 1
            yield origin, {**visual, "caption": found[0][1]}
            continue
        number = row.get("id", row.get("question_id"))
        for turn, (question, answer) in enumerate(found):
            one = {**visual, "question": question, "answer": answer}
            if number is not None:
                one["question_id"] = number if len(found) == 1 else f"{number}.{turn}"
            yield origin if len(found) == 1 else f"{origin}.turn[{turn}]", one


def _question_reply_pairs(origin: str, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    name = next(name for name in (*_TURNS, "") if name in row or not name)
    turns = row.get(name)
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{origin}: it should have a list of turns under 'conversations'", "no conversation")
    asked, replies = "", 0
    for index, turn in enumerate(turns):
        where = f"{origin}.{name}[{index}]"
        if not isinstance(turn, Mapping):
            raise DataError(f"{where} is of type {type(turn).__name__}: it should be an object", "unusable turn")
        role = turn.get("from", turn.get("role"))
        text = _turn_text(where, turn.get("value", turn.get("content")))
        if not isinstance(role, str):
            raise DataError(
                f"{where}: the speaker is of type {type(role).__name__}: it should be a string", "unusable turn"
            )
        if role in _ASKS:
            asked = text
        elif role in _REPLIES:
            replies += 1
            yield asked, text
    if not replies:
        raise DataError(f"{origin}: the conversation has no reply: add a turn from 'gpt'", "no reply")


def _turn_text(where: str, content: object) -> str:
    """The text of a turn, without placeholders such as `<image>`."""
    if isinstance(content, list):
        content = " ".join(one.get("text") or "" for one in content if _is_text(one))
    if not isinstance(content, str):
        raise DataError(
            f"{where}: its text is of type {type(content).__name__}: it should be a string", "unusable turn"
        )
    return _MARK.sub("", content).strip()


def _is_text(part: object) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)


def _visual(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row's picture or video, which chat templates may have in the parts of a turn."""
    names = ("image", "video", "images", "videos", "image_id", "video_id")
    found = {name: row[name] for name in names if row.get(name) not in (None, [])}
    if found:
        return found
    turns: list[Any] = next((row[name] for name in _TURNS if isinstance(row.get(name), list)), [])
    parts = [part for turn in turns for part in _parts(turn)]
    return next(
        ({name: part[name]} for part in parts for name in ("image", "video") if isinstance(part.get(name), str)), {}
    )


def _parts(turn: object) -> list[Mapping[str, Any]]:
    content = turn.get("content") if isinstance(turn, Mapping) else None
    return [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
