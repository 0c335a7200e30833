"""Everything that knows the insides of transformers' CLIP."""

from __future__ import annotations

from uniadapter.model.dual import COVERED, NOTES
from uniadapter.model.families import NOT_MERGED, Family

FAMILY = Family(
    name="clip",
    title="CLIP",
    model_types=("clip",),
    classes={"retrieval": "CLIPModel"},
    backbone="uniadapter.model.clip.backbone:CLIPBackbone",
    loader="uniadapter.model.clip.loading:ClipLoader",
    patch=("vision_config", "patch_size"),
    positions=("text_config", "max_position_embeddings"),
    vocabulary=("text_config", "vocab_size"),
    covered=COVERED,
    notes={
        **NOTES,
        "shared": "where widths agree, as OpenAI's do not; `adapter.factor` shares a factor where they do not",
        "merging": NOT_MERGED,
    },
)
