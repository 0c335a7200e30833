"""A tiny world on disk: a base model with its tokenizer, pictures of coloured squares, and annotation files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizerFast, BlipForImageTextRetrieval

from tiny import tiny_config

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 60, 220), "white": (250, 250, 250),
    "black": (10, 10, 10), "yellow": (240, 230, 40), "pink": (250, 150, 200), "grey": (128, 128, 128),
}  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "square", "the", "picture", "of", *COLOURS]


def word_tokenizer(vocabulary: int = 64) -> BertTokenizerFast:
    """A WordPiece of a few words with BLIP's [DEC] and [ENC] as the last two of `vocabulary` ids."""
    words = WORDS + [f"[unused{i}]" for i in range(vocabulary - 2 - len(WORDS))] + ["[DEC]", "[ENC]"]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    )
    return BertTokenizerFast(tokenizer_object=tokenizer, bos_token="[DEC]")


def save_tokenizer(folder: Path, vocabulary: int = 64) -> None:
    """`word_tokenizer` in a folder."""
    word_tokenizer(vocabulary).save_pretrained(folder)


def save_base(folder: Path, seed: int = 0, **sizes: int) -> Path:
    """A tiny random base as a transformers folder."""
    import torch

    torch.manual_seed(seed)
    BlipForImageTextRetrieval(tiny_config(**sizes)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_pictures(folder: Path, suffix: str = "png") -> list[str]:
    """One picture of each colour; their names relative to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, colour in COLOURS.items():
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.{suffix}")
        names.append(f"{name}.{suffix}")
    return names


def captions(colour: str) -> list[str]:
    """What is said of a picture."""
    return [f"A {colour} square.", f"the picture of a {colour} square"]


def karpathy(folder: Path, prefix: str, inside: str = "") -> dict[str, str]:
    """Train, val and test files in the layout of COCO and Flickr30K as they circulate; paths below `inside`."""
    names = save_pictures(folder / inside, "jpg")
    train: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        image = f"{inside}/{name}" if inside else name
        said = captions(Path(name).stem)
        train += [{"image": image, "caption": caption, "image_id": f"{prefix}_{index}"} for caption in said]
        rest.append({"image": image, "caption": said})
    files = {}
    for split, rows in (("train", train), ("val", rest), ("test", rest)):
        file = folder / f"{prefix}_{split}.json"
        file.write_text(json.dumps(rows))
        files[split] = str(file)
    return files
