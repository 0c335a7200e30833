"""HTML cards of questions with their answers, and of captions, before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from uniadapter.report.query_cards import reason_label, target_picture
from uniadapter.report.thumbnails import Picture, Thumbnails
from uniadapter.report.word_looks import WordLook, looks_section

SHOWN_FROM = 0.005  # probability from which an answer is shown that is neither the first nor right


@dataclass
class TextExample:
    """A question or caption with the model's texts.

    Args:
        image: a file, or its bytes.
        question: "" for a caption.
        expected: the annotated answers or captions.
        before: answers before training with their probabilities, best first; a generated text with None.
        after: the same after training.
        reason: why it was selected, if by its result; "" otherwise.
        looks: where some words of the question look in the picture.
        frames: frames of a clip that the model sees, which are shown; 0 if unknown.
    """

    image: Picture
    question: str
    expected: Sequence[str]
    before: Sequence[tuple[str, float | None]]
    after: Sequence[tuple[str, float | None]]
    reason: str = ""
    looks: Sequence[WordLook] = ()
    frames: int = 0


def text_cards(examples: Sequence[TextExample], labels: tuple[str, str], thumbnails: Thumbnails) -> str:
    """The cards of all examples, as HTML."""
    return "\n".join(_card(example, labels, thumbnails) for example in examples)


def _card(example: TextExample, labels: tuple[str, str], thumbnails: Thumbnails) -> str:
    wanted = " · ".join(dict.fromkeys(example.expected))
    first, *others = list(dict.fromkeys(example.expected)) or [""]
    title = example.question or first
    about = f"picture of the question: {title}" if example.question else f"picture with the caption: {wanted}"
    picture = target_picture(example.image, about, thumbnails, frames=example.frames, large=True)
    said = f'<p class="ranks">right: <b>{escape(wanted)}</b></p>' if example.question else _others(others)
    lines = "".join(
        f'<h4>{escape(label)}</h4><ol class="said">{_lines(given, example.expected)}</ol>'
        for label, given in zip(labels, (example.before, example.after), strict=True)
        if given
    )
    head = f"{picture}<h3>{escape(title)}</h3>{said}{reason_label(example.reason)}"
    noun = "clip" if thumbnails.moves(example.image) else "picture"
    looks = looks_section(example.looks, example.image, noun, labels, thumbnails)
    return f'<article class="query"><header>{head}</header>{lines}{looks}</article>'


def _others(captions: Sequence[str]) -> str:
    """The further captions that people gave, folded."""
    if not captions:
        return ""
    return f"<details><summary>{len(captions)} more</summary>{escape(' · '.join(captions))}</details>"


def _lines(given: Sequence[tuple[str, float | None]], wanted: Sequence[str]) -> str:
    right = {text.lower() for text in wanted}
    lines = []
    for place, (text, probability) in enumerate(given):
        if place and probability is not None and probability < SHOWN_FROM and text.lower() not in right:
            continue
        kind = ' class="right"' if text.lower() in right else ""
        if probability is None:
            name = "whole right" if kind else "whole"
            lines.append(f'<li class="{name}"><span>{escape(text)}</span></li>')
        else:
            share = 100 * probability
            bar = f'<i style="width:{share:.0f}%"></i>'
            lines.append(f"<li{kind}><span>{escape(text)}</span><b>{share:.0f}%</b><em>{bar}</em></li>")
    return "".join(lines)
