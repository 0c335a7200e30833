"""What families of two towers without fusion share: pooling, contrast, and what they can do."""

COVERED = {
    "retrieval": "tests/families/test_dual_runs.py::test_training_learns_and_its_folder_is_all_that_is_needed",
    "video": "tests/families/test_dual_runs.py::test_videos_are_trained_and_evaluated",
    "shared": "tests/families/test_dual_towers.py::test_one_down_projection_serves_both_towers_where_widths_agree",
}
NOTES = {
    "rerank": "two towers are compared by their features; nothing reads a text and a picture together",
    "vqa": "no decoder",
    "caption": "no decoder",
    "key_value": "no cross-attention",
    "self_attention": "not in the towers' layers yet",
}
