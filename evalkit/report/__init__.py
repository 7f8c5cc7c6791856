"""Tables and text from an evaluation. Nothing here imports torch."""
