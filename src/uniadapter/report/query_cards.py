"""HTML cards of queries with their top results before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from uniadapter.report.thumbnails import MOST_FRAMES, Picture, Thumbnails, file_stem
from uniadapter.report.word_looks import SHORT, WordLook, frame_labels, looks_section

TOP = 5
BAR_SPAN = 0.1  # the distance from 1 of a frame weight that fills its half of the bar; at temperature 4 few are larger


@dataclass
class RankedItem:
    """A picture or clip in a ranking.

    Args:
        image: a file, or its bytes; a clip is shown as a strip of frames.
        score: shown below the picture; None shows none.
        correct: whether it belongs to the query.
        frame_weights: of a video's frames, in order, shown as bars; [] shows none.
        caption: alternative text; the file's name if "".
        frames: frames of a clip that the model sees, which are shown; 0 if unknown.
        hard_negative: whether it is one of the query's picture: of the same `group` in the annotation file.
    """

    image: Picture
    score: float | None = None
    correct: bool = False
    frame_weights: Sequence[float] = ()
    caption: str = ""
    frames: int = 0
    hard_negative: bool = False


@dataclass
class QueryExample:
    """A text query and its results.

    Args:
        query: the text.
        before: top results before training, best first; [] omits them.
        after: the same after training.
        rank_before: rank of the correct picture, from 1; None if unknown.
        rank_after: the same after training.
        right: the correct picture; if None it is taken from `before` or `after`, if it is there.
        reason: why it was selected, if by its result; "" otherwise.
        looks: where some of its words look in the picture that belongs to it.
        frame_weights: of the frames of that clip in frame-aware attention after training, mean 1; () shows none.
    """

    query: str
    before: list[RankedItem] = field(default_factory=list)
    after: list[RankedItem] = field(default_factory=list)
    rank_before: int | None = None
    rank_after: int | None = None
    right: Picture | None = None
    reason: str = ""
    looks: Sequence[WordLook] = ()
    frame_weights: Sequence[float] = ()

    def target(self) -> Picture | None:
        """The correct picture, if it is known."""
        if self.right is not None:
            return self.right
        return next((item.image for item in (*self.after, *self.before) if item.correct), None)


def rank_changes(examples: Sequence[QueryExample], noun: str = "picture") -> str:
    """A sentence on how many correct pictures moved up, stayed and moved down; "" if ranks are unknown."""
    pairs = [(e.rank_before, e.rank_after) for e in examples if e.rank_before and e.rank_after]
    if not pairs:
        return ""
    up = sum(after < before for before, after in pairs)
    same = sum(after == before for before, after in pairs)
    return f"The right {noun} moved up in {up}, stayed in {same} and moved down in {len(pairs) - up - same}."


def query_cards(examples: Sequence[QueryExample], labels: tuple[str, str], thumbnails: Thumbnails) -> str:
    """The cards of all queries, as HTML."""
    return "\n".join(_card(example, labels, thumbnails) for example in examples)


def _card(example: QueryExample, labels: tuple[str, str], thumbnails: Thumbnails) -> str:
    target = example.target()
    words = f"what was asked for: {example.query}"
    frames = next((item.frames for item in (*example.after, *example.before)), 0)
    picture = "" if target is None else target_picture(target, words, thumbnails, example.frame_weights, frames)
    lines = "".join(
        _line(label, items, rank, thumbnails)
        for label, items, rank in (
            (labels[0], example.before, example.rank_before),
            (labels[1], example.after, example.rank_after),
        )
        if items
    )
    noun = "right clip" if target is not None and thumbnails.moves(target) else "right picture"
    looks = looks_section(example.looks, target, noun, labels, thumbnails)
    return (
        f'<article class="query"><header>{picture}<h3>{escape(example.query)}</h3>{_ranks(example)}'
        f"{reason_label(example.reason)}</header>{lines}{looks}</article>"
    )


def target_picture(
    picture: Picture,
    words: str,
    thumbnails: Thumbnails,
    frame_weights: Sequence[float] = (),
    frames: int = 0,
    large: bool = False,
) -> str:
    """The picture of a card's subject: a thumbnail, or a strip of the frames of a clip with their weights, if known.

    Args:
        picture: file or bytes.
        words: alternative text.
        thumbnails: makes the pictures.
        frame_weights: of a clip's frames; () for none.
        frames: number of a clip's frames, if there are no weights; 0 if unknown.
        large: whether it is the only picture of the card.
    """
    if not thumbnails.moves(picture):
        source = thumbnails.source(picture)
        kind = "target large" if large else "target"
        return f'<img class="{kind}" src="{source}" alt="{escape(words)}">' if source else ""
    source = thumbnails.strip(picture, len(frame_weights) or frames)
    if not source:
        return ""
    shown = f'<img class="target strip" src="{source}" alt="{escape(words)}">'
    if not 1 < len(frame_weights) <= MOST_FRAMES:
        return shown
    labels = frame_labels([f"{weight:.2f}" for weight in frame_weights])
    title = "frame weights: what frame-aware attention multiplies the keys of each frame by"
    return f'{shown}<span class="weights" title="{title}">{_bars(frame_weights)}{labels}</span>'


def reason_label(words: str) -> str:
    """The label with the reason for a card's selection; "" if there is none."""
    return f'<p class="chosen">{escape(words)}</p>' if words else ""


