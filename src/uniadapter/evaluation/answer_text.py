"""Normalisation of answers, as in the official VQA evaluation.

Source: the rules of visualqa.org/evaluation.html, and where those are silent or wrong, the behaviour of the
script behind them (`vqaEval.py` of GT-Vision-Lab/VQA, since VQA v2). For scores that are comparable to published
ones, its config_warnings are kept:

- a mark between letters becomes a space (`hot-dog` is `hot dog`), but a mark that touches a space anywhere in
  the answer vanishes everywhere in it (`x -ray, t-shirt` is `x ray tshirt`), and a comma between two digits
  makes every mark vanish (`1,000-2` is `10002`);
- a full stop goes unless a digit follows (`2.5` and `.5` stay, `5.` is `5`), the first 32 of them at least:
  the script passes a regular expression's flag where the number of replacements belongs;
- apostrophes and colons are never touched, typographic marks (’ “ ” – …) neither;
- `none` becomes `0`; an answer that is only an article becomes empty, and so matches every other such one;
- of the contractions, `somebody'd` *loses* its apostrophe, and `Im`, `Ive`, `Id've` are never met, since words
  are lower-cased before they are looked up.
"""

from __future__ import annotations

import re
from functools import lru_cache

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_FULL_STOPS_REMOVED = 32
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}

# What the official table turns a word into, and the words that it does so with. The table is a list of single
# words, not a rule: `hes` is in it, `shes` isn't; `wed've` is, `wed` (a word of its own) isn't.
_CONTRACTED = {
    "ain't": "aint", "aren't": "arent", "can't": "cant", "could've": "couldve", "couldn't": "couldnt",
    "couldn't've": "couldn'tve couldnt've", "didn't": "didnt", "doesn't": "doesnt", "don't": "dont",
    "hadn't": "hadnt", "hadn't've": "hadnt've hadn'tve", "hasn't": "hasnt", "haven't": "havent", "he'd": "hed",
    "he'd've": "hed've he'dve", "he's": "hes", "how'd": "howd", "how'll": "howll", "how's": "hows",
    "I'd've": "Id've I'dve", "I'm": "Im", "I've": "Ive", "isn't": "isnt", "it'd": "itd", "it'd've": "itd've it'dve",
    "it'll": "itll", "let's": "let's", "ma'am": "maam", "mightn't": "mightnt", "mightn't've": "mightnt've mightn'tve",
    "might've": "mightve", "mustn't": "mustnt", "must've": "mustve", "needn't": "neednt", "not've": "notve",
    "o'clock": "oclock", "oughtn't": "oughtnt", "'ow's'at": "ow's'at 'ows'at 'ow'sat", "shan't": "shant",
    "she'd've": "shed've she'dve", "she's": "she's", "should've": "shouldve", "shouldn't": "shouldnt",
    "shouldn't've": "shouldnt've shouldn'tve", "somebodyd": "somebody'd",
    "somebody'd've": "somebodyd've somebody'dve", "somebody'll": "somebodyll", "somebody's": "somebodys",
    "someone'd": "someoned", "someone'd've": "someoned've someone'dve", "someone'll": "someonell",
    "someone's": "someones", "something'd": "somethingd", "something'd've": "somethingd've something'dve",
    "something'll": "somethingll", "that's": "thats", "there'd": "thered", "there'd've": "thered've there'dve",
    "there're": "therere", "there's": "theres", "they'd": "theyd", "they'd've": "theyd've they'dve",
    "they'll": "theyll", "they're": "theyre", "they've": "theyve", "'twas": "twas", "wasn't": "wasnt",
    "we'd've": "wed've we'dve", "we've": "weve", "weren't": "werent", "what'll": "whatll", "what're": "whatre",
    "what's": "whats", "what've": "whatve", "when's": "whens", "where'd": "whered", "where's": "wheres",
    "where've": "whereve", "who'd": "whod", "who'd've": "whod've who'dve", "who'll": "wholl", "who's": "whos",
    "who've": "whove", "why'll": "whyll", "why're": "whyre", "why's": "whys", "won't": "wont", "would've": "wouldve",
    "wouldn't": "wouldnt", "wouldn't've": "wouldnt've wouldn'tve", "y'all": "yall", "y'all'll": "yall'll y'allll",
    "y'all'd've": "yall'd've y'alld've y'all'dve", "you'd": "youd", "you'd've": "youd've you'dve",
    "you'll": "youll", "you're": "youre", "you've": "youve",
}  # fmt: skip
CONTRACTIONS = {word: whole for whole, words in _CONTRACTED.items() for word in words.split()}


def strip_answer(text: str) -> str:
    """The part of the normalisation that is always applied: line ends and tabs become spaces, the ends are stripped."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 16)  # a split's millions of answers are some tens of thousands of texts
def normalise_answer(text: str) -> str:
    """Normalise an answer as the official VQA evaluation does.

    In this order: white space, punctuation, lower case, number words to digits, articles removed, apostrophes
    of contractions; see the module's docstring on the config_warnings.
    """
    words = (_DIGITS.get(word, word) for word in _without_punctuation(strip_answer(text)).lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    """Remove punctuation; whether a mark is removed depends on the original text, not on other marks."""
    close_up = _COMMA_IN_NUMBER.search(text) is not None
    table: dict[str, str | int | None] = {  # as maketrans wants it
        mark: "" if close_up or f"{mark} " in text or f" {mark}" in text else " " for mark in _MARKS
    }
    return _FULL_STOP.sub("", text.translate(str.maketrans(table)), count=_FULL_STOPS_REMOVED)
