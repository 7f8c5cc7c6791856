"""The whole line: a checkpoint and data -> an Evaluation."""

from evalkit.run.line import evaluate

__all__ = ["evaluate"]