def _ranks(example: QueryExample) -> str:
    before, after = example.rank_before, example.rank_after
    if before is None or after is None:
        known = before if before is not None else after
        return "" if known is None else f'<p class="ranks">rank <b>{known:,}</b></p>'
    kind, sign = ("up", "▲") if after < before else ("down", "▼") if after > before else ("same", "=")
    spoken = f"rank of the right picture: {before} before, {after} after"
    return (
        f'<p class="ranks {kind}" role="img" aria-label="{spoken}" title="{spoken}">'
        f'<span class="sign">{sign}</span>rank {before:,} → <b>{after:,}</b></p>'
    )


def _line(label: str, items: Sequence[RankedItem], rank: int | None, thumbnails: Thumbnails) -> str:
    strips = any(thumbnails.moves(item.image) for item in items[:TOP])
    tiles = "".join(_tile(item, place, thumbnails) for place, item in enumerate(items[:TOP], 1))
    beyond = f" · right one at {rank:,}" if rank and not any(i.correct for i in items[:TOP]) else ""
    frames = max((len(item.frame_weights) or item.frames for item in items[:TOP]), default=0)
    kind = ("tiles strips short" if 0 < frames <= SHORT else "tiles strips") if strips else "tiles"
    return f'<h4>{escape(label)}<span class="beyond">{beyond}</span></h4><ol class="{kind}">{tiles}</ol>'


def _tile(item: RankedItem, place: int, thumbnails: Thumbnails) -> str:
    name = item.caption or file_stem(item.image)
    kind = "right" if item.correct else "near" if item.hard_negative else ""
    role = {"right": ", the right one", "near": ", a hard negative of the right one", "": ""}[kind]
    spoken = f"place {place}{role}{': ' + name if name else ''}"
    moves = thumbnails.moves(item.image)
    source = (
        thumbnails.strip(item.image, len(item.frame_weights) or item.frames) if moves else thumbnails.source(item.image)
    )
    if source is None:
        picture = f'<span class="gone" role="img" aria-label="{escape(spoken)}">no picture</span>'
    else:
        picture = f'<img src="{source}" alt="{escape(spoken)}" title="{escape(name)}">'
    mark = '<span class="mark" aria-hidden="true">✓</span>' if item.correct else ""
    score = "" if item.score is None else f'<span class="score">{item.score:.2f}</span>'
    styled = f' class="{kind}"' if kind else ""
    return f'<li{styled}><span class="frame">{picture}{mark}</span>{_bars(item.frame_weights)}{score}</li>'


def _bars(weights: Sequence[float]) -> str:
    """Frame weights as bars above and below 1, on one scale for all pages; "" without any."""
    if not weights:
        return ""
    bars = "".join(
        f'<i class="{"more" if weight >= 1 else "less"}" style="height:{_bar_height(weight):.0f}%"></i>'
        for weight in weights
    )
    spoken = "weights of the frames: " + ", ".join(f"{weight:.2f}" for weight in weights)
    return f'<span class="bars" role="img" aria-label="{spoken}" title="{spoken}">{bars}</span>'


def _bar_height(weight: float) -> float:
    """Percent of the row's height, at most half of it; half a row is `BAR_SPAN`."""
    return 50 * min(1.0, abs(weight - 1) / BAR_SPAN)
