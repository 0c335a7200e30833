"""VQA accuracy worked by hand and against a naive version; exact match; the official files, right and wrong."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniadapter.data.layouts.records import DataError
from uniadapter.data.layouts.vqa_files import (
    Annotation,
    Question,
    read_results,
    read_vqa_annotations,
    read_vqa_questions,
    write_results,
)
from uniadapter.evaluation.answer_text import CONTRACTIONS, normalise_answer
from uniadapter.evaluation.vqa import exact_match, question_accuracy, vqa_accuracy

# How many of ten annotators must type what the prediction is for these: 1 -> 9 of 10 subsets have 1 match:
# 0.9 * 1/3 = 0.3; 2 -> (2 * 1/3 + 8 * 2/3) / 10 = 0.6; 3 -> (3 * 2/3 + 7 * 1) / 10 = 0.9; 4 -> every subset has 3.
BY_AGREEMENT = {0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9, 4: 1.0, 5: 1.0, 9: 1.0, 10: 1.0}

# (prediction, what ten people typed and how many each, accuracy)
CASES: list[tuple[str, dict[str, int], float]] = [
    # agreement alone
    *(("yes", {"yes": agree, "no": 10 - agree}, accuracy) for agree, accuracy in BY_AGREEMENT.items()),
    ("no", {"yes": 7, "no": 3}, 0.9),
    ("maybe", {"yes": 4, "no": 3, "maybe": 2, "not sure": 1}, 0.6),
    ("blue", {"red": 1, "green": 1, "blue": 1, "pink": 1, "gray": 1, "tan": 1, "white": 1, "black": 1, "x": 2}, 0.3),
    # letter case and white space
    ("YES", {"Yes": 2, "no": 8}, 0.6),
    ("  yes\n", {"yes": 9, "no": 1}, 1.0),
    ("hot\tdog", {"hot dog": 9, "dog": 1}, 1.0),
    ("hot \n  dog", {"hot dog": 9, "dog": 1}, 1.0),
    # articles
    ("the cat", {"cat": 2, "a cat": 1, "dog": 7}, 0.9),  # "a cat" is "cat" too: 3
    ("an apple on a table", {"apple on the table": 1, "apple": 9}, 0.3),
    ("theater", {"theater": 3, "ater": 7}, 0.9),  # only whole words
    ("a", {"the": 1, "an": 1, "A.": 1, "b": 7}, 0.9),  # all of them are empty, and so agree
    # number words
    ("two", {"2": 5, "3": 5}, 1.0),
    ("10", {"ten": 3, "9": 7}, 0.9),
    ("None", {"0": 1, "zero": 1, "1": 8}, 0.6),
    ("none", {"none": 1, "nothing": 9}, 0.3),
    ("eleven", {"11": 9, "10": 1}, 0.0),  # the table ends at ten
    ("one on left", {"1 on left": 2, "left": 8}, 0.6),
    ("two.", {"2": 9, "1": 1}, 1.0),  # the full stop goes before words are looked up
    ("twenty-two", {"twenty 2": 9, "22": 1}, 1.0),
    # contractions
    ("dont walk", {"don't walk": 9, "walk": 1}, 1.0),
    ("don't walk", {"dont walk": 9, "walk": 1}, 1.0),
    ("5 oclock", {"5 o'clock": 3, "5": 7}, 0.9),
    ("whats", {"what's": 1, "what": 9}, 0.3),
    ("somebody'd", {"somebodyd": 4, "nobody": 6}, 1.0),  # this one loses its apostrophe
    ("im fine", {"i'm fine": 9, "fine": 1}, 0.0),  # "Im" in the table is never met in lower case
    ("shes", {"she's": 9, "he's": 1}, 0.0),  # not in the table, though "hes" is
    ("hes", {"he's": 9, "she's": 1}, 1.0),
    # apostrophes and colons stay
    ("girls", {"girl's": 9, "boy's": 1}, 0.0),
    ("girl's", {"girl's": 9, "boy's": 1}, 1.0),
    ("girl\u2019s", {"girl's": 9, "boy's": 1}, 0.0),  # a typographic apostrophe is another character
    ("2:50", {"2:50 pm": 5, "2:50": 2, "250": 3}, 0.6),
    # commas and full stops
    ("1,000", {"1000": 3, "100": 7}, 0.9),
    ("100,978", {"100978": 1, "100,978": 1, "978": 8}, 0.6),
    ("1,000,000", {"1000000": 9, "1": 1}, 1.0),
    ("red,white", {"red white": 9, "red": 1}, 1.0),
    ("red, white", {"red white": 9, "red": 1}, 1.0),  # ", " vanishes and leaves its space
    ("1, 2", {"1 2": 9, "12": 1}, 1.0),
    ("2.5", {"2.5": 3, "25": 7}, 0.9),
    ("2.5", {"25": 9, "2": 1}, 0.0),
    ("5.", {"5": 9, "6": 1}, 1.0),
    (".5", {"0.5": 5, ".5": 2, "5": 3}, 0.6),
    ("u.s.a.", {"usa": 3, "america": 7}, 0.9),
    ("no...", {"no": 9, "yes": 1}, 1.0),
    # hyphens, slashes and the other marks
    ("t-shirt", {"t shirt": 3, "tshirt": 7}, 0.9),
    ("x - ray", {"x ray": 9, "xray": 1}, 1.0),
    ("x -ray t-shirt", {"x ray tshirt": 9, "x ray t shirt": 1}, 1.0),  # " -" anywhere: every hyphen vanishes
    ("1,000-2", {"10002": 9, "1000 2": 1}, 1.0),  # a comma in a number: every mark vanishes
    ("black/white", {"black white": 2, "black": 8}, 0.6),
    ("black / white", {"black white": 9, "white": 1}, 1.0),
    ("-5", {"5": 9, "-4": 1}, 1.0),
    ('"stop"', {"stop": 9, "go": 1}, 1.0),
    ("(stop)!", {"stop": 9, "go": 1}, 1.0),
    ("what?!", {"what": 9, "who": 1}, 1.0),
    ("a+b=c", {"b c": 9, "c": 1}, 1.0),  # the article of "a b c" goes
    ("me@home.com", {"me homecom": 9, "home": 1}, 1.0),
    ("$5", {"5": 9, "6": 1}, 0.0),  # $, %, & and # are no marks of the list
    # all ten alike: nothing is normalised but the white space around
    ("the cat", {"the cat": 10}, 1.0),
    ("cat", {"the cat": 10}, 0.0),
    ("Yes", {"yes": 10}, 0.0),
    ("yes.", {"yes": 10}, 0.0),
    (" yes\t", {"yes": 10}, 1.0),
    ("2", {"two": 10}, 0.0),
    ("t-shirt", {"t-shirt": 10}, 1.0),
    ("yes.", {"yes": 9, "yes ": 1}, 0.0),  # alike once stripped
    ("yes.", {"yes": 9, "Yes": 1}, 1.0),  # not alike, so normalised: all ten agree
    # empty
    ("", {"yes": 9, "no": 1}, 0.0),
    ("", {"yes": 10}, 0.0),
    ("", {"": 1, "no": 9}, 0.3),
    # other scripts
    ("café", {"café": 3, "cafe": 7}, 0.9),
    ("CAFÉ.", {"café": 3, "cafe": 7}, 0.9),
    ("猫", {"猫": 2, "犬": 8}, 0.6),
    ("🐱!", {"🐱": 9, "🐶": 1}, 1.0),
    (
        "\uff11\uff0c\uff10\uff10\uff10",
        {"1000": 9, "1": 1},
        0.0,
    ),  # full-width: no comma of the list, no digits of its own
]


def votes(counts: dict[str, int]) -> list[str]:
    return [answer for answer, count in counts.items() for _ in range(count)]


def naive_accuracy(prediction: str, answers: list[str]) -> float:
    """The definition: for every subset without one annotator, min(1, matches / 3); then their mean."""
    subsets = list(itertools.combinations(answers, len(answers) - 1))
    return sum(min(1.0, sum(answer == prediction for answer in subset) / 3) for subset in subsets) / len(subsets)


@pytest.mark.parametrize("prediction, counts, expected", CASES)
def test_accuracy_worked_by_hand(prediction: str, counts: dict[str, int], expected: float) -> None:
    answers = votes(counts)
    assert len(answers) == 10
    assert question_accuracy(prediction, answers) == expected


def test_accuracy_equals_the_naive_one_on_normal_answers() -> None:
    """On words that normalisation leaves alone, over any number of annotators."""
    draw = random.Random(0)
    for _ in range(500):
        answers = draw.choices(["red", "green", "blue", "pink"], k=draw.randint(1, 14))
        prediction = draw.choice(["red", "green", "mauve"])
        assert question_accuracy(prediction, answers) == pytest.approx(naive_accuracy(prediction, answers), abs=1e-12)


def test_accuracy_equals_the_naive_one_on_normalised_answers() -> None:
    """Wordings that differ in every way: normalise all, or none where all are alike, then the definition."""
    draw = random.Random(1)
    pieces = ["one", "1", "The", "cat", "dont", "don't", "1,000", "2.5", "-", "/", ", ", " ", "!", "."]
    for _ in range(500):
        wordings = ["".join(draw.choices(pieces, k=draw.randint(1, 4))).strip() for _ in range(3)]
        answers = draw.choices(wordings, k=10)
        prediction = draw.choice(wordings)
        if len(set(answers)) == 1:
            expected = naive_accuracy(prediction, answers)
        else:
            expected = naive_accuracy(normalise_answer(prediction), [normalise_answer(one) for one in answers])
        assert question_accuracy(prediction, answers) == pytest.approx(expected, abs=1e-12)


def test_fewer_annotators_than_four_cannot_give_everything() -> None:
    """The same formula: two of three are left to agree with, one of two, none of one."""
    assert [question_accuracy("x", ["x"] * count) for count in (1, 2, 3, 4)] == [0.0, 1 / 3, 2 / 3, 1.0]
    with pytest.raises(ValueError, match="at least one"):
        question_accuracy("x", [])


def test_order_of_annotators_does_not_matter() -> None:
    answers = votes({"a cat": 3, "cat": 1, "dog": 6})
    random.Random(0).shuffle(answers)
    assert question_accuracy("cat", answers) == 1.0


def test_contractions_are_the_official_table() -> None:
    """120 entries; but for these all only gain apostrophes."""
    assert len(CONTRACTIONS) == 120
    odd = {word: whole for word, whole in CONTRACTIONS.items() if whole.count("'") <= word.count("'")}
    assert odd == {"let's": "let's", "she's": "she's", "somebody'd": "somebodyd"}
    assert all(word.replace("'", "") == whole.replace("'", "") for word, whole in CONTRACTIONS.items())
    assert normalise_answer("YALL'D'VE couldnt've ow's'at") == "y'all'd've couldn't've 'ow's'at"


def test_only_32_full_stops_are_removed() -> None:
    assert normalise_answer("x" + "." * 35) == "x..."


def annotation(number: int, answers: dict[str, int], answer_type: str = "other", question: str = "what") -> Annotation:
    return Annotation(number, number // 10, question, answer_type, tuple(votes(answers)))


def test_scores_of_a_split_by_type() -> None:
    scores = vqa_accuracy(
        {30: "a dog", 10: "yes", 20: "two"},
        [
            annotation(10, {"yes": 2, "no": 8}, "yes/no", "is the"),  # 0.6
            annotation(20, {"2": 9, "3": 1}, "number", "how many"),  # 1
            annotation(30, {"cat": 9, "dog": 1}),  # 0.3
        ],
    )
    assert scores.overall == pytest.approx(100 * 1.9 / 3)
    assert scores.by_answer_type == {"number": 100.0, "other": 30.0, "yes/no": 60.0}
    assert list(scores.by_question_type) == ["how many", "is the", "what"]
    assert scores.by_question == {10: 0.6, 20: 1.0, 30: 0.3}
    assert list(scores.by_question) == [10, 20, 30]


def test_a_type_is_the_mean_of_its_questions() -> None:
    scores = vqa_accuracy({1: "x", 2: "x"}, [annotation(1, {"x": 9, "y": 1}), annotation(2, {"y": 10})])
    assert scores.by_question_type == {"what": 50.0}
    assert scores.overall == 50.0


def test_predictions_of_other_questions_are_an_error_that_counts_and_names_them() -> None:
    asked = [annotation(number, {"x": 10}) for number in range(1, 11)]
    with pytest.raises(DataError, match=r"lack 8 of 10 questions \(1, 2, 3, 4, 5, …\) and have 1 .* \(77\)"):
        vqa_accuracy({9: "x", 10: "x", 77: "x"}, asked)
    with pytest.raises(DataError, match=r"predictions have 2 that are not asked \(11, 12\)"):
        vqa_accuracy(dict.fromkeys(range(1, 13), "x"), asked)


def test_annotations_that_cannot_be_scored() -> None:
    with pytest.raises(DataError, match=r"question 5 has 1 answers.*exact_match"):
        vqa_accuracy({5: "x"}, [annotation(5, {"x": 1})])
    with pytest.raises(DataError, match="question 5 is annotated twice"):
        vqa_accuracy({5: "x"}, [annotation(5, {"x": 10})] * 2)
    with pytest.raises(ValueError, match="empty"):
        vqa_accuracy({}, [])


def test_exact_match_by_question_word() -> None:
    scores = exact_match(
        ["Dog ", "two", "a man", "man", "dog", "room", "x"],
        ["dog", "2", "man", " Man", "cat", "room", "y"],
        ["What is it?", "how many dogs", "who runs", " Who's there", "what's that", "where is it", "is it a dog"],
    )
    assert scores.correct == (True, False, False, True, False, True, False)
    assert scores.overall == pytest.approx(300 / 7)
    assert scores.by_question_word == {"what": 50.0, "who": 50.0, "how": 0.0, "where": 100.0, "other": 0.0}
    assert scores.counts == {"what": 2, "who": 2, "how": 1, "where": 1, "other": 1}


def test_exact_match_takes_no_question_word_for_another() -> None:
    """ "whose" and "whatever" aren't "who" and "what"; a question without a word is other."""
    scores = exact_match(["x"] * 4, ["x"] * 4, ["whose is it", "Whatever is", "", "when?"])
    assert scores.counts == {"when": 1, "other": 3}


