"""What the files of a record say: its picture or video, and its captions or its questions with their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from uniadapter.data.layouts.answers import parse_answers
from uniadapter.data.layouts.field_names import match_fields
from uniadapter.data.layouts.records import (
    DataError,
    ErrorPolicy,
    caption_field,
    field_names,
    group_field,
    is_valid_unicode,
    lone_surrogate_error,
    parse_json,
    text_field,
)
from uniadapter.data.layouts.visual_genome import GENOME_WEIGHT
from uniadapter.data.media.file_kinds import has_picture_suffix, has_video_suffix
from uniadapter.data.shards.index import Holds

CleanText = Callable[[str, int], str]  # (text, maximum number of words) to text


@dataclass(frozen=True)
class Text:
    """A text of a record, cleaned.

    Args:
        text: the caption or question.
        answers: to a question, each as typed, one per annotator.
        weight: sum of the weights of the answers.
    """

    text: str
    answers: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class TextReader:
    """Reads the texts of records.

    Args:
        holds: what texts are read.
        clean: cleans a text.
        fields: `data.fields`, expected field names to the records'.
        max_words: longer texts are cut.
    """

    holds: Holds
    clean: CleanText
    fields: Mapping[str, str] = field(default_factory=dict)
    max_words: int = 30

    def read(self, origin: str, row: Mapping[str, Any], policy: ErrorPolicy | None = None) -> list[Text]:
        """The texts of a row, in order; bad ones are reported, and the others left.

        Args:
            origin: of the record, for errors.
            row: its fields.
            policy: handles bad texts of a record that has others; None leaves them out.

        Raises:
            DataError: there is none.
        """
        policy = policy or ErrorPolicy("skip", quiet=True)
        read = self._captions if self.holds == "captions" else self._questions
        found = [text for text in read(origin, row, policy) if self._usable(origin, text, policy)]
        if not found:
            noun = self.holds[:-1]
            raise DataError(f"{origin}: no usable {noun}: write one, or remove the record", f"empty {noun}")
        return [Text(self.clean(one.text, self.max_words), one.answers, one.weight) for one in found]

    def _captions(self, origin: str, row: Mapping[str, Any], policy: ErrorPolicy) -> Iterable[Text]:
        name = self._name("caption", origin, row)
        return [Text(text) for _, text in caption_field(origin, {"caption": row[name]}, policy)]

    def _questions(self, origin: str, row: Mapping[str, Any], policy: ErrorPolicy) -> Iterable[Text]:
        rows = row.get("questions")
        for number, one in enumerate(rows if isinstance(rows, list) else [row]):
            where = f"{origin}.questions[{number}]" if isinstance(rows, list) else origin
            try:
                yield self._question(where, one, policy)
            except DataError as error:
                policy.report(error)

    def _question(self, origin: str, row: Any, policy: ErrorPolicy) -> Text:
        if not isinstance(row, Mapping):
            raise DataError(f"{origin} is of type {type(row).__name__}: it should be an object", "not an object")
        name = self._name("question", origin, row)
        names = matched(tuple(row), tuple(self.fields.items()))
        given = parse_answers(origin, {**row, **{ours: row[theirs] for ours, theirs in names.items()}}, policy)
        if not given:
            message = f"{origin}: the question has no answer: give it one, or remove the record"
            raise DataError(message, "question without an answer")
        weight = row.get("weight", GENOME_WEIGHT if row.get("dataset") == "vg" else 1.0)
        return Text(text_field(origin, {name: row[name]}, name, "a string"), given, float(weight))

    def _name(self, wanted: str, origin: str, row: Mapping[str, Any]) -> str:
        name = matched(tuple(row), tuple(self.fields.items())).get(wanted)
        if name is None or row[name] is None:
            message = f"{origin}: no {wanted} (it has {field_names(row)}): is it a record of another task?"
            raise DataError(message, "missing field")
        return name

    def _usable(self, origin: str, text: Text, policy: ErrorPolicy) -> bool:
        noun = self.holds[:-1]
        if not is_valid_unicode(text.text):
            policy.report(lone_surrogate_error(origin, noun))
            return False
        if not self.clean(text.text, 1):
            message = f"{origin}: the {noun} {text.text[:80]!r} is empty once cleaned: write one, or remove it"
            policy.report(DataError(message, f"empty {noun}"))
            return False
        return True


@lru_cache(maxsize=256)
def matched(names: tuple[str, ...], fields: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Expected field names to those of a row, by its names alone, which most rows of a source share."""
    return match_fields(dict.fromkeys(names, ""), dict(fields))


def record_row(origin: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The fields of a record: those of its `.json`, and the content of its `.txt` and other text files.

    Raises:
        DataError: a file is not text in UTF-8, or not JSON, or no object.
    """
    row: dict[str, Any] = {}
    try:
        if "json" in files:
            row = parse_json(files["json"])
            if not isinstance(row, dict):
                raise DataError(f"{origin}: its .json is of type {type(row).__name__}, not an object", "unusable json")
        for suffix in ("txt", "caption", "question", "answer"):
            name = "caption" if suffix == "txt" else suffix
            if suffix in files and row.get(name) is None and (name != "caption" or not _has_texts(row)):
                lines = [line.strip() for line in files[suffix].decode("utf-8-sig").splitlines()]
                row[name] = [line for line in lines if line] if name == "caption" else " ".join(lines).strip()
    except UnicodeDecodeError:
        raise DataError(f"{origin}: its text is not in UTF-8: save it as such", "unusable json") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{origin}: its .json cannot be read ({str(error)[:80]}): repair it", "unusable json") from None
    return row


def _has_texts(row: Mapping[str, Any]) -> bool:
    name = matched(tuple(map(str, row)), ()).get("caption")
    return name is not None and row[name] is not None


def group_of(row: Mapping[str, Any], fields: Mapping[str, str]) -> str | int | None:
    """The group of a record, which its hard negatives share; None without one."""
    return group_field({"group": row.get(matched(tuple(row), tuple(fields.items())).get("group", ""))})


def visual_suffix(origin: str, suffixes: Iterable[str]) -> str:
    """The suffix of the file that is the picture or video of a record; of several the simplest, a video first.

    Raises:
        DataError: there is none.
    """
    there = list(suffixes)
    found = [one for one in there if has_video_suffix(f"a.{one}")] or [
        one for one in there if has_picture_suffix(f"a.{one}")
    ]
    if not found:
        message = f"{origin}: no picture or video (it has {field_names(there)}): add one, or remove the record"
        raise DataError(message, "record without a picture")
    return min(found, key=lambda one: (one.count("."), there.index(one)))
