"""BLIP (arXiv 2201.12086): transformers' three task models, with adapters."""

from __future__ import annotations

from uniadapter.model.families import NOT_MERGED, Family

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
        "video": "tests/test_video_commands.py::test_video_layouts_through_train_and_evaluate",
        "rerank": "tests/evaluation/test_rerank.py::test_rerank_equals_one_pair_at_a_time",
        "vqa": "tests/test_answer_commands.py::test_vqa_files_learn_measure_and_answer",
        "caption": "tests/test_answer_commands.py::test_captions_are_learnt_and_scored",
        "shared": "tests/test_parity.py::test_parity_adapter",
        "key_value": "tests/test_parity.py::test_parity_features_and_fusion",
        "self_attention": "tests/test_self_attention.py::test_answers_are_decoded_and_ranked_by_the_equations",
    },
    notes={"merging": NOT_MERGED},
)
