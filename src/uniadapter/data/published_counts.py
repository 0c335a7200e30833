"""How many visuals and texts the splits of the published benchmarks have, by the names that their files go by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """The size of a published split.

    Args:
        visuals: pictures or videos; 0 of a split that is made from what comes with the package.
        texts: captions or questions; 0 where copies differ.
        note: what is known of copies in circulation.
    """

    visuals: int
    texts: int = 0
    note: str = ""


OF_OURS = Published(0)  # of a split that comes with the package
_DIDEMO = "a few videos are missing in every copy in circulation"
_SIZES = {
    "coco_karpathy_train": Published(113_287, 566_747),
    "coco_karpathy_val": Published(5_000, 25_010),
    "coco_karpathy_test": Published(5_000, 25_010),
    "flickr30k_train": Published(29_000, 145_000),
    "flickr30k_val": Published(1_014, 5_070),
    "flickr30k_test": Published(1_000, 5_000),
    "msrvtt_train.9k": Published(9_000, 180_000),
    "msrvtt_train.7k": Published(7_010, 140_200),
    "msrvtt_jsfusion_test": Published(1_000, 1_000),
    "didemo/train_data": Published(8_392, 8_392, _DIDEMO),
    "didemo/val_data": Published(1_065, 1_065, _DIDEMO),
    "didemo/test_data": Published(1_004, 1_004, _DIDEMO),
    "vqa_train": Published(82_783, 443_757),
    "vqa_val": Published(40_504, 214_354),
    "vqa_test": Published(81_434, 447_793),
    "msrvtt_qa/train_qa": Published(6_513, 158_581),
    "msrvtt_qa/val_qa": Published(497, 12_278),
    "msrvtt_qa/test_qa": Published(2_990, 72_821),
}


def published(file: str) -> Published | None:
    """The size of the split that a file is known to hold, by its name, or by folder and name; None if it is unknown."""
    path = Path(file)
    name = path.stem.lower()
    return _SIZES.get(f"{path.parent.name.lower()}/{name}") or _SIZES.get(name)