def test_exact_match_of_unequal_or_no_questions() -> None:
    with pytest.raises(ValueError, match="1 predictions, 2 answers and 2 questions"):
        exact_match(["x"], ["x", "y"], ["what", "who"])
    with pytest.raises(ValueError, match="empty"):
        exact_match([], [], [])


OFFICIAL = {
    "question_id": 262148000,
    "image_id": 262148,
    "question_type": "none of the above",
    "answer_type": "other",
    "multiple_choice_answer": "down",
    "answers": [{"answer": "down", "answer_confidence": "yes", "answer_id": index} for index in range(1, 11)],
}
QUESTION = {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000}


def save(folder: Path, content: Any) -> Path:
    file = folder / "file.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_official_files_are_read_in_order(tmp_path: Path) -> None:
    second = {**OFFICIAL, "question_id": 5}
    file = save(tmp_path, {"info": {}, "license": {}, "annotations": [OFFICIAL, second]})
    expected = Annotation(262148000, 262148, "none of the above", "other", ("down",) * 10)
    assert read_vqa_annotations(file)[0] == expected
    assert [one.question_id for one in read_vqa_annotations(file)] == [262148000, 5]
    file = save(tmp_path, "\ufeff" + json.dumps({"questions": [QUESTION]}))
    assert read_vqa_questions(file) == [Question(262148000, 262148, "Where is he looking?")]
    assert read_vqa_questions(save(tmp_path, {"questions": []})) == []


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"annotations": [', r"file\.json is not JSON .*complete"),
        ("", "is not JSON"),
        ({"questions": [QUESTION]}, "should be an object with a list under 'annotations'"),
        ([OFFICIAL], "should be an object with a list under 'annotations'"),
        ({"annotations": {"1": OFFICIAL}}, "should be an object with a list"),
        ({"annotations": [OFFICIAL, 3]}, r"file\.json\.annotations\[1\] is of type int"),
        ({"annotations": [QUESTION]}, r"annotations\[0\]: no field 'answers' \(it has image_id, question, question_id"),
        ({"annotations": [{**OFFICIAL, "question_id": "5"}]}, "'question_id' is of type str: .* whole number"),
        ({"annotations": [{**OFFICIAL, "question_id": True}]}, "'question_id' is of type bool"),
        ({"annotations": [{**OFFICIAL, "answer_type": None}]}, "'answer_type' is of type NoneType: .* a string"),
        ({"annotations": [{**OFFICIAL, "answers": "down"}]}, "'answers' is of type str: .* a list"),
        ({"annotations": [{**OFFICIAL, "answers": []}]}, r"annotations\[0\]: the list of answers is empty"),
        ({"annotations": [{**OFFICIAL, "answers": ["down"]}]}, r"annotations\[0\]\.answers\[0\] is of type str"),
        ({"annotations": [{**OFFICIAL, "answers": [{"answer": 2}]}]}, r"answers\[0\]: field 'answer' is of type int"),
        ({"annotations": [OFFICIAL, OFFICIAL]}, r"annotations\[1\]: question 262148000 is repeated"),
    ],
)
def test_annotation_files_that_are_wrong(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_vqa_annotations(save(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_missing_and_wrong_question_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json does not exist"):
        read_vqa_questions(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match=r"questions\[0\]: field 'question' is of type int"):
        read_vqa_questions(save(tmp_path, {"questions": [{**QUESTION, "question": 1}]}))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="is not JSON"):
        read_vqa_questions(tmp_path / "bytes.json")


def test_results_are_what_evalai_takes_and_come_back(tmp_path: Path) -> None:
    predictions = {262148000: "down", 5: "café 🐱", 7: ""}
    file = write_results(tmp_path / "new" / "results.json", predictions)
    assert json.loads(file.read_bytes())[0] == {"question_id": 262148000, "answer": "down"}
    assert read_results(file) == predictions
    assert list(read_results(file)) == [262148000, 5, 7]
    assert write_results(file, {np.int64(3): "x"}) == file  # type: ignore[dict-item]
    assert read_results(file) == {3: "x"}
    assert [one.name for one in file.parent.iterdir()] == ["results.json"]


def test_results_that_cannot_be_written_leave_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_results(tmp_path / "results.json", {1: "old"})
    with pytest.raises(DataError, match=r"question 2: field 'answer' is of type NoneType"):
        write_results(file, {1: "new", 2: None})  # type: ignore[dict-item]
    with pytest.raises(DataError, match=r"'question_id' is of type str"):
        write_results(file, {"1": "new"})  # type: ignore[dict-item]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"results\.json: could not be written \(No space left on device\)"):
        write_results(file, {1: "new"})
    assert read_results(file) == {1: "old"}
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    "content, message",
    [
        ({"1": "x"}, "should be a list of records"),
        ([{"question_id": 1, "answer": "x"}] * 2, r"file\.json\[1\]: question 1 is repeated"),
        ([{"question_id": 1}], r"file\.json\[0\]: no field 'answer' \(it has question_id\)"),
        ([{"question_id": 1, "answer": 2}], "'answer' is of type int: it should be a string"),
    ],
)
def test_result_files_that_are_wrong(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_results(save(tmp_path, content))


def test_files_to_scores(tmp_path: Path) -> None:
    """Questions, a model's answers, a result file and the annotations, end to end."""
    other = {**OFFICIAL, "question_id": 1, "answers": [{"answer": text} for text in votes({"2": 2, "two": 1, "3": 7})]}
    annotations = read_vqa_annotations(save(tmp_path, {"annotations": [OFFICIAL, other]}))
    results = write_results(tmp_path / "results.json", {262148000: "down", 1: "Two"})
    assert vqa_accuracy(read_results(results), annotations).by_question == {262148000: 1.0, 1: 0.9}
