"""Everything that knows the insides of transformers' SigLIP, which SigLIP 2 of fixed resolution is too."""

from __future__ import annotations

from uniadapter.model.families import Family

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
    covered={
        "retrieval": "tests/families/test_dual_runs.py::test_training_learns_and_its_folder_is_all_that_is_needed",
        "video": "tests/families/test_dual_runs.py::test_videos_are_trained_and_evaluated",
        "shared": "tests/families/test_dual_towers.py::test_one_down_projection_serves_both_towers_where_widths_agree",
    },
    notes={
        "rerank": "two towers are compared by their features; nothing reads a text and a picture together",
        "vqa": "no decoder",
        "caption": "no decoder",
        "shared": "where widths agree, as in base, large and so400m",
        "key_value": "no cross-attention",
        "merging": "adapters beside a non-linearity cannot be merged into the base's matrices",
    },
)
