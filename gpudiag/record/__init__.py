"""What the GPUs do while a program runs: samples -> rows -> a chart and a verdict."""

from gpudiag.record.recording import Recording, record_command

__all__ = ["Recording", "record_command"]
