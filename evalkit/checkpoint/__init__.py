"""Checkpoints: file -> kind -> weights -> layout -> model, with a report of what was loaded."""

from evalkit.checkpoint.convert import Conversion, convert_checkpoint
from evalkit.checkpoint.inspection import Inspection, inspect_checkpoint
from evalkit.checkpoint.load import load_checkpoint
from evalkit.checkpoint.report import LoadReport
from evalkit.checkpoint.save import save_checkpoint

__all__ = [
    "Conversion",
    "Inspection",
    "LoadReport",
    "convert_checkpoint",
    "inspect_checkpoint",
    "load_checkpoint",
    "save_checkpoint",
]
