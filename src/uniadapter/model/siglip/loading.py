"""SigLIP's bases: folders of transformers files, whose tokenizer lower-cases, ends a text and pads it on the right."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from tokenizers import normalizers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.checkpoints.bases import CONFIG
from uniadapter.errors import CheckpointError
from uniadapter.files.schema import SchemaError, read_json
from uniadapter.model.dual.loading import DualLoader
from uniadapter.model.siglip.backbone import NAFLEX

logger = logging.getLogger(__name__)


class SiglipLoader(DualLoader):
    """How SigLIP's bases are read."""

    def read_config(self, folder: Path) -> PreTrainedConfig:
        """The config; one of a model that keeps pictures' shapes is refused with the reason."""
        with suppress(SchemaError, OSError):  # said below
            described = read_json(folder / CONFIG)
            if isinstance(described, dict) and described.get("model_type") == "siglip2":
                raise CheckpointError(f"{folder / CONFIG}: {NAFLEX}")
        return super().read_config(folder)

    def check_config(self, config: PreTrainedConfig, file: Path) -> None:
        """That pictures are pooled, and texts projected to their width."""
        super().check_config(config, file)
        if not getattr(config.vision_config, "vision_use_head", True):
            raise CheckpointError(f"{file}: vision_config.vision_use_head is false, so pictures have no feature")
        width, wanted = config.text_config.projection_size, config.vision_config.hidden_size
        if width != wanted:
            raise CheckpointError(
                f"{file}: text_config.projection_size is {str(width)[:40]}, and pictures' features are {wanted} wide"
            )

    def finish(self, model: PreTrainedModel, folder: Path, base: str) -> None:
        """The token that pads, which is read like any other: SigLIP 2's configs do not say that it is not SigLIP's."""
        with suppress(CheckpointError):  # said when the tokenizer is asked for
            model.config.text_config.pad_token_id = self.tokenizer(folder, base).pad_token_id

    def tokenizer(self, path: Path, base: str) -> PreTrainedTokenizerBase:
        """The tokenizer; where its class needs packages that are missing, the error says which to install."""
        try:
            return super().tokenizer(path, base)
        except CheckpointError as error:
            if "sentencepiece library" in str(error).lower() or "protobuf library" in str(error).lower():
                raise CheckpointError(
                    f"{base}: its tokenizer is SigLIP's own, which needs two more packages: "
                    "pip install sentencepiece protobuf"
                ) from error
            raise

    def unlike(self, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> str:
        """A tokenizer that frames a text otherwise; one that leaves capital letters is made to lower them."""
        fault = super().unlike(tokenizer, config)
        if fault:
            return fault
        if tokenizer.bos_token_id is not None and tokenizer("a picture of the").input_ids[0] == tokenizer.bos_token_id:
            return "puts a start token before a text, with which SigLIP was not trained"
        if not _lowers(tokenizer):
            backend = getattr(tokenizer, "backend_tokenizer", None)
            if backend is None:
                return "leaves capital letters as they are, with which SigLIP was not trained"
            kept = [] if backend.normalizer is None else [backend.normalizer]
            backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *kept])
            if not _lowers(tokenizer):
                return "leaves capital letters as they are, with which SigLIP was not trained"
            logger.info("%s: texts are lower-cased before its tokenizer, as SigLIP 2 was trained", config.name_or_path)
        return ""


def _lowers(tokenizer: PreTrainedTokenizerBase) -> bool:
    shouted, said = tokenizer(["A Picture OF THE", "a picture of the"]).input_ids
    return bool(shouted == said)
