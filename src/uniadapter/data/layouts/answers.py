"""Answers of a row, under every name and in every shape in which they circulate.

answer                              a text, or the texts of several annotators (BLIP, LAVIS, one's own)
answers: [{answer: text}, …]        VQAv2 and VizWiz as Hugging Face has them; also texts, or {answer: [texts]}
direct_answers                      A-OKVQA; where it has none, choices[correct_choice_idx]
answer: a number, beside choices     ScienceQA; NExT-QA has the choices as a0, a1, …
multiple_choice_answer              the most frequent of VQA v2
label: {text: weight}               LXMERT; as {ids: [texts], weights: [numbers]}, ViLT
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from uniadapter.data.media.records import DataError, ErrorPolicy, Row, half_a_character, is_whole, listed, wrong_type

_NAMES = ("answer", "answers", "direct_answers", "multiple_choice_answer", "label", "labels")
_INSIDE = ("answer", "raw_answer", "text")  # of an object, where its answer is
_WANTED = "a text, or a list of texts"
_HEAVIEST = 1_000_000
_VOTES = 10  # annotators that weights are spread over, as VQA v2 has


def answers_of(origin: str, row: Row, problems: ErrorPolicy) -> tuple[str, ...]:
    """Every answer as typed, one an annotator; none where the row has none. Numbers become texts, and are counted.

    Raises:
        DataError: answers are of no shape that is known.
    """
    for name in _NAMES:
        value = row.get(name)
        if value in (None, "", []):
            continue
        if (chosen := _chosen(value, row)) is not None:
            problems.changed["answers that are the number of a choice"] += 1
            return (chosen,)
        if name in ("label", "labels") and isinstance(value, Mapping):
            return _votes(origin, name, value)
        if name in ("label", "labels") and isinstance(value, (int, float)):
            raise DataError(f"{origin}: field {name!r} is a number: it should be the answer's text", f"unusable {name}")
        found = tuple(_text(origin, name, one, problems) for one in _list(value))
        return tuple(text for text in found if text.strip())
    return _choice(origin, row)


def _list(value: object) -> list[object]:
    if isinstance(value, Mapping) and isinstance(value.get("answer"), list):
        return list(value["answer"])
    value = listed(value) if isinstance(value, str) else value
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _text(origin: str, name: str, value: object, problems: ErrorPolicy) -> str:
    if isinstance(value, Mapping):
        value = next((value[key] for key in _INSIDE if value.get(key) is not None), None)
    if isinstance(value, (bool, int, float)):
        # An answer such as 2 or true stands unquoted in files that people write themselves.
        if isinstance(value, float) and not math.isfinite(value):
            raise wrong_type(origin, name, None, _WANTED)
        problems.changed["answers that are numbers or true or false read as texts"] += 1
        return str(int(value) if isinstance(value, float) and value.is_integer() else value).lower()
    if not isinstance(value, str):
        raise wrong_type(origin, name, value, _WANTED)
    if not is_whole(value):
        raise half_a_character(origin, name)
    return value


def _votes(origin: str, name: str, value: Mapping[str, object]) -> tuple[str, ...]:
    """Answers with weights as those of ten annotators."""
    pairs: list[tuple[object, object]] = list(value.items())
    if isinstance(value.get("ids"), list) and isinstance(value.get("weights"), list):
        pairs = list(zip(value["ids"], value["weights"], strict=False))  # type: ignore[call-overload]
        if len(value["ids"]) != len(value["weights"]):  # type: ignore[arg-type]
            raise DataError(f"{origin}: {name}.ids and {name}.weights differ in length", f"unusable {name}")
    weights: dict[str, float] = {}
    for text, weight in pairs:
        if not isinstance(text, str) or isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise DataError(f"{origin}: field {name!r} should be an object of answer to weight", f"unusable {name}")
        if not 0 <= weight <= _HEAVIEST:
            raise DataError(f"{origin}: a weight in {name!r} is not between 0 and {_HEAVIEST:,}", f"unusable {name}")
        if not is_whole(text):
            raise half_a_character(origin, name)
        if text.strip() and weight:
            weights[text] = weights.get(text, 0.0) + weight
    total = sum(weights.values())
    return tuple(text for text, weight in weights.items() for _ in range(max(1, round(_VOTES * weight / total))))


def _chosen(value: object, row: Row) -> str | None:
    """The choice that an answer is the number of; None where it is a text, or there are no choices."""
    choices = row.get("choices")
    if not isinstance(choices, list):  # NExT-QA has them in columns
        choices = [row[f"a{number}"] for number in range(len(row)) if f"a{number}" in row]
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and value.isdecimal() and len(value) < 3 and "a0" in row:
        number = int(value)
    if number is None or not 0 <= number < len(choices) or str(number) in choices:
        return None
    return choices[number] if isinstance(choices[number], str) else None


def _choice(origin: str, row: Row) -> tuple[str, ...]:
    choices, chosen = row.get("choices"), row.get("correct_choice_idx")
    if not isinstance(choices, list) or chosen is None:
        return ()
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < len(choices):
        message = f"{origin}: correct_choice_idx should be a number below {len(choices)}, that of the choices"
        raise DataError(message, "unusable correct_choice_idx")
    if not isinstance(choices[chosen], str):
        raise wrong_type(origin, "choices", choices[chosen], "a list of texts")
    return (choices[chosen],)
