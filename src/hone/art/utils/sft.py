"""Files, chunks and schedules for `train_sft`, under the names that ART's scripts use."""

from __future__ import annotations

from hone.trainable.chunks import SFTChunk, create_sft_dataset_iterator
from hone.trainable.file import get_file_row_count, iterate_file, train_sft_from_file
from hone.trainable.schedule import create_lr_schedule
from hone.trainable.settings import resolve_sft_batch_size

__all__ = [
    "SFTChunk",
    "create_lr_schedule",
    "create_sft_dataset_iterator",
    "get_file_row_count",
    "iterate_file",
    "resolve_sft_batch_size",
    "train_sft_from_file",
]
