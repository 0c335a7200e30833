"""Questions with their answers, and captions, before and after, as cards of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from uniadapter.report.pictures import Picture, Thumbnails
from uniadapter.report.queries import chosen_label, target_picture


@dataclass
class TextExample:
    """What was said of a picture or video.

    Args:
        image: a file, or the bytes of one.
        asked: the question; "" for a caption.
        wanted: what people answered or wrote.
        before: answers before training with their probabilities, the chosen one first; a caption alone with None.
        after: the same after training.
        chosen: why it is shown, where it was chosen by its result; "" otherwise.
    """

    image: Picture
    asked: str
    wanted: Sequence[str]
    before: Sequence[tuple[str, float | None]]
    after: Sequence[tuple[str, float | None]]
    chosen: str = ""


def text_cards(examples: Sequence[TextExample], labels: tuple[str, str], thumbnails: Thumbnails) -> str:
    """The cards of all examples, as HTML."""
    return "\n".join(_card(example, labels, thumbnails) for example in examples)


def _card(example: TextExample, labels: tuple[str, str], thumbnails: Thumbnails) -> str:
    wanted = " · ".join(dict.fromkeys(example.wanted))
    title = example.asked or wanted
    about = f"what is asked about: {title}" if example.asked else f"what people described as: {title}"
    picture = target_picture(example.image, about, thumbnails)
    said = f'<p class="ranks">right: <b>{escape(wanted)}</b></p>' if example.asked else ""
    lines = "".join(
        f'<h4>{escape(label)}</h4><ol class="said">{_lines(given, example.wanted)}</ol>'
        for label, given in zip(labels, (example.before, example.after), strict=True)
        if given
    )
    head = f"{picture}<h3>{escape(title)}</h3>{said}{chosen_label(example.chosen)}"
    return f'<article class="query"><header>{head}</header>{lines}</article>'


def _lines(given: Sequence[tuple[str, float | None]], wanted: Sequence[str]) -> str:
    right = {text.lower() for text in wanted}
    lines = []
    for text, probability in given:
        kind = ' class="right"' if text.lower() in right else ""
        if probability is None:
            lines.append(f"<li{kind}><span>{escape(text)}</span></li>")
        else:
            share = 100 * probability
            bar = f'<i style="width:{share:.0f}%"></i>'
            lines.append(f"<li{kind}><span>{escape(text)}</span><b>{share:.0f}%</b><em>{bar}</em></li>")
    return "".join(lines)
