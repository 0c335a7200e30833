"""What the tables of `result_tables.py` show: how the arms are called, and which columns a task has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """How an arm of `prove.py` is called.

    Args:
        text: in the tables.
        method: of its rows.
        setting: of its rows.
    """

    text: str
    method: str
    setting: str = ""


ARMS = {
    "question_only": Label("question only (nothing to see)", "question_only"),
    "zero_shot": Label("zero-shot", "zero_shot"),
    "without_fused": Label("UniAdapter without the fused part", "uniadapter", "without the fused part"),
    "fused_alone": Label("the fused part alone", "uniadapter", "the fused part alone"),
    "without_frame_aware": Label(
        "UniAdapter without frame-aware attention", "uniadapter", "without frame-aware attention"
    ),
    "without_temporal": Label("UniAdapter without temporal embedding", "uniadapter", "without temporal embedding"),
    "uniadapter": Label("UniAdapter", "uniadapter"),
    "self_attention": Label("UniAdapter with self-attention adapters", "uniadapter", "with self-attention adapters"),
    "full_fine_tuning": Label("full fine-tuning", "full_fine_tuning"),
    "equal_time": Label("full fine-tuning, equal time", "full_fine_tuning", "equal time"),
    "plain_adapters": Label("plain adapters (nothing shared)", "uniadapter", "nothing shared"),
    "lora": Label("LoRA", "lora"),
    "dora": Label("DoRA", "dora"),
    "last_layers": Label("the last layer of each encoder", "last_layers"),
    "bitfit": Label("BitFit", "bitfit"),
    "heads": Label("heads alone", "heads"),
}
# The lines of the README's table.
MAIN = {
    "scenes": "pictures by captions, R@1",
    "video": "videos by captions, R@1",
    "vqa": "questions about pictures",
    "videoqa": "questions about videos",
    "caption": "captions, CIDEr",
}
README_ARMS = ("zero_shot", "without_fused", "uniadapter", "lora", "full_fine_tuning")
# The lines of the table of verdicts on all tasks.
RIVALS = (
    "zero_shot",
    "heads",
    "bitfit",
    "last_layers",
    "without_fused",
    "self_attention",
    "plain_adapters",
    "lora",
    "dora",
    "full_fine_tuning",
    "equal_time",
)


@dataclass(frozen=True)
class Column:
    """A column: what it is called, where its number stands in a row, and in which test set's rows.

    Args:
        title: of the column.
        path: keys, from the row inwards.
        test_set: None for the test split itself.
    """

    title: str
    path: tuple[str, ...]
    test_set: str | None = None


def recall(title: str, direction: str, at: int, test_set: str | None = None) -> Column:
    """A column of recall."""
    return Column(title, (direction, f"r@{at}"), test_set)


def of_type(name: str) -> Column:
    """A column of the accuracy on one type of question."""
    return Column(name, ("accuracy_of", name))


OF_IMAGES = [
    recall("T→I R@1", "text_to_image", 1),
    recall("T→I R@10", "text_to_image", 10),
    recall("I→T R@1", "image_to_text", 1),
    recall("I→T R@10", "image_to_text", 10),
    recall("T→I R@1, `novel`", "text_to_image", 1, "novel"),
]
OF_VIDEOS = [
    recall("T→V R@1", "text_to_video", 1),
    recall("T→V R@10", "text_to_video", 10),
    recall("V→T R@1", "video_to_text", 1),
    recall("T→V R@1, `novel`", "text_to_video", 1, "novel"),
]
OF_CLIPS = [
    Column("accuracy", ("accuracy",)),
    *map(of_type, ("appears", "how often", "first", "last", "after", "before", "before or after")),
    Column("accuracy, `novel`", ("accuracy",), "novel"),
]
# A column whose figure no row has is left out.
TABLES: dict[str, list[Column]] = {
    "scenes": OF_IMAGES,
    "video": OF_VIDEOS,
    "parts": OF_IMAGES,
    "parts_video": OF_VIDEOS,
    "vqa": [
        Column("accuracy", ("accuracy",)),
        *map(of_type, ("how many", "how many of a kind", "is there", "left of", "above")),
        *map(of_type, ("which kind", "what is left", "what is above")),
        Column("accuracy, `novel`", ("accuracy",), "novel"),
    ],
    "easy_vqa": [Column("accuracy", ("accuracy",)), *map(of_type, ("color", "shape", "yes/no"))],
    "videoqa": OF_CLIPS,
    "videoqa_steps": OF_CLIPS,
    "forgetting": [
        recall("T→I R@1", "text_to_image", 1),
        recall("T→I R@10", "text_to_image", 10),
        recall("I→T R@1", "image_to_text", 1),
    ],
    "forgetting_vqa": [
        Column("accuracy", ("accuracy",)),
        *map(of_type, ("how many", "is there", "left of", "above", "what is left", "what is above")),
    ],
    "forgetting_caption": [Column("CIDEr", ("cider",)), Column("BLEU-4", ("bleu@4",))],
    "caption": [
        Column("CIDEr", ("cider",)),
        Column("BLEU-4", ("bleu@4",)),
        Column("CIDEr, `novel`", ("cider",), "novel"),
        Column("BLEU-4, `novel`", ("bleu@4",), "novel"),
    ],
}
# What is measured at several values of a setting, and how a table's heading says it.
CURVES = {"steps": "steps", "data_size": "pictures in training, three captions each"}
