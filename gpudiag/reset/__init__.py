"""nvidia-smi --gpu-reset with the reasons for a refusal known before, and nothing left changed."""

from gpudiag.reset.performing import Reset, perform
from gpudiag.reset.plan import Plan, find, prepare

__all__ = ["Plan", "Reset", "find", "perform", "prepare"]
