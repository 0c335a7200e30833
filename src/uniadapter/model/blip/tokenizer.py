"""BLIP's tokenizer: BERT's with [DEC] and [ENC] added, checked against the model."""

from __future__ import annotations

import logging
from pathlib import Path

from transformers import BertTokenizer, BlipConfig, PreTrainedTokenizerBase

from uniadapter.checkpoints.bases import CONFIG, hub_in_reach
from uniadapter.checkpoints.pth import read_pth
from uniadapter.checkpoints.tokenizers import find_tokenizer, read_tokenizer, unknown_words_fault
from uniadapter.errors import CheckpointError
from uniadapter.model.blip.base_config import read_base_config
from uniadapter.model.blip.original import BERT_WORDS, infer_config

logger = logging.getLogger(__name__)

BERT = "bert-base-uncased"
_FILES = ("tokenizer.json", "vocab.txt")
WHERE_TO_GET_IT = f"put vocab.txt of {BERT} (huggingface.co/google-bert/{BERT}) there"
_PADDING = 7  # most unused rows of an embedding whose size was rounded up to a multiple of 8


def load_tokenizer_from(
    path: Path, name: str, config: BlipConfig | None = None, from_pth: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, or beside a `.pth` file, checked against the model's config.

    Args:
        path: a folder with `tokenizer.json` or `vocab.txt`; a `vocab.txt`; or a `.pth` file, whose own folder and the
            folder `tokenizer` in it are searched, then the hub's cache and the hub for BERT's.
        name: the base as the user named it, for errors.
        config: the model's; None reads it from the folder or the `.pth` file. If it was inferred from a `.pth` file
            with another vocabulary than BERT's, its ids of special tokens are set to the tokenizer's.
        from_pth: `config` was inferred from the tensors of a `.pth` file.

    Raises:
        CheckpointError: there is none, it is broken, or it is another model's; says which file to put where.
    """
    is_pth = path.is_file() and path.name not in _FILES
    if config is None:
        config = infer_config(read_pth(path, shapes_only=True), 1, 1) if is_pth else _config_of(path)
    source = find_tokenizer(path) if is_pth else path
    if source is None:
        tokenizer = _bert(config, path.parent, name)
    elif source.is_dir() and not any((source / file).is_file() for file in _FILES):
        raise CheckpointError(f"{name}: has no tokenizer; {WHERE_TO_GET_IT}, or give one when converting (--tokenizer)")
    else:
        tokenizer = read_tokenizer(source)
    guessed = (is_pth or from_pth) and config is not None and config.text_config.vocab_size != BERT_WORDS + 2
    _add_special(tokenizer, config, _PADDING if guessed else 0)
    if guessed and config is not None:
        _take_ids(config, tokenizer)
    check_tokenizer(tokenizer, config, str(source or BERT))
    for side in ("padding_side", "truncation_side"):
        if getattr(tokenizer, side) != "right":
            logger.warning("%s: %s is %s; BLIP pads and cuts on the right", name, side, getattr(tokenizer, side))
            setattr(tokenizer, side, "right")
    return tokenizer


def _config_of(path: Path) -> BlipConfig | None:
    folder = path if path.is_dir() else path.parent
    return read_base_config(folder) if (folder / CONFIG).is_file() else None


def _bert(config: BlipConfig | None, folder: Path, name: str) -> PreTrainedTokenizerBase:
    """BERT's tokenizer, from the hub's cache or the hub."""
    words = config.text_config.vocab_size if config else BERT_WORDS + 2
    if words != BERT_WORDS + 2:
        raise CheckpointError(
            f"{name}: has no tokenizer, and its {words} words are not BERT's {BERT_WORDS + 2}: put the vocab.txt "
            f"that it was trained with into {folder}"
        )
    for name_there, local in ((BERT, True), (f"google-bert/{BERT}", True), (BERT, False)):
        if local or hub_in_reach():
            try:
                return BertTokenizer.from_pretrained(name_there, local_files_only=local)
            except Exception as error:  # of the cache, the network or the hub
                logger.debug("%s: %s", name_there, error)
    raise CheckpointError(f"{name}: has no tokenizer, and the hub cannot be reached: {WHERE_TO_GET_IT} ({folder})")


def _add_special(tokenizer: PreTrainedTokenizerBase, config: BlipConfig | None, padding: int) -> None:
    """Add [DEC] and [ENC], in BLIP's order, to a tokenizer that lacks them."""
    if config is None or "[DEC]" in tokenizer.get_vocab():
        return
    if 0 <= config.text_config.vocab_size - 2 - len(tokenizer) <= padding:
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})


