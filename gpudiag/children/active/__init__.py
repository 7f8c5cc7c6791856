"""The active tests, run by measure.py in a process of its own; they speak through `said`."""
