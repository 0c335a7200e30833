"""The field's text cleaning, as in BLIP: what is done to captions and questions before a tokenizer."""

from __future__ import annotations

_MARKS = '.!"()*#:;~'
_TO_SPACE = str.maketrans(_MARKS, " " * len(_MARKS))
_TO_NOTHING = str.maketrans("", "", _MARKS)


def clean_caption(text: str, max_words: int = 30) -> str:
    """A caption as the models read it: lower case, `.!"()*#:;~` become spaces, at most `max_words` words.

    Runs of white space become one space and the ends are stripped, so a caption of nothing but marks is "".
    """
    return " ".join(text.lower().translate(_TO_SPACE).split()[:max_words])


def clean_question(text: str, max_words: int = 50) -> str:
    """A question as the models read it: like a caption, but the marks vanish instead of leaving a space."""
    return " ".join(text.lower().translate(_TO_NOTHING).split()[:max_words])
