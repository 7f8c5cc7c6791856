"""The demonstration and its data: train a small net in seconds, lose nothing, report."""

from evalkit.demo.demonstrate import run

__all__ = ["run"]
