"""The first look at a training set: do its captions belong to its pictures?

Pictures and captions that were mixed up (a wrong root, a list in another order) train without an error, for days. A
base that knows anything of such pictures ranks a caption's own above the middle; at chance the mean place is a half.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from uniadapter.config import RunConfig
from uniadapter.data.splits import RetrievalSplit, TrainingSet
from uniadapter.errors import DataError
from uniadapter.evaluation.recall import is_at_chance
from uniadapter.runs.steps import evaluate_split
from uniadapter.tasks.preparing import Prepared

logger = logging.getLogger(__name__)

LOOKED_AT = 64  # pictures or videos, evenly spaced


def check_pairs(prepared: Prepared, train: TrainingSet, config: RunConfig) -> str:
    """Rank some captions' pictures by similarity alone, before training.

    Args:
        prepared: the model as training begins.
        train: the training data.
        config: of the run.

    Returns:
        A warning, logged already; "" if there is nothing to say, or too little to tell.
    """
    if config.task != "retrieval" or train.visual_count < LOOKED_AT:
        return ""
    split = train.head(LOOKED_AT)
    if len(split.visuals) < LOOKED_AT:  # others cannot be read
        return ""
    step = len(split.visuals) / LOOKED_AT
    some = [int(number * step) for number in range(LOOKED_AT)]
    alone = replace(config, evaluate=replace(config.evaluate, k=0, dual_softmax=False))
    own = {visual: text for text, visual in reversed(list(enumerate(split.text_visual)))}
    small = RetrievalSplit(
        "a first look",
        [split.visuals[one] for one in some],
        [split.visual_ids[one] for one in some],
        [split.origins[one] for one in some],
        [split.texts[own[one]] for one in some],
        list(range(LOOKED_AT)),
        noun=split.noun,
    )
    try:
        result = evaluate_split(replace(prepared, distributed=False), small, alone)
    except DataError:  # a broken file, which training names or skips when it comes to it
        return ""
    if not is_at_chance(result.detail.text_ranks, LOOKED_AT):
        return ""
    line = (
        f"{split.name}: among {LOOKED_AT} {split.noun} a caption's own is found no better than by chance: either they "
        "do not belong together (a wrong data.root, a list in another order), or the base knows nothing of the like"
    )
    logger.warning("%s", line)
    return line
