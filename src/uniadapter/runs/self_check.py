"""The first look at a training set: do its captions belong to its pictures?

Pictures and captions that were mixed up (a wrong root, a list in another order) train without an error, for days. A
base that knows anything of such pictures ranks a caption's own above the middle, and would sooner write the caption of
it than of another. Questions are not looked at: a base that has never answered any knows no more of their own picture.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from uniadapter.config import RunConfig
from uniadapter.data.splits import RetrievalSplit, TrainingSet
from uniadapter.errors import DataError
from uniadapter.evaluation.recall import is_at_chance, is_coin_toss
from uniadapter.runs.steps import evaluate_split
from uniadapter.tasks.captioning import are_likelier
from uniadapter.tasks.preparing import Prepared

logger = logging.getLogger(__name__)

LOOKED_AT = 64  # pictures or videos, evenly spaced


def check_pairs(prepared: Prepared, train: TrainingSet, config: RunConfig) -> str:
    """Compare some captions with their own visuals and others', before training: by similarity, or by likelihood.

    Args:
        prepared: the model as training begins.
        train: the training data.
        config: of the run.

    Returns:
        A warning, logged already; "" if there is nothing to say, or too little to tell.
    """
    if config.task == "vqa" or train.visual_count < LOOKED_AT:
        return ""
    split = train.head(LOOKED_AT)
    if len(split.visuals) < LOOKED_AT:  # others cannot be read
        return ""
    prepared = replace(prepared, distributed=False)
    try:
        by_chance = _is_by_chance(prepared, _some_of(split), config)
    except DataError:  # a broken file, which training names or skips when it comes to it
        return ""
    if not by_chance:
        return ""
    told = "is no likelier of its own than of another" if config.task == "caption" else "finds its own by chance alone"
    line = (
        f"{split.name}: among {LOOKED_AT} {split.noun} a caption {told}: either they "
        "do not belong together (a wrong data.root, a list in another order), or the base knows nothing of the like"
    )
    logger.warning("%s", line)
    return line


def _some_of(split: RetrievalSplit) -> RetrievalSplit:
    """Evenly spaced visuals of a split, with their first captions."""
    step = len(split.visuals) / LOOKED_AT
    some = [int(number * step) for number in range(LOOKED_AT)]
    own = {visual: text for text, visual in reversed(list(enumerate(split.text_visual)))}
    return RetrievalSplit(
        "a first look",
        [split.visuals[one] for one in some],
        [split.visual_ids[one] for one in some],
        [split.origins[one] for one in some],
        [split.texts[own[one]] for one in some],
        list(range(LOOKED_AT)),
        noun=split.noun,
    )


def _is_by_chance(prepared: Prepared, split: RetrievalSplit, config: RunConfig) -> bool:
    if config.task == "caption":
        return is_coin_toss(are_likelier(prepared, split, config))
    alone = replace(config, evaluate=replace(config.evaluate, k=0, dual_softmax=False))
    return is_at_chance(evaluate_split(prepared, split, alone).detail.text_ranks, LOOKED_AT)
