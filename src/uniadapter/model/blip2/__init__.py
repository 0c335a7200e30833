"""Everything that knows the insides of transformers' BLIP-2."""

from __future__ import annotations

from uniadapter.model.families import NOT_MERGED, Family

FAMILY = Family(
    name="blip2",
    title="BLIP-2",
    model_types=("blip-2",),
    classes={"retrieval": "Blip2ForImageTextRetrieval"},
    backbone="uniadapter.model.blip2.backbone:Blip2Backbone",
    loader="uniadapter.model.blip2.loading:Blip2Loader",
    patch=("vision_config", "patch_size"),
    positions=("qformer_config", "max_position_embeddings"),
    vocabulary=("qformer_config", "vocab_size"),
    fuses=True,
    packs=True,
    covered={
        "retrieval": "tests/families/test_blip2_commands.py::test_train_evaluate_save_load_and_disable",
        "video": "tests/families/test_blip2_commands.py::test_videos_with_weighed_frames_and_their_time",
        "rerank": "tests/families/test_blip2.py::"
        "test_a_pictures_keys_and_values_are_projected_once_however_many_texts_meet_it",
        "shared": "tests/families/test_blip2_naive.py::test_the_grouped_version_is_the_one_written_pair_by_pair",
        "key_value": "tests/families/test_blip2_naive.py::test_its_gradients_are_those_of_the_one_written_pair_by_pair",
    },
    notes={
        "shared": "by the queries and texts of each Q-Former layer; the visual encoder has another width",
        "vqa": "its language model is not in Blip2ForImageTextRetrieval",
        "caption": "its language model is not in Blip2ForImageTextRetrieval",
        "self_attention": "not in the Q-Former's layers yet",
        "merging": NOT_MERGED,
    },
)
