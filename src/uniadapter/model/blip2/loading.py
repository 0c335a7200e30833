"""BLIP-2's bases: folders of transformers files, with BERT's tokenizer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import Blip2Config, PreTrainedTokenizerBase

from uniadapter.checkpoints.loader import BaseLoader
from uniadapter.checkpoints.tokenizers import check_vocabulary, find_tokenizer, read_tokenizer
from uniadapter.errors import CheckpointError
from uniadapter.model.blip2.backbone import Blip2Backbone
from uniadapter.model.blip2.base_config import read_base_config

logger = logging.getLogger(__name__)

IMAGE_TOKEN = "<image>"  # which transformers' processor puts before a text as often as there are queries


class Blip2Loader(BaseLoader):
    """How BLIP-2's bases are read."""

    optional_modules = tuple(Blip2Backbone.heads)

    def read_config(self, folder: Path) -> Blip2Config:
        """Checked value by value."""
        return read_base_config(folder)

    def vocabulary(self, config: Any) -> int:
        """Rows of the Q-Former's token embeddings."""
        return int(config.qformer_config.vocab_size)

    def tokenizer(self, path: Path, base: str) -> PreTrainedTokenizerBase:
        """BERT's. The processor's image token may stand behind the model's words: it is no word of a text then."""
        source = find_tokenizer(path)
        if source is None:
            raise CheckpointError(f"{base}: has no tokenizer: put the vocab.txt of bert-base-uncased there")
        tokenizer = read_tokenizer(source)
        words = self.vocabulary(self.read_config(path))
        beyond = tokenizer.get_vocab().get(IMAGE_TOKEN) == words
        tokenizer.split_special_tokens = beyond or tokenizer.split_special_tokens
        check_vocabulary(tokenizer, words + beyond, str(source))
        ids = tokenizer("a picture of the").input_ids
        if len(ids) < 3 or ids[0] != tokenizer.cls_token_id or ids[-1] != tokenizer.sep_token_id:
            raise CheckpointError(
                f"{source}: its tokenizer puts no [CLS] before and [SEP] behind a text, as BERT's does; put the "
                "vocab.txt of bert-base-uncased there, or the tokenizer that the base came with"
            )
        for side in ("padding_side", "truncation_side"):
            if getattr(tokenizer, side) != "right":
                logger.warning("%s: %s is %s; BLIP-2 pads and cuts on the right", base, side, getattr(tokenizer, side))
                setattr(tokenizer, side, "right")
        return tokenizer
