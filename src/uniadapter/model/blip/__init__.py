"""BLIP (arXiv 2201.12086): transformers' three task models, with adapters."""

from __future__ import annotations

from uniadapter.model.families import Family

FAMILY = Family(
    name="blip",
    title="BLIP",
    model_types=("blip",),
    classes={
        "retrieval": "BlipForImageTextRetrieval",
        "vqa": "BlipForQuestionAnswering",
        "caption": "BlipForConditionalGeneration",
    },
    backbone="uniadapter.model.blip.backbone:BlipBackbone",
    loader="uniadapter.model.blip.loading:BlipLoader",
    patch=("vision_config", "patch_size"),
    positions=("text_config", "max_position_embeddings"),
    vocabulary=("text_config", "vocab_size"),
    fuses=True,
    packs=True,
    originals=True,
    covered={
        "retrieval": "tests/test_commands.py::test_own_data_and_training_learns",
        "video": "tests/test_video_commands.py",
        "rerank": "tests/evaluation/test_rerank.py",
        "vqa": "tests/test_answer_commands.py",
        "caption": "tests/test_answer_commands.py",
        "shared": "tests/test_parity.py",
        "key_value": "tests/test_parity.py",
    },
    notes={"merging": "adapters beside a non-linearity cannot be merged into the base's matrices"},
)
