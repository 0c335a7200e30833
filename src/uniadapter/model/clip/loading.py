"""CLIP's bases: folders of transformers files, whose tokenizer frames a text and ends it with the end token."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from uniadapter.errors import CheckpointError
from uniadapter.model.clip.backbone import COMPARED
from uniadapter.model.dual.loading import DualLoader


class ClipLoader(DualLoader):
    """How CLIP's bases are read."""

    def check_config(self, config: PreTrainedConfig, file: Path) -> None:
        """That there is a width to project to as well."""
        super().check_config(config, file)
        width = config.projection_dim
        if not isinstance(width, int) or not 0 < width <= 1 << 16:
            raise CheckpointError(f"{file}: projection_dim is {str(width)[:40]}: it must be of 1 to 65536")

    def unlike(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> str:
        """A tokenizer whose end token is not where the model looks for it."""
        fault = super().unlike(tokenizer, config)
        if fault:
            return fault
        ids = tokenizer("a picture of the").input_ids
        if len(ids) < 3 or ids[0] != tokenizer.bos_token_id:
            return "puts no start token before a text"
        end, wanted = tokenizer.eos_token_id, config.text_config.eos_token_id
        if wanted == COMPARED and end < max(tokenizer.get_vocab().values()):
            return f"has its end token at {end}, where the model takes the greatest id for it"
        if wanted not in (COMPARED, end):
            return f"has its end token at {end}, where the model has it at {wanted}"
        return ""
