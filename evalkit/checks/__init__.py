"""Detectors of silent errors: runs that end well and mean something else than was thought.

What counts alone can tell (`labels`, `orders`) needs no torch and is asked of every table. What
needs the model is asked of a small sample of the run's own images (`preprocessing`, `numerics`,
`batch_norm`), by `examine`. Two sets of images are compared by `duplicates`.
"""

from evalkit.checks.finding import Check

__all__ = ["Check"]
