"""The answers of a row, in the formats of the published VQA datasets.

answer                              a text, or the texts of several annotators (BLIP, LAVIS, your own files)
answers: [{answer: text}, …]        VQAv2 and VizWiz on Hugging Face; also texts, or {answer: [texts]}
direct_answers                      A-OKVQA; if it is missing, choices[correct_choice_idx]
answer: an index, with choices      ScienceQA; NExT-QA has the choices in a0, a1, …
multiple_choice_answer              the most frequent answer, VQA v2
label: {text: weight}               LXMERT; ViLT has {ids: [texts], weights: [numbers]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from uniadapter.data.layouts.records import (
    DataError,
    ErrorPolicy,
    Row,
    is_valid_unicode,
    lone_surrogate_error,
    parse_list_cell,
    wrong_type_error,
)

_NAMES = ("answer", "answers", "direct_answers", "multiple_choice_answer", "label", "labels")
_ANSWER_KEYS = ("answer", "raw_answer", "text")  # of an answer that is an object
_WANTED = "a string, or a list of strings"
_MAX_WEIGHT = 1_000_000
_ANNOTATORS = 10  # weights are converted to this many answers, as in VQA v2


def parse_answers(origin: str, row: Row, policy: ErrorPolicy) -> tuple[str, ...]:
    """The answers of a row as typed, one per annotator; numbers become texts and are counted in `policy.changed`.

    Args:
        origin: position of the row, for errors.
        row: the row.
        policy: counts conversions.

    Returns:
        Empty if the row has no answer.

    Raises:
        DataError: the answers have an unknown format.
    """
    for name in _NAMES:
        value = row.get(name)
        if value in (None, "", []):
            continue
        if (chosen := _choice_by_number(value, row)) is not None:
            policy.changed["answers given as the index of a choice"] += 1
            return (chosen,)
        if name in ("label", "labels") and isinstance(value, Mapping):
            return _weighted_answers(origin, name, value)
        if name in ("label", "labels") and isinstance(value, (int, float)):
            raise DataError(f"{origin}: field {name!r} is a number: it should be the answer itself", f"unusable {name}")
        found = tuple(_text(origin, name, one, policy) for one in _list(value))
        return tuple(text for text in found if text.strip())
    return _correct_choice(origin, row)


def _list(value: object) -> list[object]:
    if isinstance(value, Mapping) and isinstance(value.get("answer"), list):
        return list(value["answer"])
    value = parse_list_cell(value) if isinstance(value, str) else value
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _text(origin: str, name: str, value: object, policy: ErrorPolicy) -> str:
    if isinstance(value, Mapping):
        value = next((value[key] for key in _ANSWER_KEYS if value.get(key) is not None), None)
    if isinstance(value, (bool, int, float)):
        # Hand-written files often have unquoted answers such as 2 or true.
        if isinstance(value, float) and not math.isfinite(value):
            raise wrong_type_error(origin, name, None, _WANTED)
        policy.changed["numbers, true and false read as answers"] += 1
        return str(int(value) if isinstance(value, float) and value.is_integer() else value).lower()
    if not isinstance(value, str):
        raise wrong_type_error(origin, name, value, _WANTED)
    if not is_valid_unicode(value):
        raise lone_surrogate_error(origin, name)
    return value


def _weighted_answers(origin: str, name: str, value: Mapping[str, object]) -> tuple[str, ...]:
    """Weighted answers converted to those of ten annotators."""
    pairs: list[tuple[object, object]] = list(value.items())
    if isinstance(value.get("ids"), list) and isinstance(value.get("weights"), list):
        pairs = list(zip(value["ids"], value["weights"], strict=False))  # type: ignore[call-overload]
        if len(value["ids"]) != len(value["weights"]):  # type: ignore[arg-type]
            raise DataError(f"{origin}: {name}.ids and {name}.weights differ in length", f"unusable {name}")
    weights: dict[str, float] = {}
    for text, weight in pairs:
        if not isinstance(text, str) or isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise DataError(f"{origin}: field {name!r} should be an object of answer to weight", f"unusable {name}")
        if not 0 <= weight <= _MAX_WEIGHT:
            raise DataError(f"{origin}: a weight in {name!r} is not between 0 and {_MAX_WEIGHT:,}", f"unusable {name}")
        if not is_valid_unicode(text):
            raise lone_surrogate_error(origin, name)
        if text.strip() and weight:
            weights[text] = weights.get(text, 0.0) + weight
    total = sum(weights.values())
    return tuple(text for text, weight in weights.items() for _ in range(max(1, round(_ANNOTATORS * weight / total))))


def _choice_by_number(value: object, row: Row) -> str | None:
    """The choice whose index is the answer; None if the answer is a text, or there are no choices."""
    choices = row.get("choices")
    if not isinstance(choices, list):  # NExT-QA has them in columns
        choices = [row[f"a{number}"] for number in range(len(row)) if f"a{number}" in row]
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and value.isdecimal() and len(value) < 3 and "a0" in row:
        number = int(value)
    if number is None or not 0 <= number < len(choices) or str(number) in choices:
        return None
    return choices[number] if isinstance(choices[number], str) else None


def _correct_choice(origin: str, row: Row) -> tuple[str, ...]:
    choices, chosen = row.get("choices"), row.get("correct_choice_idx")
    if not isinstance(choices, list) or chosen is None:
        return ()
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < len(choices):
        message = f"{origin}: correct_choice_idx should be a number below {len(choices)}, that of the choices"
        raise DataError(message, "unusable correct_choice_idx")
    if not isinstance(choices[chosen], str):
        raise wrong_type_error(origin, "choices", choices[chosen], "a list of strings")
    return (choices[chosen],)
