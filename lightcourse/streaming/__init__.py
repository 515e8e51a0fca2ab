"""Checkpoints larger than memory, compressed a piece at a time, by one process or many."""

from lightcourse.streaming.compressing import compress, environment_place
from lightcourse.streaming.recipe import Compression
from lightcourse.streaming.shards import verify

__all__ = ["Compression", "compress", "environment_place", "verify"]
