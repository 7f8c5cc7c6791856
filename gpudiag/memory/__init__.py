"""GPU memory: this process's own cache, who could hold the rest, and how to get it back."""
