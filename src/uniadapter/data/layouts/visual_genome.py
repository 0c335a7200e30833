"""Visual Genome's `question_answers.json`: `[{id, qas: [{qa_id, image_id, question, answer}]}]`.

Pictures are named by their id, in the folders VG_100K and VG_100K_2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest
from uniadapter.data.layouts.records import DataError

GENOME_WEIGHT = 0.2  # of an answer, as in BLIP's training
_FOLDERS = ("VG_100K", "VG_100K_2", "images")


def is_genome(source: AnnotationFile) -> bool:
    """Whether a file has this layout."""
    return isinstance((source.first or {}).get("qas"), list)


def genome_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield a row per question."""
    for origin, row in request.source.rows(request.policy):
        found = row.get("qas") if isinstance(row, Mapping) else None
        if not isinstance(row, Mapping) or not isinstance(found, list):
            request.policy.report(DataError(f"{origin}: it should have a list of questions, 'qas'", "missing field"))
            continue
        for index, one in enumerate(found):
            where = f"{origin}.qas[{index}]"
            if not isinstance(one, Mapping):
                yield where, one
                continue
            number = one.get("image_id", row.get("id", row.get("image_id")))
            paths = tuple(f"{folder}/{number}.jpg" for folder in _FOLDERS) if isinstance(number, int) else None
            named = {"image": (f"{number}.jpg", *paths)} if paths else {}
            yield where, {"dataset": "vg", **one, **named, "image_id": number, "question_id": one.get("qa_id")}
