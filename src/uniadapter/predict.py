"""One call each for a user: features of pictures, videos and texts, scores of pairs, answers and captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.backbone import Texts, Visuals, encode_visual, match
from uniadapter.config import EvaluateConfig, ModelConfig
from uniadapter.data.images import EvaluationTransform
from uniadapter.data.records import DataError
from uniadapter.data.text import clean_caption, clean_question
from uniadapter.data.video import load_frames
from uniadapter.decoder import visual_context
from uniadapter.evaluation.answering import AnswerList, Prediction, answer_questions
from uniadapter.evaluation.retrieval import encode_texts
from uniadapter.generation import generate_texts

Picture = str | Path | Image.Image

_BATCH = 64
_BLOCK = 512


@torch.no_grad()
def image_features(model: PreTrainedModel, images: Sequence[Picture], frames: int = 1) -> Visuals:
    """Encode pictures or videos for search, for `pair_scores`, `ask` and `caption`.

    Args:
        model: a BLIP, with or without an adapter.
        images: files or Pillow images; each is resized to the model's square.
        frames: of a video, the middles of as many equal segments; a picture among videos stands still.

    Returns:
        `Visuals`; `.feature` [V, e] has unit rows, so an inner product is a cosine similarity.

    Raises:
        DataError: a file is missing or broken; names it.
    """
    transform = EvaluationTransform(model.config.vision_config.image_size)
    batch, parts = max(1, _BATCH // frames), []
    for start in range(0, len(images), batch):
        clips = []
        for image in images[start : start + batch]:
            source = image if isinstance(image, Image.Image) else Path(image)
            shown = [source.convert("RGB")] * frames if isinstance(source, Image.Image) else _frames(source, frames)
            clips.append(torch.stack([transform(frame) for frame in shown]))
        parts.append(encode_visual(model, torch.stack(clips).to(model.device)))
    return Visuals.concatenate(parts)


def _frames(path: Path, frames: int) -> list[Image.Image]:
    return load_frames(path, "", frames, at_least=0)


def text_features(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int = 35
) -> Texts:
    """Encode texts, cleaned as captions are in training.

    Returns:
        `Texts`; `.feature` [S, e] has unit rows.
    """
    return encode_texts(model, tokenizer, [clean_caption(text) for text in texts], max_tokens, 4 * _BATCH)


@torch.no_grad()
def pair_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    images: Sequence[Picture] | Visuals,
    texts: Sequence[str] | Texts,
    pairs: Tensor | Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """How well texts and pictures match, by the fused encoder.

    Args:
        model: a BLIP with a matching head.
        tokenizer: the base's.
        images: pictures, or what `image_features` made of them.
        texts: texts, or what `text_features` made of them.
        pairs: (text, image) rows to score; None scores all.

    Returns:
        Probabilities that they belong together: [P] for pairs, [texts, images] for all.
    """
    visuals = images if isinstance(images, Visuals) else image_features(model, images)
    encoded = texts if isinstance(texts, Texts) else text_features(model, tokenizer, texts)
    if pairs is None:
        rows = torch.cartesian_prod(torch.arange(len(encoded)), torch.arange(len(visuals)))
    else:
        rows = torch.as_tensor(pairs).reshape(-1, 2)
    # By visual, so that blocks share keys and values.
    order = torch.argsort(rows[:, 1], stable=True)
    scores = torch.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = order[start : start + _BLOCK]
        logits = match(model, encoded, visuals, rows[part].to(model.device))
        scores[part] = logits.float().softmax(-1)[:, 1].cpu()
    return scores.view(len(encoded), len(visuals)) if pairs is None else scores


@torch.no_grad()
def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    image: Picture | Visuals,
    questions: Sequence[str],
    answers: Sequence[str] | AnswerList | None = None,
    frames: int = 1,
) -> list[Prediction]:
    """Answer questions about one picture or video.

    Args:
        model: a `BlipForQuestionAnswering`, with or without an adapter.
        tokenizer: the base's.
        image: a file or a Pillow image, or what `image_features` made of one.
        questions: texts.
        answers: the list to choose from, all of it ranked; None lets the decoder write.
        frames: of a video.

    Returns:
        An answer a question, with its runners-up and their probabilities where it was chosen from a list.

    Raises:
        DataError: the file is missing or broken, or a question is empty.
        ValueError: an answer of the list cannot be ranked.
    """
    texts = [clean_question(question) for question in questions]
    if not all(texts):
        number = texts.index("") + 1
        raise DataError(f"question {number} is empty once cleaned: write one, or leave it out", "empty question")
    visuals = image if isinstance(image, Visuals) else image_features(model, [image], frames)
    listed = answers if answers is None or isinstance(answers, AnswerList) else AnswerList(answers, tokenizer, model)
    return answer_questions(
        model, tokenizer, visuals, texts, [0] * len(texts), ModelConfig(), EvaluateConfig(k=0), listed
    )


@torch.no_grad()
def caption(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    images: Sequence[Picture] | Visuals,
    prompt: str = "a picture of ",
    frames: int = 1,
    beams: int = 3,
    longest: int = 20,
    shortest: int = 5,
) -> list[str]:
    """Write a caption for each picture or video.

    Args:
        model: a `BlipForConditionalGeneration`, with or without an adapter.
        tokenizer: the base's.
        images: files or Pillow images, or what `image_features` made of them.
        prompt: what captions start with; not in what is returned.
        frames: of a video.
        beams: of the search.
        longest: tokens with the prompt, at most.
        shortest: the same, at least.

    Raises:
        DataError: a file is missing or broken.
    """
    visuals = images if isinstance(images, Visuals) else image_features(model, images, frames)
    return generate_texts(model, tokenizer, visual_context(model, visuals), prompt, beams, longest, shortest)
