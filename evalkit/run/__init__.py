"""The whole line: a checkpoint and data -> an Evaluation."""

from evalkit.run.line import evaluate, evaluate_together
from evalkit.run.options import Options

__all__ = ["Options", "evaluate", "evaluate_together"]
