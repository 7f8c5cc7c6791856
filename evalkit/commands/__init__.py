"""The subcommands of ``evalkit``, one module each, and the options that they share.

Commands import what they need inside their bodies, so that ``evalkit --help`` loads neither torch
nor pandas and ``evalkit report`` works where torch is not installed.
"""
