"""Numbers from counts: scores, their averages and intervals; nothing here imports torch."""
