"""Settings of the data: annotation files, layouts, frames and augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from uniadapter.config.checks import Count, File, Interval, require, validate_fields
from uniadapter.errors import OnError
from uniadapter.files.messages import did_you_mean

LayoutName = Literal[
    "auto", "pairs", "alpro", "msrvtt", "didemo", "names", "lsmdc", "coco", "karpathy", "token", "results",
    "conversations", "genome", "keyed", "wrapped", "columns", "folder",
]  # fmt: skip
FIELDS = (
    "image", "video", "caption", "image_id", "video_id", "question", "question_id", "answer", "answer_type", "split",
    "group",
)  # fmt: skip
FieldName = Annotated[str, Field(min_length=1, max_length=200)]
SPLITS = ("train", "val", "test")


@dataclass
class DataConfig:
    """The annotation files, and how pictures and videos are loaded and augmented.

    Args:
        train: annotation file of the training split, in one of the layouts below, or `embedded:TASK/SPLIT` for
            one that ships with this package; or tar shards (`shards/train-{000000..000099}.tar`, a folder of them, an
            address such as `s3://…`), or a data set of the Hugging Face hub that is streamed, `hf://NAME`:
            docs/streaming.md.
        val: annotation file of the validation split.
        test: annotation file of the test split; read once, by the final evaluation.
        extra_tests: further test sets, name to annotation file; `metrics.json` has rows with that `test_set` for each.
        captions: file of the captions, where an annotation file only lists videos (`MSRVTT_data.json` for
            `MSRVTT_train.9k.csv`).
        annotations: official VQA annotation files (the answers), split to file, where `train`, `val` and `test` are
            official question files.
        answer_list: file of the candidate answers that are ranked; null takes those of the training split.
        answer_count: number of candidate answers, the most frequent ones; 0 takes all.
        layout: of the annotation files. "pairs": rows of `image` or `video` and `caption`, a text or a list of texts
            (Karpathy JSON, LAVIS, UMT, VindLU, your own JSONL or CSV); "alpro": lines of `clip_name` and `caption`
            (ALPRO, BLIP); "msrvtt": lists of `video_id`, with `sentence` or `captions`; "didemo": the sentences about
            a video are joined into one text. "auto" detects it from the first row; docs/data.md lists the others.
        fields: your files' field names, where they are not recognised, as expected name to your name:
            `{image: photo, caption: comment}`. The expected names are image, video, caption, image_id, video_id,
            question, question_id, answer, answer_type, split and group.
        root: folder to which paths of pictures and videos are relative; null means the annotation file's folder.
        frames: frames per video (T), in training and, unless `eval_frames` is set, in evaluation; a picture is 1 frame.
        eval_frames: frames per video in evaluation; 0 means as many as in training.
        scale: area range of RandomResizedCrop, as shares of the picture.
        flip: random horizontal flips; turn it off for captions that mention left and right.
        augment: RandAugment as published (N = 2, M = 5).
        blank: replace every picture and frame by a blank one, in training and evaluation: the question-only baseline.
        max_words: captions are truncated to this many words; the log says how many were.
        on_error: "raise" stops at a record that cannot be read, "skip" leaves it out and counts it.
        workers: DataLoader worker processes; 0 loads in the main process.
        timeout: most seconds to wait for a batch from them. In training, new processes then try that batch once more;
            after a second time, and in evaluation, the run ends with one line. 0 waits forever.
        together: consecutive samples of a batch that share a visual, which is loaded, augmented and encoded once for
            them (questions and captions only); 1 shuffles all samples.
        hard_negatives: share of the training samples that are put into a batch beside a sample of another visual with
            the same `group`, a field of the rows of `train`; visuals with the same group are each other's hard
            negatives. 0 shuffles regardless of it. At most the samples that have such a partner are placed so.
        shuffle_buffer: samples of shards or a stream that are shuffled together: as many shards as hold so many, at
            least. More mix better, and take more disk where the shards are elsewhere.
        most_lost_shards: shards that a run with `on_error` "skip" may leave out because they cannot be read, after
            several tries; with one more it ends.
        cache: folder for copies of shards that are elsewhere, three times `shuffle_buffer` samples at most; null means
            one that is removed at the end of the run.
        samples: samples of an epoch of a stream whose length is not known; 0 asks the stream.
        max_train_visuals: train on the first so many pictures or videos of `train` alone, with all of their texts, to
            see how much data a task needs; 0 takes all.
    """

    train: File | None = None
    val: File | None = None
    test: File | None = None
    extra_tests: dict[str, File] = field(default_factory=dict)
    captions: File | None = None
    annotations: dict[str, File] = field(default_factory=dict)
    answer_list: File | None = None
    answer_count: Count = 0
    layout: LayoutName = "auto"
    fields: dict[str, FieldName] = field(default_factory=dict)
    root: File | None = None
    frames: Annotated[int, Field(ge=1, le=1024)] = 1
    eval_frames: Annotated[int, Field(ge=0, le=1024)] = 0
    scale: Interval = (0.5, 1.0)
    flip: bool = True
    augment: bool = True
    blank: bool = False
    max_words: Annotated[int, Field(ge=1, le=100_000)] = 30
    on_error: OnError = "raise"
    workers: Annotated[int, Field(ge=0, le=64)] = 2
    timeout: Annotated[int, Field(ge=0, le=1_000_000)] = 300
    together: Annotated[int, Field(ge=1, le=65_536)] = 1
    hard_negatives: Annotated[float, Field(ge=0, le=1)] = 0.0
    shuffle_buffer: Annotated[int, Field(ge=1, le=100_000_000)] = 20_000
    most_lost_shards: Count = 10
    cache: File | None = None
    samples: Annotated[int, Field(ge=0, le=1_000_000_000_000)] = 0
    max_train_visuals: Count = 0

    @property
    def evaluation_frames(self) -> int:
        """Frames per video in evaluation."""
        return self.eval_frames or self.frames

    def __post_init__(self) -> None:
        validate_fields(self, "data")
        low, high = self.scale
        require(low <= high, f"data.scale is [{low}, {high}]: the smaller area comes first")
        for name in self.extra_tests:
            require(
                name not in SPLITS, f"data.extra_tests: a further test set cannot be called {name!r}; that is a split"
            )
            plain = 0 < len(name) <= 60 and name.isprintable() and not set(name) & set("/\\:")
            require(
                plain, f"data.extra_tests: {name[:60]!r} is not a valid name: use up to 60 letters, digits, - and _"
            )
        for name in self.fields:
            advice = did_you_mean(name, FIELDS) or f"; there is {', '.join(FIELDS)}"
            require(name in FIELDS, f"data.fields: {name[:60]!r} is not a known field{advice}")
        known = [*SPLITS, *self.extra_tests]
        for name in self.annotations:
            advice = did_you_mean(name, known) or f"; there is {', '.join(known)}"
            require(name in known, f"data.annotations: there is no split {name[:60]!r}{advice}")
