"""Load BLIP models: from folders of transformers files, BLIP's own `.pth` files, and the base in this package."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from torch import Tensor
from transformers import BlipConfig, PreTrainedConfig, PreTrainedTokenizerBase

from uniadapter.checkpoints.loader import BaseLoader
from uniadapter.checkpoints.pth import read_pth
from uniadapter.errors import CheckpointError
from uniadapter.model.blip.backbone import BlipBackbone
from uniadapter.model.blip.base_config import other_preprocessing, read_base_config
from uniadapter.model.blip.original import BERT_WORDS, import_base, infer_config
from uniadapter.model.blip.tokenizer import load_tokenizer_from

TIED = "text_decoder.cls.predictions.decoder."  # the decoder's copy of its word embeddings


class BlipLoader(BaseLoader):
    """Reads BLIP models; heads that a file lacks are initialised randomly."""

    optional_modules = tuple(BlipBackbone.heads)

    def read_config(self, folder: Path) -> BlipConfig:
        """See `BaseLoader`; every value is validated."""
        return read_base_config(folder)

    def read_original(self, path: Path, base: str) -> tuple[PreTrainedConfig, dict[str, Tensor]]:
        """Config and weights of one of BLIP's `.pth` files.

        The config is inferred from shapes; if the vocabulary is not BERT's, special tokens come from the tokenizer
        beside the file.
        """
        original = read_pth(path)
        config = infer_config(original)
        if config.text_config.vocab_size != BERT_WORDS + 2:
            with suppress(CheckpointError):  # `load_tokenizer` will raise it
                load_tokenizer_from(path, base, config)
        return config, import_base(original)

    def tied(self, config: PreTrainedConfig) -> tuple[str, ...]:
        """The decoder's output weights, where the config ties them."""
        return (TIED,) if config.text_config.tie_word_embeddings else ()

    def warnings(self, folder: Path) -> list[str]:
        """A warning if `preprocessor_config.json` differs from BLIP's preprocessing, which is used anyway."""
        return list(filter(None, [other_preprocessing(folder)]))

    def tokenizer(self, path: Path, base: str) -> PreTrainedTokenizerBase:
        """BERT's tokenizer with [DEC] and [ENC] added."""
        return load_tokenizer_from(path, base)
