"""Whole objects below one URL: the only way to what outlives a run. What is stored where, others decide."""

from wanray.storage.many import threads
from wanray.storage.store import Store

__all__ = ["Store", "threads"]
