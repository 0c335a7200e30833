"""Everything that knows the insides of transformers' SigLIP, which SigLIP 2 of fixed resolution is too."""

from __future__ import annotations

from uniadapter.model.dual import COVERED, NOTES
from uniadapter.model.families import NOT_MERGED, Family

FAMILY = Family(
    name="siglip",
    title="SigLIP, SigLIP 2",
    model_types=("siglip", "siglip2"),
    classes={"retrieval": "SiglipModel"},
    backbone="uniadapter.model.siglip.backbone:SiglipBackbone",
    loader="uniadapter.model.siglip.loading:SiglipLoader",
    patch=("vision_config", "patch_size"),
    positions=("text_config", "max_position_embeddings"),
    vocabulary=("text_config", "vocab_size"),
    covered=COVERED,
    notes={
        **NOTES,
        "shared": "where widths agree, as in base, large and so400m",
        "merging": NOT_MERGED,
    },
)
