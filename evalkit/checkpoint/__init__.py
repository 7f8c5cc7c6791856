"""Checkpoints: file -> kind -> weights -> layout -> model, with a report of what was loaded."""

from evalkit.checkpoint.load import load_checkpoint
from evalkit.checkpoint.report import LoadReport
from evalkit.checkpoint.save import save_checkpoint

__all__ = ["LoadReport", "load_checkpoint", "save_checkpoint"]
