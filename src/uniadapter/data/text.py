"""Text cleaning before tokenization, as in BLIP's `pre_caption` and `pre_question`."""

from __future__ import annotations

_MARKS = '.!"()*#:;~'
_TO_SPACE = str.maketrans(_MARKS, " " * len(_MARKS))
_TO_NOTHING = str.maketrans("", "", _MARKS)


def clean_caption(text: str, max_words: int = 30) -> str:
    """Clean a caption: lower case, `.!"()*#:;~` replaced by spaces, at most `max_words` words.

    White space is collapsed and stripped, so a caption of punctuation only becomes "".
    """
    return " ".join(text.lower().translate(_TO_SPACE).split()[:max_words])


def clean_question(text: str, max_words: int = 50) -> str:
    """Clean a question: as a caption, but the punctuation is removed without leaving a space."""
    return " ".join(text.lower().translate(_TO_NOTHING).split()[:max_words])
