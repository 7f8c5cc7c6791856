"""The batched loop: a model and batches -> what the model says of every sample."""
