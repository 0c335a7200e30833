"""Data loading: annotation files to splits, splits to batches."""

from uniadapter.data.batches import Batch, EpochBatchSampler, LoadRequest, SequentialBatchSampler, shard_bounds
from uniadapter.data.captions import from_dataset, load_retrieval
from uniadapter.data.layouts.annotation_file import read_rows
from uniadapter.data.layouts.records import DataError, ErrorPolicy, Record
from uniadapter.data.layouts.registry import LAYOUTS, detect_layout, read_records
from uniadapter.data.loaders import TrainLoader, VisualLoader, train_loader, visual_loader
from uniadapter.data.media.images import (
    DatasetPicture,
    EvaluationTransform,
    TrainTransform,
    load_picture,
    to_tensor,
)
from uniadapter.data.media.video import load_clip, load_frames
from uniadapter.data.samples import TrainDataset, VisualDataset
from uniadapter.data.shard_writing import ShardSize, load_whole, write_shards
from uniadapter.data.sharded import ShardedSplit, load_shards
from uniadapter.data.splits import RetrievalSplit
from uniadapter.data.streamed import StreamedSplit, open_stream
from uniadapter.data.text import clean_caption, clean_question

__all__ = [
    "LAYOUTS",
    "Batch",
    "DataError",
    "DatasetPicture",
    "EpochBatchSampler",
    "ErrorPolicy",
    "EvaluationTransform",
    "LoadRequest",
    "Record",
    "RetrievalSplit",
    "SequentialBatchSampler",
    "ShardSize",
    "ShardedSplit",
    "StreamedSplit",
    "TrainDataset",
    "TrainLoader",
    "TrainTransform",
    "VisualDataset",
    "VisualLoader",
    "clean_caption",
    "clean_question",
    "detect_layout",
    "from_dataset",
    "load_clip",
    "load_frames",
    "load_picture",
    "load_retrieval",
    "load_shards",
    "load_whole",
    "open_stream",
    "read_records",
    "read_rows",
    "shard_bounds",
    "to_tensor",
    "train_loader",
    "visual_loader",
    "write_shards",
]
