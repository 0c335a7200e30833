"""HTML cards of queries with their top results before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from uniadapter.report.thumbnails import Picture, Thumbnails, file_stem

TOP = 5


@dataclass
class RankedItem:
    """A picture or clip in a ranking.

    Args:
        image: a file, or its bytes; a clip is shown as a strip of frames.
        score: shown below the picture; None shows none.
        correct: whether it belongs to the query.
        frame_weights: of a video's frames, in order, shown as bars; [] shows none.
        caption: alternative text; the file's name if "".
    """

    image: Picture
    score: float | None = None
    correct: bool = False
    frame_weights: Sequence[float] = ()
    caption: str = ""


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
    """

    query: str
    before: list[RankedItem] = field(default_factory=list)
    after: list[RankedItem] = field(default_factory=list)
    rank_before: int | None = None
    rank_after: int | None = None
    right: Picture | None = None
    reason: str = ""

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
    picture = target_picture(target, f"what was asked for: {example.query}", thumbnails) if target is not None else ""
    lines = "".join(
        _line(label, items, rank, thumbnails)
        for label, items, rank in (
            (labels[0], example.before, example.rank_before),
            (labels[1], example.after, example.rank_after),
        )
        if items
    )
    return (
        f'<article class="query"><header>{picture}<h3>{escape(example.query)}</h3>{_ranks(example)}'
        f"{reason_label(example.reason)}</header>{lines}</article>"
    )


def target_picture(picture: Picture, words: str, thumbnails: Thumbnails) -> str:
    """The `<img>` of a card's subject: a thumbnail, or a strip of frames of a clip."""
    moves = thumbnails.moves(picture)
    source = thumbnails.strip(picture) if moves else thumbnails.source(picture)
    kind = "target strip" if moves else "target"
    return f'<img class="{kind}" src="{source}" alt="{escape(words)}">' if source else ""


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
    kind = "tiles strips" if strips else "tiles"
    return f'<h4>{escape(label)}<span class="beyond">{beyond}</span></h4><ol class="{kind}">{tiles}</ol>'


def _tile(item: RankedItem, place: int, thumbnails: Thumbnails) -> str:
    name = item.caption or file_stem(item.image)
    spoken = f"place {place}{', the right one' if item.correct else ''}{': ' + name if name else ''}"
    moves = thumbnails.moves(item.image)
    source = thumbnails.strip(item.image, len(item.frame_weights)) if moves else thumbnails.source(item.image)
    if source is None:
        picture = f'<span class="gone" role="img" aria-label="{escape(spoken)}">no picture</span>'
    else:
        picture = f'<img src="{source}" alt="{escape(spoken)}" title="{escape(name)}">'
    mark = '<span class="mark" aria-hidden="true">✓</span>' if item.correct else ""
    score = "" if item.score is None else f'<span class="score">{item.score:.2f}</span>'
    kind = ' class="right"' if item.correct else ""
    return f'<li{kind}><span class="frame">{picture}{mark}</span>{_bars(item.frame_weights)}{score}</li>'


def _bars(weights: Sequence[float]) -> str:
    if not weights:
        return ""
    top = max(*weights, 1e-12)
    bars = "".join(f'<i style="height:{100 * max(0.0, weight) / top:.0f}%"></i>' for weight in weights)
    spoken = "weights of the frames: " + ", ".join(f"{weight:.2f}" for weight in weights)
    return f'<span class="bars" role="img" aria-label="{spoken}" title="{spoken}">{bars}</span>'
