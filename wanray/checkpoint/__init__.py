"""Checkpoint folders, read without torch: which model, which layout, where each network's weights lie."""

from wanray.checkpoint.component import Component
from wanray.checkpoint.contents import Checkpoint
from wanray.checkpoint.detect import open_checkpoint

__all__ = ["Checkpoint", "Component", "open_checkpoint"]