def _take_ids(config: BlipConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the special tokens of a config that was inferred from tensors, which do not tell them, to the tokenizer's."""
    text, vocabulary = config.text_config, tokenizer.get_vocab()
    if tokenizer.sep_token_id is not None and tokenizer.pad_token_id is not None:
        text.sep_token_id = text.eos_token_id = tokenizer.sep_token_id
        text.pad_token_id = tokenizer.pad_token_id
    if "[DEC]" in vocabulary and "[ENC]" in vocabulary:
        text.bos_token_id, text.enc_token_id = vocabulary["[DEC]"], vocabulary["[ENC]"]


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: BlipConfig | None, where: str) -> None:
    """Refuse a tokenizer that is not the model's: outputs would be wrong without an error.

    Args:
        tokenizer: to check.
        config: of the model; None checks the tokenizer alone.
        where: the file or folder that it was read from, for the error.

    Raises:
        CheckpointError: its ids are not the model's, it puts no [CLS] and [SEP] around a text, or it knows no words.
    """
    try:
        fault = _foreign(tokenizer, config) if config is not None else ""
        fault = fault or _unframed(tokenizer) or unknown_words_fault(tokenizer)
    except Exception as error:  # of a tokenizer that cannot even tokenise
        raise CheckpointError(f"{where}: its tokenizer fails on a text ({type(error).__name__}: {error})") from error
    if fault:
        raise CheckpointError(f"{where}: its tokenizer {fault}; {WHERE_TO_GET_IT}, or the one that the base came with")


def _foreign(tokenizer: PreTrainedTokenizerBase, config: BlipConfig) -> str:
    """What does not match the model's ids, for the error; empty if all does."""
    text = config.text_config
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= text.vocab_size:
        return f"has {highest + 1} words, where the model has embeddings for {text.vocab_size}"
    if highest + 1 < text.bos_token_id:
        return f"has {highest + 1} words, where the model has {text.bos_token_id} before [DEC]"
    for name in ("pad", "sep"):
        ours, theirs = getattr(tokenizer, f"{name}_token_id"), getattr(text, f"{name}_token_id")
        if ours != theirs:
            return f"has [{name.upper()}] at {ours}, where the model has it at {theirs}"
    dec = int(text.bos_token_id)
    enc = int(getattr(text, "enc_token_id", None) or dec + 1)
    vocabulary = tokenizer.get_vocab()
    for name, place in (("[DEC]", dec), ("[ENC]", enc)):
        if name in vocabulary and vocabulary[name] != place:
            return f"has {name} at {vocabulary[name]}, where the model has it at {place}"
        held = tokenizer.convert_ids_to_tokens(place) if place <= highest else None
        if held not in (None, "", name) and held not in tokenizer.all_special_tokens and not held.startswith("[unused"):
            return f"has the word {held[:40]!r} at {place}, where the model has {name}"
    return ""


def _unframed(tokenizer: PreTrainedTokenizerBase) -> str:
    """What is wrong with the special tokens around a text, for the error; empty if nothing is."""
    ids = tokenizer("a picture of the").input_ids
    if len(ids) < 3 or ids[0] != tokenizer.cls_token_id or ids[-1] != tokenizer.sep_token_id:
        return "puts no [CLS] before and [SEP] behind a text, as BERT's does"
    return ""
