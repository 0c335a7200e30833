"""Where the words of a page's examples look, before and after training."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from PIL import Image

from uniadapter.config import RunConfig
from uniadapter.evaluation.mode import evaluation_mode
from uniadapter.evaluation.retrieval import encode_texts
from uniadapter.inference.attention import attention_layers, question_texts
from uniadapter.inference.features import image_features
from uniadapter.model.attention_maps import AttentionMap
from uniadapter.model.dispatch import has_attention_maps
from uniadapter.model.sets import disable_adapter
from uniadapter.report import QueryExample, TextExample, WordLook
from uniadapter.tasks.preparing import Prepared, image_size

MOST_WORDS, MOST_OF_CLIPS = 3, 2  # words of an example that are shown

# Words that name nothing that is to be seen: articles, pronouns, auxiliaries, prepositions, places, questions.
_NAMELESS = """
    a an the this that these those it its he she they them his her their there here some any other another one two
    three four five six each and or but of to in on at by with without for from as than then first last next before
    after while during between is are was were be been has have had having do does did can could will would should
    not no yes above below over under beneath beside behind near front left right top bottom middle side corner up
    down higher lower upper what which who whom whose where when why how many much more most less often times time
    you i me we see seen look looks looking show shows shown contain contains appear appears come comes follow
    follows picture image photo video clip film scene thing things something kind start end beginning
"""
NAMELESS = frozenset(_NAMELESS.split())
Example = QueryExample | TextExample


@dataclass(frozen=True)
class _Looks:
    """The places of the words of an example that are shown, and its maps in each layer before and after training."""

    example: Example
    places: list[list[int]]
    before: list[AttentionMap]
    after: list[AttentionMap]


def content_words(words: Sequence[str], most: int) -> list[list[int]]:
    """Places of the first things that a text names, each once; words side by side are one thing: "police officer"."""
    found: dict[tuple[str, ...], list[int]] = {}
    for named, run in itertools.groupby(range(len(words)), lambda place: _names(words[place])):
        places = list(run)
        if named:
            found.setdefault(tuple(words[place] for place in places), places)
    return list(found.values())[:most]


def _names(word: str) -> bool:
    return word.isalpha() and len(word) > 1 and word not in NAMELESS


def with_word_looks(
    examples: Sequence[Example], trained: Prepared, before: Prepared | None, config: RunConfig
) -> tuple[list[Example], str]:
    """Examples with the attention of two or three of their words, before and after training.

    Args:
        examples: of the test set.
        trained: the model after training.
        before: the base; None takes the trained model without its adapter.
        config: of the run.

    Returns:
        The examples, and a sentence on how the maps were made. Without fused words (another family, captions, blank
        pictures), the examples as they are, and "".
    """
    texts = [one for one in examples if isinstance(one, QueryExample) or one.question]
    if not texts or config.data.blank or not has_attention_maps(trained.model):
        return list(examples), ""
    pictures = [one.right if isinstance(one, QueryExample) else one.image for one in texts]
    words = [one.query if isinstance(one, QueryExample) else one.question for one in texts]
    after = _all_layers(trained, pictures, words, config)
    with nullcontext() if before is not None else disable_adapter(trained.model):
        first = _all_layers(before or trained, pictures, words, config)
    most = MOST_WORDS if len(after[0][0].frame_weights) == 1 else MOST_OF_CLIPS
    found = [
        _Looks(example, content_words(layers[0].words, most), old, layers)
        for example, old, layers in zip(texts, first, after, strict=True)
    ]
    layer, count = chosen_layer(found), len(after[0])
    note = (
        f"Colour shows where a word looks: cross-attention of layer {layer + 1} of {count} of the fused encoder, mean "
        "over heads; of all layers, the one in which the words differ most in where they look."
    )
    aware = config.model.method == "uniadapter" and config.model.adapter.frame_aware
    return [_with_looks(one, layer, aware) for one in found], note


def _all_layers(
    prepared: Prepared, pictures: Sequence[object], texts: Sequence[str], config: RunConfig
) -> list[list[AttentionMap]]:
    """For each text its maps in each layer, read as in evaluation."""
    model, tokenizer, longest = prepared.model, prepared.tokenizer, config.model.max_tokens
    frames, size = config.data.evaluation_frames, image_size(prepared, config)
    found = []
    with evaluation_mode(model):
        if config.task == "retrieval":
            encoded = encode_texts(model, tokenizer, list(texts), longest, len(texts))
        else:
            encoded = question_texts(model, tokenizer, list(texts), longest)
        for row, picture in enumerate(pictures):
            read = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
            visuals = image_features(model, [read], frames, size)  # type: ignore[list-item]
            found += attention_layers(model, tokenizer, visuals, encoded.select([row]))
    return found


def chosen_layer(found: Sequence[_Looks]) -> int:
    """The layer in which an example's words differ most in where they look; the last if none has two words.

    A layer in which every word looks at the same place says nothing about words.
    """
    if all(len(one.places) < 2 for one in found):
        return len(found[0].after) - 1
    return max(range(len(found[0].after)), key=lambda layer: _difference(found, layer))


def _difference(found: Sequence[_Looks], layer: int) -> float:
    """Mean total variation distance between two words' attention over patches."""
    maps = [(side[layer].patches, one.places) for one in found for side in (one.before, one.after)]
    pairs = [(own[a].mean(0), own[b].mean(0)) for own, places in maps for a, b in itertools.combinations(places, 2)]
    return sum(float((a - b).abs().sum()) / 2 for a, b in pairs) / len(pairs)


def _with_looks(one: _Looks, layer: int, frame_aware: bool) -> Example:
    old, new = one.before[layer], one.after[layer]
    moving = len(new.frame_weights) > 1

    def shares(found: AttentionMap, places: list[int]) -> list[float]:
        return found.frames[places].mean(0).tolist() if moving else []

    looks = [
        WordLook(
            " ".join(new.words[place] for place in places),
            old.patches[places].mean(0).numpy(), new.patches[places].mean(0).numpy(),
            shares(old, places), shares(new, places),
        )
        for places in one.places
    ]  # fmt: skip
    if isinstance(one.example, QueryExample):
        weights = new.frame_weights.tolist() if moving and frame_aware else ()
        return replace(one.example, looks=looks, frame_weights=weights)
    return replace(one.example, looks=looks)
